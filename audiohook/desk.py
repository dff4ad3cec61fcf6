"""Where calls come in, and where they are told what concerns all of them."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import trio

from audiohook.authentication import FAILURE_DELAY, LOOK_AGAIN
from audiohook.call import Call
from audiohook.errors import AuthenticationError
from audiohook.ingest.http import answer
from audiohook.ingest.websocket import JudgedConnection
from audiohook.protocol.state import State

if TYPE_CHECKING:
    from audiohook.authentication import Credentials
    from audiohook.call_surroundings import Surroundings
    from audiohook.ingest.http import RequestHead
    from audiohook.ingest.stream import DivertedStream
    from audiohook.protocol.messages import DisconnectReason

SECONDS = 1.0

# How often all calls are looked at: when the first of them is due, but not more often
# than the one, nor less often than the other. Whatever a call begins to wait for
# after a look is due later than the next.
_WATCH_INTERVAL = 1 * SECONDS
_LONGEST_WATCH_INTERVAL = 4 * SECONDS
_HURRIED_SEAL_DEADLINE = 2 * SECONDS
# Strangers that wait for their refusal at a time. Each costs a file and some
# 20 KiB, and half as many a second are answered as late as they should be.
_MOST_STRANGERS = 1024
# Which we speak, for whoever asked for another. Source: RFC 6455 section 4.2.2.
_WEBSOCKET_VERSION = b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"


class Strangers:
    """Those who wait for their refusal.

    A refusal takes its time, so that neither its timing nor trying again and again
    helps a stranger. When too many wait, the one that has waited longest goes
    first, early: a flood must not cost more and more files and memory.

    Args:
        most: How many may wait.
    """

    def __init__(self, most: int = _MOST_STRANGERS) -> None:
        self._most = most
        self._waiting: OrderedDict[trio.CancelScope, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait(self, until: float) -> None:
        """Waits until that time, or until there are too many others."""
        if len(self._waiting) >= self._most:
            oldest, _ = self._waiting.popitem(last=False)
            oldest.cancel()
        scope = trio.CancelScope(deadline=until)
        self._waiting[scope] = None
        try:
            with scope:
                await trio.sleep_forever()
        finally:
            self._waiting.pop(scope, None)


class CallDesk:
    """Takes calls, and knows which are live.

    Args:
        surroundings: What all calls share.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        self._around = surroundings
        # In the order in which they came.
        self._live: dict[Call, None] = {}
        self._strangers = Strangers()
        self._some_live = trio.Event()
        self._none_live = trio.Event()
        self._none_live.set()

    def __len__(self) -> int:
        return len(self._live)

    def live_by_state(self) -> Counter[str]:
        """Counts the live calls by the states of their sessions."""
        return Counter(call.state for call in self._live)

    def live_sessions(self) -> set[str]:
        """Returns the session ids of the live calls."""
        return {call.session_id for call in self._live}

    def live_calls(self) -> list[Call]:
        """Returns the live calls that have said what they are."""
        return [call for call in self._live if call.opened is not None]

    def newest_calls(self, most: int) -> list[Call]:
        """Returns the newest of the live calls that were let in, without probes."""
        let_in = (
            call
            for call in reversed(self._live)
            if call.opened is not None
            and not call.opened.is_probe
            and call.state not in (State.REJECTING, State.ENDED)
        )
        return list(islice(let_in, most))

    def count_audio(self) -> None:
        """Brings the counters of audio up to date; until then live calls lag."""
        audio_bytes = frames = 0
        for call in self._live:
            more_bytes, more_frames = call.take_counts()
            audio_bytes += more_bytes
            frames += more_frames
        self._around.metrics.audio_bytes.inc(audio_bytes)
        self._around.metrics.frames.inc(frames)

    async def take(self, stream: DivertedStream, head: RequestHead) -> None:
        """Judges a request, and holds the call that it begins until it is sealed.

        Never raises: a call that fails is counted and logged, and the others do
        not notice.

        *Cancellation:* The call's recording is sealed as far as it came.
        """
        around = self._around
        arrived = trio.current_time()
        fault = head.upgrade_fault
        if fault is not None:
            around.metrics.refused.labels("bad_request").inc()
            body = b"No WebSocket for this request: %b\n" % fault.text
            await answer(stream, fault.status, body, headers=_WEBSOCKET_VERSION)
            return
        try:
            credentials = replace(await self._authenticate(head), client=head.client)
        except AuthenticationError as error:
            around.metrics.refused.labels(error.reason).inc()
            around.noise.write(
                logging.INFO,
                "handshake_refused",
                reason=error.reason,
                client=head.client,
            )
            stream.forget()
            # The same answer after the same time, whatever was wrong.
            await self._strangers.wait(arrived + FAILURE_DELAY)
            await answer(stream, error.http_status, b"refused\n")
            return
        upgrade = JudgedConnection(stream, head)
        del head  # see where it comes from
        place = around.admission.admit(credentials.key_id, credentials.record.limits)
        call = Call(stream, credentials, around, place)
        self._live[call] = None
        if len(self._live) == 1:
            self._none_live = trio.Event()
            self._some_live.set()
        try:
            await call.run(upgrade)
        finally:
            place.leave()
            self._live.pop(call, None)
            if not self._live:
                self._none_live.set()
                self._some_live = trio.Event()

    async def _authenticate(self, head: RequestHead) -> Credentials:
        """Judges a request, a second time if there may be newer keys.

        Raises:
            AuthenticationError: There must be no session.
        """
        around = self._around

        def judge() -> Credentials:
            return around.authenticator.authenticate(
                head.headers, head.target, now=around.clock()
            )

        try:
            return judge()
        except AuthenticationError as error:
            # The answer is late in any case, so nobody learns from this one.
            if error.reason not in LOOK_AGAIN or not await around.look_again():
                raise
        return judge()

    async def watch(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Tells calls when a timer of their session has run out; until cancelled.

        A look at all calls now and then is far cheaper than a deadline in Trio's
        heap for each message of each, and the timers are of 10 s and more. Looking
        each second, with 1,000 calls, was a twentieth of what they cost.
        """
        task_status.started()
        while True:
            await self._some_live.wait()
            now = trio.current_time()
            due = now + _LONGEST_WATCH_INTERVAL
            for call in self._live:
                due = min(due, call.check_deadline(now))
            await trio.sleep_until(max(due, now + _WATCH_INTERVAL))

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
