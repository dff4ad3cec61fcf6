"""The API keys of a running service, as their sources have them now.

There may be two sources: the file, and a secret in AWS Secrets Manager. Each is
read by a task of its own, off the event loop, and whatever happens to it the last
good keys stay in force. A request that is refused has them looked at once more, for
a moment: somebody may have added its key just now.
"""

from __future__ import annotations

import math
import os
import random
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from audiohook.aws_secrets import fetch_secret
from audiohook.errors import ConfigError, UploadError
from audiohook.keys import check_buckets, configured_keys, label_of, parse_keys

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

    from audiohook.authentication import Authenticator
    from audiohook.keys import KeyRecord
    from audiohook.settings import Settings

SECONDS = 1.0
MINUTES = 60 * SECONDS

_FILE_INTERVAL: Final = 1 * SECONDS
# How close two looks at the file may be, however many requests ask for one.
_FILE_SPACING: Final = 0.1 * SECONDS
# A file this young may be written to again without its time showing it.
_SETTLED_NS: Final = 2_000_000_000
_SECRET_SPACING: Final = 1 * MINUTES
_SECRET_RETRY: Final = 15 * SECONDS
_SECRET_LIMIT: Final = 30 * SECONDS
# What a request may wait for newer keys.
_PATIENCE: Final = 2 * SECONDS
_MOST_WAITING: Final = 256
# A file that is being written makes no sense for a moment; nobody need know.
_TELL_AFTER: Final = 1.5 * SECONDS
# Labels of keys in one line.
_MOST_LABELS: Final = 20


class _Look:
    """One source, looked at now and then, and when somebody asks.

    Args:
        look: Looks at it once.
        pause: Returns how long to wait for the next time.
        spacing: Least time from one look to the next.
        waits: Whether who asks too soon is to wait for that time; otherwise he gets
            nothing.
    """

    def __init__(
        self,
        look: Callable[[], Awaitable[None]],
        *,
        pause: Callable[[], float],
        spacing: float,
        waits: bool,
    ) -> None:
        self._look = look
        self._pause = pause
        self._spacing = spacing
        self._waits = waits
        self._asked = trio.Event()
        self._current: trio.Event | None = None
        self._next = trio.Event()
        self._began = -math.inf

    def ask(self) -> trio.Event | None:
        """Has it looked at; returns what happens then, None if it is too soon."""
        if not self._waits and trio.current_time() - self._began < self._spacing:
            return self._current
        self._asked.set()
        return self._next

    def urge(self) -> None:
        """Has it looked at however long ago that was done last."""
        self._began = -math.inf
        self._asked.set()

    async def run(self) -> None:
        """Looks at it until cancelled."""
        while True:
            with trio.move_on_after(self._pause()):
                await self._asked.wait()
            if self._waits:
                await trio.sleep_until(max(0.0, self._began + self._spacing))
            await self.once()

    async def once(self) -> None:
        """Looks at it now."""
        self._asked = trio.Event()
        # Who asks from here on wants to know how it will be after this.
        self._current, self._next = self._next, trio.Event()
        self._began = trio.current_time()
        try:
            await self._look()
        finally:
            self._current.set()
            self._current = None


@dataclass(frozen=True, slots=True)
class _Stamp:
    """How a file was when it was read.

    Attributes:
        facts: What changes when it is written.
        settled: Whether it cannot have been written to since without a change.
    """

    facts: tuple[int, ...]
    settled: bool


