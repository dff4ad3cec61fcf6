"""The stand-in itself: it listens, fails when told to, and works off the jobs."""

from __future__ import annotations

import functools
from dataclasses import asdict
from typing import TYPE_CHECKING

import httpx
import trio
from pydantic import ValidationError

from audiohook.errors import ConfigError
from audiohook.simulator.assemblyai.account import (
    Account,
    AudioCount,
    Limits,
    Pace,
    Refusal,
    Statistics,
    Traffic,
)
from audiohook.simulator.assemblyai.api import Api, find_route
from audiohook.simulator.assemblyai.audio import Uploads
from audiohook.simulator.assemblyai.faults import Fault, FaultOrders, Faults
from audiohook.simulator.assemblyai.http import (
    Answer,
    Connection,
    PeerGone,
    json_answer,
    refusal_answer,
)
from audiohook.simulator.assemblyai.parameters import Policy
from audiohook.simulator.assemblyai.workshop import Workshop

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping, Sequence

    from audiohook.simulator.assemblyai.http import Request

SECONDS = 1.0
KIB = 1024

DEFAULT_KEY = "stand-in-key"

_CONTROL = "/stand-in/"
_MAX_ORDERS_BYTES = 64 * KIB
_WEB_PAGE = Answer(200, b"<html><body>Please sign in</body></html>", "text/html")
_FAILED_REQUESTS: Mapping[Fault, tuple[int, str]] = {
    Fault.ERROR_500: (500, "Internal Server Error"),
    Fault.EMPTY_500: (500, ""),
    Fault.ERROR_503: (503, "Service Unavailable"),
    Fault.EMPTY_503: (503, ""),
    Fault.ERROR_504: (504, "Gateway Timeout"),
    Fault.EMPTY_504: (504, ""),
    Fault.RATE: (429, "Too Many Requests"),
    Fault.UNAUTHORIZED: (401, "Authentication error, API token missing/invalid"),
    Fault.FORBIDDEN: (403, "Cannot access uploaded file"),
}


@functools.cache
def _trusted() -> ssl.SSLContext:
    """Reads the certificates to trust once: tests make many stand-ins."""
    return httpx.create_ssl_context(trust_env=False)


