"""Keys and secrets that change while calls go on, and signatures made with them."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog

from audiohook import settings
from audiohook.api.tokens import Tokens
from audiohook.authentication import Authenticator
from audiohook.errors import AuthenticationError
from audiohook.keys import configured_keys
from audiohook.protocol.signature import sign
from audiohook.reload import Reloader
from tests.house import ORGANIZATION, SESSION, key_ring

if TYPE_CHECKING:
    from audiohook.settings import Settings

NOW = 1_764_000_000.0
OLD, NEW = b"the secret of last year", b"the secret of this year"


def signed(key: str, secret: bytes) -> list[tuple[bytes, bytes]]:
    headers = [
        (b"host", b"x"),
        (b"x-api-key", key.encode()),
        (b"audiohook-organization-id", ORGANIZATION.encode()),
        (b"audiohook-session-id", SESSION.encode()),
        (b"audiohook-correlation-id", SESSION.encode()),
    ]
    return headers + sign(headers, b"/", secret=secret, now=NOW)


class Door:
    """An authenticator whose keys come from a file that can be written anew."""

    def __init__(self, folder: Path, keys: dict[str, bytes | None]) -> None:
        self.file = folder / "keys.json"
        self.write(keys)
        chosen = self.read()
        self.authenticator = Authenticator(configured_keys(chosen))
        self.reloader = Reloader(
            chosen,
            self.read,
            keys=key_ring(chosen, self.authenticator),
            tokens=Tokens(None),
            log=structlog.get_logger("audiohook"),
        )

    def read(self) -> Settings:
        return settings.load(
            env_file=Path(os.devnull),
            api_keys_file=self.file,
        )

    def write(self, keys: dict[str, bytes | None]) -> None:
        text = {
            key: None if secret is None else base64.b64encode(secret).decode()
            for key, secret in keys.items()
        }
        self.file.write_text(json.dumps(text))

    def lets_in(self, key: str, secret: bytes) -> bool:
        try:
            self.authenticator.authenticate(signed(key, secret), b"/", now=NOW)
        except AuthenticationError:
            return False
        return True


async def test_keys_overlap_while_they_are_rotated(tmp_path: Path) -> None:
    door = Door(tmp_path, {"old-key": OLD})
    assert door.lets_in("old-key", OLD)
    assert not door.lets_in("new-key", NEW)
    door.write({"old-key": OLD, "new-key": NEW})
    assert not door.lets_in("new-key", NEW)
    assert await door.reloader.reload()
    assert door.lets_in("old-key", OLD)
    assert door.lets_in("new-key", NEW)
    door.write({"new-key": NEW})
    assert await door.reloader.reload()
    assert not door.lets_in("old-key", OLD)
    assert door.lets_in("new-key", NEW)


async def test_secret_of_a_key_can_change_alone(tmp_path: Path) -> None:
    door = Door(tmp_path, {"key": OLD})
    door.write({"key": NEW})
    assert await door.reloader.reload()
    assert door.lets_in("key", NEW)
    assert not door.lets_in("key", OLD)


async def test_signature_used_before_stays_used(tmp_path: Path) -> None:
    door = Door(tmp_path, {"key": OLD})
    headers = signed("key", OLD)
    door.authenticator.authenticate(headers, b"/", now=NOW)
    assert await door.reloader.reload()
    with pytest.raises(AuthenticationError) as raised:
        door.authenticator.authenticate(headers, b"/", now=NOW)
    assert raised.value.reason == "replayed"
