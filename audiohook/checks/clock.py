"""Whether this machine's clock is right, which signatures depend on."""

from __future__ import annotations

import ctypes
import time
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import httpx

from audiohook.errors import UploadError
from audiohook.protocol.signature import MAX_CLOCK_SKEW
from audiohook.storage.folder import FolderStore
from audiohook.storage.policy import CHECK_NAME
from audiohook.storing import make_store
from audiohook.verdict import bad, doubtful, good

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from audiohook.checks.expectations import Expectations
    from audiohook.settings import Settings
    from audiohook.verdict import Verdict

SECONDS = 1.0

_DEADLINE: Final = 10 * SECONDS
_SIGNATURE_LIFE: Final = 60
# A Date tells whole seconds.
_DATE_STEP: Final = 1 * SECONDS
_NOTABLE: Final = 1 * SECONDS
# Source: adjtimex(2). The structure is smaller than that on all platforms.
_TIMEX_BYTES: Final = 512
_TIME_ERROR: Final = 5
_MEND: Final = (
    "set it by NTP (apt-get install chrony; or timedatectl set-ntp true, where"
    " systemd-timesyncd is installed)"
)


@dataclass(frozen=True, slots=True)
class Offset:
    """How far another clock is surely ahead of ours, in seconds.

    Attributes:
        least: The nearest to zero that is possible.
    """

    least: float

    def __str__(self) -> str:
        return f"{abs(self.least):.0f} s {'behind' if self.least > 0 else 'ahead'}"


def offset(date: str, sent: float, received: float) -> Offset | None:
    """Compare a clock with ours.

    Args:
        date: Value of the ``Date`` header.
        sent: When the request went out, Unix seconds by our clock.
        received: When the answer was there.

    Returns:
        How far it is ahead of ours; None if it is no date.
    """
    try:
        theirs = parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None
    earliest, latest = theirs - received, theirs + _DATE_STEP - sent
    return Offset(max(0.0, earliest) + min(0.0, latest))


async def check_clock(
    settings: Settings, _: Expectations
) -> AsyncGenerator[Verdict, None]:
    """Compares the clock with that of the store, or else of AssemblyAI.

    Yields:
        A verdict on that, and on whether anything keeps the clock right.
    """
    if (url := await _clock_elsewhere(settings)) is not None:
        yield await _compare(url)
    yield _kernel()


async def _clock_elsewhere(settings: Settings) -> str | None:
    """Find somebody who tells the time; None if there is nobody."""
    store = make_store(settings)
    if not isinstance(store, FolderStore):
        try:
            with suppress(UploadError):
                signed = await store.presign(CHECK_NAME, _SIGNATURE_LIFE)
                parts = urlsplit(signed)
                return f"{parts.scheme}://{parts.netloc}/"
        finally:
            store.close()
    if settings.assemblyai_api_key is not None:
        return settings.assemblyai_base_url
    return None


async def _compare(url: str) -> Verdict:
    host = urlsplit(url).netloc
    what = f"compare the clock with that of {host}"
    try:
        async with httpx.AsyncClient(timeout=_DEADLINE) as http:
            sent = time.time()
            response = await http.head(url)
            received = time.time()
    except httpx.HTTPError as error:
        return good(what, f"it cannot be asked ({type(error).__name__})")
    found = offset(response.headers.get("Date", ""), sent, received)
    if found is None:
        return good(what, "it does not tell the time")
    if abs(found.least) > MAX_CLOCK_SKEW:
        return bad(
            what,
            f"this machine is {found}, and Genesys' signatures are refused from"
            f" {MAX_CLOCK_SKEW:g} s on (S3 refuses from 15 minutes on): {_MEND}",
        )
    if abs(found.least) > _NOTABLE:
        return doubtful(what, f"this machine is {found}: {_MEND}")
    return good(what)


def kernel_is_synchronised() -> bool | None:
    """Tell whether something keeps the kernel's clock right; None if it is unknown.

    Source: adjtimex(2).
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None, use_errno=True)
        state = libc.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
        if state >= 0:
            return bool(state != _TIME_ERROR)
    return None


def _kernel() -> Verdict:
    what = "something keeps the clock right"
    match kernel_is_synchronised():
        case True:
            return good(what)
        case False:
            return doubtful(what, f"the kernel knows of nothing that does: {_MEND}")
        case _:
            return good(what, "the kernel does not tell; timedatectl does")
