"""The way to the server: TCP, TLS, and the WebSocket handshake.

Foreign exceptions end here: each becomes an `Unreachable` with one clear line.
"""

from __future__ import annotations

import os
import socket
import ssl
from typing import TYPE_CHECKING, cast

import h11
import trio
from trio_websocket import ConnectionRejected, wrap_client_stream

from audiohook.errors import AudioHookError, ConfigError
from audiohook.simulator.rules import Rule

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from trio_websocket import WebSocketConnection

    from audiohook.simulator.options import CallOptions, Endpoint

CONNECT_SECONDS = 10.0
HANDSHAKE_SECONDS = 10.0
_MAX_HEAD_BYTES = 1024
# What a server of TLS says to a request without it. Source: RFC 8446, 5.1.
_TLS_ALERT = b"\x15\x03"
# What OpenSSL calls an answer that is no TLS, by version.
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"})


class Unreachable(AudioHookError):
    """There was no WebSocket to be had.

    Attributes:
        rule: `Rule.REACHABLE`, or `Rule.UPGRADE` if it was an HTTP answer.
    """

    def __init__(self, rule: Rule, text: str) -> None:
        super().__init__(text)
        self.rule = rule


async def dial(options: CallOptions) -> trio.abc.Stream:
    """Open the TCP connection, with TLS if the URI asks for it.

    Raises:
        Unreachable: It did not work; the text is one line.
        ConfigError: The certificate file cannot be used.
    """
    endpoint = options.endpoint
    context = tls_context(options) if endpoint.secure else None
    where = f"{endpoint.host}:{endpoint.port}"
    try:
        with trio.fail_after(CONNECT_SECONDS):
            stream = await trio.open_tcp_stream(endpoint.host, endpoint.port)
            if context is None:
                return stream
            return await _start_tls(stream, context, endpoint)
    except trio.TooSlowError as error:
        raise Unreachable(
            Rule.REACHABLE, f"{where} did not answer within {CONNECT_SECONDS:g} s"
        ) from error
    except socket.gaierror as error:
        raise Unreachable(
            Rule.REACHABLE, f"no such host: {endpoint.host} ({error.strerror})"
        ) from error
    except OSError as error:
        raise Unreachable(
            Rule.REACHABLE, f"cannot connect to {where}: {_os_reason(error)}"
        ) from error
    except trio.BrokenResourceError as error:
        raise Unreachable(
            Rule.REACHABLE, f"TLS with {where} failed: {_tls_reason(error)}"
        ) from error


async def converse(
    stream: trio.abc.Stream,
    endpoint: Endpoint,
    headers: Sequence[tuple[bytes, bytes]],
    body: Callable[[WebSocketConnection], Awaitable[None]],
) -> None:
    """Make a connection a WebSocket and use it.

    Args:
        stream: The connection; it is closed at the end.
        endpoint: What to ask for.
        headers: Further headers of the request.
        body: What to do with the WebSocket; when it returns, all is dropped
            that it has not closed.

    Raises:
        Unreachable: The server did not make it a WebSocket.
    """
    tapped = _TappedStream(stream, secure=endpoint.secure)
    refused = False
    websocket: WebSocketConnection | None = None
    try:
        async with trio.open_nursery() as nursery:
            websocket = await _shake_hands(nursery, tapped, endpoint, headers)
            if websocket is not None:
                await body(websocket)
            nursery.cancel_scope.cancel()
    except* (ConnectionRejected, h11.LocalProtocolError):
        # The second is what the library comes to when an answer is no HTTP, or
        # no valid handshake: it then tries to refuse it, which a client cannot.
        refused = True
    finally:
        await trio.aclose_forcefully(stream)
    if refused or websocket is None:
        raise tapped.refusal()


async def _shake_hands(
    nursery: trio.Nursery,
    tapped: _TappedStream,
    endpoint: Endpoint,
    headers: Sequence[tuple[bytes, bytes]],
) -> WebSocketConnection | None:
    """Send the request and wait for the answer; None if none came."""
    websocket = None
    with trio.move_on_after(HANDSHAKE_SECONDS) as scope:
        # The library waits for ever if the connection ends before an answer.
        tapped.on_end = scope.cancel
        websocket = await wrap_client_stream(
            nursery,
            # The annotation is narrower than what the function needs.
            cast("trio.SocketStream", tapped),
            endpoint.authority,
            endpoint.target,
            extra_headers=list(headers),
        )
    tapped.on_end = None
    return websocket


