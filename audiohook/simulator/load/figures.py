"""What came of a load: counted, timed, added up across processes."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from audiohook.simulator.load.histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import Mapping

SECONDS = 1.0

MAX_LAG_P99: Final = 0.1 * SECONDS
"""Later than this for one frame in a hundred, and the load is not what it says."""

MAX_LAG: Final = 1.0 * SECONDS
"""Later than this for one frame, and the load has stood still."""

TIMES: Final = ("connected", "upgraded", "opened", "pong", "closed")
"""What the server is timed for."""

_SHARES: Final = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))


@dataclass(slots=True)
class Figures:
    """The figures of one process, or of several added up.

    Attributes:
        begun: Calls that were begun.
        endings: How calls ended, the failed ones as ``failed``.
        failures: Failed calls by what the server did first.
        examples: One example of each, for people.
        frames: Frames of audio sent.
        audio_bytes: Their bytes.
        held_frames: Frames that were late since the server did not read.
        times: How long the server took, by the names in `TIMES`.
        lag: How late frames were sent by our own fault.
        turns: How long the turns of our loop took: what is received waits so
            long before it is looked at.
        cpu: Seconds of processor time used.
        elapsed: Seconds from the first call's beginning to the last one's end.
        peak: Most calls at a time.
    """

    begun: int = 0
    endings: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    frames: int = 0
    audio_bytes: int = 0
    held_frames: int = 0
    times: dict[str, Histogram] = field(
        default_factory=lambda: {name: Histogram() for name in TIMES}
    )
    lag: Histogram = field(default_factory=Histogram)
    turns: Histogram = field(default_factory=Histogram)
    cpu: float = 0.0
    elapsed: float = 0.0
    peak: int = 0

    @property
    def failed(self) -> int:
        """How many calls failed."""
        return self.failures.total()

    @property
    def fell_behind(self) -> bool:
        """True if we were too slow ourselves for the load to be what it says."""
        return self.lag.quantile(0.99) > MAX_LAG_P99 or self.lag.largest > MAX_LAG

    @property
    def cores(self) -> float:
        """Cores used in the middle of it all."""
        return self.cpu / self.elapsed if self.elapsed else 0.0

    def add_failure(self, rule: str, text: str) -> None:
        """Count a failed call.

        Args:
            rule: What kind of fault the first one was.
            text: The fault, on one line.
        """
        self.failures[rule] += 1
        self.examples.setdefault(rule, text)

    def merge(self, other: Figures) -> None:
        """Add those of another process, which ran at the same time."""
        self.begun += other.begun
        self.endings.update(other.endings)
        self.failures.update(other.failures)
        self.examples = {**other.examples, **self.examples}
        self.frames += other.frames
        self.audio_bytes += other.audio_bytes
        self.held_frames += other.held_frames
        for name, times in other.times.items():
            self.times[name].merge(times)
        self.lag.merge(other.lag)
        self.turns.merge(other.turns)
        self.cpu += other.cpu
        self.elapsed = max(self.elapsed, other.elapsed)
        self.peak += other.peak

    def to_json(self) -> dict[str, Any]:
        """Give all of it as plain JSON, which `from_json` takes."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        return {
            **plain,
            "times": {name: times.to_json() for name, times in self.times.items()},
            "lag": self.lag.to_json(),
            "turns": self.turns.to_json(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Figures:
        """Make what `to_json` gave."""
        figures = cls(**{name: value[name] for name in _PLAIN})
        figures.endings = Counter(value["endings"])
        figures.failures = Counter(value["failures"])
        figures.times = {
            name: Histogram.from_json(state) for name, state in value["times"].items()
        }
        figures.lag = Histogram.from_json(value["lag"])
        figures.turns = Histogram.from_json(value["turns"])
        return figures

    def summary(self) -> dict[str, object]:
        """Sum it up for people and programs; times are in milliseconds."""
        return {
            "calls": self.begun,
            "peak_calls": self.peak,
            "endings": dict(self.endings),
            "failed": self.failed,
            "failures": dict(self.failures),
            "examples": dict(self.examples),
            "frames": self.frames,
            "audio_bytes": self.audio_bytes,
            "held_frames": self.held_frames,
            "latency_ms": {name: spread(times) for name, times in self.times.items()},
            "lag_ms": spread(self.lag),
            "turn_ms": spread(self.turns),
            "fell_behind": self.fell_behind,
            "elapsed": round(self.elapsed, 3),
            "cpu": round(self.cpu, 3),
            "cores": round(self.cores, 4),
        }


# Fields that JSON takes as they are.
_PLAIN: Final = (
    "begun",
    "endings",
    "failures",
    "examples",
    "frames",
    "audio_bytes",
    "held_frames",
    "cpu",
    "elapsed",
    "peak",
)


def spread(times: Histogram) -> dict[str, float]:
    """Tell how times are spread, in milliseconds; empty if there are none."""
    if not times.total:
        return {}
    figures = {name: times.quantile(share) for name, share in _SHARES}
    figures["max"] = times.largest
    return {name: round(seconds * 1000, 3) for name, seconds in figures.items()}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a load has come.

    Attributes:
        live: Calls that have begun and not ended.
        begun: Calls that have begun.
        opened: Calls that the server has opened.
        ended: Calls that have ended.
        failed: Those of them that failed.
        frames: Frames sent.
        lag: Largest lag of a frame so far, in seconds.
    """

    live: int = 0
    begun: int = 0
    opened: int = 0
    ended: int = 0
    failed: int = 0
    frames: int = 0
    lag: float = 0.0

    def __add__(self, other: Progress) -> Progress:
        """Add that of another process."""
        sums = {
            name: value + getattr(other, name) for name, value in asdict(self).items()
        }
        return Progress(**sums | {"lag": max(self.lag, other.lag)})
