"""The two ways in which bytes reach a lane: a plain socket, or TLS over one.

Both can be read without waiting, which is what the pump does, and both send
through Trio.
"""

from __future__ import annotations

import contextlib
import errno
import os
import ssl
from typing import TYPE_CHECKING, Protocol

import trio

from audiohook._divert import Lane

if TYPE_CHECKING:
    from audiohook._divert import Fleet, Unsealer

SECONDS = 1.0
_KIB = 1024
_READ_BYTES = 128 * _KIB
# A peer that does not take a few hundred bytes in this time is gone.
_SEND_DEADLINE = 10 * SECONDS


class Transport(Protocol):
    """A connection whose bytes go into a lane."""

    @property
    def lane(self) -> Lane:
        """Where ``read`` puts the bytes."""
        ...

    @property
    def polled(self) -> bool:
        """True if the pump must call ``read`` itself; else the sweep reads."""
        ...

    def read(self) -> None:
        """Reads what has come into the lane, without waiting."""
        ...

    async def wait_readable(self) -> None:
        """Waits until ``read`` may find something.

        Raises:
            trio.ClosedResourceError: It is closed, or nobody is to wait any more.
        """
        ...

    def stop_waiting(self) -> None:
        """Ends ``wait_readable`` for whoever waits; cheaper than a cancel scope."""
        ...

    async def send_all(self, data: bytes) -> None:
        """Sends everything.

        Raises:
            trio.BrokenResourceError: The connection is gone, or the peer has not
                read for long.
            trio.ClosedResourceError: It was closed on our side.
        """
        ...

    def send_now(self, data: bytes) -> bool:
        """Sends everything without waiting, or nothing.

        Returns:
            False if something else is being sent, or the kernel takes nothing now.
        """
        ...

    async def aclose(self) -> None:
        """Closes the connection, without waiting for the peer."""
        ...


class PlainTransport:
    """A TCP connection, read by the fleet in C.

    Args:
        stream: The accepted connection.
        fleet: Whose scratch buffer and sweep are used.
    """

    polled = False

    def __init__(self, stream: trio.SocketStream, fleet: Fleet) -> None:
        self._stream = stream
        self._fleet = fleet
        self._fd = stream.socket.fileno()
        self.lane = Lane(self._fd)

    def read(self) -> None:
        """Reads what has come into the lane, without waiting."""
        self._fleet.read(self.lane)

    async def wait_readable(self) -> None:
        """Waits until ``read`` may find something."""
        await trio.lowlevel.wait_readable(self._stream.socket)

    def stop_waiting(self) -> None:
        """Ends ``wait_readable``; see :class:`Transport`."""
        trio.lowlevel.notify_closing(self._stream.socket)

    async def send_all(self, data: bytes) -> None:
        """Sends everything; see :class:`Transport`.

        The kernel nearly always takes a short answer at once. That is tried
        first, without Trio's locks and without a schedule point, which would
        double the cost of an answer; the caller has just waited for a lock.
        """
        if self._fd < 0:
            raise trio.ClosedResourceError
        sent = _write(self._fd, data)
        if sent < len(data):
            self.lane.sending = True
            try:
                await _send_rest(self._stream, data[sent:])
            finally:
                self.lane.sending = False

    def send_now(self, data: bytes) -> bool:
        """Sends everything without waiting, or nothing; see :class:`Transport`."""
        if self.lane.sending or self._fd < 0:
            return False
        try:
            sent = _write(self._fd, data)
        except trio.BrokenResourceError:
            self.lane.fail(errno.EPIPE)
            return True
        if 0 < sent < len(data):
            # Room for a few bytes and not for a few more: it has not been read
            # for minutes, and half a frame is on its way already.
            self.lane.fail(errno.EPIPE)
        return sent > 0

    async def aclose(self) -> None:
        """Closes the connection, without waiting for the peer."""
        self._fd = -1
        await self._stream.aclose()


def _write(fd: int, data: bytes) -> int:
    """Writes what the kernel takes at once, and returns how much that is."""
    try:
        return os.write(fd, data)
    except BlockingIOError:
        return 0
    except OSError as error:
        raise trio.BrokenResourceError from error


