"""The receiver of notifications: one request for each, and what it said."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import httpx
import trio

from audiohook._version import __version__
from audiohook.errors import ReceiverError
from audiohook.hosts import is_loopback
from audiohook.notify.event import CONTENT_TYPE
from audiohook.notify.signature import sign

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from audiohook.notify.letter import Letter

SECONDS = 1.0
HOURS = 3600 * SECONDS
KIB: Final = 1024

# Source: Standard Webhooks specification 1.0, "Delivery": 15 to 30 s.
_REQUEST: Final = 15 * SECONDS
_CONNECT: Final = 5 * SECONDS
# Of an answer no more is read than lets the connection be used again.
_ANSWER_BYTES: Final = 16 * KIB
_LONGEST_HOLD: Final = 1 * HOURS

_GONE: Final = 410
# What a wrong address or a wrong secret is answered with, whatever is sent.
_MISLED: Final = frozenset({401, 403, 404, 405})
_BUSY: Final = frozenset({429, 503})


def make_client(url: str, *, connections: int) -> httpx.AsyncClient:
    """Make the client that `Receiver` sends by.

    Args:
        url: Where notifications go.
        connections: Most connections at a time.
    """
    host = urlsplit(url).hostname or ""
    # A proxy would look for this machine at its own place.
    direct: dict[str, httpx.AsyncBaseTransport | None] = (
        {f"all://{host}": None} if is_loopback(host) else {}
    )
    return httpx.AsyncClient(
        headers={
            "User-Agent": f"audiohook/{__version__}",
            "Accept": "*/*",
            "Content-Type": CONTENT_TYPE,
        },
        timeout=httpx.Timeout(_REQUEST, connect=_CONNECT, pool=None),
        limits=httpx.Limits(
            max_connections=connections, max_keepalive_connections=connections
        ),
        mounts=direct,
        follow_redirects=False,
    )


class Receiver:
    """Whoever is told.

    Args:
        url: Where notifications go.
        secrets: What they are signed with; one, or two while one takes the other's
            place.
        http: Sends, see `make_client`. Who made it closes it.
        clock: Unix time in seconds.

    Attributes:
        secrets: See above; they may be replaced.
    """

    def __init__(
        self,
        url: str,
        secrets: Sequence[bytes],
        http: httpx.AsyncClient,
        *,
        clock: Callable[[], float],
    ) -> None:
        self.secrets = secrets
        self._url = url
        # Of the address only this is shown, as the rest may be a secret.
        self._host = urlsplit(url).netloc.rpartition("@")[2]
        self._http = http
        self._clock = clock

    async def take(self, letter: Letter) -> None:
        """Sends a notification, and returns once the receiver has it.

        Raises:
            ReceiverError: It has not taken it, as far as is known.

        *Cancellation:* It may have taken it.
        """
        headers = sign(self.secrets, letter.id, int(self._clock()), letter.body)
        with trio.move_on_after(_REQUEST) as scope:
            await self._exchange(letter.body, headers)
        if scope.cancelled_caught:
            raise ReceiverError(f"{self._host} took too long", is_common=True)

    async def _exchange(self, body: bytes, headers: dict[str, str]) -> None:
        try:
            request = self._http.build_request(
                "POST", self._url, content=body, headers=headers
            )
            answer = await self._http.send(request, stream=True)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ssl.SSLError) as error:
            # Not the error's own text, which may hold the address.
            raise ReceiverError(
                f"{self._host} cannot be reached: {type(error).__name__}",
                is_common=True,
            ) from error
        try:
            if not answer.is_success:
                raise self._refusal(answer)
            await _drain(answer)
        finally:
            with trio.move_on_after(1 * SECONDS, shield=True):
                await answer.aclose()

    def _refusal(self, answer: httpx.Response) -> ReceiverError:
        status = answer.status_code
        text = f"{self._host} answered {status}"
        if answer.is_redirect:
            text += ", and redirects are not followed"
        server = status >= httpx.codes.INTERNAL_SERVER_ERROR
        busy = status in _BUSY
        lasting = answer.is_redirect or status in _MISLED or status == _GONE
        return ReceiverError(
            text,
            is_common=server or busy or lasting,
            lasting=lasting,
            gone=status == _GONE,
            retry_after=_retry_after(answer) if busy else None,
        )


async def _drain(answer: httpx.Response) -> None:
    """Read what is left of an answer, if that is little; it says nothing to us."""
    seen = 0
    try:
        async for piece in answer.aiter_raw():
            seen += len(piece)
            if seen > _ANSWER_BYTES:
                # To leave the loop would leave httpx's generators open; they end
                # by themselves once the connection is closed under them.
                await answer.aclose()
    except (httpx.HTTPError, httpx.StreamError, OSError):
        # It has said that it took it.
        return


def _retry_after(answer: httpx.Response) -> float | None:
    text = answer.headers.get("retry-after", "")
    if not text.isascii() or not text.isdigit() or len(text) > len("86400"):
        return None
    return min(float(text), _LONGEST_HOLD)