class KeyRing:
    """Keeps the keys of an authenticator up to date.

    Args:
        settings: Name the sources.
        keys: What the settings and the file say at the start.
        authenticator: Gets the keys.
        log: Where lines go; none holds a key or a secret.
        fetch: Returns the content of a secret in Secrets Manager, by its name. It
            may block, and raise `ConfigError`.
        jitter: Returns numbers from 0 up to 1.
    """

    def __init__(
        self,
        settings: Settings,
        keys: Mapping[str, KeyRecord],
        authenticator: Authenticator,
        *,
        log: FilteringBoundLogger,
        fetch: Callable[[str], bytes] = fetch_secret,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._authenticator = authenticator
        self._log = log
        self._fetch = fetch
        self._jitter = jitter
        self._from_file = dict(keys)
        self._from_secret: dict[str, KeyRecord] = {}
        # Made anew only when they change, as there may be ten thousand.
        self._all: Mapping[str, KeyRecord] = self._from_file
        self._stamp: _Stamp | None = None
        self._secret_failed = False
        self._waiting = 0
        # Since when a source makes no sense, and what was told of it.
        self._trouble: dict[str, tuple[float, str]] = {}
        self._told: dict[str, str] = {}
        # What hangs keeps nobody waiting but who reads from it.
        self._disk = trio.CapacityLimiter(1)
        self._network = trio.CapacityLimiter(1)
        self._file = _Look(
            self._look_at_file,
            pause=lambda: _FILE_INTERVAL,
            spacing=_FILE_SPACING,
            waits=True,
        )
        self._secret = _Look(
            self._look_at_secret,
            pause=self._secret_pause,
            spacing=_SECRET_SPACING,
            waits=False,
        )

    @property
    def keys(self) -> Mapping[str, KeyRecord]:
        """All keys that are in force; those of the secret go before others.

        It is the same object as long as they are the same.
        """
        return self._all

    def all_keys(self) -> Mapping[str, KeyRecord]:
        """Returns all keys, for who must not pass over a bucket of theirs.

        Raises:
            UploadError: The secret was never read, so nobody knows all of them.
        """
        if self._settings.api_keys_secret is not None and not self._from_secret:
            raise UploadError(
                "the keys of API_KEYS_SECRET were not read yet, and calls may be in"
                " buckets of theirs"
            )
        return self.keys

    def take(self, settings: Settings, keys: Mapping[str, KeyRecord]) -> None:
        """Puts into force what an operator has had read again.

        Args:
            settings: Name the file from now on.
            keys: What they and the file say.
        """
        self._settings = settings
        self._stamp = None
        if keys or settings.api_keys_secret is not None:
            self._put("file", keys)
        self._secret.urge()

    async def look_again(self) -> bool:
        """Has the sources looked at because somebody was refused.

        The file is looked at at once, the secret at most once a minute. It takes two
        seconds at the longest.

        Returns:
            Whether any of them was looked at.
        """
        events = [
            event
            for wanted, look in (
                (self._settings.api_keys_file, self._file),
                (self._settings.api_keys_secret, self._secret),
            )
            if wanted is not None and (event := look.ask()) is not None
        ]
        if not events or self._waiting >= _MOST_WAITING:
            return False
        self._waiting += 1
        try:
            with trio.move_on_after(_PATIENCE):
                for event in events:
                    await event.wait()
                # One that is being written makes sense in a moment.
                while "file" in self._trouble and "file" not in self._told:
                    event = self._file.ask()
                    assert event is not None
                    await event.wait()
        finally:
            self._waiting -= 1
        return True

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Looks at the sources until cancelled.

        Args:
            task_status: Told once the secret was read, or is known not to be.

        Raises:
            ConfigError: The secret cannot be read, and there is no other key.
        """
        has_secret = self._settings.api_keys_secret is not None
        if has_secret:
            await self._secret.once()
            if not self.keys:
                _, text = self._trouble["secret"]
                raise ConfigError(text)
        async with trio.open_nursery() as nursery:
            if has_secret:
                nursery.start_soon(self._secret.run)
            nursery.start_soon(self._file.run)
            task_status.started()

    # The file

    async def _look_at_file(self) -> None:
        settings = self._settings
        if settings.api_keys_file is None:
            return
        try:
            stamp, keys = await trio.to_thread.run_sync(
                partial(_read_file, settings, settings.api_keys_file, self._stamp),
                abandon_on_cancel=True,
                limiter=self._disk,
            )
        except ConfigError as error:
            self._stamp = None
            self._fail("file", str(error))
            return
        if settings is self._settings:  # else an operator was faster
            self._stamp = stamp
            if keys is not None:
                self._put("file", keys)
            self._mend("file")

    # The secret

    def _secret_pause(self) -> float:
        pause = self._settings.api_keys_refresh
        if self._secret_failed:
            pause = min(pause, _SECRET_RETRY)
        return pause * (0.9 + self._jitter() / 5)

    async def _look_at_secret(self) -> None:
        name = self._settings.api_keys_secret or ""
        where = f"API_KEYS_SECRET: {name}"
        self._secret_failed = True
        try:
            with trio.move_on_after(_SECRET_LIMIT):
                data = await trio.to_thread.run_sync(
                    self._fetch, name, abandon_on_cancel=True, limiter=self._network
                )
                keys = parse_keys(data, where)
                check_buckets(keys, self._settings, where)
                self._put("secret", keys)
                self._secret_failed = False
                self._mend("secret")
                return
            self._fail("secret", f"{where} cannot be read (no answer)", at_once=True)
        except ConfigError as error:
            self._fail("secret", str(error), at_once=True)

    # What comes of it

    def _put(self, source: str, keys: Mapping[str, KeyRecord]) -> None:
        before = self.keys
        if source == "file":
            self._from_file = dict(keys)
        else:
            self._from_secret = dict(keys)
        after = {**self._from_file, **self._from_secret}
        if after == before:
            return
        self._all = after
        self._authenticator.replace_keys(after)
        changed = [
            key for key in after.keys() & before.keys() if after[key] != before[key]
        ]
        self._log.info(
            "keys_changed",
            source=source,
            keys=len(after),
            added=_labels(after.keys() - before.keys()),
            removed=_labels(before.keys() - after.keys()),
            changed=_labels(changed),
        )

    def _fail(self, source: str, text: str, *, at_once: bool = False) -> None:
        now = trio.current_time()
        since, _ = self._trouble.get(source, (now, ""))
        self._trouble[source] = since, text
        if self._told.get(source) != text and (at_once or now - since >= _TELL_AFTER):
            self._told[source] = text
            self._log.error(
                "keys_not_read", source=source, error=text, keys_in_force=len(self.keys)
            )

    def _mend(self, source: str) -> None:
        self._trouble.pop(source, None)
        if self._told.pop(source, None) is not None:
            self._log.info("keys_read_again", source=source, keys=len(self.keys))


def gather_keys(settings: Settings) -> dict[str, KeyRecord]:
    """Gather the keys of all sources, for who needs them once. It blocks.

    Args:
        settings: Name the sources.

    Returns:
        Those of the secret go before others, as in a running service.

    Raises:
        ConfigError: A source cannot be used. To go on without it would pass over
            the buckets and prefixes of its keys.
    """
    return {**configured_keys(settings), **secret_keys(settings)}


def known_keys(settings: Settings) -> tuple[dict[str, KeyRecord], str | None]:
    """Gather the keys of all sources, as far as that goes. It blocks.

    For who can go on without those of the secret, and has to say so.

    Args:
        settings: Name the sources.

    Returns:
        The keys, and why those of the secret are missing; None if they are not.

    Raises:
        ConfigError: The file cannot be used.
    """
    keys = configured_keys(settings)
    try:
        return {**keys, **secret_keys(settings)}, None
    except ConfigError as error:
        return keys, str(error)


async def keys_to_store_by(
    settings: Settings, *, log: FilteringBoundLogger
) -> dict[str, KeyRecord]:
    """Gather the keys for a command that stores, and goes on without the secret.

    What is in the spool is stored wherever its journal says. Without the secret only
    the tags may be missing that its days ask for, which a line in the log says.

    Args:
        settings: Name the sources.
        log: Where that line goes.

    Raises:
        ConfigError: The file cannot be used.
    """
    keys, unread = await trio.to_thread.run_sync(known_keys, settings)
    if unread is not None:
        log.error(
            "keys_not_read", source="secret", error=unread, keys_in_force=len(keys)
        )
    return keys


def secret_keys(settings: Settings) -> dict[str, KeyRecord]:
    """Read the keys in Secrets Manager; none if no secret is named. It blocks.

    Args:
        settings: Name it.

    Raises:
        ConfigError: It cannot be used.
    """
    name = settings.api_keys_secret
    if name is None:
        return {}
    where = f"API_KEYS_SECRET: {name}"
    keys = parse_keys(fetch_secret(name), where)
    check_buckets(keys, settings, where)
    return keys


def _read_file(
    settings: Settings, path: Path, known: _Stamp | None
) -> tuple[_Stamp, dict[str, KeyRecord] | None]:
    """Read the file, unless it is as it was. It blocks.

    Raises:
        ConfigError: It cannot be used.
    """
    before = _facts(path)
    if known is not None and known.settled and known.facts == before:
        return known, None
    keys = configured_keys(settings)
    # Somebody may have written to it meanwhile, or may yet in the same instant.
    age_ns = abs(time.time_ns() - before[-1]) if before else 0
    settled = bool(before) and _facts(path) == before and age_ns > _SETTLED_NS
    return _Stamp(before, settled), keys


def _facts(path: Path) -> tuple[int, ...]:
    """Return what changes when a file is written or replaced; nothing if it is gone."""
    try:
        found = os.stat(path)  # noqa: PTH116 - the same, and no object more
    except OSError:
        return ()
    return (
        found.st_dev,
        found.st_ino,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )


def _labels(keys: Iterable[str]) -> list[str]:
    return sorted(label_of(key) for key in keys)[:_MOST_LABELS]