class _TappedStream(trio.abc.Stream):
    """A stream that remembers how the answer began and notices its end."""

    def __init__(self, stream: trio.abc.Stream, *, secure: bool) -> None:
        self.on_end: Callable[[], None] | None = None
        self._secure = secure
        self._stream = stream
        self._head = b""
        self._ended = False

    def refusal(self) -> Unreachable:
        """Say what came instead of a WebSocket."""
        words = self._head.partition(b"\r\n")[0].decode("latin-1").split(maxsplit=2)
        if len(words) > 1 and words[0].startswith("HTTP/") and words[1].isdecimal():
            if words[1] == "101":
                text = "the answer to the upgrade is not a valid WebSocket handshake"
            else:
                reason = "".join(f" {word}" for word in words[2:])
                text = f"the upgrade was answered with {words[1]}{ascii(reason)[1:-1]}"
                text += refusal_hint(words[1])
            return Unreachable(Rule.UPGRADE, text)
        if self._head.startswith(_TLS_ALERT):
            text = "the server speaks TLS there: write wss:// for ws://"
            return Unreachable(Rule.UPGRADE, text)
        if self._head:
            return Unreachable(Rule.UPGRADE, "the server does not speak HTTP")
        if self._ended:
            text = "the server ended the connection without an answer"
            if not self._secure:
                text += "; if it speaks TLS there, write wss:// for ws://"
            return Unreachable(Rule.UPGRADE, text)
        return Unreachable(
            Rule.UPGRADE, f"no answer to the upgrade within {HANDSHAKE_SECONDS:g} s"
        )

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            data = await self._stream.receive_some(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._end()
            raise
        if not data:
            self._end()
        elif len(self._head) < _MAX_HEAD_BYTES:
            self._head += data[: _MAX_HEAD_BYTES - len(self._head)]
        return data

    async def aclose(self) -> None:
        self._end()
        await self._stream.aclose()

    def _end(self) -> None:
        self._ended = True
        if self.on_end is not None:
            self.on_end()


async def _start_tls(
    stream: trio.SocketStream, context: ssl.SSLContext, endpoint: Endpoint
) -> trio.abc.Stream:
    secured = trio.SSLStream(
        stream, context, server_hostname=endpoint.host, https_compatible=True
    )
    try:
        await secured.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(secured)
        raise
    return secured


def tls_context(options: CallOptions) -> ssl.SSLContext:
    """Make the settings of TLS that the options ask for.

    Raises:
        ConfigError: The certificate file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=options.ca_file)
    except OSError as error:
        reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigError(
            f"no certificates can be read from {options.ca_file}: {reason}"
        ) from error
    if options.ca_file is not None:
        # Python 3.13 began to ask more of an authority than openssl puts into one.
        # Whoever names the file knows whose it is.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if options.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def refusal_hint(status: str) -> str:
    """Say what to do about a refused upgrade, if it is known.

    Args:
        status: Of the answer, such as 401.
    """
    if status == "401":
        return "; --api-key and --client-secret have to be those of the server"
    return ""


def _os_reason(error: OSError) -> str:
    """Say why a connection failed, the first of several reasons if there are."""
    cause = error.__cause__
    if isinstance(cause, ExceptionGroup) and isinstance(cause.exceptions[0], OSError):
        error = cause.exceptions[0]
    reason = os.strerror(error.errno) if error.errno else str(error)
    return reason.lower()


def _tls_reason(error: trio.BrokenResourceError) -> str:
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"{cause.verify_message} (see --ca-file and --insecure)"
    if isinstance(cause, ssl.SSLError) and cause.reason in _NO_TLS:
        return "the server speaks none there: write ws:// for wss://"
    if (
        isinstance(cause, ssl.SSLError)
        and cause.reason
        and not isinstance(cause, ssl.SSLEOFError)
    ):
        return cause.reason.replace("_", " ").lower()
    return "the connection ended; if it speaks none there, write ws:// for wss://"
