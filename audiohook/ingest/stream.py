"""The stream under the WebSocket library, from which audio has been taken out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from audiohook._divert import Lane
    from audiohook.ingest.pump import Pump
    from audiohook.ingest.transport import Transport

_RECEIVE_BYTES = 16384


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
        self._closed = False
        self._waiting = trio.lowlevel.ParkingLot()
        self.lane: Lane = transport.lane
        self.lane.owner = self

    @property
    def transport(self) -> Transport:
        """The connection below."""
        return self._transport

    async def receive_head(self, most_bytes: int) -> bytes | None:
        """Reads until the end of an HTTP request's head, and leaves it there.

        What follows the head is taken as WebSocket frames.

        Args:
            most_bytes: Give up when the head is longer.

        Returns:
            The head with its blank line, or None if it ended early or was too long.
        """
        lane = self.lane
        while True:
            data = lane.peek()
            end = data.find(b"\r\n\r\n", 0, most_bytes)
            if end >= 0:
                lane.start_frames(end + 4)
                return data[: end + 4]
            if len(data) >= most_bytes or lane.eof or lane.broken:
                return None
            await self._transport.wait_readable()
            self._transport.read()

    def enlist(self) -> None:
        """Lets the pump read from now on."""
        if not self._enlisted and not self._closed:
            self._enlisted = True
            self._pump.add(self)

    def wake(self) -> None:
        """Wakes the reader; called by the pump when there is news."""
        self._waiting.unpark_all()

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
            data = self.lane.take(max_bytes or _RECEIVE_BYTES)
            if data or self.lane.eof or self.lane.broken:
                break
            if self._enlisted:
                await self._waiting.park()
            else:
                await self._transport.wait_readable()
                if not self._closed:
                    self._transport.read()
            waited = True
        if not waited:
            await trio.lowlevel.checkpoint()
        if not data and self.lane.broken:
            raise trio.BrokenResourceError
        return data

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
        await self._transport.aclose()
