"""A proxy in front of an S3 that does to requests what networks do to them.

It passes bytes on as they are, so signatures hold, and knows only so much of HTTP
as to tell where a request begins and ends.
"""

from __future__ import annotations

import random
import socket
import struct
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

_BLOCK = 64 * 1024
_HEAD_LIMIT = 64 * 1024


@dataclass(frozen=True)
class Fault:
    """What is done to one request; by itself, nothing."""


@dataclass(frozen=True)
class Delay(Fault):
    """It is passed on after so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Cut(Fault):
    """After so many bytes of its body both connections are closed."""

    after_bytes: int


@dataclass(frozen=True)
class Reset(Fault):
    """The connection is reset when the head has been read."""


@dataclass(frozen=True)
class Hang(Fault):
    """It is read and nothing else happens."""


@dataclass(frozen=True)
class Throttle(Fault):
    """Its body is passed on at so many bytes a second."""

    bytes_a_second: float


@dataclass(frozen=True)
class Answer(Fault):
    """It is not passed on: the proxy answers."""

    status: int
    code: str


@dataclass(frozen=True)
class SwallowAnswer(Fault):
    """It is passed on; the answer is waited for, and the connection closed."""


SLOW_DOWN = Answer(503, "SlowDown")
INTERNAL_ERROR = Answer(500, "InternalError")


@dataclass(frozen=True)
class Request:
    """A request that came by."""

    method: str
    target: str
    headers: dict[str, str]


@dataclass
class _Plan:
    fault: Fault
    method: str | None
    target: str
    times: int


@dataclass
class _Dice:
    random: random.Random
    share: float
    faults: Sequence[Fault]


@dataclass
class _Link:
    """A client's connection and ours to the store."""

    client: trio.abc.Stream
    store: trio.abc.Stream
    unread: bytearray = field(default_factory=bytearray)
    swallowing: bool = False
    swallowed: trio.Event = field(default_factory=trio.Event)
    _answering: trio.Lock = field(default_factory=trio.Lock)

    async def read(self) -> bytes:
        if self.unread:
            data = bytes(self.unread)
            self.unread.clear()
            return data
        return bytes(await self.client.receive_some(_BLOCK))

    async def answer(self, data: bytes | bytearray) -> None:
        # The client may have the end of one answer, and have asked again, before
        # whoever sent it is told so.
        async with self._answering:
            await self.client.send_all(data)


