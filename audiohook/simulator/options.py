"""What a simulated call should be like, checked before anything is opened."""

from __future__ import annotations

import json
import math
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from audiohook.errors import ConfigError
from audiohook.protocol.messages import Channel
from audiohook.protocol.timeline import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAX_FRAME_BYTES = 64_000
MAX_CUSTOM_CONFIG_BYTES = 60_000
MAX_CHANNELS = 2

STEREO = (Channel.EXTERNAL, Channel.INTERNAL)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to connect, and what to ask for there.

    Attributes:
        host: Name or address to connect to, without brackets.
        port: TCP port.
        secure: True for TLS (``wss``).
        authority: Value of the ``Host`` header: the default port is left out.
        target: Path and query exactly as in the URI.
    """

    host: str
    port: int
    secure: bool
    authority: str
    target: str


def parse_uri(uri: str) -> Endpoint:
    """Take a connection URI apart.

    Args:
        uri: A ``ws://`` or ``wss://`` URI; path and query are kept untouched.

    Raises:
        ConfigError: It is no such URI; the text says what to write instead.
    """
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"{uri!r} is not a URI: {error}") from error
    if parts.scheme in {"http", "https"}:
        other = "wss" if parts.scheme == "https" else "ws"
        rest = uri.partition("://")[2]
        raise ConfigError(
            f"{uri!r} is a web address; AudioHook needs a WebSocket: {other}://{rest}"
        )
    if parts.scheme not in {"ws", "wss"} or not host:
        raise ConfigError(
            f"{uri!r} is not a WebSocket URI; write ws://127.0.0.1:3000/ or wss://…"
        )
    if parts.username is not None or parts.fragment:
        raise ConfigError(f"{uri!r}: a WebSocket URI has no user name and no #fragment")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not target.isascii() or not target.isprintable() or " " in target:
        raise ConfigError(f"{uri!r}: percent-encode spaces and non-ASCII characters")
    secure = parts.scheme == "wss"
    default_port = 443 if secure else 80
    port = default_port if port is None else port
    name = f"[{host}]" if ":" in host else host
    authority = name if port == default_port else f"{name}:{port}"
    return Endpoint(host, port, secure, authority, target)


def parse_span(text: str) -> tuple[float, float]:
    """Read ``AT:LENGTH``, both in seconds, as in ``--pause 2:1.5``.

    Raises:
        ConfigError: It is not two numbers, neither of them negative.
    """
    at, colon, length = text.partition(":")
    try:
        span = (float(at), float(length))
    except ValueError:
        span = (-1.0, -1.0)
    if not colon or not all(math.isfinite(value) and value >= 0 for value in span):
        raise ConfigError(f"{text!r} is not AT:LENGTH in seconds, such as 2:1.5")
    return span


def parse_channels(text: str) -> tuple[Channel, ...]:
    """Read names of channels, as they are typed.

    Args:
        text: Such as ``internal,external``.

    Raises:
        ConfigError: It names something else.
    """
    try:
        return tuple(Channel(name.strip()) for name in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"{text!r} does not name channels; for example internal,external"
        ) from error


def parse_custom_config(text: str) -> dict[str, object]:
    """Read the JSON object that Genesys passes on as ``customConfig``.

    Raises:
        ConfigError: It is not a JSON object.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"--custom-config: is not JSON ({error}); for example '{{\"a\": 1}}'"
        ) from error
    if not isinstance(value, dict):
        raise ConfigError(
            "--custom-config: is not a JSON object; for example '{\"a\": 1}'"
        )
    return value


def seconds_to_samples(seconds: float) -> int:
    """Convert seconds to the nearest whole number of samples per channel."""
    return round(seconds * SAMPLE_RATE_HZ)


