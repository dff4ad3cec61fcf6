"""One simulated call, from the connection to the report."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import trio
from trio_websocket import ConnectionClosed
from wsproto.frame_protocol import CloseReason as WebSocketCloseReason

from audiohook.errors import ConfigError
from audiohook.protocol.messages import CloseReason
from audiohook.protocol.signature import sign
from audiohook.protocol.timeline import SAMPLE_RATE_HZ
from audiohook.setting_values import decode_secret
from audiohook.simulator.connection import Unreachable, converse, dial
from audiohook.simulator.dialogue import Dialogue
from audiohook.simulator.report import CallReport, report_of
from audiohook.simulator.rules import Breach
from audiohook.simulator.schedule import (
    ChangeLanguage,
    Discard,
    End,
    Frame,
    HangUp,
    Pause,
    ReportError,
    Schedule,
    Step,
    plan,
)
from audiohook.simulator.session import ClientSession, State
from audiohook.simulator.source import AudioSource, conversation, load_wav

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rich.console import Console
    from trio_websocket import WebSocketConnection

    from audiohook.simulator.options import CallOptions

USER_AGENT = b"GenesysCloud-AudioHook-Client"

# How long to watch the connection after `closed` for what must not follow.
LINGER_SECONDS = 0.25
# How long the last words may take to go out.
FLUSH_SECONDS = 1.0
# How long the server may take to answer the WebSocket's closing handshake.
GOODBYE_SECONDS = 5.0

EXIT_OK = 0
EXIT_BREACHES = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def run_call(options: CallOptions, console: Console) -> int:
    """Place a call and print how it goes.

    Args:
        options: The call.
        console: Where to print.

    Returns:
        0 if the server kept to the protocol, 1 if it did not or could not be
        reached, 2 if the options cannot be carried out, 130 after Ctrl-C.
    """
    dialogue = Dialogue(console)
    report = None
    try:
        try:
            report = trio.run(partial(place_call, options, dialogue=dialogue))
        except* KeyboardInterrupt:
            dialogue.fault("interrupted")
    except ConfigError as error:
        dialogue.fault(str(error))
        return EXIT_USAGE
    if report is None:
        return EXIT_INTERRUPTED
    dialogue.summary(report)
    return EXIT_OK if report.ok else EXIT_BREACHES


async def place_call(
    options: CallOptions,
    *,
    dialogue: Dialogue | None = None,
    dialer: Callable[[CallOptions], Awaitable[trio.abc.Stream]] = dial,
) -> CallReport:
    """Make one call as Genesys would.

    Args:
        options: The call.
        dialogue: Told of each message, if given.
        dialer: Makes the connection.

    Returns:
        What came of it, also if the server could not be reached.

    Raises:
        ConfigError: The options cannot be carried out, before anything is sent.

    Cancellation: drops the connection without closing the session.
    """
    source = await trio.to_thread.run_sync(_make_source, options)
    if options.only is not None and options.only not in source.channels:
        raise ConfigError(f"there is no channel {options.only} to offer")
    schedule = plan(options, source.total_samples)
    headers = request_headers(options, now=time.time())
    began_at = trio.current_time()
    session = ClientSession(options, source.channels, now=began_at)
    call = _Call(options, session, source, schedule, dialogue, began_at)
    try:
        stream = await dialer(options)
        await converse(stream, options.endpoint, headers, call.run)
    except Unreachable as error:
        at = trio.current_time() - began_at
        breach = Breach(error.rule, str(error), at)
        session.breaches.append(breach)
        if dialogue is not None:
            dialogue.breach(breach)
    return report_of(options, session, trio.current_time() - began_at)


def request_headers(options: CallOptions, *, now: float) -> list[tuple[bytes, bytes]]:
    """Make the headers that Genesys adds to the upgrade.

    Args:
        options: The call.
        now: Unix seconds, for the signature.

    Raises:
        ConfigError: The client secret is not base64.

    Source: Genesys AudioHook session walkthrough, "Connection establishment".
    """
    headers = [
        (b"User-Agent", USER_AGENT),
        (b"Audiohook-Organization-Id", options.organization_id.encode()),
        (b"Audiohook-Session-Id", options.session_id.encode()),
        (b"Audiohook-Correlation-Id", options.correlation_id.encode()),
        (b"Audiohook-Retry-Attempt", b"%d" % options.retry_attempt),
    ]
    if options.api_key is not None:
        headers.append((b"X-API-KEY", options.api_key.encode()))
    if options.client_secret:
        try:
            secret = decode_secret(options.client_secret)
        except ValueError as error:
            raise ConfigError(
                "--client-secret: the client secret is not base64; for example"
                " bXktc2VjcmV0"
            ) from error
        endpoint = options.endpoint
        host = (b"Host", endpoint.authority.encode())
        headers += sign(
            [host, *headers], endpoint.target.encode(), secret=secret, now=now
        )
    return headers


def _make_source(options: CallOptions) -> AudioSource:
    if options.wav is not None and not options.probe:
        return load_wav(options.wav, options.channels)
    return conversation(options.duration, options.channels)


class _Call:
    """The tasks of a call: one reads, one writes, one watches time, one plays."""

    def __init__(
        self,
        options: CallOptions,
        session: ClientSession,
        source: AudioSource,
        schedule: Schedule,
        dialogue: Dialogue | None,
        began_at: float,
    ) -> None:
        self._options = options
        self._session = session
        self._source = source
        self._schedule = schedule
        self._dialogue = dialogue
        self._began_at = began_at
        self._stream_began_at = began_at
        self._breaches_told = 0
        self._is_sending = False
        self._changed = trio.Event()

    async def run(self, websocket: WebSocketConnection) -> None:
        """Conduct the session on a connection until it is over."""
        session = self._session
        async with trio.open_nursery() as nursery:
            # The caller speaks while the session opens; that audio is caught up.
            self._stream_began_at = trio.current_time()
            session.open(now=self._stream_began_at)
            nursery.start_soon(self._read, websocket)
            nursery.start_soon(self._write, websocket)
            nursery.start_soon(self._keep_time)
            nursery.start_soon(self._play)
            while not session.is_over:
                await self._changed.wait()
            with trio.move_on_after(FLUSH_SECONDS):
                await self._wait_sent()
            with trio.move_on_after(LINGER_SECONDS):
                while session.state is State.CLOSED:
                    await self._changed.wait()
            nursery.cancel_scope.cancel()
        if session.state is State.CLOSED:
            await self._leave(websocket)
        self._tell_breaches()

    async def _leave(self, websocket: WebSocketConnection) -> None:
        with trio.move_on_after(GOODBYE_SECONDS) as scope:
            # Genesys closes without a status code.
            await websocket.aclose(code=WebSocketCloseReason.NO_STATUS_RCVD)
        if scope.cancelled_caught:
            self._session.receive_no_end(now=trio.current_time())

    async def _read(self, websocket: WebSocketConnection) -> None:
        session = self._session
        while True:
            try:
                message = await websocket.get_message()
            except ConnectionClosed as error:
                session.receive_end(_how_ended(error), now=trio.current_time())
                self._settle()
                return
            now = trio.current_time()
            if self._dialogue is not None:
                self._dialogue.received(message, now - self._began_at)
            if isinstance(message, str):
                session.receive_text(message, now=now)
            else:
                session.receive_binary(len(message), now=now)
            self._settle()

    async def _write(self, websocket: WebSocketConnection) -> None:
        # The only task that sends, so that the order of the session is the
        # order on the wire.
        while True:
            message = self._session.next_to_send()
            if message is None:
                await self._changed.wait()
                continue
            self._is_sending = True
            try:
                await websocket.send_message(message)
            except ConnectionClosed:
                # The reader learns the same, and says so.
                return
            finally:
                self._is_sending = False
            if self._dialogue is not None:
                self._dialogue.sent(message, trio.current_time() - self._began_at)
            if not self._session.has_to_send:
                self._settle()

    async def _keep_time(self) -> None:
        session = self._session
        while True:
            changed = self._changed
            with trio.move_on_at(session.deadline):
                await changed.wait()
            now = trio.current_time()
            if now >= session.deadline:
                session.handle_timeout(now=now)
                self._settle()

    async def _play(self) -> None:
        session = self._session
        while session.state is State.OPENING:
            await self._changed.wait()
        if session.state is not State.OPEN:
            return
        if self._options.probe:
            if session.is_streaming:
                session.send_audio(b"")
        elif session.media is None:
            await self._wait_for(self._source.total_samples, lambda: self._is_open)
        else:
            await self._stream(self._source.only(session.media.channels))
        if self._is_open and self._options.hang_up:
            session.abandon()
        else:
            session.close(CloseReason.END, now=trio.current_time())
        self._settle()

    async def _stream(self, source: AudioSource) -> None:
        session = self._session
        while session.state is State.OPEN:
            if not session.is_streaming:
                await self._changed.wait()
                continue
            step = self._schedule.peek(
                session.position_samples, source.remaining_samples
            )
            if isinstance(step, End):
                return
            if isinstance(step, Frame | Discard):
                due = session.position_samples + step.length_samples
                if not await self._wait_for(due, lambda: session.is_streaming):
                    continue
            self._schedule.advance()
            await self._do(step, source)
            await self._wait_sent()

    async def _do(self, step: Step, source: AudioSource) -> None:
        session, now = self._session, trio.current_time()
        match step:
            case Frame(length):
                session.send_audio(source.read(length))
            case Discard(length):
                session.discard(length, now=now)
            case Pause(length):
                await self._pause(length)
            case ChangeLanguage(language):
                session.update(language, now=now)
            case ReportError(code, message):
                session.report_error(code, message, now=now)
            case HangUp():
                session.abandon()
        self._settle()

    async def _pause(self, length_samples: int) -> None:
        session = self._session
        due = session.position_samples + length_samples
        session.begin_pause(length_samples, now=trio.current_time())
        self._settle()
        if await self._wait_for(due, lambda: self._is_open):
            session.end_pause(now=trio.current_time())

    async def _wait_for(
        self, position_samples: int, condition: Callable[[], bool]
    ) -> bool:
        """Wait until the stream has come so far, unless as fast as possible.

        Returns:
            False, at once, when the condition no longer holds.
        """
        due_at = self._stream_began_at + position_samples / SAMPLE_RATE_HZ
        if not self._options.fast:
            with trio.move_on_at(due_at):
                while condition():
                    await self._changed.wait()
        return condition()

    async def _wait_sent(self) -> None:
        """Wait until all is handed to the network; this bounds what is queued."""
        while self._session.has_to_send or self._is_sending:
            await self._changed.wait()

    @property
    def _is_open(self) -> bool:
        return self._session.state is State.OPEN

    def _settle(self) -> None:
        """Wake all tasks, since something may have changed for them."""
        self._tell_breaches()
        self._changed.set()
        self._changed = trio.Event()

    def _tell_breaches(self) -> None:
        fresh = self._session.breaches[self._breaches_told :]
        self._breaches_told += len(fresh)
        if self._dialogue is not None:
            for breach in fresh:
                self._dialogue.breach(breach)


def _how_ended(error: ConnectionClosed) -> str:
    reason = error.reason
    if reason is None:
        return "invalid WebSocket data"
    if reason.code == WebSocketCloseReason.ABNORMAL_CLOSURE:
        return "the connection was lost"
    words = f" {reason.reason!a}" if reason.reason else ""
    return f"WebSocket closed with code {reason.code}{words}"
