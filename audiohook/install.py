"""Writes systemd's units for this installation of the package.

The units lie in the package as they would be for an installation in
``/opt/audiohook``; what differs here is put in. Nothing is run: what is to be
typed next is told.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final

import audiohook
from audiohook.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

UNITS_FOLDER: Final = Path("etc/systemd/system")
USERS_FOLDER: Final = Path("etc/sysusers.d")
SYSCTL_FOLDER: Final = Path("etc/sysctl.d")
# Where sudo and root look, before whoever else has an audiohook.
COMMAND_PATH: Final = Path("usr/local/sbin/audiohook")

SERVICE: Final = "audiohook.service"
TEMPLATE: Final = "audiohook@.service"
SOCKET: Final = "audiohook.socket"
USERS: Final = "audiohook.conf"
COMMAND: Final = "audiohook.sh"
SYSCTL: Final = "audiohook.sysctl.conf"

# What the units say where an installation may differ.
_EXECUTABLE: Final = "/opt/audiohook/bin/audiohook"
_ENV_FILE: Final = "/etc/audiohook/audiohook.env"
_STATE: Final = "/var/lib/audiohook"
_PORT: Final = 3000

# Source: systemd.syntax(7); anything else would have to be quoted or escaped.
_PLAIN_PATH: Final = re.compile(r"/[A-Za-z0-9/._+@:-]+")
_NAME: Final = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
# The unit hides these from the service.
_HIDDEN: Final = tuple(map(Path, ("/home", "/root", "/run/user", "/tmp", "/var/tmp")))  # noqa: S108 - not to be used
# Ports of health and metrics are 9090 to 9099.
_MOST_INSTANCES: Final = 10
_MODE: Final = 0o644
_COMMAND_MODE: Final = 0o755


@dataclass(frozen=True, slots=True)
class Installation:
    """What the units are to say.

    Attributes:
        executable: The command ``audiohook``.
        user: Whom the service runs as; the group has the same name.
        state: Name of its folder below ``/var/lib``.
        env_file: Settings, as ``NAME=value``.
        port: Where the socket unit listens.
        instances: How many share a port; 0 for one that has its own, from the
            socket unit.

    Raises:
        ConfigError: If one of them cannot be.
    """

    executable: Path = field(default_factory=lambda: own_executable())
    user: str = "audiohook"
    state: str = "audiohook"
    env_file: Path = Path(_ENV_FILE)
    port: int = _PORT
    instances: int = 0

    def __post_init__(self) -> None:
        for option, path in (
            ("executable", self.executable),
            ("--env-file", self.env_file),
        ):
            if not _PLAIN_PATH.fullmatch(str(path)):
                raise ConfigError(
                    f"{option}: {path} is not an absolute path of letters, digits and"
                    " / . _ + @ : - only; for example /opt/audiohook"
                )
        for option, name in (("--user", self.user), ("--state", self.state)):
            if not _NAME.fullmatch(name):
                raise ConfigError(
                    f"{option}: may hold small letters, digits, _ and - only, and must"
                    " begin with a letter; for example audiohook"
                )
        if not 1 <= self.port <= 0xFFFF:
            raise ConfigError("--port: must be from 1 to 65535; for example 3000")
        if not 0 <= self.instances <= _MOST_INSTANCES:
            raise ConfigError(
                f"--instances: must be from 0 to {_MOST_INSTANCES}; for example 2"
            )
        if self.instances and self.port != _PORT:
            raise ConfigError(
                f"--port: instances share the PORT that {self.env_file} names"
            )

    def files(self) -> dict[Path, str]:
        """Return what to write, by paths relative to the root of the machine."""
        units = (TEMPLATE,) if self.instances else (SERVICE, SOCKET)
        found = {UNITS_FOLDER / name: self._render(name) for name in units}
        found[USERS_FOLDER / f"{self.user}.conf"] = self._render(USERS)
        found[COMMAND_PATH] = self._render(COMMAND)
        if self.instances:
            found[SYSCTL_FOLDER / f"{self.user}.conf"] = self._render(SYSCTL)
        return found

    def next_steps(self, root: Path = Path("/")) -> list[str]:
        """Return the commands that are to follow, for a person to type.

        Args:
            root: Root of the machine, where units of the other kind may lie: they
                would have the port.
        """
        settle = []
        if self.instances:
            # Without braces, which not every shell knows.
            units = " ".join(f"audiohook@{n}.service" for n in range(self.instances))
            settle.append(f"sysctl -p /{SYSCTL_FOLDER / self.user}.conf")
            others = SOCKET
            make_room = [f"systemctl disable --now {SOCKET} {SERVICE}"]
        else:
            units = f"{SOCKET} {SERVICE}"
            others = TEMPLATE
            make_room = [
                "systemctl stop 'audiohook@*.service'",
                f"systemctl disable {TEMPLATE}",
            ]
        if not (root / UNITS_FOLDER / others).exists():
            make_room = []
        file = self.env_file
        return [
            f"systemd-sysusers {self.user}.conf",
            f"install -d -m 0750 -g {self.user} {file.parent}",
            f"test -e {file} || install -m 0640 -g {self.user} /dev/null {file}",
            f"editor {file}",
            # By its path: a root shell of `su` does not look there.
            f"/{COMMAND_PATH} check",
            *settle,
            "systemctl daemon-reload",
            *make_room,
            f"systemctl enable --now {units}",
        ]

    def _render(self, name: str) -> str:
        text = (files("audiohook") / "units" / name).read_text(encoding="utf-8")
        for old, new in self._changes():
            text = text.replace(old, new)
        return text

    def _changes(self) -> Iterator[tuple[str, str]]:
        """Yield what in the units gives way to what."""
        yield _EXECUTABLE, str(self.executable)
        yield _ENV_FILE, str(self.env_file)
        yield f"ListenStream={_PORT}", f"ListenStream={self.port}"
        yield "User=audiohook\nGroup=audiohook", f"User={self.user}\nGroup={self.user}"
        yield "u audiohook -", f"u {self.user} -"
        yield _STATE, f"/var/lib/{self.state}"
        yield "StateDirectory=audiohook", f"StateDirectory={self.state}"
        yield "%S/audiohook", f"%S/{self.state}"
        yield "--uid=audiohook --gid=audiohook", f"--uid={self.user} --gid={self.user}"


def own_executable() -> Path:
    """Find the command ``audiohook`` that belongs to the running Python.

    Raises:
        ConfigError: If there is none.
    """
    path = Path(sys.executable).parent / "audiohook"
    if not os.access(path, os.X_OK):
        raise ConfigError(
            f"executable: there is no {path}; install the package with pip, and use"
            " its own command"
        )
    return path


def check_reachable(installation: Installation) -> None:
    """Check that the service will be able to read its program.

    Raises:
        ConfigError: If part of it lies where the units let nobody look.
    """
    needed = (
        installation.executable,
        Path(sys.prefix),
        Path(sys.executable).resolve(),
        Path(audiohook.__file__).resolve(),
    )
    for path in needed:
        for hidden in _HIDDEN:
            if path.is_relative_to(hidden):
                raise ConfigError(
                    f"executable: {path} is below {hidden}, which the service cannot"
                    " see; install the package elsewhere, for example in the folder of its"
                    " source: python3 -m venv /opt/audiohook &&"
                    " /opt/audiohook/bin/pip install ."
                )


def write(installation: Installation, root: Path) -> list[Path]:
    """Write the units; those that are there are replaced.

    Args:
        installation: What they are to say.
        root: Root of the machine; another folder to make a package.

    Returns:
        What was written.

    Raises:
        ConfigError: If a file cannot be written; those before it are.
    """
    written = []
    for relative, text in installation.files().items():
        path = root / relative
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, text, _COMMAND_MODE if relative == COMMAND_PATH else _MODE)
        except OSError as error:
            raise ConfigError(
                f"{path}: cannot be written ({error.strerror}); try again with sudo,"
                " or look at the units with --dry-run"
            ) from error
        written.append(path)
    return written


def _replace(path: Path, text: str, mode: int) -> None:
    """Write a file that is never seen half written."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(descriptor, mode)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
