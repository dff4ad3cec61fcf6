"""A proxy between the check and the service, and what proxies do to requests."""

from __future__ import annotations

import re
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

_END = b"\r\n\r\n"


@dataclass
class Between:
    """A proxy that does as it is told.

    Attributes:
        port: Of the service behind it.
        change: What it makes of the head of a request.
        answer: What it says instead of asking the service.
        tls: With which it is spoken to.
        back: What it makes of the head of an answer.
        idle_limit: After so long without a byte it hangs up.
        seen: Heads as they came in.
    """

    port: int
    change: Callable[[bytes], bytes] = bytes
    answer: bytes | None = None
    tls: ssl.SSLContext | None = None
    back: Callable[[bytes], bytes] = bytes
    idle_limit: float = float("inf")
    seen: list[bytes] = field(default_factory=list)

    async def serve(self, *, task_status: trio.TaskStatus[int]) -> None:
        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(
                partial(trio.serve_tcp, self._handle, 0, host="127.0.0.1")
            )
            task_status.started(listener.socket.getsockname()[1])

    async def _handle(self, tcp: trio.SocketStream) -> None:
        stream: trio.abc.Stream = tcp
        if self.tls is not None:
            stream = trio.SSLStream(
                tcp, self.tls, server_side=True, https_compatible=True
            )
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError):
            async with stream:
                head, rest = await _read_head(stream)
                self.seen.append(head)
                if self.answer is not None:
                    await stream.send_all(self.answer)
                    return
                async with await trio.open_tcp_stream("127.0.0.1", self.port) as behind:
                    await behind.send_all(self.change(head) + rest)
                    answer, more = await _read_head(behind)
                    await stream.send_all(self.back(answer) + more)
                    await self._join(stream, behind)

    async def _join(self, one: trio.abc.Stream, other: trio.abc.Stream) -> None:
        deadline = trio.current_time() + self.idle_limit
        with trio.CancelScope(deadline=deadline) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pass_on, one, other, scope)
                nursery.start_soon(self._pass_on, other, one, scope)

    async def _pass_on(
        self, source: trio.abc.Stream, sink: trio.abc.Stream, scope: trio.CancelScope
    ) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await source.receive_some():
                scope.deadline = trio.current_time() + self.idle_limit
                await sink.send_all(data)
        scope.cancel()


async def _read_head(stream: trio.abc.Stream) -> tuple[bytes, bytes]:
    data = b""
    while _END not in data:
        piece = await stream.receive_some()
        if not piece:
            raise trio.BrokenResourceError
        data += piece
    head, end, rest = data.partition(_END)
    return head + end, rest


def without(*names: str) -> Callable[[bytes], bytes]:
    """Returns what drops headers."""
    wanted = "|".join(re.escape(name) for name in names).encode()
    return partial(re.compile(rb"(?im)^(?:" + wanted + rb"):.*\r\n").sub, b"")


def with_host(host: str) -> Callable[[bytes], bytes]:
    """Returns what puts another Host there."""
    return partial(
        re.compile(rb"(?im)^host:.*\r\n").sub, b"Host: " + host.encode() + b"\r\n"
    )


def with_target(target: str) -> Callable[[bytes], bytes]:
    """Returns what asks for something else."""
    return partial(re.compile(rb"\AGET \S+").sub, b"GET " + target.encode())
