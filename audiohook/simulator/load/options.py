"""What load to make, checked before anything is opened."""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from audiohook.errors import ConfigError
from audiohook.protocol.timeline import SAMPLE_RATE_HZ
from audiohook.simulator.load._frames import BLOCK_BYTES
from audiohook.simulator.options import (
    MAX_CHANNELS,
    MAX_FRAME_BYTES,
    CallOptions,
    parse_uri,
)

if TYPE_CHECKING:
    import random
    from pathlib import Path

SECONDS = 1.0
HOURS = 3600 * SECONDS

# Within this the numbers in the audio do not begin anew.
MAX_LENGTH = 24 * HOURS
MAX_CALLS = 1_000_000
MAX_PROCESSES = 256
MAX_SPEED = 1000.0

# A frame of either channel alone has to be whole blocks too.
FRAME_STEP_BYTES = MAX_CHANNELS * BLOCK_BYTES


class LengthKind(StrEnum):
    """How the lengths of calls are distributed."""

    FIXED = "fixed"
    UNIFORM = "uniform"
    EXPONENTIAL = "exponential"


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long calls last.

    Attributes:
        kind: The distribution.
        least: Seconds; the only length if it is fixed, the mean if exponential.
        most: Seconds; the same as ``least`` but for a uniform one.
    """

    kind: LengthKind
    least: float
    most: float

    def draw(self, source: random.Random) -> float:
        """Choose a length, in seconds."""
        if self.kind is LengthKind.UNIFORM:
            return source.uniform(self.least, self.most)
        if self.kind is LengthKind.EXPONENTIAL:
            return min(source.expovariate(1 / self.least), MAX_LENGTH)
        return self.least

    def __str__(self) -> str:
        if self.kind is LengthKind.UNIFORM:
            return f"{self.least:g}..{self.most:g}"
        prefix = "exp:" if self.kind is LengthKind.EXPONENTIAL else ""
        return f"{prefix}{self.least:g}"


def parse_lengths(text: str) -> Lengths:
    """Read ``60``, ``30..90`` (uniform) or ``exp:60`` (exponential, mean 60).

    Raises:
        ConfigError: It is none of them, or longer than a day.
    """
    prefix, is_mean, rest = text.rpartition(":")
    first, is_range, last = rest.partition("..")
    try:
        least = float(first)
        most = float(last) if is_range else least
    except ValueError:
        least = most = -1.0
    known = not is_mean or (prefix == "exp" and not is_range)
    if not known or not 0 < least <= most <= MAX_LENGTH:
        raise ConfigError(
            f"--duration: {text!r} is no length of calls: write seconds up to a day, as"
            " 60, 30..90 or exp:60"
        )
    if is_mean:
        return Lengths(LengthKind.EXPONENTIAL, least, least)
    kind = LengthKind.UNIFORM if is_range else LengthKind.FIXED
    return Lengths(kind, least, most)


def _random_seed() -> int:
    return secrets.randbelow(2**32)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """The calls to make, all together.

    Times are seconds. Shares are of all calls, from 0 to 1.

    Attributes:
        uri: Connection URI, ``ws://`` or ``wss://``.
        calls: Calls at a time.
        lengths: How long they last.
        total: Calls to make in all, ``calls`` at a time; None for as many as
            ``calls``, or as many as ``keep`` takes.
        keep: For so long a call that ends is followed by another.
        ramp: Time over which the first ``calls`` begin.
        rate: Calls to begin a second at most; None for as many as there are.
        frame_bytes: Length of a stereo frame; they come in real time.
        speed: How much faster than real time.
        together: All calls end in the same instant, ``lengths`` after the
            last has begun by the plan.
        pause: Share of calls that pause once, as when a card number is read out.
        discard: Share of calls that lose some audio once.
        hang_up: Share of calls that end by a lost connection.
        probe: Share of calls that are connection probes.
        api_key: Sent as ``X-API-KEY``; None leaves the header out.
        client_secret: Base64 text; if given, requests are signed.
        ca_file: Certificates (PEM) to trust instead of the system's.
        insecure: Trust any certificate.
        processes: Processes that share the calls.
        seed: What the random choices are made from.
    """

    uri: str
    calls: int
    lengths: Lengths
    total: int | None = None
    keep: float | None = None
    ramp: float = 0.0
    rate: float | None = None
    frame_bytes: int = 1600
    speed: float = 1.0
    together: bool = False
    pause: float = 0.0
    discard: float = 0.0
    hang_up: float = 0.0
    probe: float = 0.0
    api_key: str | None = field(default=None, repr=False)
    client_secret: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    insecure: bool = False
    processes: int = 1
    seed: int = field(default_factory=_random_seed)

    def __post_init__(self) -> None:
        """Check what can be checked without opening anything.

        Raises:
            ConfigError: A value is wrong; the text names it and the mend.
        """
        # It checks what is the same for one call as for many.
        self.call_options()
        self._check_amounts()
        self._check_times()
        for name in ("pause", "discard", "hang_up", "probe"):
            if not 0 <= getattr(self, name) <= 1:
                option = f"--{name.replace('_', '-')}"
                raise ConfigError(
                    f"{option}: must be a share of the calls, from 0 to 1; for example"
                    f" {option} 0.1"
                )

    @property
    def frame_seconds(self) -> float:
        """Time from a frame to the next, as it passes here."""
        return self.frame_bytes / MAX_CHANNELS / SAMPLE_RATE_HZ / self.speed

    def call_options(self, *, probe: bool = False) -> CallOptions:
        """Make the options of one of the calls, with ids of its own."""
        return CallOptions(
            uri=self.uri,
            api_key=self.api_key,
            client_secret=self.client_secret,
            ca_file=self.ca_file,
            insecure=self.insecure,
            probe=probe,
        )

    def _check_amounts(self) -> None:
        parse_uri(self.uri)
        if not 1 <= self.calls <= MAX_CALLS:
            raise ConfigError(
                f"--calls: must be from 1 to {MAX_CALLS:,}; for example --calls 100"
            )
        if self.total is not None and self.total < self.calls:
            raise ConfigError(
                f"--total: must not be less than --calls; for example --total"
                f" {2 * self.calls}"
            )
        most = min(self.calls, MAX_PROCESSES)
        if not 1 <= self.processes <= most:
            raise ConfigError(
                f"--processes: must be from 1 to {most}, with a call for each; for"
                f" example --processes {min(2, most)}"
            )
        if (
            not FRAME_STEP_BYTES <= self.frame_bytes <= MAX_FRAME_BYTES
            or self.frame_bytes % FRAME_STEP_BYTES
        ):
            raise ConfigError(
                f"--frame-bytes: must be a multiple of {FRAME_STEP_BYTES},"
                f" {MAX_FRAME_BYTES:,} at most; for example --frame-bytes 1600"
            )

    def _check_times(self) -> None:
        for name in ("ramp", "keep", "rate"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ConfigError(
                    f"--{name}: must be a number from 0 on; for example --{name} 10"
                )
        if self.rate == 0:
            raise ConfigError(
                "--rate: must be above 0, or no call would begin; for example --rate 10"
            )
        if not 0 < self.speed <= MAX_SPEED:
            raise ConfigError(
                f"--speed: must be above 0, and {MAX_SPEED:g} at most; for example"
                " --speed 10"
            )
        if self.keep is not None and self.total is not None:
            raise ConfigError(
                "--keep: does not go with --total; it is either a time or a number of"
                " calls"
            )
        if self.together and (self.keep is not None or self.total is not None):
            raise ConfigError(
                "--together: does not go with --keep and --total, since calls that end"
                " together cannot follow one another"
            )
