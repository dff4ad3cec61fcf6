"""What was measured, on which machine, with what: one JSON file a kind."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.peers import OURS

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.measure import Record

FOLDER = Path(__file__).resolve().parent / "results"

_PACKAGES = ("trio", "trio-websocket", "wsproto", "boto3", "Cython", "numpy")
_PROGRAMS = {
    "gcc": ["cc", "-dumpfullversion"],
    "node": ["node", "--version"],
    "go": ["go", "version"],
    "ffmpeg": ["ffmpeg", "-version"],
    "sox": ["sox", "--version"],
}


def machine() -> dict[str, object]:
    """Say what is measured on."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(pages / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
    }


def versions(packages: Path | None = None) -> dict[str, str]:
    """Say what is measured.

    Args:
        packages: Below it are packages that were installed for the peers.
    """
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    for info in sorted(packages.glob("python*/*/*.dist-info")) if packages else []:
        name, _, version = info.stem.rpartition("-")
        if name in {"picows", "uvloop", "websockets", "aiohttp"}:
            found[name] = version
    for package in (
        packages.glob("node/*/node_modules/*/package.json") if packages else []
    ):
        value = json.loads(package.read_text())
        found[value["name"]] = value["version"]
    for name, command in _PROGRAMS.items():
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        words = done.stdout.split("\n", 1)[0].split()
        numbers = [word for word in words if any(map(str.isdigit, word))]
        if numbers:
            found[name] = numbers[0].removeprefix("go").removeprefix("v")
    return found


def commit() -> str:
    """Say which state of the code is measured; nothing if that is not known."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=FOLDER.parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def reasons_against(record: Record) -> list[str]:
    """Tell why a measurement does not count; nothing if it does."""
    return [*record.get("faults", ()), *record.get("doubts", ())]


class Results:
    """Takes down what is measured, and writes it at once.

    Args:
        folder: Where the files go.
        command: What was asked for.
        tell: Is given a line a measurement, for people.
        packages: Below it are packages that were installed for the peers.

    Attributes:
        kinds: What was measured so far, by kind, as it is in the files.
        faulty: How often ours, or the suite, did something wrong.
    """

    def __init__(
        self,
        folder: Path,
        command: str,
        tell: Callable[[str], None],
        packages: Path | None = None,
    ) -> None:
        self.kinds: dict[str, dict[str, Any]] = {}
        self.faulty = 0
        self._folder = folder
        self._command = command
        self._tell = tell
        self._packages = packages
        # What is written here is a change too.
        self._commit = commit()
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, kind: str, record: Record) -> None:
        """Take down a measurement."""
        self._kind(kind)["records"].append(record)
        if record.get("faults") and record.get("server", OURS) == OURS:
            self.faulty += 1
        self._tell(f"{kind}: {_line(record)}")
        for reason in reasons_against(record):
            self._tell(f"{kind}: does not count: {reason}")
        self._save(kind)

    def skip(self, kind: str, what: str, why: str) -> None:
        """Take down that there is no measurement."""
        skipped = {"what": what, "why": why}
        if skipped not in self._kind(kind)["skipped"]:
            self._kind(kind)["skipped"].append(skipped)
            self._tell(f"{kind}: left out: {what}: {why}")
        self._save(kind)

    def fail(self, kind: str, why: str) -> None:
        """Take down that a kind could not be measured by our own fault."""
        self.faulty += 1
        self.skip(kind, kind, why)

    def _kind(self, kind: str) -> dict[str, Any]:
        if kind not in self.kinds:
            now = datetime.now(UTC)
            self.kinds[kind] = {
                "kind": kind,
                "date": now.isoformat(timespec="seconds"),
                "command": self._command,
                "commit": self._commit,
                "machine": machine(),
                "versions": versions(self._packages),
                "records": [],
                "skipped": [],
            }
        return self.kinds[kind]

    def _save(self, kind: str) -> None:
        text = json.dumps(self.kinds[kind], indent=1) + "\n"
        path = self._folder / f"{kind}.json"
        draft = path.with_suffix(".draft")
        draft.write_text(text)
        draft.replace(path)


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Read all results of a folder, by kind."""
    found = (json.loads(path.read_text()) for path in sorted(folder.glob("*.json")))
    return {value["kind"]: value for value in found}


_TOLD = {
    "cores_per_1000_calls": "{:.4f} cores per 1,000 calls",
    "kib_per_call": "{:.0f} KiB a call",
    "gb_per_second": "{:.2f} GB/s",
    "frames_per_second": "{:,.0f} frames/s",
    "seconds": "{:.3f} s",
}
_NAMES = ("server", "what", "name", "calls", "operation", "bytes", "frame_bytes")
_BUSY_CORES = 0.1


def _line(record: Record) -> str:
    """Tell a measurement to a person."""
    words = [str(record[name]) for name in _NAMES if name in record]
    words += ["TLS"] if record.get("tls") else []
    told = [form.format(record[name]) for name, form in _TOLD.items() if name in record]
    for what in ("opened", "pong", "closed"):
        spread = record.get("latency_ms", {}).get(what)
        if spread:
            told.append(f"{what} {spread['max']:.0f} ms at most")
    if record.get("elsewhere_cores", 0) > _BUSY_CORES:
        told.append(f"({record['elsewhere_cores']} cores busy elsewhere)")
    return f"{' '.join(words)}: {', '.join(told)}"
