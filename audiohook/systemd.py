"""What a service and the service manager that runs it say to each other.

systemd is told when the service is ready, what it is doing, and that it is alive;
and it may hand over sockets that it has been listening on. All of it goes by
environment variables and datagrams, so it costs no library and does nothing
where there is no systemd.

The variables are taken out of the environment once they are read: a program that
this one starts must not speak in its name.

Source: sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3).
"""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Final

from audiohook.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_MICROSECONDS: Final = 1_000_000
_FIRST_INHERITED: Final = 3
# Changes of state that wait for the manager to have room; the newest matter.
_MOST_KEPT: Final = 8

SERVICE_SOCKETS: Final = "audiohook"
"""Name of the inherited sockets for Genesys, as in ``FileDescriptorName=``."""

ADMIN_SOCKETS: Final = "admin"
"""Name of the inherited sockets for health and metrics."""

# A manager that gives no names says "unknown".
_NAMES: Final = {
    SERVICE_SOCKETS: SERVICE_SOCKETS,
    "unknown": SERVICE_SOCKETS,
    ADMIN_SOCKETS: ADMIN_SOCKETS,
}


class Notifier:
    """Tells the service manager how the service does.

    Nothing here waits or raises: a manager that does not listen must not cost a
    call. If it has no room for a change of state, that is sent again before
    whatever comes next.

    Args:
        address: Path of its datagram socket, or ``@`` and an abstract name; None
            if there is no manager, and then nothing is sent.
        watchdog: Seconds without a `ping` after which it kills the service; None
            if it does not watch.

    Attributes:
        watchdog: As given.
    """

    def __init__(
        self, address: str | None = None, *, watchdog: float | None = None
    ) -> None:
        self.watchdog = watchdog
        self._kept: list[bytes] = []
        self._socket: socket.socket | None = None
        if address:
            self._address = "\0" + address[1:] if address[0] == "@" else address
            self._socket = socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
            )

    @classmethod
    def from_environment(
        cls, environment: MutableMapping[str, str] = os.environ
    ) -> Notifier:
        """Find the manager that started this process, if one did.

        Args:
            environment: Variables; those that are for this process are removed.

        Raises:
            ConfigError: If they make no sense.
        """
        address = environment.pop("NOTIFY_SOCKET", None) or None
        if address is not None and address[0] not in "/@":
            raise ConfigError(
                "NOTIFY_SOCKET: is neither a path nor an abstract name; for example"
                " NOTIFY_SOCKET=/run/systemd/notify"
            )
        return cls(address, watchdog=_watchdog(environment))

    @property
    def is_heard(self) -> bool:
        """Whether there is a manager to tell anything."""
        return self._socket is not None

    def ready(self, status: str) -> None:
        """Say that calls are taken, for the first time or after `reloading`.

        Args:
            status: One line for people.
        """
        self._send("READY=1", f"STATUS={status}", keep=True)

    def reloading(self) -> None:
        """Say that settings are being read again; `ready` follows."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(
            "RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=reloading", keep=True
        )

    def stopping(self, status: str) -> None:
        """Say that the service is about to end.

        Args:
            status: One line for people.
        """
        self._send("STOPPING=1", f"STATUS={status}", keep=True)

    def status(self, status: str) -> None:
        """Say what the service is doing.

        Args:
            status: One line for people.
        """
        self._send(f"STATUS={status}")

    def ping(self) -> None:
        """Say that the service is alive."""
        self._send("WATCHDOG=1")

    def extend(self, seconds: float) -> None:
        """Ask for more time to start or to stop.

        Args:
            seconds: In these at the latest, the next such request will come.
        """
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * _MICROSECONDS)}")

    def close(self) -> None:
        """Say no more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *fields: str, keep: bool = False) -> None:
        """Send a datagram, and before it those that were kept.

        Args:
            *fields: Its lines.
            keep: Whether to try it again later, if it must be; what is said every
                few seconds anyway need not be.
        """
        text = "\n".join(field.replace("\n", " ") for field in fields)
        waiting = [*self._kept, text.encode("utf-8")]
        while waiting and self._take(waiting[0]):
            del waiting[0]
        self._kept = waiting[-_MOST_KEPT:] if keep else waiting[:-1]

    def _take(self, datagram: bytes) -> bool:
        """Send a datagram, if the manager has room for it."""
        if self._socket is None:
            return True
        try:
            self._socket.sendto(datagram, self._address)
        except OSError:  # it is slow, or is being restarted itself
            return False
        return True


def inherited_sockets(
    environment: MutableMapping[str, str] = os.environ,
) -> dict[str, list[socket.socket]]:
    """Take over the sockets on which the manager listens for this process.

    To be called once. The sockets will not be inherited by child processes.

    Args:
        environment: Variables; those about sockets are removed, whoever they were
            meant for.

    Returns:
        Listening TCP sockets by `SERVICE_SOCKETS` or `ADMIN_SOCKETS`; nothing if
        none were handed over.

    Raises:
        ConfigError: If one of them cannot be used, or has a name that means
            nothing here.
    """
    for_pid = environment.pop("LISTEN_PID", None)
    count = environment.pop("LISTEN_FDS", None)
    names = environment.pop("LISTEN_FDNAMES", None)
    if count is None or for_pid != str(os.getpid()):
        return {}
    if not count.isdecimal():
        raise ConfigError("LISTEN_FDS: is not a number; for example LISTEN_FDS=1")
    numbers = range(_FIRST_INHERITED, _FIRST_INHERITED + int(count))
    named = names.split(":") if names else ["unknown"] * len(numbers)
    if len(named) != len(numbers):
        raise ConfigError(
            f"LISTEN_FDNAMES: names {len(named)} sockets and there are {count}"
        )
    found: dict[str, list[socket.socket]] = {}
    for number, name in zip(numbers, named, strict=True):
        if name not in _NAMES:
            raise ConfigError(
                "LISTEN_FDNAMES: FileDescriptorName= of a socket unit must be"
                f" {SERVICE_SOCKETS} or {ADMIN_SOCKETS}"
            )
        found.setdefault(_NAMES[name], []).append(_take_over(number))
    return found


def _take_over(number: int) -> socket.socket:
    """Make an inherited descriptor a socket of ours."""
    try:
        os.set_inheritable(number, False)
        taken = socket.socket(fileno=number)
    except OSError as error:
        raise ConfigError(
            f"LISTEN_FDS: descriptor {number} cannot be used ({error.strerror})"
        ) from error
    if (
        taken.family not in (socket.AF_INET, socket.AF_INET6)
        or taken.type != socket.SOCK_STREAM
        or not taken.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    ):
        taken.close()
        raise ConfigError(
            f"LISTEN_FDS: descriptor {number} is not a TCP socket that listens; the"
            " socket unit needs ListenStream= with a port, and Accept=no"
        )
    # It came from a program that blocks or does not; this one never does.
    taken.setblocking(False)
    return taken


def _watchdog(environment: MutableMapping[str, str]) -> float | None:
    """Return the seconds within which the manager wants a ping; None if never."""
    interval = environment.pop("WATCHDOG_USEC", None)
    for_pid = environment.pop("WATCHDOG_PID", None)
    if interval is None or (for_pid and for_pid != str(os.getpid())):
        return None
    if not interval.isdecimal() or not int(interval):
        raise ConfigError(
            "WATCHDOG_USEC: is not a number of microseconds; for example"
            " WATCHDOG_USEC=30000000"
        )
    return int(interval) / _MICROSECONDS
