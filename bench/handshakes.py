"""What a call's beginning and its end cost the server, in CPU.

    python -m bench.handshakes
    python -m bench.handshakes --calls 2000 --together 250 --tree ../main

Calls begin in groups: all of a group connect and ask for the upgrade at once, then
all send ``open``. When all are open they end, group by group again. What is told is
processor time of the server, which other work on the machine disturbs far less than
it disturbs the time that passes, in microseconds a call:

- `upgrade`: from TCP accept to ``101``, the signature checked;
- `open`: from ``open`` to ``opened``, with the call's place on the disk;
- `close`: from ``close`` to ``closed``, with the disk, and the end of the socket;
- `store`: what is left until all recordings are stored.

Beside that, how long a group waited for the last ``opened`` of it, at most.

Storing begins while other calls still close, so that only the sum of the last two is
to be relied on. With ``--tree`` it is the server of another working tree (built in
place) that is measured by this program, and with ``--folder`` on another disk.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import secrets
import socket
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from audiohook.protocol.signature import sign
from audiohook.simulator.load.framing import FrameReader
from bench.peers import OURS, PROJECT
from bench.processes import FailedError, allow_many_files, find_cores, running
from bench.samples import sample
from tests.house import ORGANIZATION, upgrade_request
from tests.reference_frames import BINARY, CLOSE, TEXT
from tests.slow.peer import message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SECONDS = 1.0

_ANSWER_LIMIT = 60 * SECONDS
_STORE_LIMIT = 120 * SECONDS
_FRAME_BYTES = 1600
_READ_BYTES = 65_536
_MEDIA = {
    "type": "audio",
    "format": "PCMU",
    "rate": 8000,
    "channels": ["external", "internal"],
}
PHASES = ("upgrade", "open", "close", "store")


@dataclass(frozen=True, slots=True)
class Entrance:
    """A server, and what lets calls in.

    Attributes:
        port: Where it listens.
        key: API key.
        secret: Client secret of that, decoded; None for calls without signature.
    """

    port: int
    key: bytes
    secret: bytes | None


class Caller:
    """A client whose every step waits for nobody else."""

    def __init__(self, entrance: Entrance) -> None:
        self._entrance = entrance
        self._session = str(uuid.uuid4())
        self._seq = 0
        self._reader = FrameReader()
        self._socket = socket.socket()

    def ask(self) -> None:
        """Connect, and ask for the upgrade."""
        head = self._head()
        self._socket.settimeout(_ANSWER_LIMIT)
        self._socket.connect(("127.0.0.1", self._entrance.port))
        self._socket.sendall(head)

    def _head(self) -> bytes:
        key = b"X-API-KEY: " + self._entrance.key + b"\r\n"
        head = upgrade_request(key, session=self._session)
        if self._entrance.secret is None:
            return head
        headers = []
        for line in head.split(b"\r\n")[1:]:
            name, colon, value = line.partition(b": ")
            if colon:
                headers.append((name, value))
        signed = sign(headers, b"/", secret=self._entrance.secret, now=time.time())
        more = b"".join(b"%b: %b\r\n" % line for line in signed)
        return upgrade_request(key + more, session=self._session)

    def hear_upgraded(self) -> None:
        """Wait for ``101``.

        Raises:
            FailedError: Something else came.
        """
        data = b""
        while b"\r\n\r\n" not in data:
            more = self._socket.recv(_READ_BYTES)
            data += more
            if not more:
                break
        if not data.startswith(b"HTTP/1.1 101 "):
            raise FailedError(f"no upgrade: {data[:60]!r}")

    def open(self) -> None:
        """Send ``open``."""
        self._say(
            "open",
            organizationId=ORGANIZATION,
            conversationId=str(uuid.uuid4()),
            participant={
                "id": str(uuid.uuid4()),
                "ani": "tel:+15550100",
                "aniName": "Somebody",
                "dnis": "tel:+15550199",
            },
            media=[_MEDIA],
            language="en-US",
        )

    def close(self) -> None:
        """Send a frame of audio, and ``close``."""
        self._socket.sendall(message(BINARY, bytes(_FRAME_BYTES)))
        self._say("close", reason="end")

    def hear(self, kind: str) -> None:
        """Wait for a message.

        Raises:
            FailedError: Something else came.
        """
        while (frame := self._reader.next_frame()) is None:
            data = self._socket.recv(_READ_BYTES)
            if not data:
                raise FailedError(f"no {kind}: the server has hung up")
            self._reader.data += data
        said = json.loads(frame[1])
        if said["type"] != kind:
            raise FailedError(f"no {kind}: {said}")

    def leave(self) -> None:
        """End the WebSocket."""
        self._socket.sendall(message(CLOSE, b""))

    def hear_end(self) -> None:
        """Wait until the server has hung up."""
        while self._socket.recv(_READ_BYTES):
            pass
        self._socket.close()

    def _say(self, kind: str, **parameters: object) -> None:
        self._seq += 1
        words = {
            "version": "2",
            "id": self._session,
            "type": kind,
            "seq": self._seq,
            "serverseq": self._seq - 1,
            "position": "PT0S",
            "parameters": parameters,
        }
        self._socket.sendall(message(TEXT, json.dumps(words).encode()))


def make_calls(
    entrance: Entrance, calls: int, together: int, cpu: Callable[[], float]
) -> dict[str, float]:
    """Make calls.

    Args:
        entrance: Where.
        calls: How many.
        together: How many at once.
        cpu: Tells the server's processor time, in seconds.

    Returns:
        Seconds of it by phase, all but for the last.
    """
    spent = dict.fromkeys(PHASES[:3], 0.0)
    longest = 0.0
    callers = [Caller(entrance) for _ in range(calls)]
    for group in _groups(callers, together):
        began = cpu()
        for caller in group:
            caller.ask()
        for caller in group:
            caller.hear_upgraded()
        upgraded = cpu()
        asked_at = time.monotonic()
        for caller in group:
            caller.open()
        for caller in group:
            caller.hear("opened")
        longest = max(longest, time.monotonic() - asked_at)
        spent["upgrade"] += upgraded - began
        spent["open"] += cpu() - upgraded
    for group in _groups(callers, together):
        began = cpu()
        for caller in group:
            caller.close()
        for caller in group:
            caller.hear("closed")
            caller.leave()
        for caller in group:
            caller.hear_end()
        spent["close"] += cpu() - began
    print(f"a group had `opened` after {longest:.2f} s at most", flush=True)
    return spent


def _groups(callers: Sequence[Caller], size: int) -> Iterator[Sequence[Caller]]:
    for begin in range(0, len(callers), size):
        yield callers[begin : begin + size]


def _wait_stored(recordings: Path, calls: int) -> None:
    until = time.monotonic() + _STORE_LIMIT
    while sum(1 for _ in recordings.glob("calls/*/call.json")) < calls:
        if time.monotonic() > until:
            raise FailedError("not all recordings were stored")
        time.sleep(0.25)
    # The last of them leaves the spool.
    time.sleep(1.0)


def measure(arguments: argparse.Namespace) -> list[dict[str, float]]:
    """Measure so many rounds in one process of the server.

    Returns:
        Microseconds a call, by phase, of each round.

    Raises:
        FailedError: It came to nothing.
    """
    cores = find_cores()
    allow_many_files()
    os.sched_setaffinity(0, {cores.load})
    rounds = []
    secret = None if arguments.unsigned else secrets.token_bytes(32)
    settings = {"PYTHONPATH": str(arguments.tree.resolve())}
    if secret is not None:
        settings["CLIENT_SECRET"] = base64.b64encode(secret).decode()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        folder = Path(scratch)
        with running(OURS, folder, cores.server, settings=settings) as server:
            entrance = Entrance(server.port, server.api_key.encode(), secret)

            def cpu() -> float:
                return sample(*server.pids).cpu

            time.sleep(arguments.after)
            for number in range(1, arguments.rounds + 1):
                spent = make_calls(entrance, arguments.calls, arguments.together, cpu)
                closed = cpu()
                _wait_stored(folder / "recordings", number * arguments.calls)
                spent["store"] = cpu() - closed
                rounds.append(
                    {name: spent[name] / arguments.calls * 1e6 for name in PHASES}
                )
                _tell(rounds[-1])
    return rounds


def _tell(spent: dict[str, float]) -> None:
    words = [f"{name} {spent[name]:6.0f}" for name in PHASES]
    begin, end = spent["upgrade"] + spent["open"], spent["close"] + spent["store"]
    print(*words, f"| begin {begin:6.0f}  end {end:6.0f}", sep="  ", flush=True)


def main() -> None:
    """Measure, and tell each round."""
    parser = argparse.ArgumentParser(prog="bench.handshakes", description=__doc__)
    parser.add_argument("--calls", type=int, default=2000, help="in a round")
    parser.add_argument("--together", type=int, default=250, help="of these, at once")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--unsigned", action="store_true", help="no signatures")
    parser.add_argument("--tree", type=Path, default=PROJECT, help="whose server")
    parser.add_argument("--folder", type=Path, help="on which disk it records")
    parser.add_argument(
        "--after", type=float, default=0.0, help="seconds, once the server is up"
    )
    print("microseconds of the server's CPU a call:")
    measure(parser.parse_args())


if __name__ == "__main__":
    main()
