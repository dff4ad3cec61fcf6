from __future__ import annotations

import fcntl
import os
import re
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from audiohook.errors import ConfigError
from audiohook.systemd import Notifier, inherited_sockets
from tests.forked import type_all
from tests.test_cli import clean_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Listen = Callable[..., socket.socket]


class Manager:
    """Listens as systemd does."""

    def __init__(self, address: str, receive_bytes: int | None = None) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        if receive_bytes is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self._socket.bind("\0" + address[1:] if address[0] == "@" else address)
        self._socket.setblocking(False)

    def heard(self) -> list[str]:
        """Returns what has come since the last time."""
        found = []
        while True:
            try:
                found.append(self._socket.recv(65_536).decode())
            except BlockingIOError:
                return found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    address = f"@audiohook-{os.getpid()}-{tmp_path.name}"
    if request.param == "path":
        address = str(tmp_path / "notify")
    manager = Manager(address)
    yield manager
    manager.close()


# Telling.


def test_everything_is_told_line_by_line(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "clock_gettime_ns", lambda _: 12_345_678)
    notifier = Notifier(manager.address)
    notifier.ready("3 calls live")
    notifier.reloading()
    notifier.status("busy")
    notifier.ping()
    notifier.extend(1.5)
    notifier.stopping("draining")
    notifier.close()
    assert manager.heard() == [
        "READY=1\nSTATUS=3 calls live",
        "RELOADING=1\nMONOTONIC_USEC=12345\nSTATUS=reloading",
        "STATUS=busy",
        "WATCHDOG=1",
        "EXTEND_TIMEOUT_USEC=1500000",
        "STOPPING=1\nSTATUS=draining",
    ]


def test_status_cannot_say_anything_else(manager: Manager) -> None:
    notifier = Notifier(manager.address)
    notifier.status("one\nMAINPID=1")
    notifier.close()
    assert manager.heard() == ["STATUS=one MAINPID=1"]


def test_nothing_is_told_to_nobody() -> None:
    notifier = Notifier()
    assert not notifier.is_heard
    notifier.ready("")
    notifier.ping()
    notifier.close()
    notifier.close()


def test_manager_that_is_gone_costs_nothing_and_gets_the_changes_when_it_is_back(
    tmp_path: Path,
) -> None:
    address = str(tmp_path / "notify")
    first = Manager(address)
    notifier = Notifier(address)
    first.close()
    (tmp_path / "notify").unlink()
    notifier.ready("ready")
    notifier.status("missed")
    notifier.ping()
    notifier.stopping("stopping")
    second = Manager(address)
    notifier.ping()
    assert second.heard() == [
        "READY=1\nSTATUS=ready",
        "STOPPING=1\nSTATUS=stopping",
        "WATCHDOG=1",
    ]
    notifier.close()
    second.close()


def test_full_queue_never_waits_and_changes_come_after_it(tmp_path: Path) -> None:
    manager = Manager(str(tmp_path / "notify"))
    notifier = Notifier(manager.address)
    # The kernel lets some 10 datagrams lie, net.unix.max_dgram_qlen, or 512.
    for _ in range(2000):
        notifier.ping()
    notifier.stopping("stopping")
    taken = manager.heard()
    assert set(taken) == {"WATCHDOG=1"}
    assert 0 < len(taken) < 2000
    notifier.status("later")
    assert manager.heard() == ["STOPPING=1\nSTATUS=stopping", "STATUS=later"]
    notifier.close()
    manager.close()


def test_no_more_changes_are_kept_than_matter(tmp_path: Path) -> None:
    notifier = Notifier(str(tmp_path / "notify"))
    for number in range(100):
        notifier.stopping(str(number))
    manager = Manager(str(tmp_path / "notify"))
    notifier.ping()
    told = manager.heard()
    assert told[0] == "STOPPING=1\nSTATUS=92"
    assert told[-2:] == ["STOPPING=1\nSTATUS=99", "WATCHDOG=1"]
    notifier.close()
    manager.close()


