"""A request that was judged, made a WebSocket by the library.

trio-websocket is in charge of a call's WebSocket. What it asks of `wsproto` goes
through here: the head of the request was parsed and judged before
(`RequestHead.upgrade_fault`), so that nobody parses it again; and a text message that
came alone was read by the lane, which has followed its frame. From the first bytes on
that are anything else, wsproto judges all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from trio_websocket import WebSocketConnection
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import (
    AcceptConnection,
    CloseConnection,
    Message,
    TextMessage,
)
from wsproto.utilities import generate_accept_token

from audiohook.ingest.stream import text_frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    import trio
    from wsproto import WSConnection
    from wsproto.events import Event

    from audiohook.ingest.http import RequestHead
    from audiohook.ingest.stream import DivertedStream

KIB: Final = 1024

# A message that is longer comes in pieces, to `wsproto`.
_RECEIVE_BYTES: Final = 16 * KIB

_ANSWER: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
)


class JudgedConnection:
    """Stands in for ``wsproto.WSConnection``, on the server's side.

    Args:
        stream: Where the bytes come from that `receive_data` gets.
        head: A request for a WebSocket that is in order.

    Attributes:
        client: Whether this is a client's side.
    """

    client: Final = False

    def __init__(self, stream: DivertedStream, head: RequestHead) -> None:
        self._stream = stream
        self._key = head.websocket_key
        # Those that did not come from ``wsproto``.
        self._events: list[Event] = []
        self._is_accepted = False
        self._has_failed = False
        # None until something has come, or is to be sent, that is no text message.
        self._frames: Connection | None = None

    @property
    def state(self) -> ConnectionState:
        """Where the WebSocket stands."""
        if not self._is_accepted:
            return ConnectionState.CONNECTING
        if self._has_failed:
            # So that the library answers with the code, as to a peer that closes.
            return ConnectionState.REMOTE_CLOSING
        return ConnectionState.OPEN if self._frames is None else self._frames.state

    def send(self, event: Event) -> bytes:
        """Returns what to send for an event."""
        if isinstance(event, AcceptConnection):
            self._is_accepted = True
            return _ANSWER % generate_accept_token(self._key)
        if self._frames is None and isinstance(event, TextMessage):
            return text_frame(event.data)
        return self._judge().send(event)

    def receive_data(self, data: bytes | None) -> None:
        """Takes what the stream has received."""
        text = self._stream.take_lone_text()
        if text is not None and self._frames is None:
            self._events.append(TextMessage(data=text))
        else:
            self._judge().receive_data(data)

    def events(self) -> Iterator[Event]:
        """Yields what has happened."""
        while self._events:
            yield self._events.pop(0)
        if self._frames is None:
            return
        for event in self._frames.events():
            if isinstance(event, CloseConnection):
                self._has_failed = self._frames.state is ConnectionState.OPEN
            elif isinstance(event, Message) and not (
                event.data or event.message_finished
            ):
                # The library would keep pieces of nothing, however many.
                continue
            yield event

    def _judge(self) -> Connection:
        if self._frames is None:
            self._frames = Connection(ConnectionType.SERVER)
        return self._frames


class CallSocket(WebSocketConnection):
    """A WebSocket of a client, made from a request that was judged.

    Args:
        stream: The connection, whose frames have begun.
        connection: The judged request.
        queue_size: Messages that may wait.
        max_message_size: Longest message, in characters or bytes.
    """

    def __init__(
        self,
        stream: DivertedStream,
        connection: JudgedConnection,
        *,
        queue_size: int,
        max_message_size: int,
    ) -> None:
        super().__init__(
            stream,
            # It is asked for no more than the other has.
            cast("WSConnection", connection),
            message_queue_size=queue_size,
            max_message_size=max_message_size,
            receive_buffer_size=_RECEIVE_BYTES,
        )

    async def accept(self, nursery: trio.Nursery) -> None:
        """Says yes to the request, and begins to read.

        In this order, unlike ``wrap_server_stream``: a frame may have come behind the
        request, and an answer to it must not go out before the answer to that.

        Args:
            nursery: Owns the reader's task.

        Raises:
            ConnectionClosed: The peer is gone.
        """
        await self._send(AcceptConnection())
        nursery.start_soon(self._reader_task)
