"""Where calls come in, and where they are told what concerns all of them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from audiohook.authentication import FAILURE_DELAY
from audiohook.call import Call
from audiohook.errors import AuthenticationError
from audiohook.ingest.http import answer

if TYPE_CHECKING:
    from audiohook.call import Surroundings
    from audiohook.ingest.http import RequestHead
    from audiohook.ingest.stream import DivertedStream
    from audiohook.protocol.messages import DisconnectReason

SECONDS = 1.0

_WATCH_INTERVAL = 1 * SECONDS
_HURRIED_SEAL_DEADLINE = 2 * SECONDS


class CallDesk:
    """Takes calls, and knows which are live.

    Args:
        surroundings: What all calls share.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        self._around = surroundings
        self._live: set[Call] = set()
        self._some_live = trio.Event()
        self._none_live = trio.Event()
        self._none_live.set()

    def __len__(self) -> int:
        return len(self._live)

    async def take(self, stream: DivertedStream, head: RequestHead) -> None:
        """Authenticates a request, and holds the call until it is sealed.

        Never raises: a call that fails is counted and logged, and the others do
        not notice.

        *Cancellation:* The call's recording is sealed as far as it came.
        """
        around = self._around
        arrived = trio.current_time()
        try:
            credentials = around.authenticator.authenticate(
                head.headers, head.target, now=around.clock()
            )
        except AuthenticationError as error:
            around.metrics.refused.labels(error.reason).inc()
            around.noise.write(logging.INFO, "handshake_refused", reason=error.reason)
            # The same answer after the same time, whatever was wrong.
            await trio.sleep_until(arrived + FAILURE_DELAY)
            await answer(stream, error.http_status, b"refused\n")
            return
        call = Call(stream, credentials, around)
        self._live.add(call)
        if len(self._live) == 1:
            self._none_live = trio.Event()
            self._some_live.set()
        around.metrics.live.set(len(self._live))
        try:
            await call.run()
        finally:
            self._live.discard(call)
            around.metrics.live.set(len(self._live))
            if not self._live:
                self._none_live.set()
                self._some_live = trio.Event()

    async def watch(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Tells calls when a timer of their session has run out; until cancelled.

        One look at all calls a second is far cheaper than a deadline in Trio's
        heap for each message of each, and the timers are of 10 s and more.
        """
        task_status.started()
        while True:
            await self._some_live.wait()
            now = trio.current_time()
            for call in self._live:
                call.check_deadline(now)
            await trio.sleep(_WATCH_INTERVAL)

    def hurry(self) -> None:
        """Leaves what cannot be sealed at once to the next recovery."""
        for call in self._live:
            call.seal_deadline = _HURRIED_SEAL_DEADLINE

    def disconnect_all(self, reason: DisconnectReason, info: str) -> None:
        """Asks the peer of each live call to close it."""
        for call in self._live:
            call.disconnect(reason, info)

    async def wait_none_live(self) -> None:
        """Waits until no call is live."""
        while self._live:
            await self._none_live.wait()
