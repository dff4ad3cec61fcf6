"""The servers that can be measured: ours, and others that do the same work.

Each takes audio in at a port of the loopback interface, answers an upgrade with
another API key than its own with 401, answers ``open``, ``ping`` and ``close``, ends
with 0 on SIGTERM, and keeps the audio of a call, as it came, in
``<recordings>/calls/<start>_<conversation>_<participant>/audio/<any>.raw``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench.peers import install

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent

# Seconds from pass to pass, as is our default; and after how many we write.
_INTERVAL = "0.2"
_PASSES_A_WRITE = "3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a server is to run.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        admin_port: A second free port, for one that needs it.
        api_key: The key it accepts.
        recordings: An empty folder for what it stores.
    """

    port: int
    admin_port: int
    api_key: str
    recordings: Path


@dataclass(frozen=True, slots=True)
class Launch:
    """How a server is started.

    Attributes:
        command: Program and arguments.
        environment: Variables that it needs beside ``PATH`` and the like.
    """

    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One way to record calls.

    Attributes:
        title: What people call it.
        short: The same, where there is little room.
        leaves_out: What it does not do of what ours does.
        prepare: Says how it is started; `install.MissingError` if it cannot be had.
        files_a_call: Files that it keeps open for a live call.
        shares_port: Whether several processes can listen on one port.
    """

    title: str
    short: str
    leaves_out: str
    prepare: Callable[[Place], Launch]
    files_a_call: int = 2
    shares_port: bool = False


def _ours(place: Place) -> Launch:
    return Launch(
        [sys.executable, "-m", "audiohook", "serve"],
        {
            "PYTHONPATH": str(PROJECT),
            "HOST": "127.0.0.1",
            "PORT": str(place.port),
            "ADMIN_PORT": str(place.admin_port),
            "API_KEY": place.api_key,
            "RECORDINGS_DIR": str(place.recordings),
            "LOG_FORMAT": "json",
        },
    )


def _plain(*form: str) -> Callable[[Place], Launch]:
    def prepare(place: Place) -> Launch:
        command = [str(install.build_c(HERE / "plain.c")), *form]
        command += ["--port", str(place.port), "--recordings", str(place.recordings)]
        return Launch(command, {"API_KEY": place.api_key})

    return prepare


def _python(module: str, *packages: str) -> Callable[[Place], Launch]:
    def prepare(place: Place) -> Launch:
        folders = [str(PROJECT)]
        if packages:
            folders.append(str(install.python_packages(*packages)))
        return Launch(
            [sys.executable, "-m", f"bench.peers.{module}", *_where(place)],
            {"API_KEY": place.api_key, "PYTHONPATH": ":".join(folders)},
        )

    return prepare


def _node(place: Place) -> Launch:
    node, modules = install.node_packages("ws", "bufferutil")
    return Launch(
        [node, str(HERE / "on_ws.cjs"), *_where(place)],
        {"API_KEY": place.api_key, "NODE_PATH": str(modules)},
    )


def _go(place: Place) -> Launch:
    program = install.build_go(HERE / "on_gorilla.go")
    # All of it runs on one core.
    environment = {"API_KEY": place.api_key, "GOMAXPROCS": "1"}
    return Launch([str(program), *_where(place)], environment)


def _where(place: Place) -> list[str]:
    return [str(place.port), str(place.recordings)]


_LEAN = "signatures, timers, gaps, a journal, audio on disk before `closed`, a WAV"
_c_server = partial(
    Server,
    leaves_out="signatures, timers, gaps, a journal, a WAV",
    shares_port=True,
)

# By name, the cheaper ones first.
SERVERS: Mapping[str, Server] = {
    "ours": Server(
        title="audiohook",
        short="audiohook",
        leaves_out="nothing",
        prepare=_ours,
        shares_port=True,
    ),
    # The same reads, unmasking and writes at the same interval: the floor.
    "plain-interval-3": _c_server(
        title="plain C, reads each 0.2 s, writes each 0.6 s",
        short="C",
        prepare=_plain("--interval", _INTERVAL, "--write-every", _PASSES_A_WRITE),
    ),
    "plain-interval": _c_server(
        title="plain C, reads and writes each 0.2 s",
        short="C, 0.2 s",
        prepare=_plain("--interval", _INTERVAL),
    ),
    "plain-epoll": _c_server(
        title="plain C, epoll, a read and a write a frame",
        short="C, epoll",
        prepare=_plain("--epoll"),
    ),
    "picows": Server(
        title="picows + uvloop",
        short="picows",
        leaves_out=_LEAN,
        prepare=_python("on_picows", "picows", "uvloop"),
    ),
    "gorilla": Server(title="Go + gorilla", short="Go", leaves_out=_LEAN, prepare=_go),
    "node": Server(title="Node + ws", short="Node", leaves_out=_LEAN, prepare=_node),
    "websockets-asyncio": Server(
        title="websockets, asyncio",
        short="websockets",
        leaves_out=_LEAN,
        prepare=_python("on_websockets_asyncio", "websockets"),
    ),
    "websockets-trio": Server(
        title="websockets, Trio",
        short="websockets/Trio",
        leaves_out=_LEAN,
        prepare=_python("on_websockets_trio", "websockets"),
    ),
    "trio-websocket": Server(
        title="trio-websocket",
        short="trio-websocket",
        leaves_out=_LEAN,
        prepare=_python("on_trio_websocket"),
    ),
}

OURS = "ours"
FLOOR = "plain-interval-3"
PLAIN = tuple(name for name in SERVERS if name.startswith("plain"))


def title_of(name: str) -> str:
    """What people call a server."""
    return SERVERS[name].title


def short_title(name: str) -> str:
    """The same, where there is little room."""
    return SERVERS[name].short
