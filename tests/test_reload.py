from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog
import trio
import trio.testing

from audiohook import logs, settings
from audiohook.api.tokens import Tokens
from audiohook.authentication import Authenticator
from audiohook.errors import AuthenticationError, ConfigError
from audiohook.keys import KeyRecord, configured_keys
from audiohook.reload import Reloader
from tests.house import KEY, ORGANIZATION, SESSION, key_ring
from tests.test_tls import client_context, shake_hands, write_pair

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

OLD, NEW = "b2xkIGtleQ==", "bmV3IGtleQ=="


@pytest.fixture(autouse=True)
def level_of_before() -> Iterator[None]:
    """Levels of loggers outlive a test."""
    loggers = (logging.getLogger(), logging.getLogger(logs.OWN_LOGGERS))
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


class Machine:
    """Files of an operator, and what reads them."""

    def __init__(self, folder: Path, *, tls: bool = False) -> None:
        self.folder = folder
        self.flags: dict[str, object] = {"api_keys_file": folder / "keys.json"}
        self.write_keys(OLD)
        if tls:
            chain, key = write_pair(folder)
            self.flags |= {"tls_certificate": chain, "tls_key": key}
        chosen = self.read()
        self.authenticator = Authenticator(configured_keys(chosen))
        self.reloader = Reloader(
            chosen,
            lambda: self.read(),
            keys=key_ring(chosen, self.authenticator),
            tokens=Tokens(None),
            log=structlog.get_logger("audiohook"),
        )

    def write_keys(self, *keys: str) -> None:
        self.write_keys_text(json.dumps(dict.fromkeys(keys)))

    def write_keys_text(self, text: str) -> None:
        (self.folder / "keys.json").write_text(text)

    def read(self) -> settings.Settings:
        return settings.load(env_file=Path(os.devnull), **self.flags)

    def admitted(self) -> set[str]:
        """Returns which of both keys get in."""
        return {key for key in (OLD, NEW) if self._admits(key)}

    def _admits(self, key: str) -> bool:
        headers = [
            (b"x-api-key", key.encode()),
            (b"audiohook-organization-id", ORGANIZATION.encode()),
            (b"audiohook-session-id", SESSION.encode()),
            (b"audiohook-correlation-id", SESSION.encode()),
        ]
        try:
            self.authenticator.authenticate(headers, b"/", now=0.0)
        except AuthenticationError:
            return False
        return True


async def test_keys_are_exchanged(tmp_path: Path, lines: list[Any]) -> None:
    machine = Machine(tmp_path)
    assert machine.admitted() == {OLD}
    machine.write_keys(OLD, NEW)
    assert await machine.reloader.reload()
    assert machine.admitted() == {OLD, NEW}
    machine.write_keys(NEW)
    assert await machine.reloader.reload()
    assert machine.admitted() == {NEW}
    assert [line["keys"] for line in lines if line["event"] == "reloaded"] == [2, 1]
    assert OLD not in str(lines)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "is not JSON"),
        ("{}", "holds no key"),
        ('{"no spaces please": null}', "entry 1: the key is not of the form"),
        (f'{{"{NEW}": "?"}}', "the secret is not base64"),
    ],
)
async def test_file_with_a_mistake_leaves_all_as_it_was(
    tmp_path: Path, lines: list[Any], text: str, why: str
) -> None:
    machine = Machine(tmp_path)
    machine.flags["log_level"] = "debug"
    machine.write_keys_text(text)
    level = logging.getLogger(logs.OWN_LOGGERS).level
    assert not await machine.reloader.reload()
    assert machine.admitted() == {OLD}
    assert logging.getLogger(logs.OWN_LOGGERS).level == level
    (line,) = lines
    assert (line["event"], line["log_level"]) == ("reload_failed", "error")
    assert why in line["error"]
    assert NEW not in line["error"]
    # And it can be mended.
    machine.write_keys(NEW)
    assert await machine.reloader.reload()
    assert machine.admitted() == {NEW}


async def test_file_that_is_gone_leaves_all_as_it_was(
    tmp_path: Path, lines: list[Any]
) -> None:
    machine = Machine(tmp_path)
    (tmp_path / "keys.json").unlink()
    assert not await machine.reloader.reload()
    assert machine.admitted() == {OLD}
    assert "No such file" in lines[0]["error"]


async def test_several_mistakes_are_one_line(tmp_path: Path, lines: list[Any]) -> None:
    machine = Machine(tmp_path)
    machine.flags |= {"drain_timeout": -1, "log_level": "loud"}
    assert not await machine.reloader.reload()
    (line,) = lines
    assert "DRAIN_TIMEOUT" in line["error"]
    assert "LOG_LEVEL" in line["error"]
    assert "\n" not in line["error"]


async def test_last_key_cannot_be_taken_away(tmp_path: Path, lines: list[Any]) -> None:
    machine = Machine(tmp_path)
    del machine.flags["api_keys_file"]
    assert not await machine.reloader.reload()
    assert machine.admitted() == {OLD}
    assert lines[0]["error"].startswith("API_KEY: is not set any more")


async def test_key_that_was_made_up_stays(lines: list[Any], tmp_path: Path) -> None:
    """Without any key in the settings there is one that was shown to a person."""
    authenticator = Authenticator({OLD: KeyRecord()})
    chosen = settings.load(env_file=Path(os.devnull))
    reloader = Reloader(
        chosen,
        lambda: chosen,
        keys=key_ring(chosen, authenticator),
        tokens=Tokens(None),
        log=structlog.get_logger("audiohook"),
    )
    machine = Machine(tmp_path)
    machine.authenticator = authenticator
    assert await reloader.reload()
    assert machine.admitted() == {OLD}


