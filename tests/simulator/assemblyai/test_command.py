"""The stand-in as a process."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx

from tests.children import child
from tests.test_cli import clean_environment, run

if TYPE_CHECKING:
    from pathlib import Path


def test_serves_until_told_to_stop(tmp_path: Path) -> None:
    command = "stand-in --port 0 --key one --key two --seconds-a-job 0 --fail 1"
    with child(
        [sys.executable, "-m", "audiohook", *command.split()],
        cwd=tmp_path,
        env=clean_environment(),
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            match = re.fullmatch(r"stand-in for AssemblyAI: (\S+)  key one\n", line)
            assert match
            with httpx.Client(base_url=match[1], trust_env=False) as client:
                orders = client.post("/stand-in/faults", json={"fail": 0})
                assert orders.status_code == 200
                for key in ("one", "two"):
                    answer = client.get(
                        "/v2/transcript", headers={"Authorization": key}
                    )
                    assert answer.status_code == 200
                figures = client.get("/stand-in/statistics").json()
                assert figures["requests"] == {"list": 2}
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_mistakes_are_told_in_one_line(tmp_path: Path) -> None:
    result = run(tmp_path, "stand-in", "--fail", "2")
    assert result.returncode == 2
    assert result.stderr == "audiohook: a share of 2: between 0 and 1 is possible\n"
    result = run(tmp_path, "stand-in", "--host", "192.0.2.1")
    assert result.returncode == 2
    assert "cannot listen at 192.0.2.1" in result.stderr
