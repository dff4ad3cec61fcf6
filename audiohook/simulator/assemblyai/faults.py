"""What the stand-in is told to do wrong, and when."""

from __future__ import annotations

import random
from collections import Counter, deque
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from collections.abc import Mapping

SECONDS = 1.0

# Shares are sums of fractions.
_ROUNDING = 1e-9


class Endpoint(StrEnum):
    """Kinds of requests."""

    SUBMIT = "submit"
    GET = "get"
    LIST = "list"
    DELETE = "delete"
    UPLOAD = "upload"
    EXPORT = "export"
    """Sentences, paragraphs, captions, word search and redacted audio."""


class Fault(StrEnum):
    """What may happen to a request instead of its answer."""

    ERROR_500 = "500"
    EMPTY_500 = "500-empty"
    ERROR_503 = "503"
    EMPTY_503 = "503-empty"
    ERROR_504 = "504"
    EMPTY_504 = "504-empty"
    RATE = "429"
    UNAUTHORIZED = "401"
    FORBIDDEN = "403"
    GARBAGE = "garbage"
    """A web page, with status 200, as a proxy between may send."""
    RESET = "reset"
    """The connection is reset before the request had any effect."""
    LOST = "lost"
    """The request takes effect, and the connection is reset before the answer."""
    CUT = "cut"
    """The request takes effect; the connection ends amid the answer."""
    SLOW = "slow"
    """The request takes effect; the answer comes late."""
    SLOW_BODY = "slow-body"
    """The request takes effect; the answer comes in pieces, the last one late."""
    STALL = "stall"
    """No effect, and no answer for as long as the client waits."""


class JobFault(StrEnum):
    """How a job may end other than by its audio."""

    DOWNLOAD = "download"
    NO_AUDIO = "no-audio"
    TOO_SHORT = "too-short"
    THRESHOLD = "threshold"
    LANGUAGE = "language"
    SERVER = "server"
    STUCK = "stuck"
    """It goes on processing for ever."""


_FaultT = TypeVar("_FaultT", Fault, JobFault)

# Those that a second try gets past.
_PASSING = (
    Fault.ERROR_500,
    Fault.EMPTY_500,
    Fault.ERROR_503,
    Fault.EMPTY_503,
    Fault.ERROR_504,
    Fault.EMPTY_504,
    Fault.RATE,
    Fault.GARBAGE,
    Fault.RESET,
    Fault.LOST,
    Fault.CUT,
)


class Faults:
    """The faults of a stand-in; they may be changed at any time.

    A script is worked off before any share counts. What comes by chance is the
    same in every run with the same seed and the same order of requests.

    Args:
        seed: Of the chance.

    Attributes:
        away: Every connection is reset as soon as it says anything.
        keys_refused: Every key is answered with 401.
        balance_negative: New jobs are refused, and those there run one by one.
        retired: Models that are refused by name.
        first_download_fails: The first job on an audio file ends with an error of
            the download.
        webhooks_lost: No webhook is ever sent.
        slow: Seconds that a slow answer takes.
        retry_after: Seconds named in an answer with 429.
        drawn: How often each fault was drawn.
    """

    def __init__(self, seed: int = 0) -> None:
        # Reproducible, not secret.
        self._random = random.Random(seed)  # noqa: S311
        self.drawn: Counter[str] = Counter()
        self.retired: set[str] = set()
        self.clear()

    def clear(self) -> None:
        """Ends all faults."""
        self.away = False
        self.keys_refused = False
        self.balance_negative = False
        self.retired.clear()
        self.first_download_fails = False
        self.webhooks_lost = False
        self.slow = 5 * SECONDS
        self.retry_after = 1
        self._shares: dict[Endpoint, dict[Fault, float]] = {
            endpoint: {} for endpoint in Endpoint
        }
        self._scripts: dict[Endpoint, deque[Fault | None]] = {
            endpoint: deque() for endpoint in Endpoint
        }
        self._job_shares: dict[JobFault, float] = {}
        self._job_script: deque[JobFault | None] = deque()
        self._downloads_failed: set[str] = set()

    def share(self, fault: Fault, share: float, *endpoints: Endpoint) -> None:
        """Has a share of the requests fail in one way from now on.

        Args:
            fault: What happens.
            share: Between 0 (never) and 1.
            endpoints: Which requests; all when none is named.

        Raises:
            ValueError: The shares of one kind of request exceed 1 in all.
        """
        for endpoint in endpoints or tuple(Endpoint):
            _set_share(self._shares[endpoint], fault, share)

    def fail(self, share: float) -> None:
        """Has a share of all requests fail, in every way that a retry gets past.

        Args:
            share: Between 0 and 1, in all.

        Raises:
            ValueError: It is not.
        """
        for fault in _PASSING:
            self.share(fault, 0)
        for fault in _PASSING:
            self.share(fault, share / len(_PASSING))

    def script(self, endpoint: Endpoint, *faults: Fault | None) -> None:
        """Says what happens to the next requests of one kind, one by one.

        Args:
            endpoint: Which requests.
            faults: None for a request that goes well.
        """
        self._scripts[endpoint].extend(faults)

    def job_share(self, fault: JobFault, share: float) -> None:
        """Has a share of the jobs end in one way from now on.

        Raises:
            ValueError: The shares exceed 1 in all.
        """
        _set_share(self._job_shares, fault, share)

    def script_jobs(self, *faults: JobFault | None) -> None:
        """Says how the next jobs to be processed end, one by one.

        Args:
            faults: None for a job whose audio decides.
        """
        self._job_script.extend(faults)

    def draw(self, endpoint: Endpoint) -> Fault | None:
        """Decides about a request that has come."""
        script = self._scripts[endpoint]
        fault = script.popleft() if script else self._by_chance(self._shares[endpoint])
        if fault is not None:
            self.drawn[fault] += 1
        return fault

    def draw_job(self, audio: str) -> JobFault | None:
        """Decides about a job whose processing begins.

        Args:
            audio: What tells one audio file from another.
        """
        fault: JobFault | None
        if self.first_download_fails and audio not in self._downloads_failed:
            self._downloads_failed.add(audio)
            fault = JobFault.DOWNLOAD
        elif self._job_script:
            fault = self._job_script.popleft()
        else:
            fault = self._by_chance(self._job_shares)
        if fault is not None:
            self.drawn[f"job-{fault}"] += 1
        return fault

    def _by_chance(self, shares: Mapping[_FaultT, float]) -> _FaultT | None:
        if not shares:
            return None
        point = self._random.random()
        for fault, share in shares.items():
            point -= share
            if point < 0:
                return fault
        return None


