"""What can change while the service runs: keys, tokens, certificate, log level.

Calls that are open keep what they were opened with. Everything is read and
checked before anything changes, so that a mistake in one of the files leaves all
as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from audiohook import logs
from audiohook.api.tokens import read_tokens_file
from audiohook.errors import ConfigError
from audiohook.keys import configured_keys
from audiohook.settings import Settings
from audiohook.tls import make_admin_tls_context, make_tls_context, renewable

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping, Sequence

    from structlog.typing import FilteringBoundLogger

    from audiohook.api.tokens import Token, Tokens
    from audiohook.key_ring import KeyRing
    from audiohook.keys import KeyRecord

_RELOADED: Final = frozenset(
    {
        "api_key",
        "client_secret",
        "api_keys_file",
        "api_tokens_file",
        "tls_certificate",
        "tls_key",
        "log_level",
    }
)
# They went into the environment at the start, and come from there since.
_ENVIRONMENT_PREFIX: Final = "aws_"


@dataclass(frozen=True, slots=True)
class _Fresh:
    settings: Settings
    keys: Mapping[str, KeyRecord]
    tokens: Sequence[Token] | None
    tls: ssl.SSLContext | None
    admin_tls: ssl.SSLContext | None


class Reloader:
    """Puts into force what files say now.

    Args:
        settings: What the service runs with.
        read: Finds the settings anew. It may block, and raise `ConfigError`.
        keys: Gets the keys.
        tokens: Gets the tokens of the API.
        log: Where lines go.

    Raises:
        ConfigError: The certificate or its key cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        read: Callable[[], Settings],
        *,
        keys: KeyRing,
        tokens: Tokens,
        log: FilteringBoundLogger,
    ) -> None:
        self._settings = settings
        self._read = read
        self._keys = keys
        self._tokens = tokens
        self._log = log
        self._tls = make_tls_context(settings)
        self._admin_tls = make_admin_tls_context(settings)
        self._lock = trio.Lock()
        # Files may lie on a disk that hangs, which is to keep nobody else waiting.
        self._limiter = trio.CapacityLimiter(1)

    @property
    def tls_context(self) -> Callable[[], ssl.SSLContext] | None:
        """Gives the settings for the next connection; None if there is no TLS."""
        return None if self._tls is None else self._current_tls

    def admin_tls_context(self) -> ssl.SSLContext | None:
        """Makes what the admin port speaks TLS by; None if it does not."""
        first = make_admin_tls_context(self._settings)
        return None if first is None else renewable(first, self._current_admin_tls)

    async def reload(self) -> bool:
        """Reads everything again, and puts it into force if all of it is good.

        Returns:
            Whether it was. If not, one line in the log says why, and nothing has
            changed.
        """
        async with self._lock:
            try:
                fresh = await trio.to_thread.run_sync(
                    self._read_all, limiter=self._limiter
                )
            except ConfigError as error:
                text = "; ".join(str(error).splitlines())
                self._log.error("reload_failed", error=text)
                return False
            except Exception:  # noqa: BLE001 - the edge: it must not cost a call
                self._log.exception("reload_failed")
                return False
            self._apply(fresh)
            return True

    def _read_all(self) -> _Fresh:
        settings = self._read()
        keys = configured_keys(settings)
        secret_only = settings.api_keys_secret is not None
        if not keys and not secret_only and _names_keys(self._settings):
            raise ConfigError(
                "API_KEY: is not set any more, and neither is API_KEYS_FILE; nobody"
                " could connect"
            )
        tls = make_tls_context(settings)
        if (tls is None) != (self._tls is None):
            raise ConfigError(
                "TLS_CERTIFICATE: TLS can be begun or ended by a restart only"
            )
        return _Fresh(
            settings,
            keys,
            configured_tokens(settings),
            tls,
            make_admin_tls_context(settings),
        )

    def _apply(self, fresh: _Fresh) -> None:
        self._keys.take(fresh.settings, fresh.keys)
        self._tokens.replace(fresh.tokens)
        self._tls = fresh.tls
        if fresh.admin_tls is not None:
            self._admin_tls = fresh.admin_tls
        logs.set_level(logs.LEVELS[fresh.settings.log_level])
        self._log.info(
            "reloaded", keys=len(fresh.keys), log_level=fresh.settings.log_level
        )
        if names := _changed(self._settings, fresh.settings):
            self._log.warning("restart_needed", settings=names)

    def _current_admin_tls(self) -> ssl.SSLContext:
        assert self._admin_tls is not None
        return self._admin_tls

    def _current_tls(self) -> ssl.SSLContext:
        assert self._tls is not None
        return self._tls


def configured_tokens(settings: Settings) -> Sequence[Token] | None:
    """Read the tokens of the API that the settings name; None if they name none.

    Blocking.

    Raises:
        ConfigError: The file cannot be used.
    """
    path = settings.api_tokens_file
    return None if path is None else read_tokens_file(path)


def _names_keys(settings: Settings) -> bool:
    """Tell whether an operator has named any API key."""
    return settings.api_key is not None or settings.api_keys_file is not None


def _changed(old: Settings, new: Settings) -> list[str]:
    """Return the names of settings that differ and take effect at a start only."""
    return [
        name.upper()
        for name in Settings.model_fields
        if name not in _RELOADED
        and not name.startswith(_ENVIRONMENT_PREFIX)
        and getattr(old, name) != getattr(new, name)
    ]
