"""Where settings are found, beside the environment: ``.env`` and systemd's credentials."""

from __future__ import annotations

import contextlib
import difflib
import grp
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dotenv.parser import parse_stream
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
)

from audiohook.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection

    from dotenv.parser import Original
    from pydantic.fields import FieldInfo

# 0.8 takes S3_PREFIX for S3_KEY_PREFIX, but not HOSTNAME for HOST.
_LOOKS_LIKE = 0.8
# What a credential of these names holds is the file's content, so the setting,
# a path, is where the credential lies.
_FILE_SETTINGS = frozenset(
    {
        "ALLOW_FROM_FILE",
        "ADMIN_CLIENT_CA",
        "API_KEYS_FILE",
        "API_TOKENS_FILE",
        "ASSEMBLYAI_PARAMS_FILE",
        "TLS_CERTIFICATE",
        "TLS_KEY",
    }
)


def name_of(attribute: str, info: FieldInfo) -> str:
    """Return the name under which a setting is looked for."""
    alias = info.validation_alias
    return alias if isinstance(alias, str) else attribute.upper()


class EnvFile(NamedTuple):
    """What a file of settings says.

    Attributes:
        values: All names with their values as they stand, foreign ones among them.
        faults: A line on each thing that is wrong with it.
    """

    values: dict[str, str]
    faults: list[str]


def read_env_file(path: Path, known: Collection[str]) -> EnvFile:
    """Read ``.env``.

    pydantic-settings would read it too, but would pass over lines that it
    cannot read and names that it does not know, and replace ``${NAME}`` in
    values, which a secret may well hold.

    Args:
        path: The file; it may be absent.
        known: Names of our settings.

    Returns:
        What it says. Lines that cannot be read and names that look like a setting
        misspelt are faults.

    Raises:
        ConfigError: If the file cannot be read.
    """
    try:
        # An editor of another system may have put a mark in front of the text.
        with path.open(encoding="utf-8-sig") as file:
            bindings = list(parse_stream(file))
    except FileNotFoundError:
        return EnvFile({}, [])
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}){_mend(path, error)}"
        ) from error
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text") from None
    values: dict[str, str] = {}
    faults: list[str] = []
    for binding in bindings:
        if binding.key and binding.value is not None:
            values[binding.key] = binding.value
        elif binding.error or binding.key:
            faults.append(
                f"{path}: line {_first_line(binding.original)} is not of the form"
                " NAME=value; for example PORT=3000"
            )
    for name in values:
        if name in known or name.startswith("AWS_"):
            continue
        if meant := resembles(name, known):
            faults.append(f"{name}: is not a setting ({path}); did you mean {meant}?")
    return EnvFile(values, faults)


def _mend(path: Path, error: OSError) -> str:
    """Say what lets this process read a file; nothing if it is no matter of rights."""
    if not isinstance(error, PermissionError):
        return ""
    group = os.getegid()
    with contextlib.suppress(KeyError):
        return (
            "; hand it to the group that this runs as: chgrp"
            f" {grp.getgrgid(group).gr_name} {path} && chmod 640 {path}"
        )
    return f"; let the group {group}, which this runs as, read it"


def resembles(name: str, known: Collection[str]) -> str | None:
    """Return the setting that a name is most likely meant for; None if it is none.

    Args:
        name: The name.
        known: Names of our settings.
    """
    close = difflib.get_close_matches(name.upper(), known, n=1, cutoff=_LOOKS_LIKE)
    return close[0] if close else None


class Credentials(PydanticBaseSettingsSource):
    """systemd's credentials: one file a setting, its name in either case.

    Of the settings that are files themselves, the credential is that file.

    Source: systemd.exec(5), LoadCredential=.
    """

    def __init__(
        self, settings_cls: type[BaseSettings], source: PydanticBaseSettingsSource
    ) -> None:
        super().__init__(settings_cls)
        # What BaseSettings makes of `_secrets_dir`; only the path is wanted.
        assert isinstance(source, SecretsSettingsSource)
        assert isinstance(source.secrets_dir, str | None)
        self._folder = Path(source.secrets_dir) if source.secrets_dir else None

    def get_field_value(
        self, field: FieldInfo, field_name: str
    ) -> tuple[Any, str, bool]:
        """Return the value of a setting, and its name."""
        name = name_of(field_name, field)
        return self._find(name), name, False

    def __call__(self) -> dict[str, Any]:
        """Return all values that there are, by name."""
        found: dict[str, Any] = {}
        for attribute, info in self.settings_cls.model_fields.items():
            value, name, _ = self.get_field_value(info, attribute)
            if value:
                found[name] = value
        return found

    def _find(self, name: str) -> str | None:
        if self._folder is None:
            return None
        try:
            for path in (self._folder / name, self._folder / name.lower()):
                if not path.is_file():
                    continue
                if name in _FILE_SETTINGS:
                    return str(path)
                return path.read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            raise ConfigError(
                f"{name}: credential cannot be read ({error.strerror})"
            ) from error
        except UnicodeDecodeError:
            raise ConfigError(f"{name}: credential is not UTF-8 text") from None
        return None


def _first_line(original: Original) -> int:
    """Number the line of a binding, which may have blank lines before it."""
    text = original.string
    return original.line + text[: len(text) - len(text.lstrip())].count("\n")