# What the manager says.


def test_variables_are_taken_so_that_no_child_speaks_for_us(manager: Manager) -> None:
    environment = {
        "NOTIFY_SOCKET": manager.address,
        "WATCHDOG_USEC": "30000000",
        "WATCHDOG_PID": str(os.getpid()),
        "HOME": "/",
    }
    notifier = Notifier.from_environment(environment)
    assert environment == {"HOME": "/"}
    assert notifier.is_heard
    assert notifier.watchdog == 30.0
    notifier.ready("it is")
    assert manager.heard() == ["READY=1\nSTATUS=it is"]
    notifier.close()


@pytest.mark.parametrize(
    ("variables", "watchdog"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "1500000"}, 1.5),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": ""}, 1.5),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_PID": "1"}, None),
    ],
)
def test_watchdog_is_ours_only_if_it_is_meant_for_us(
    variables: dict[str, str], watchdog: float | None
) -> None:
    assert Notifier.from_environment(variables).watchdog == watchdog
    assert variables == {}


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"NOTIFY_SOCKET": "relative"}, "NOTIFY_SOCKET: is neither a path nor"),
        ({"WATCHDOG_USEC": "0"}, "WATCHDOG_USEC: is not a number of microseconds"),
        ({"WATCHDOG_USEC": "-1"}, "WATCHDOG_USEC: is not a number of microseconds"),
        ({"WATCHDOG_USEC": "x"}, "WATCHDOG_USEC: is not a number of microseconds"),
    ],
)
def test_variables_that_make_no_sense_are_one_line(
    variables: dict[str, str], line: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{line}"):
        Notifier.from_environment(variables)


def test_empty_address_is_none() -> None:
    assert not Notifier.from_environment({"NOTIFY_SOCKET": ""}).is_heard


def test_address_too_long_for_a_socket_costs_nothing() -> None:
    notifier = Notifier("/" + "x" * 200)
    notifier.ready("unheard")
    notifier.close()


def test_reason_of_a_start_that_fails_is_told(manager: Manager, tmp_path: Path) -> None:
    """The manager tries again and again; its `status` is where somebody looks."""
    told = {**clean_environment(), "NOTIFY_SOCKET": manager.address}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        outcomes = type_all(
            [
                (tmp_path, ["serve"], told | {"PORT": "x", "GAPS": "y"}),
                (tmp_path, ["serve"], told | {"PORT": port, "ADMIN_PORT": "0"}),
            ]
        )
    assert [outcome.code for outcome in outcomes] == [2, 2]
    reasons = [each for each in manager.heard() if "PORT: " in each]
    assert re.fullmatch(r"STATUS=PORT: .*; for example PORT=3000 GAPS: .*", reasons[0])
    assert reasons[1].startswith(f"STATUS=PORT: {port} is in use; choose another")
    assert len(reasons) == 2


# Sockets that are handed over. Their numbers begin at 3, which the tests' process
# has in use itself: a child stands in for the service.

_CHILD = """
import os, socket, sys
from audiohook.errors import ConfigError
from audiohook.systemd import inherited_sockets
environment = dict(os.environ, LISTEN_PID=str(os.getpid()))
if "OTHER_PID" in environment:
    environment["LISTEN_PID"] = "1"
try:
    found = inherited_sockets(environment)
except ConfigError as error:
    print(error)
    sys.exit(1)
for name, sockets in sorted(found.items()):
    for each in sockets:
        print(name, each.fileno(), each.getsockname()[1], each.gettimeout(),
              os.get_inheritable(each.fileno()))
left = [name for name in environment if name.startswith("LISTEN_")]
print(left)
"""


def hand_over(*sockets: socket.socket, **variables: str) -> tuple[int, list[str]]:
    """Starts a child that has sockets from 3 on; what it says of them."""
    numbers = [each.fileno() for each in sockets]

    def place() -> None:
        # Out of the way first, as they may lie where they are to go.
        high = [fcntl.fcntl(number, fcntl.F_DUPFD, 100) for number in numbers]
        for number, copy in enumerate(high, start=3):
            os.dup2(copy, number)

    found = subprocess.run(
        [sys.executable, "-c", _CHILD],
        env={**os.environ, **variables},
        pass_fds=tuple(range(3, 3 + len(numbers))),
        preexec_fn=place,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert found.stderr == ""
    return found.returncode, found.stdout.splitlines()


@pytest.fixture
def listening() -> Iterator[Listen]:
    made: list[socket.socket] = []

    def listen(family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
        sock = socket.socket(family)
        sock.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        sock.listen()
        made.append(sock)
        return sock

    yield listen
    for sock in made:
        sock.close()


def test_sockets_are_taken_over_by_their_names(listening: Listen) -> None:
    one, two = listening(), listening()
    admin = listening()
    code, lines = hand_over(
        one, admin, two, LISTEN_FDS="3", LISTEN_FDNAMES="audiohook:admin:audiohook"
    )
    assert code == 0
    ports = [each.getsockname()[1] for each in (one, two, admin)]
    # They do not block, and no program that is started gets them.
    assert lines == [
        f"admin 4 {ports[2]} 0.0 False",
        f"audiohook 3 {ports[0]} 0.0 False",
        f"audiohook 5 {ports[1]} 0.0 False",
        "[]",
    ]


@pytest.mark.parametrize("names", [None, "unknown"])
def test_socket_without_a_name_is_for_calls(
    listening: Listen, names: str | None
) -> None:
    variables = {"LISTEN_FDS": "1"} | ({"LISTEN_FDNAMES": names} if names else {})
    code, lines = hand_over(listening(), **variables)
    assert code == 0
    assert lines[0].startswith("audiohook 3 ")


def test_sockets_for_another_process_are_left_alone(listening: Listen) -> None:
    code, lines = hand_over(listening(), LISTEN_FDS="1", OTHER_PID="1")
    assert (code, lines) == (0, ["[]"])


def test_no_sockets_are_no_fault() -> None:
    assert inherited_sockets({}) == {}


def _datagram() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def _not_listening() -> socket.socket:
    return socket.socket()


def _unix() -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind("")
    sock.listen()
    return sock


@pytest.mark.parametrize("make", [_datagram, _not_listening, _unix])
def test_socket_that_takes_no_calls_is_one_line(
    make: Callable[[], socket.socket],
) -> None:
    with make() as sock:
        code, lines = hand_over(sock, LISTEN_FDS="1")
    assert code == 1
    (line,) = lines
    assert line.startswith("LISTEN_FDS: descriptor 3 is not a TCP socket that listens")


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"LISTEN_FDS": "one"}, "LISTEN_FDS: is not a number"),
        ({"LISTEN_FDS": "-1"}, "LISTEN_FDS: is not a number"),
        ({"LISTEN_FDS": "2"}, "LISTEN_FDS: descriptor 4 cannot be used"),
        (
            {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "audiohook:admin"},
            "LISTEN_FDNAMES: names 2 sockets and there are 1",
        ),
        (
            {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "audiohook.socket"},
            "LISTEN_FDNAMES: FileDescriptorName= of a socket unit must be audiohook or",
        ),
    ],
)
def test_handing_over_that_makes_no_sense_is_one_line(
    listening: Listen, variables: dict[str, str], line: str
) -> None:
    code, lines = hand_over(listening(), **variables)
    assert code == 1
    assert len(lines) == 1
    assert lines[0].startswith(line)


def test_file_in_place_of_a_socket_is_one_line(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        code, lines = hand_over(file, LISTEN_FDS="1")  # type: ignore[arg-type]  # it has a number too
    assert code == 1
    assert lines[0].startswith("LISTEN_FDS: descriptor 3 cannot be used")