async def test_fault_of_ours_costs_no_call(tmp_path: Path, lines: list[Any]) -> None:
    machine = Machine(tmp_path)

    def fail() -> settings.Settings:
        raise RuntimeError("a bug")

    machine.read = fail  # type: ignore[method-assign]  # by a test
    assert not await machine.reloader.reload()
    assert machine.admitted() == {OLD}
    assert lines[0]["event"] == "reload_failed"


async def test_log_level_is_taken_up(tmp_path: Path, lines: list[Any]) -> None:
    machine = Machine(tmp_path)
    machine.flags["log_level"] = "debug"
    assert await machine.reloader.reload()
    assert logging.getLogger(logs.OWN_LOGGERS).level == logging.DEBUG
    # Libraries are not heard the more for it.
    assert logging.getLogger().level == logging.WARNING
    machine.flags["log_level"] = "error"
    assert await machine.reloader.reload()
    assert logging.getLogger(logs.OWN_LOGGERS).level == logging.ERROR
    assert logging.getLogger().level == logging.ERROR


async def test_what_takes_a_restart_is_named(tmp_path: Path, lines: list[Any]) -> None:
    machine = Machine(tmp_path)
    machine.flags |= {"max_calls": 7, "s3_bucket": "elsewhere"}
    assert await machine.reloader.reload()
    (line,) = [line for line in lines if line["event"] == "restart_needed"]
    assert line["settings"] == ["S3_BUCKET", "MAX_CALLS"]


# The certificate.


def serial(context: ssl.SSLContext) -> object:
    """Returns what tells a server's certificate from others."""
    certificate = shake_hands(context, client_context()).getpeercert()
    assert certificate
    return certificate["serialNumber"]


async def test_certificate_is_exchanged_for_the_next_connection(
    tmp_path: Path, lines: list[Any]
) -> None:
    machine = Machine(tmp_path, tls=True)
    current = machine.reloader.tls_context
    assert current is not None
    before = current()
    write_pair(tmp_path)
    assert serial(current()) == serial(before)
    assert await machine.reloader.reload()
    assert serial(current()) != serial(before)


async def test_certificate_without_its_key_leaves_all_as_it_was(
    tmp_path: Path, lines: list[Any]
) -> None:
    machine = Machine(tmp_path, tls=True)
    current = machine.reloader.tls_context
    assert current is not None
    before = current()
    other, _ = write_pair(tmp_path, "other")
    # The two of them cannot be exchanged in one go.
    (tmp_path / "a.pem").write_bytes(other.read_bytes())
    machine.write_keys(NEW)
    assert not await machine.reloader.reload()
    assert current() is before
    assert machine.admitted() == {OLD}
    assert lines[0]["error"].startswith("TLS_CERTIFICATE: cannot be used with TLS_KEY")


@pytest.mark.parametrize("began_with_tls", [True, False])
async def test_tls_is_neither_begun_nor_ended(
    tmp_path: Path, lines: list[Any], began_with_tls: bool
) -> None:
    machine = Machine(tmp_path, tls=began_with_tls)
    if began_with_tls:
        del machine.flags["tls_certificate"], machine.flags["tls_key"]
    else:
        chain, key = write_pair(tmp_path)
        machine.flags |= {"tls_certificate": chain, "tls_key": key}
    machine.write_keys(NEW)
    assert not await machine.reloader.reload()
    assert machine.admitted() == {OLD}
    assert lines[0]["error"] == (
        "TLS_CERTIFICATE: TLS can be begun or ended by a restart only"
    )
    assert (machine.reloader.tls_context is not None) is began_with_tls


def test_start_with_a_certificate_that_cannot_be_used_is_one_line(
    tmp_path: Path,
) -> None:
    pem = tmp_path / "x.pem"
    pem.write_text("nonsense")
    chosen = settings.load(
        env_file=Path(os.devnull), api_key=KEY, tls_certificate=pem, tls_key=pem
    )
    with pytest.raises(ConfigError, match=r"^TLS_CERTIFICATE: cannot be used"):
        Reloader(
            chosen,
            lambda: chosen,
            keys=key_ring(chosen, Authenticator({KEY: KeyRecord()})),
            tokens=Tokens(None),
            log=structlog.get_logger("audiohook"),
        )


# One after the other, and off the loop.


async def test_disk_that_hangs_holds_up_nobody_and_the_last_word_counts(
    tmp_path: Path, lines: list[Any]
) -> None:
    machine = Machine(tmp_path)
    read, waiting, go_on = machine.read, threading.Event(), threading.Event()

    def hang() -> settings.Settings:
        chosen = read()
        waiting.set()
        assert go_on.wait(30)
        return chosen

    machine.read = hang  # type: ignore[method-assign]  # by a test
    async with trio.open_nursery() as nursery:
        machine.write_keys(OLD, NEW)
        nursery.start_soon(machine.reloader.reload)
        await trio.to_thread.run_sync(waiting.wait, 30)
        # The loop goes on, and what comes meanwhile waits for its turn.
        machine.read = read  # type: ignore[method-assign]  # by a test
        machine.write_keys(NEW)
        nursery.start_soon(machine.reloader.reload)
        await trio.testing.wait_all_tasks_blocked()
        assert machine.admitted() == {OLD}
        go_on.set()
    assert machine.admitted() == {NEW}
    assert [line["keys"] for line in lines if line["event"] == "reloaded"] == [1, 1]
