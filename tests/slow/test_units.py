"""The units and the alerts, before the judges that their own programs bring."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from audiohook.admin.process import OwnProcess
from tests.admin.reading import samples
from tests.slow.processes import ROOT, Site
from tests.slow.scale import scaled
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.slow

DEPLOY = ROOT / "deploy"
# Of 100; systemd-analyze prints it divided by ten.
MOST_EXPOSED = 15
LOAD_CALLS = scaled(150, 3000)
LOAD_SECONDS = scaled(12, 60)
OPEN = "audiohook_calls_live{state=open}"


def judge(*command: str | Path, text: str | None = None) -> str:
    """Runs a judge that must have nothing to complain of; what it says."""
    found = subprocess.run(
        list(map(str, command)),
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout + found.stderr


async def written_units(site: Site, root: Path, *options: str) -> list[Path]:
    ended = await site.command("install-service", "--root", root, *options)
    assert ended.returncode == 0, ended.stderr
    return sorted((root / "etc/systemd/system").iterdir())


def named_instances(units: Sequence[Path]) -> list[Path]:
    """Gives a template the name of an instance, since only those can be judged."""
    found = []
    for unit in units:
        if "@" in unit.name:
            instance = unit.with_name(unit.name.replace("@", "@1"))
            instance.write_text(unit.read_text())
            found.append(instance)
        else:
            found.append(unit)
    return found


@pytest.mark.parametrize("options", [(), ("--instances", "2")])
async def test_units_are_clean_and_hardened(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    units = named_instances(await written_units(Site(tmp_path), tmp_path, *options))
    assert judge("systemd-analyze", "verify", *units) == ""
    services = [unit for unit in units if unit.suffix == ".service"]
    assert len(services) == 1
    for service in services:
        judge(
            *("systemd-analyze", "security", "--offline=yes", "--no-pager"),
            *(f"--threshold={MOST_EXPOSED}", service),
        )


def test_figures_of_the_process_are_there_within_the_unit() -> None:
    """``ProcSubset=pid`` and ``ProtectProc=invisible``, in a mount of its own."""
    service = (DEPLOY / "audiohook.service").read_text()
    assert "\nProcSubset=pid\n" in service
    assert "\nProtectProc=invisible\n" in service
    here = sorted(metric.name for metric in OwnProcess().collect())
    python = (
        "from audiohook.admin.process import OwnProcess;"
        "print(sorted(metric.name for metric in OwnProcess().collect()))"
    )
    shown = judge(
        *("unshare", "--mount", "sh", "-c"),
        "mount -t proc -o subset=pid,hidepid=invisible proc /proc"
        ' && ! test -e /proc/stat && exec "$0" -c "$1"',
        *(ROOT / ".venv/bin/python", python),
    )
    assert shown.strip() == str(here)
    assert len(here) == 6


def test_alerts_are_well_formed_and_fire_when_they_should(tmp_path: Path) -> None:
    judge("promtool", "check", "rules", DEPLOY / "alerts.yml")
    (tmp_path / "alerts.yml").write_text((DEPLOY / "alerts.yml").read_text())
    cases = tmp_path / "cases.yml"
    cases.write_text((Path(__file__).parent / "alert_cases.yml").read_text())
    judge("promtool", "test", "rules", cases)


async def test_figures_please_prometheus_and_do_not_grow_with_calls(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, {"KEEP_RAW": "false"})
    async with site.serve() as server:

        async def scrape() -> str:
            async with httpx.AsyncClient(timeout=10) as client:
                return (await client.get(server.admin_uri + "/metrics")).text

        idle = await scrape()
        assert samples(idle)[OPEN] == 0
        judge("promtool", "check", "metrics", text=idle)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                lambda: site.command(
                    *("load", server.uri, "--calls", str(LOAD_CALLS)),
                    *("--duration", str(LOAD_SECONDS), "--together"),
                    seconds=LOAD_SECONDS + 120,
                )
            )
            await wait_until(
                lambda: len(server.lines("call_opened")) == LOAD_CALLS, 120.0
            )
            busy = await scrape()
            while samples(busy)[OPEN] < LOAD_CALLS:
                await trio.sleep(0.2)
                busy = await scrape()
        judge("promtool", "check", "metrics", text=busy)
    assert samples(busy)[OPEN] == LOAD_CALLS
    # The same series; only the numbers are longer.
    names = [line.rpartition(" ")[0] for line in idle.splitlines()]
    assert names == [line.rpartition(" ")[0] for line in busy.splitlines()]
    assert len(busy) < len(idle) * 1.1