class FaultProxy:
    """Stands before a store on this machine.

    Args:
        store_port: Where the store listens.
        tls: Makes the proxy speak TLS to clients.
    """

    def __init__(self, store_port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.port = 0
        self._store_port = store_port
        self._tls = tls
        self._plans: list[_Plan] = []
        self._dice: _Dice | None = None

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    def plan(
        self,
        fault: Fault,
        *,
        method: str | None = None,
        target: str = "",
        times: int = 1,
    ) -> None:
        """Has the next requests suffer a fault.

        Args:
            fault: What.
            method: Only requests with this method.
            target: Only requests whose path and query have this in them.
            times: How many; plans are carried out in their order.
        """
        self._plans.append(_Plan(fault, method, target, times))

    def at_random(self, seed: int, share: float, faults: Sequence[Fault]) -> None:
        """Has a share of all requests for which nothing is planned suffer a fault."""
        self._dice = _Dice(random.Random(seed), share, faults)

    def be_kind(self) -> None:
        """Forgets all faults."""
        self._plans.clear()
        self._dice = None

    def count(self, method: str, target: str = "") -> int:
        """How many requests with that method and that in their target came by."""
        return sum(
            each.method == method and target in each.target for each in self.requests
        )

    async def serve(
        self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serves until cancelled; reports its port."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(trio.serve_listeners, self._handle, listeners))
            task_status.started(self.port)

    def _choose(self, request: Request) -> Fault:
        for plan in self._plans:
            if plan.method in {None, request.method} and plan.target in request.target:
                plan.times -= 1
                if plan.times == 0:
                    self._plans.remove(plan)
                return plan.fault
        if self._dice and self._dice.random.random() < self._dice.share:
            return self._dice.random.choice(self._dice.faults)
        return Fault()

    async def _handle(self, plain: trio.SocketStream) -> None:
        client: trio.abc.Stream = plain
        if self._tls:
            client = trio.SSLStream(
                plain, self._tls, server_side=True, https_compatible=True
            )
        # Whatever becomes of one connection, others go on.
        try:
            await self._serve_link(client, plain)
        except* (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            pass
        await trio.aclose_forcefully(client)

    async def _serve_link(
        self, client: trio.abc.Stream, plain: trio.SocketStream
    ) -> None:
        store = await trio.open_tcp_stream("127.0.0.1", self._store_port)
        async with store, trio.open_nursery() as nursery:
            link = _Link(client, store)
            nursery.start_soon(self._relay_answers, link, nursery.cancel_scope)
            while await self._serve_request(link, plain):
                pass
            nursery.cancel_scope.cancel()

    async def _relay_answers(self, link: _Link, scope: trio.CancelScope) -> None:
        while data := await link.store.receive_some(_BLOCK):
            if not link.swallowing:
                await link.answer(data)
            elif data.startswith(b"HTTP/1.1 100"):
                # The client would not send its body without it.
                await link.answer(data)
            else:
                # SeaweedFS sends small answers in one go.
                link.swallowed.set()
        scope.cancel()

    async def _serve_request(self, link: _Link, plain: trio.SocketStream) -> bool:
        """Takes one request; says whether another may follow."""
        head = await _read_head(link)
        if not head:
            return False
        request = _parse(head)
        self.requests.append(request)
        length = int(request.headers.get("content-length", "0"))
        fault = self._choose(request)
        match fault:
            case Reset():
                linger = struct.pack("ii", 1, 0)
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                return False
            case Hang():
                await trio.sleep_forever()
            case Answer():
                return await _answer(link, request, length, fault)
            case Delay(seconds):
                await trio.sleep(seconds)
        link.swallowing = isinstance(fault, SwallowAnswer)
        await link.store.send_all(head)
        passed = await _pass_body(link, length, fault)
        if link.swallowing:
            await link.swallowed.wait()
        return passed and not link.swallowing


async def _read_head(link: _Link) -> bytes:
    head = bytearray()
    while b"\r\n\r\n" not in head:
        data = await link.read()
        if not data or len(head) > _HEAD_LIMIT:
            return b""
        head += data
    end = head.index(b"\r\n\r\n") + 4
    link.unread[:] = head[end:]
    return bytes(head[:end])


def _parse(head: bytes) -> Request:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {}
    for line in filter(None, lines):
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return Request(method, target, headers)


async def _pass_body(link: _Link, length: int, fault: Fault) -> bool:
    """Passes a body on; False if it was cut."""
    passed = 0
    while passed < length:
        data = await link.read()
        if not data:
            return False
        data, rest = data[: length - passed], data[length - passed :]
        link.unread[:] = rest
        if isinstance(fault, Cut) and passed + len(data) > fault.after_bytes:
            await link.store.send_all(data[: fault.after_bytes - passed])
            return False
        if isinstance(fault, Throttle):
            await trio.sleep(len(data) / fault.bytes_a_second)
        await link.store.send_all(data)
        passed += len(data)
    # A cut that the body was too short for comes at its end.
    return not isinstance(fault, Cut)


async def _answer(link: _Link, request: Request, length: int, answer: Answer) -> bool:
    """Answers in the store's stead, once the request is here."""
    if "expect" in request.headers:
        await link.answer(b"HTTP/1.1 100 Continue\r\n\r\n")
    while length > 0:
        data = await link.read()
        if not data:
            return False
        length -= len(data)
    body = f"<Error><Code>{answer.code}</Code><Message>So be it.</Message></Error>"
    if request.method == "HEAD":
        body = ""
    await link.answer(
        f"HTTP/1.1 {answer.status} Fault\r\nContent-Type: application/xml\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    return True
