"""Whether Genesys will get through to the service, tried the way Genesys does it.

One thing after another: the name, each of its addresses, TLS as a public client sees
it, the upgrade with its signature, the probe. Where something is in the way, what
comes back tells who is; `audiohook.checks.refusals` reads it.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
import ssl
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio
from trio_websocket import ConnectionClosed

from audiohook.checks.exchange import HTTP2_ONLY, SWITCHING, NoAnswerError, ask
from audiohook.checks.refusals import HTTP2_MEND, Way, explain_refusal
from audiohook.checks.tls import certificate_fault, judge_dates
from audiohook.errors import ConfigError
from audiohook.hosts import is_private
from audiohook.protocol.messages import CloseReason
from audiohook.setting_values import decode_secret
from audiohook.simulator.client import place_call, request_headers
from audiohook.simulator.connection import Unreachable, converse, tls_context
from audiohook.simulator.options import STEREO, CallOptions
from audiohook.simulator.session import ClientSession, State
from audiohook.verdict import bad, doubtful, good

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from pathlib import Path

    from trio_websocket import WebSocketConnection

    from audiohook.checks.exchange import Answer
    from audiohook.checks.run import Findings
    from audiohook.settings import Settings
    from audiohook.simulator.options import Endpoint
    from audiohook.verdict import Verdict

SECONDS = 1.0

CONNECT_SECONDS: Final = 5 * SECONDS
PATIENCE: Final = 25 * SECONDS
"""How long a connection is left quiet, with `Approach.patient`."""

# Source: Genesys Cloud developer centre, AudioHook, "Security".
GENESYS_PORT = 443
# Of the five that Genesys waits.
_SLOW_OPENED: Final = 2 * SECONDS
_KEY_BYTES: Final = 24
_UNAUTHORIZED: Final = 401


@dataclass(frozen=True, slots=True, kw_only=True)
class Approach:
    """How Genesys will come.

    Attributes:
        uri: Connection URI, as in the integration.
        api_key: API key, as in the integration.
        client_secret: Client secret in base64; None if the integration has none.
        ca_file: Certificates to trust instead of the public ones.
        patient: Also leave a connection quiet for a while.
        direct_port: Port of the service on this machine, to compare with; None if
            it runs elsewhere.
        direct_tls: Whether TLS ends in the service.
    """

    uri: str
    api_key: str
    client_secret: str | None = None
    ca_file: Path | None = None
    patient: bool = False
    direct_port: int | None = None
    direct_tls: bool = False


def approach_of(
    uri: str, settings: Settings, *, api_key: str | None, secret_file: Path | None
) -> Approach:
    """Put together how Genesys will come. Blocking: it reads the file.

    Args:
        uri: Connection URI.
        settings: What the service on this machine has, if one is there. Key and
            secret are taken from it where nothing else is given.
        api_key: API key, if it is another one.
        secret_file: File with its client secret.

    Raises:
        ConfigError: There is no key, or the file cannot be read.
    """
    known = settings.api_key.get_secret_value() if settings.api_key else None
    secret = None
    if secret_file is not None:
        try:
            secret = secret_file.read_text(encoding="ascii").strip() or None
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is no text"
            raise ConfigError(f"--secret-file: {secret_file}: {why}") from None
    elif settings.client_secret and api_key in {None, known}:
        secret = settings.client_secret.get_secret_value()
    if (api_key or known) is None:
        raise ConfigError(
            "--api-key: give the key of the integration, or set API_KEY, since"
            " nobody gets in without one"
        )
    return Approach(
        uri=uri,
        api_key=api_key or known or "",
        client_secret=secret,
        direct_port=settings.port or None,
        direct_tls=settings.tls_certificate is not None,
    )


async def check_from_outside(approach: Approach, findings: Findings) -> int:
    """Tries to get through to the service, and tells of each step.

    Returns:
        0 if Genesys will get through, 1 if not.

    Raises:
        ConfigError: The URI, the key or the secret cannot be used.
    """
    if approach.client_secret is not None:
        try:
            decode_secret(approach.client_secret)
        except ValueError as error:
            raise ConfigError(f"the client secret {error}") from None
    await findings.gather("outside", _Journey(approach).go())
    return findings.close()


class _Journey:
    """The steps from the name to the probe."""

    def __init__(self, approach: Approach) -> None:
        self._approach = approach
        self._options = CallOptions(
            uri=approach.uri,
            api_key=approach.api_key,
            client_secret=approach.client_secret,
            ca_file=approach.ca_file,
            probe=True,
            fast=True,
        )
        self._endpoint = self._options.endpoint
        self._tls: ssl.SSLContext | None = None
        if self._endpoint.secure:
            self._tls = tls_context(self._options)
            self._tls.set_alpn_protocols(["http/1.1"])
        self._certificate: Mapping[str, Any] = {}
        self._address = ""

    async def go(self) -> AsyncGenerator[Verdict, None]:
        """Goes as far as it can be gone."""
        yield _judge_uri(self._endpoint)
        verdict, addresses = await self._look_up()
        yield verdict
        for address in addresses:
            yield await self._try_address(address)
        if not self._address:
            return
        if self._certificate:
            yield judge_dates(self._certificate, "its certificate", now=time.time())
        upgraded = await self._upgrade()
        yield upgraded
        if not upgraded.ok:
            return
        async for verdict in self._probe():
            yield verdict
        async for verdict in self._intrude():
            yield verdict
        if self._approach.patient:
            yield await self._wait_quietly()

    async def _look_up(self) -> tuple[Verdict, list[str]]:
        host = self._endpoint.host
        what = f"look up {host}"
        try:
            with trio.fail_after(CONNECT_SECONDS):
                found = await trio.socket.getaddrinfo(
                    host, self._endpoint.port, type=socket.SOCK_STREAM
                )
        except (OSError, trio.TooSlowError) as error:
            why = getattr(error, "strerror", None) or "no answer"
            mend = f"{why}: is the name right, and in the public DNS (A or AAAA)?"
            return bad(what, mend), []
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        what = f"{what}: {', '.join(addresses)}"
        if private := [each for each in addresses if is_private(each)]:
            return doubtful(
                what,
                f"{', '.join(private)} is not to be reached by Genesys: from outside,"
                " the name has to lead to a public address",
            ), addresses
        return good(what), addresses

    async def _try_address(self, address: str) -> Verdict:
        """Connect to one of the addresses, any of which Genesys may choose."""
        kind = "TLS" if self._tls else "TCP"
        what = f"connect to {address} ({kind})"
        try:
            stream = await self._connect(address)
        except trio.TooSlowError:
            return bad(
                what,
                f"no answer: does a firewall keep port {self._endpoint.port} closed?",
            )
        except trio.BrokenResourceError as error:
            return bad(what, _tls_mend(error.__cause__))
        except OSError as error:
            if ":" in address and error.errno in {
                errno.ENETUNREACH,
                errno.EADDRNOTAVAIL,
                errno.EAFNOSUPPORT,
            }:
                return doubtful(what, "there is no IPv6 here: try it from elsewhere")
            why = os.strerror(error.errno) if error.errno else str(error)
            return bad(
                what,
                f"{why.lower()}: does anything listen on"
                f" port {self._endpoint.port} there, and may one come in?",
            )
        if isinstance(stream, trio.SSLStream):
            self._certificate = stream.getpeercert() or {}
        await trio.aclose_forcefully(stream)
        self._address = self._address or address
        return good(what)

    async def _connect(self, address: str | None = None) -> trio.abc.Stream:
        """Open a connection, with TLS if the URI asks for it.

        Raises:
            OSError: There is none.
            trio.TooSlowError: There is none in time.
            trio.BrokenResourceError: TLS did not come about.
        """
        address = address or self._address
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = trio.socket.socket(family)
        try:
            with trio.fail_after(CONNECT_SECONDS):
                await sock.connect((address, self._endpoint.port))
        except BaseException:
            sock.close()
            raise
        tcp = trio.SocketStream(sock)
        if self._tls is None:
            return tcp
        secured = trio.SSLStream(
            tcp, self._tls, server_hostname=self._endpoint.host, https_compatible=True
        )
        try:
            with trio.fail_after(CONNECT_SECONDS):
                await secured.do_handshake()
        except trio.TooSlowError as error:
            await trio.aclose_forcefully(secured)
            raise trio.BrokenResourceError from error
        except BaseException:
            await trio.aclose_forcefully(secured)
            raise
        return secured

    async def _dial(self, _: CallOptions) -> trio.abc.Stream:
        return await self._connect()

    async def _upgrade(self) -> Verdict:
        signed = "signed" if self._approach.client_secret else "unsigned"
        what = f"become a WebSocket ({signed})"
        try:
            answer = await self._ask(self._options)
        except NoAnswerError as error:
            text = str(error)
            return bad(what, HTTP2_MEND if text == HTTP2_ONLY else text)
        except (OSError, trio.BrokenResourceError, trio.TooSlowError):
            return bad(what, "the connection was lost: try again")
        if answer.status != SWITCHING:
            way = Way(self._connect, self._options, self._direct())
            return bad(what, await explain_refusal(answer, way))
        for name in ("protocol", "extensions"):
            if chosen := answer.headers.get(f"sec-websocket-{name}"):
                return bad(
                    what,
                    f"something chose the {name} {chosen!a}, which nobody offered, and"
                    " a client has to refuse that: let the answer pass unchanged",
                )
        return good(what)

    async def _ask(self, options: CallOptions) -> Answer:
        headers = request_headers(options, now=time.time())
        endpoint = self._endpoint
        return await ask(self._connect, endpoint.authority, endpoint.target, headers)

    def _direct(self) -> partial[Any] | None:
        """How to come to the service without whatever is before it."""
        port = self._approach.direct_port
        if port is None:
            return None
        other = replace(self._endpoint, port=port, secure=self._approach.direct_tls)
        journey = _Journey(self._approach)
        journey._endpoint, journey._address = other, "127.0.0.1"
        journey._tls = self._tls if other.secure else None
        return partial(journey._connect)

    async def _probe(self) -> AsyncGenerator[Verdict, None]:
        """Make the connection that Genesys makes on activation."""
        what = "have the probe answered"
        try:
            report = await place_call(self._options, dialer=self._dial)
        except (OSError, trio.BrokenResourceError, trio.TooSlowError):
            yield bad(what, "the connection was lost: try again")
            return
        if report.disconnect_reason is not None:
            yield bad(
                what,
                f"the service takes no call now (disconnect {report.disconnect_reason}):"
                " /ready of its admin port says why",
            )
            return
        for breach in report.breaches:
            yield bad(what, f"{breach.rule}: {breach.text}")
        if report.breaches:
            return
        latency = report.opened_latency or 0.0
        what = f"{what} in {latency * 1000:.0f} ms"
        if latency > _SLOW_OPENED:
            yield doubtful(
                what,
                "Genesys waits 5 s: look at the way there, and at the spool's disk",
            )
        else:
            yield good(what)

    async def _intrude(self) -> AsyncGenerator[Verdict, None]:
        """Come as somebody who must not get in."""
        strange = secrets.token_urlsafe(_KEY_BYTES)
        yield await self._must_fail(
            "be refused with another API key",
            replace(self._options, api_key=strange),
            "it lets in whoever comes with any API key: is this the service?",
        )
        if self._approach.client_secret is None:
            yield doubtful(
                "sign requests",
                "without a client secret, whoever learns the key can connect: set the"
                " same one here and in the integration",
            )
            return
        yield await self._must_fail(
            "be refused without a signature",
            replace(self._options, client_secret=None),
            "it takes unsigned requests: the service has no CLIENT_SECRET for this key",
        )

    async def _must_fail(self, what: str, options: CallOptions, mend: str) -> Verdict:
        try:
            answer = await self._ask(options)
        except (NoAnswerError, OSError, trio.BrokenResourceError, trio.TooSlowError):
            return good(what)
        if answer.status == SWITCHING:
            return bad(what, mend)
        if answer.status != _UNAUTHORIZED:
            return good(what, f"with {answer.status}; the service itself says 401")
        return good(what)

    async def _wait_quietly(self) -> Verdict:
        """Leave a connection alone, and see whether it is there afterwards."""
        what = f"stay connected for {PATIENCE:g} s without a word"
        session = ClientSession(self._options, STEREO, now=trio.current_time())
        headers = request_headers(self._options, now=time.time())
        try:
            stream = await self._connect()
            await converse(
                stream, self._endpoint, headers, partial(_stay_quiet, session)
            )
        except (Unreachable, OSError, trio.BrokenResourceError, trio.TooSlowError):
            return bad(what, "there was no second connection: try again")
        if session.breaches:
            return bad(
                what,
                f"{session.breaches[0].text}: something on the way has an idle limit;"
                " raise it to hours",
            )
        return good(what)


async def _stay_quiet(session: ClientSession, websocket: WebSocketConnection) -> None:
    """Open a session, say nothing for long, then ping and close."""
    session.open(now=trio.current_time())
    await _until(session, websocket, State.OPENING)
    if session.state is State.OPEN:
        with trio.move_on_after(PATIENCE):
            await _receive(session, websocket)
    if session.state is State.OPEN:
        # The ping is long due.
        session.handle_timeout(now=trio.current_time())
        pongs = len(session.pong_latencies)
        await _send_all(session, websocket)
        while not session.is_over and len(session.pong_latencies) == pongs:
            await _step(session, websocket)
        session.close(CloseReason.END, now=trio.current_time())
        await _until(session, websocket, State.CLOSING)


async def _until(
    session: ClientSession, websocket: WebSocketConnection, state: State
) -> None:
    """Go on while the session is in a state."""
    while session.state is state:
        await _step(session, websocket)


async def _step(session: ClientSession, websocket: WebSocketConnection) -> None:
    """Send what there is, and wait for one message or the session's deadline."""
    await _send_all(session, websocket)
    with trio.move_on_at(session.deadline) as scope:
        await _receive(session, websocket, once=True)
    if scope.cancelled_caught:
        session.handle_timeout(now=trio.current_time())


