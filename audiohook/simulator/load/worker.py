"""One process of a load, as its parent starts it.

It reads one line of JSON from its standard input that says what to do, says that it
is ready, and reads a second one that says when to begin, the same for all processes.
It writes lines of JSON to its standard output: how it goes, and at last what came of
it. Later lines on the input ask it to stop; if the input ends, the parent is gone,
and so is the load.
"""

from __future__ import annotations

import gc
import io
import json
import os
import resource
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiohook.errors import AudioHookError
from audiohook.simulator.load.engine import Engine, Watcher
from audiohook.simulator.load.manifest import ManifestWriter
from audiohook.simulator.load.options import LoadOptions, parse_lengths

if TYPE_CHECKING:
    from audiohook.simulator.load.figures import Progress
    from audiohook.simulator.load.manifest import SentCall

STOP = b"stop\n"
"""The line that asks a process to end its calls."""

_READ_BYTES = 4096
_EXIT_ABANDONED = 1


class Reporter(Watcher):
    """Tells the parent, and writes the manifest.

    Args:
        manifest: What calls are added to; None if nobody asks for them.
    """

    def __init__(self, manifest: ManifestWriter | None) -> None:
        self._manifest = manifest

    def progress(self, progress: Progress) -> None:
        """Some time has passed."""
        say({"progress": asdict(progress)})

    def ended(self, call: SentCall) -> None:
        """A call is over."""
        if self._manifest is not None:
            self._manifest.add(call)


def say(value: dict[str, Any]) -> None:
    """Write a line to the parent."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def encode_task(options: LoadOptions, *, process: int, manifest: Path | None) -> bytes:
    """Write the line that says what to do.

    Args:
        options: The load, of all processes.
        process: Which process it is for.
        manifest: Where calls are written to.
    """
    values = asdict(options) | {
        "lengths": str(options.lengths),
        "ca_file": None if options.ca_file is None else str(options.ca_file),
    }
    task = {
        "options": values,
        "process": process,
        "manifest": None if manifest is None else str(manifest),
    }
    return json.dumps(task).encode() + b"\n"


def encode_beginning(began_at: float) -> bytes:
    """Write the line that says when the load begins, on the monotonic clock."""
    return json.dumps({"began_at": began_at}).encode() + b"\n"


def _decode_options(values: dict[str, Any]) -> LoadOptions:
    ca_file = values.pop("ca_file")
    return LoadOptions(
        **values | {"lengths": parse_lengths(values["lengths"])},
        ca_file=None if ca_file is None else Path(ca_file),
    )


def run_task(control: io.RawIOBase) -> None:
    """Do what the parent asks for.

    Args:
        control: Where it writes what it wants.

    Raises:
        AudioHookError: It cannot be done.
        OSError: The manifest cannot be written.
    """
    task = json.loads(control.readline())
    path = task["manifest"]
    manifest = None if path is None else ManifestWriter(Path(path))
    try:
        options = _decode_options(task["options"])
        say({"ready": True})
        beginning = control.readline()
        is_stopped = beginning == STOP
        engine = Engine(
            options,
            process=task["process"],
            began_at=None if is_stopped else _decode_beginning(beginning),
            watcher=Reporter(manifest),
        )
        if is_stopped:
            engine.stop()
        control_fd = control.fileno()
        engine.watch(control_fd, lambda: _obey(engine, control_fd))
        engine.run()
    finally:
        if manifest is not None:
            manifest.close()
    say({"figures": engine.figures.to_json()})


def _decode_beginning(line: bytes) -> float:
    if not line:
        os._exit(_EXIT_ABANDONED)
    began_at: float = json.loads(line)["began_at"]
    return began_at


def _obey(engine: Engine, control_fd: int) -> None:
    if not os.read(control_fd, _READ_BYTES):
        # Nobody is left to tell anything to.
        os._exit(_EXIT_ABANDONED)
    engine.stop()


def main() -> None:
    """Run one task; its faults go to the parent in words."""
    # Ctrl-C reaches all processes, but the parent says what is to be done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Calls leave no cycles behind, and a collection is a pause for all of them.
    gc.disable()
    # Without a buffer, in which a line could stay that `select` is to tell of.
    control = io.FileIO(sys.stdin.fileno(), closefd=False)
    try:
        run_task(control)
    except (AudioHookError, OSError) as error:
        say({"fault": str(error)})


if __name__ == "__main__":
    main()
