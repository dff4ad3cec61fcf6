"""Commands typed one after another, each in a process of its own.

To read all modules takes a second. Here one process does so and then forks for each
command; what is forked has nothing of ours running yet, so it is as good as new.
Started with a JSON list of orders on its standard input, it prints the outcomes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_LIMIT_SECONDS = 60
_ALL_SECONDS = 300


class Outcome(NamedTuple):
    """What came of a command."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """All that a person sees, without the log."""
        text = self.err + self.out
        return [x for x in text.splitlines() if x and not x.startswith("{")]


def type_all(
    orders: Iterable[tuple[Path, list[str], Mapping[str, str]]],
) -> list[Outcome]:
    """Types commands: each in a folder, with arguments and an environment."""
    told = [
        {"folder": str(folder), "arguments": arguments, "environment": dict(variables)}
        for folder, arguments, variables in orders
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tests.forked"],
        input=json.dumps(told),
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=_ALL_SECONDS,
        check=True,
    )
    return [Outcome(**each) for each in json.loads(done.stdout)]


def _run(order: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if not child:
            _become(order, out.fileno(), err.fileno())
        _, status = os.waitpid(child, 0)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    code = os.waitstatus_to_exitcode(status)
    return {"code": code, "out": texts[0], "err": texts[1]}


def _become(order: dict[str, Any], out: int, err: int) -> None:
    """Runs the command in this process, which ends with it."""
    code = 70
    try:
        signal.alarm(_LIMIT_SECONDS)
        os.chdir(order["folder"])
        os.environ.clear()
        os.environ.update(order["environment"])
        with open(os.devnull) as nothing:  # noqa: PTH123 - a descriptor is wanted
            os.dup2(nothing.fileno(), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.argv = ["audiohook", *order["arguments"]]
        from audiohook.__main__ import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter would
        sys.excepthook(*sys.exc_info())
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    import audiohook.cli  # noqa: F401 - what takes so long

    print(json.dumps([_run(order) for order in json.load(sys.stdin)]))  # noqa: T201