async def _send_all(session: ClientSession, websocket: WebSocketConnection) -> None:
    while (message := session.next_to_send()) is not None:
        try:
            await websocket.send_message(message)
        except ConnectionClosed:
            session.receive_end("the connection was lost", now=trio.current_time())
            return


async def _receive(
    session: ClientSession, websocket: WebSocketConnection, *, once: bool = False
) -> None:
    while not session.is_over:
        try:
            message = await websocket.get_message()
        except ConnectionClosed:
            session.receive_end("the connection was lost", now=trio.current_time())
            return
        if isinstance(message, str):
            session.receive_text(message, now=trio.current_time())
        if once:
            return


def _judge_uri(endpoint: Endpoint) -> Verdict:
    scheme = "wss" if endpoint.secure else "ws"
    what = f"the URI is {scheme}://{endpoint.authority}{endpoint.target}"
    if not endpoint.secure:
        return bad(what, "Genesys connects with TLS only: wss://")
    if endpoint.port != GENESYS_PORT:
        return bad(what, f"Genesys connects to port {GENESYS_PORT} only")
    return good(what)


def _tls_mend(cause: BaseException | None) -> str:
    if isinstance(cause, ssl.SSLCertVerificationError):
        return certificate_fault(cause)
    if isinstance(cause, trio.TooSlowError | ssl.SSLEOFError):
        return "no answer to TLS: does what listens there speak it?"
    reason = getattr(cause, "reason", None) or ""
    if "NO_APPLICATION_PROTOCOL" in reason:
        return HTTP2_MEND
    if reason in {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_MESSAGE"}:
        return "what answers there does not speak TLS: is it the right port?"
    if "PROTOCOL_VERSION" in reason or reason == "UNSUPPORTED_PROTOCOL":
        return "it offers no TLS 1.2 or 1.3"
    if "HANDSHAKE_FAILURE" in reason or "UNRECOGNIZED_NAME" in reason:
        return "it knows nothing of this name: has it a certificate for it?"
    return reason.replace("_", " ").lower() or "it hung up before TLS was there"