async def _send_rest(stream: trio.SocketStream, data: bytes) -> None:
    """Sends what the kernel did not take at once, to a peer that is still there."""
    with trio.move_on_after(_SEND_DEADLINE):
        await stream.send_all(data)
        return
    raise trio.BrokenResourceError("the peer does not take what is sent")


class TlsTransport:
    """TLS in the process, over memory buffers, so that it can be read at will.

    Trio's ``SSLStream`` can only be awaited, a task and a wake-up for each
    frame; here the pump decrypts what has come for all calls in one pass.

    Args:
        stream: The accepted connection.
        context: Server-side TLS settings.
        unsealer: Decrypts what has come.
    """

    polled = True

    def __init__(
        self, stream: trio.SocketStream, context: ssl.SSLContext, unsealer: Unsealer
    ) -> None:
        self._stream = stream
        self._fd = stream.socket.fileno()
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._sending = trio.Lock()
        self._unsent = b""
        self._closed = False
        self.lane = Lane()
        self._unsealer = unsealer

    async def handshake(self) -> None:
        """Runs the TLS handshake.

        Raises:
            ssl.SSLError: The peer does not speak TLS, or not as we do.
            trio.BrokenResourceError: The connection is gone.
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self.wait_readable()
                try:
                    data = os.read(self._fd, _READ_BYTES)
                except BlockingIOError:
                    continue
                except OSError as error:
                    raise trio.BrokenResourceError from error
                if not data:
                    raise trio.BrokenResourceError from None
                self._incoming.write(data)
            except ssl.SSLError:
                self._send_now()
                raise
            else:
                await self._flush()
                return

    def read(self) -> None:
        """Decrypts what has come into the lane, without waiting."""
        if self._closed:
            return
        self._unsealer.read(self.lane, self._fd, self._incoming, self._tls)
        if self._outgoing.pending and not self._sending.locked():
            # An answer of TLS itself, such as to a key update.
            self._send_now()

    async def wait_readable(self) -> None:
        """Waits until ``read`` may find something."""
        if self._incoming.pending or self._tls.pending():
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.wait_readable(self._stream.socket)

    def stop_waiting(self) -> None:
        """Ends ``wait_readable``; see :class:`Transport`."""
        trio.lowlevel.notify_closing(self._stream.socket)

    async def send_all(self, data: bytes) -> None:
        """Encrypts and sends everything; see :class:`Transport`."""
        if self._closed:
            raise trio.ClosedResourceError
        async with self._sending:
            if self._closed:
                # Somebody closed it meanwhile, and its number may be another's.
                raise trio.ClosedResourceError
            try:
                self._tls.write(data)
            except ssl.SSLError as error:
                raise trio.BrokenResourceError from error
            await self._flush()

    def send_now(self, data: bytes) -> bool:
        """Sends everything without waiting, or nothing; see :class:`Transport`."""
        if self._closed or self._unsent or self._sending.locked():
            return False
        try:
            self._tls.write(data)
        except ssl.SSLError:
            self.lane.fail(errno.EPROTO)
            return True
        if not self._send_now():
            # What is encrypted must go out, and nobody waits to send it.
            self.lane.fail(errno.EPIPE)
        return True

    async def _flush(self) -> None:
        self._send_now()
        while data := self._unsent + self._outgoing.read():
            self._unsent = b""
            await _send_rest(self._stream, data)

    def _send_now(self) -> bool:
        """Sends what the socket takes without waiting; False if some is left."""
        data = self._unsent + self._outgoing.read()
        try:
            sent = _write(self._fd, data)
        except trio.BrokenResourceError:
            sent = 0
        self._unsent = data[sent:]
        return not self._unsent

    async def aclose(self) -> None:
        """Says goodbye as far as that needs no waiting, and closes."""
        if not self._closed:
            self._closed = True
            if not self._sending.locked():
                # It asks for the peer's goodbye, which we do not wait for.
                with contextlib.suppress(ssl.SSLError, ValueError):
                    self._tls.unwrap()
                self._send_now()
        await self._stream.aclose()