def _set_share(shares: dict[_FaultT, float], fault: _FaultT, share: float) -> None:
    """Sets one share of several.

    Raises:
        ValueError: It is negative, or they exceed 1 in all.
    """
    others = sum(value for other, value in shares.items() if other is not fault)
    if not 0 <= share <= 1 - others + _ROUNDING:
        raise ValueError(f"{fault}: no share of {share:g}; {1 - others:g} is left")
    if share:
        shares[fault] = share
    else:
        shares.pop(fault, None)


class _Orders(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Share(_Orders):
    fault: Fault
    share: float = Field(ge=0, le=1)
    endpoints: tuple[Endpoint, ...] = ()


class _Script(_Orders):
    endpoint: Endpoint
    faults: tuple[Fault | None, ...]


class _JobShare(_Orders):
    fault: JobFault
    share: float = Field(ge=0, le=1)


class FaultOrders(_Orders):
    """Changes to a stand-in's faults, as they come from another process.

    Each field stands for the attribute or the method of `Faults` of that name;
    what is left out stays as it is.
    """

    clear: bool = False
    away: bool | None = None
    keys_refused: bool | None = None
    balance_negative: bool | None = None
    retired: frozenset[str] | None = None
    first_download_fails: bool | None = None
    webhooks_lost: bool | None = None
    slow: float | None = Field(None, ge=0)
    retry_after: int | None = Field(None, ge=0)
    fail: float | None = Field(None, ge=0, le=1)
    shares: tuple[_Share, ...] = ()
    scripts: tuple[_Script, ...] = ()
    job_shares: tuple[_JobShare, ...] = ()
    job_script: tuple[JobFault | None, ...] = ()

    def apply(self, faults: Faults) -> None:
        """Makes the changes.

        Raises:
            ValueError: Shares exceed 1 in all; those before it are set.
        """
        if self.clear:
            faults.clear()
        for name in _SWITCHES:
            value = getattr(self, name)
            if value is not None:
                setattr(faults, name, value)
        if self.retired is not None:
            faults.retired = set(self.retired)
        if self.fail is not None:
            faults.fail(self.fail)
        for order in self.shares:
            faults.share(order.fault, order.share, *order.endpoints)
        for script in self.scripts:
            faults.script(script.endpoint, *script.faults)
        for job_order in self.job_shares:
            faults.job_share(job_order.fault, job_order.share)
        faults.script_jobs(*self.job_script)


_SWITCHES = (
    "away",
    "keys_refused",
    "balance_negative",
    "first_download_fails",
    "webhooks_lost",
    "slow",
    "retry_after",
)
