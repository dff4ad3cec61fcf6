"""The stream under the WebSocket library, from which audio has been taken out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from audiohook._divert import Hearer, Lane
    from audiohook.ingest.pump import Pump
    from audiohook.ingest.transport import Transport

_RECEIVE_BYTES = 16384
# Source: RFC 8446, 5.1: the type of the first record, and its version's first byte.
_TLS_HANDSHAKE = b"\x16\x03"
# RFC 6455, 5.2: a whole text message; lengths that take two, and eight, more bytes.
_FINAL_TEXT = 0x81
_LONG = 126
_LONGER = 127
_LONGER_BYTES = 65_536


def text_frame(text: str) -> bytes:
    """Writes a text message of a server, which is not masked."""
    data = text.encode()
    length = len(data)
    if length < _LONG:
        return bytes((_FINAL_TEXT, length)) + data
    if length < _LONGER_BYTES:
        return bytes((_FINAL_TEXT, _LONG)) + length.to_bytes(2, "big") + data
    return bytes((_FINAL_TEXT, _LONGER)) + length.to_bytes(8, "big") + data


class DivertedStream(trio.abc.Stream):
    """A byte stream that holds back whole binary messages.

    Until :meth:`enlist` it reads for itself as soon as something has come, so
    that a session opens without delay. From then on the pump reads, and this
    stream's reader sleeps until there is something else than audio.

    Args:
        transport: The connection, with its lane.
        pump: Who reads from ``enlist`` on.
    """

    def __init__(self, transport: Transport, pump: Pump) -> None:
        self._transport = transport
        self._pump = pump
        self._enlisted = False
        self._hear: Callable[[str], bool] | None = None
        self._closed = False
        self._head_bytes = 0
        self._lone_text: str | None = None
        self._waiting = trio.lowlevel.ParkingLot()
        self.lane: Lane = transport.lane

    @property
    def transport(self) -> Transport:
        """The connection below."""
        return self._transport

    async def receive_head(self, most_bytes: int) -> bytes | None:
        """Reads until the end of an HTTP request's head, and leaves it there.

        What follows is anything, until :meth:`start_frames`. It is read before it is
        waited for: most heads come together with their connection.

        Args:
            most_bytes: Give up when the head is longer.

        Returns:
            The head with its blank line, or None if it ended early, was too long, or
            is the beginning of a TLS handshake.
        """
        lane = self.lane
        while True:
            self._transport.read()
            data = lane.peek()
            end = data.find(b"\r\n\r\n", 0, most_bytes)
            if end >= 0:
                self._head_bytes = end + 4
                return data[: end + 4]
            if len(data) >= most_bytes or lane.eof or lane.broken:
                return None
            if data.startswith(_TLS_HANDSHAKE):
                # Whoever speaks TLS where none is spoken is to learn it at once.
                return None
            await self._transport.wait_readable()

    def start_frames(self) -> None:
        """Takes what follows the head as WebSocket frames, and drops the head.

        A client has to wait for the answer before it sends any (RFC 6455 section
        4.1). Some do not, to save a round trip, and would wait in vain for an answer
        to what was lost.
        """
        self.lane.start_frames(self._head_bytes)
        self.lane.take(self._head_bytes)

    def forget(self) -> None:
        """Drops what has come, of a peer whose words are of no interest any more."""
        self.lane.drop_text()

    def enlist(self, hear: Callable[[str], bool], hearer: Hearer | None = None) -> None:
        """Lets the pump read from now on.

        Args:
            hear: Called in the pump's task with a text message that came alone,
                while the reader has nothing in hand. It returns True if it has
                dealt with the message; or False, without having done anything,
                to let it go its way to the reader.
            hearer: Who may answer such a message where it is read, before ``hear`` is
                called; None if that is to see all of them.
        """
        if self._enlisted:
            return
        self._enlisted = True
        if self._closed:
            # The library may still have audio in hand, which is written as any other.
            self._pump.fleet.add(self.lane)
            return
        self._hear = hear
        self.lane.owner = self
        self.lane.hearer = hearer
        self._pump.add(self)
        # Whoever waits for the socket would sleep on beside what the pump has read
        # from it.
        self._transport.stop_waiting()

    def wake(self) -> None:
        """Has a short message dealt with, or wakes the reader, when there is news.

        Nearly all text is pings. Their way through the WebSocket library and two
        tasks took 150 µs of CPU, a third of all that a live call cost; dealt with
        from here they take 48. Those that a sweep has answered do not come here.
        """
        if self._waiting and self._hear is not None and self._deal_with_text():
            return
        self._waiting.unpark_all()

    def _deal_with_text(self) -> bool:
        """Has a text message that came alone dealt with; True if that is all."""
        lane = self.lane
        assert self._hear is not None
        if not lane.answer(self._transport.send_now, trio.current_time()):
            text = lane.peek_text()
            if text is None or not self._hear(text):
                return False
            lane.drop_text()
        return not lane.eof and not lane.broken

    def say_now(self, text: str) -> bool:
        """Sends a text message at once; False if that cannot be.

        One frame of a server says nothing about the next, so it may go out beside
        those of the WebSocket library.
        """
        return not self._closed and self._transport.send_now(text_frame(text))

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receives bytes other than audio; see :class:`trio.abc.ReceiveStream`.

        Raises:
            trio.BrokenResourceError: The connection is gone.
            trio.ClosedResourceError: It was closed on our side.
        """
        waited = False
        while True:
            if self._closed:
                raise trio.ClosedResourceError
            data = self._take(max_bytes or _RECEIVE_BYTES)
            if data or self.lane.eof or self.lane.broken:
                break
            if self._enlisted:
                await self._waiting.park()
            else:
                await self._read_for_itself()
            waited = True
        if not waited:
            await trio.lowlevel.checkpoint()
        if not data and self.lane.broken:
            raise trio.BrokenResourceError
        return data

    def _take(self, max_bytes: int) -> bytes:
        """Takes bytes other than audio, and notes what text they are, if just one."""
        lane = self.lane
        whole = lane.rest_bytes <= max_bytes
        self._lone_text = lane.peek_text() if whole else None
        return lane.take(max_bytes)

    def take_lone_text(self) -> str | None:
        """Tells once whether what was received last was a text message, and which.

        Only the frames before it can tell: where some bytes were half of one, the
        rest of it may look like a message.
        """
        text, self._lone_text = self._lone_text, None
        return text

    async def _read_for_itself(self) -> None:
        """Waits for the socket and reads from it, unless the pump does meanwhile."""
        try:
            await self._transport.wait_readable()
        except trio.ClosedResourceError:
            if not self._enlisted:
                raise
        if not self._closed and not self._enlisted:
            self._transport.read()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Sends bytes; see :class:`trio.abc.SendStream`."""
        if self._closed:
            raise trio.ClosedResourceError
        await self._transport.send_all(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        """Does not wait: ``send_all`` may be called at any time."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Closes the connection; audio that was taken out stays in the lane."""
        if not self._closed:
            self._closed = True
            # Read what came before the end, so that no audio is left behind.
            self._transport.read()
            self._pump.remove(self)
            self.lane.detach()
            self._waiting.unpark_all()
            # What points at each other stays in memory until the next full look for
            # such, which may be hours away.
            self._hear = self.lane.owner = self.lane.hearer = None
        await self._transport.aclose()