def _random_id() -> str:
    return str(uuid.uuid4())


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """One simulated call.

    Times and lengths are seconds; ``at`` is a place in the stream, counted as
    ``position`` is: audio sent and gaps before it.

    Attributes:
        uri: Connection URI, ``ws://`` or ``wss://``.
        wav: Recording to play; None plays a built-in conversation.
        duration: Length of the built-in conversation.
        api_key: Sent as ``X-API-KEY``; None leaves the header out.
        client_secret: Base64 text; if given, the request is signed.
        organization_id: Tenant; random by default, as are the other ids.
        session_id: Session.
        correlation_id: Tracing id.
        conversation_id: Conversation; the nil UUID with ``probe``.
        participant_id: Participant; the nil UUID with ``probe``.
        ani: Number of the caller, sent verbatim.
        ani_name: Name of the caller.
        dnis: Number that was called.
        language: Language of ``open``; None leaves it out.
        supported_languages: Ask the server for the languages it supports.
        custom_config: JSON object for ``customConfig``; None leaves it out.
        channels: Names of the channels of the source, in its order; by
            default external then internal, or external alone for mono.
        only: Offer this channel alone, as an administrator can choose.
        frame_ms: Length of a frame of audio.
        frame_samples: Lengths of successive frames in samples per channel,
            over and over, instead of ``frame_ms``.
        frame_seed: Frames of random lengths instead of ``frame_ms``.
        fast: Stream as fast as the server takes it, instead of in real time.
        probe: Make the connection test that Genesys makes on activation.
        pauses: (at, length) of pauses on our side, such as secure pause.
        discards: (at, length) of audio that was lost on our side.
        updates: (at, language) of changes of language.
        errors: (at, code, message) of errors that we report.
        hang_up: Drop the connection at the end instead of closing the session.
        hang_up_at: Drop it there.
        reconnections: The organization has "Reconnections" enabled: a
            ``reconnect`` of the server is answered with ``close``.
        ca_file: Certificates (PEM) to trust instead of the system's.
        insecure: Trust any certificate.
        retry_attempt: Value of ``Audiohook-Retry-Attempt``.
    """

    uri: str
    wav: Path | None = None
    duration: float = 10.0
    api_key: str | None = None
    client_secret: str | None = None
    organization_id: str = field(default_factory=_random_id)
    session_id: str = field(default_factory=_random_id)
    correlation_id: str = field(default_factory=_random_id)
    conversation_id: str = field(default_factory=_random_id)
    participant_id: str = field(default_factory=_random_id)
    ani: str = "tel:+15550100"
    ani_name: str = "Simulated Caller"
    dnis: str = "tel:+15550199"
    language: str | None = "en-US"
    supported_languages: bool = False
    custom_config: Mapping[str, object] | None = None
    channels: tuple[Channel, ...] | None = None
    only: Channel | None = None
    frame_ms: int = 200
    frame_samples: tuple[int, ...] = ()
    frame_seed: int | None = None
    fast: bool = False
    probe: bool = False
    pauses: tuple[tuple[float, float], ...] = ()
    discards: tuple[tuple[float, float], ...] = ()
    updates: tuple[tuple[float, str], ...] = ()
    errors: tuple[tuple[float, int, str], ...] = ()
    hang_up: bool = False
    hang_up_at: float | None = None
    reconnections: bool = False
    ca_file: Path | None = None
    insecure: bool = False
    retry_attempt: int = 0

    def __post_init__(self) -> None:
        """Check what can be checked without opening anything.

        Raises:
            ConfigError: A value is wrong; the text names it and the mend.
        """
        parse_uri(self.uri)
        self._check_frames()
        self._check_times()
        if self.client_secret and not self.api_key:
            raise ConfigError(
                "--client-secret: a client secret needs the API key that it belongs to;"
                " for example --api-key KEY"
            )
        # Ids need not be UUIDs: a server is to be tried with wrong ones, too.
        values = {
            "API key": self.api_key or "",
            "organization id": self.organization_id,
            "session id": self.session_id,
            "correlation id": self.correlation_id,
        }
        for name, value in values.items():
            if not (value.isascii() and value.isprintable()):
                raise ConfigError(f"no header can carry the characters of the {name}")
        if self.channels is not None and sorted(set(self.channels)) != sorted(
            self.channels
        ):
            raise ConfigError(
                "--channels: cannot have the same name twice; for example"
                " --channels internal,external"
            )
        if len(json.dumps(self.custom_config)) > MAX_CUSTOM_CONFIG_BYTES:
            raise ConfigError(
                f"--custom-config: is longer than {MAX_CUSTOM_CONFIG_BYTES:,} bytes,"
                " which Genesys does not allow"
            )

    @property
    def endpoint(self) -> Endpoint:
        """Where the URI leads."""
        return parse_uri(self.uri)

    def _check_frames(self) -> None:
        most = MAX_FRAME_BYTES // MAX_CHANNELS
        if not 1 <= self.frame_ms * SAMPLE_RATE_HZ // 1000 <= most:
            raise ConfigError(
                f"--frame-ms: must be from 1 to {most * 1000 // SAMPLE_RATE_HZ}; for"
                " example --frame-ms 200"
            )
        if not all(1 <= samples <= most for samples in self.frame_samples):
            raise ConfigError(f"frames have between 1 and {most:,} samples a channel")

    def _check_times(self) -> None:
        for what, times in (
            ("--duration", [self.duration]),
            ("--pause", [value for span in self.pauses for value in span]),
            ("--discard", [value for span in self.discards for value in span]),
            ("updates", [at for at, _ in self.updates]),
            ("errors", [at for at, _, _ in self.errors]),
            ("--hang-up-at", [] if self.hang_up_at is None else [self.hang_up_at]),
        ):
            if not all(math.isfinite(value) and value >= 0 for value in times):
                raise ConfigError(f"{what}: times must be seconds from 0 on")