class StandIn:
    """A stand-in for AssemblyAI's API.

    It answers, counts and fails as told, under Trio's clock.

    Args:
        keys: API keys; each has an account of its own.
        pace: How long jobs take.
        limits: What it bears.
        policy: What it accepts.
        seed: Of the faults that come by chance.

    Attributes:
        faults: What it does wrong; may be changed at any time.
        away: It resets every connection; the same as `Faults.away`.
        base_url: Where it is, once it serves.
    """

    def __init__(
        self,
        *,
        keys: Sequence[str] = (DEFAULT_KEY,),
        pace: Pace | None = None,
        limits: Limits | None = None,
        policy: Policy | None = None,
        seed: int = 0,
    ) -> None:
        self._pace = pace or Pace()
        self._limits = limits or Limits()
        self._policy = policy or Policy()
        self._accounts = {key: Account(self._limits, self._pace) for key in keys}
        self._uploads = Uploads()
        self._traffic = Traffic()
        self.faults = Faults(seed)
        self._api = Api(
            self._accounts,
            self._uploads,
            limits=self._limits,
            policy=self._policy,
            faults=self.faults,
            submitted=self._change,
        )
        self._workshop = Workshop(
            self._uploads,
            pace=self._pace,
            limits=self._limits,
            policy=self._policy,
            faults=self.faults,
            redacted_audio=self._api.redacted_audio,
        )

    @property
    def base_url(self) -> str:
        """Where it is, once it serves."""
        return self._api.base_url

    @property
    def away(self) -> bool:
        """Whether it resets every connection."""
        return self.faults.away

    @away.setter
    def away(self, value: bool) -> None:
        self.faults.away = value

    def account(self, key: str | None = None) -> Account:
        """Gives the account of a key, or of the first one."""
        return self._accounts[next(iter(self._accounts)) if key is None else key]

    def statistics(self) -> Statistics:
        """Gives the figures over all accounts; to be called within Trio."""
        accounts = self._accounts.values()
        audio: dict[str, AudioCount] = {}
        for account in accounts:
            for path, count in account.audio.items():
                total = audio.setdefault(path, AudioCount())
                total.submitted += count.submitted
                total.billed += count.billed
        return Statistics(
            submitted=sum(account.submitted for account in accounts),
            billed=sum(account.billed for account in accounts),
            completed=sum(account.completed for account in accounts),
            failed=sum(account.failed for account in accounts),
            deleted=sum(account.deleted for account in accounts),
            open=sum(account.open for account in accounts),
            most_open=max(account.most_open for account in accounts),
            most_parallel=max(account.most_parallel for account in accounts),
            uploads=self._uploads.count,
            upload_bytes=self._uploads.bytes,
            requests=dict(self._traffic.requests),
            requests_last_minute=self._traffic.last_minute(trio.current_time()),
            most_requests_a_minute=self._traffic.most_a_minute,
            faults=dict(self.faults.drawn),
            webhooks_sent=self._workshop.webhooks_sent,
            webhooks_failed=self._workshop.webhooks_failed,
            audio=audio,
        )

    async def wait_idle(self) -> None:
        """Waits until no job is open and no webhook is on its way."""
        await self._workshop.wait_idle(self._accounts.values())

    async def serve(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serves until cancelled; may be called again with all jobs kept.

        Args:
            host: Address to listen at.
            port: Port to listen at; 0 takes a free one.
            task_status: Told the base URL when connections are accepted.

        Raises:
            ConfigError: It cannot listen there.
        """
        try:
            listeners = await trio.open_tcp_listeners(port, host=host)
        except OSError as error:
            raise ConfigError(
                f"cannot listen at {host} port {port}: {error.strerror}"
            ) from error
        actual = listeners[0].socket.getsockname()[1]
        name = f"[{host}]" if ":" in host else host
        self._api.base_url = f"http://{name}:{actual}"
        client = httpx.AsyncClient(
            follow_redirects=True,
            limits=httpx.Limits(max_connections=None),
            timeout=self._limits.download,
            trust_env=False,
            verify=_trusted(),
        )
        async with client, trio.open_nursery() as nursery:
            for account in self._accounts.values():
                nursery.start_soon(self._workshop.work_off, account, client, nursery)
            await nursery.start(trio.serve_listeners, self._converse, listeners)
            task_status.started(self.base_url)

    def _change(self) -> None:
        # A method, since the API is there before the workshop.
        self._workshop.change()

    async def _converse(self, stream: trio.SocketStream) -> None:
        """Answers the requests of one connection."""
        connection = Connection(stream)
        try:
            try:
                while (request := await connection.receive()) is not None:
                    await self._respond(connection, request)
            except Refusal as refusal:
                await connection.send(refusal_answer(refusal))
        except PeerGone:
            pass  # it may come again on another connection
        finally:
            await trio.aclose_forcefully(stream)

    async def _respond(self, connection: Connection, request: Request) -> None:
        """Answers a request, or does what was ordered instead.

        Raises:
            PeerGone: There is no connection any more.
        """
        if request.path.startswith(_CONTROL) and connection.is_local:
            await connection.send(await self._control(connection, request))
            return
        route = find_route(request)
        if route is None:
            await connection.drain()
            found = self._api.public_file(request.path)
            await connection.send(found or json_answer({"error": "Not found"}, 404))
            return
        self._traffic.count(route.endpoint, trio.current_time())
        fault = Fault.RESET if self.away else self.faults.draw(route.endpoint)
        if fault in (Fault.RESET, Fault.STALL):
            if fault is Fault.STALL:
                await connection.wait_gone()
            await connection.reset()
            raise PeerGone("as ordered")
        if fault is not None and (failure := self._failure(fault)) is not None:
            await connection.drain()
            await connection.send(failure)
            return
        try:
            answer = await self._api.answer(connection, request, route)
            await connection.drain()
        except Refusal as refusal:
            answer = refusal_answer(refusal)
            if answer.status != 413:
                await connection.drain()
        await self._deliver(connection, answer, fault)

    def _failure(self, fault: Fault) -> Answer | None:
        """Makes the answer of a request that is to have no effect."""
        if fault is Fault.GARBAGE:
            return _WEB_PAGE
        if fault not in _FAILED_REQUESTS:
            return None
        status, text = _FAILED_REQUESTS[fault]
        if not text:
            return Answer(status)
        headers = {}
        if fault is Fault.RATE:
            headers["Retry-After"] = str(self.faults.retry_after)
        return refusal_answer(Refusal(status, text, headers))

    async def _deliver(
        self, connection: Connection, answer: Answer, fault: Fault | None
    ) -> None:
        """Sends the answer of a request that has taken effect.

        Raises:
            PeerGone: There is no connection any more.
        """
        if fault is Fault.LOST:
            await connection.reset()
            raise PeerGone("as ordered")
        if fault is Fault.CUT:
            await connection.send_half(answer)
            raise PeerGone("as ordered")
        if fault is Fault.SLOW:
            await trio.sleep(self.faults.slow)
        seconds = self.faults.slow if fault is Fault.SLOW_BODY else 0.0
        await connection.send(answer, seconds=seconds)

    async def _control(self, connection: Connection, request: Request) -> Answer:
        """Answers a request of whoever runs the test.

        Raises:
            PeerGone: There is no connection any more.
        """
        try:
            body = await connection.read_all(_MAX_ORDERS_BYTES)
            what = request.method, request.path.removeprefix(_CONTROL)
            if what == ("GET", "statistics"):
                return json_answer(asdict(self.statistics()))
            if what == ("POST", "faults"):
                FaultOrders.model_validate_json(body).apply(self.faults)
                self._change()
                return json_answer({})
        except Refusal as refusal:
            return refusal_answer(refusal)
        except (ValidationError, ValueError) as error:
            return json_answer({"error": str(error)}, 400)
        return json_answer({"error": "Not found"}, 404)
