"""A whole service on loopback, and calls to it."""

from __future__ import annotations

import json
import os
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
import trio

from audiohook import settings
from audiohook.key_ring import KeyRing
from audiohook.keys import configured_keys
from audiohook.protocol.messages import DisconnectReason
from audiohook.service import Service
from audiohook.simulator.client import place_call
from audiohook.simulator.options import CallOptions
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from audiohook.authentication import Authenticator
    from audiohook.simulator.report import CallReport

KEY = "SGVsbG8sIEkgYW0gdGhlIEFQSSBrZXkh"


SESSION = "22222222-2222-4222-8222-222222222222"
ORGANIZATION = "11111111-1111-4111-8111-111111111111"


def upgrade_request(
    key: bytes = b"X-API-KEY: " + KEY.encode() + b"\r\n", *, session: str = SESSION
) -> bytes:
    """Returns a request as Genesys makes it, byte for byte ours to spoil.

    Args:
        key: The header line with the API key.
        session: Session id.
    """
    return (
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        b"Audiohook-Organization-Id: " + ORGANIZATION.encode() + b"\r\n"
        b"Audiohook-Session-Id: " + session.encode() + b"\r\n"
        b"Audiohook-Correlation-Id: 33333333-3333-4333-8333-333333333333\r\n"
        + key
        + b"\r\n"
    )


@dataclass(slots=True)
class Recording:
    """What the store holds of one call."""

    folder: Path

    @property
    def facts(self) -> dict[str, Any]:
        """``call.json``."""
        return json.loads((self.folder / "call.json").read_bytes())  # type: ignore[no-any-return]

    def audio(self, ending: str) -> bytes:
        """The one file in ``audio/`` with that ending."""
        (path,) = self.folder.glob(f"audio/*{ending}")
        return path.read_bytes()


class House:
    """A running service."""

    def __init__(self, service: Service, port: int, folder: Path) -> None:
        self.service = service
        self.port = port
        self.folder = folder

    @property
    def uri(self) -> str:
        return f"ws://127.0.0.1:{self.port}/api/v1/audiohook?tenant=a%20b"

    async def call(self, **options: Any) -> CallReport:  # noqa: ANN401
        """Makes one simulated call, as fast as it goes unless told otherwise."""
        options = {"uri": self.uri, "api_key": KEY, "fast": True, **options}
        return await place_call(CallOptions(**options))

    @asynccontextmanager
    async def live_call(self) -> AsyncIterator[None]:
        """Has a call for as long as the block lasts, however slow the machine is.

        Then its peer is asked to close it, which it does.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: self.call(duration=600.0, fast=False))
            await self.wait_streaming()
            (call,) = self.service.desk.live_calls()
            yield
            call.disconnect(DisconnectReason.COMPLETED, "enough")

    async def settle(self) -> None:
        """Waits until no call is live and each was brought to the store."""
        await wait_until(lambda: not self.service.statistics().live)
        await wait_until(self._all_delivered)

    async def wait_streaming(self, calls: int = 1) -> None:
        """Waits until the pump reads that many calls."""
        await wait_until(lambda: self.service.statistics().pump.lanes >= calls)

    async def wait_heard(self, calls: int = 1) -> None:
        """Waits until there is audio of so many live calls."""
        live = self.service.desk._live

        def heard() -> bool:
            return sum(call._lane.audio_bytes > 0 for call in live) >= calls

        await wait_until(heard)

    def _all_delivered(self) -> bool:
        deliveries = self.service.statistics().deliveries
        return not deliveries.waiting and not deliveries.active

    def recordings(self) -> list[Recording]:
        return [Recording(p) for p in sorted(self.folder.glob("calls/*"))]

    def spooled(self) -> list[Path]:
        return [p for p in (self.folder / ".spool").glob("*-*-*-*-*") if p.is_dir()]


def make_service(
    folder: Path, clock: Callable[[], float] = time.time, **flags: object
) -> Service:
    chosen = settings.load(
        env_file=Path(os.devnull),
        **{
            "port": 0,
            "host": "127.0.0.1",
            "admin_port": 0,
            "api_key": KEY,
            "recordings_dir": folder,
            "ingest_interval": 0.02,
            "spool_places": 0,
            **flags,
        },
    )
    keys = configured_keys(chosen)
    return Service(chosen, keys, log=structlog.get_logger("audiohook"), clock=clock)


def key_ring(chosen: settings.Settings, authenticator: Authenticator) -> KeyRing:
    """Returns what gives an authenticator the keys that settings name."""
    log = structlog.get_logger("audiohook")
    return KeyRing(chosen, configured_keys(chosen), authenticator, log=log)


@asynccontextmanager
async def house(
    folder: Path, clock: Callable[[], float] = time.time, **flags: object
) -> AsyncIterator[House]:
    """Runs a service while the block lasts; it is cancelled at the end."""
    service = make_service(folder, clock, **flags)
    async with trio.open_nursery() as nursery:
        port = await nursery.start(service.run)
        yield House(service, port, folder)
        nursery.cancel_scope.cancel()
