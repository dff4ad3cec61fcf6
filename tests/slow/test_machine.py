"""The pages on systemd, typed into a machine that boots with it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.documents import ROOT, typed
from tests.house import KEY
from tests.slow.console import OURS, PORT, Console, next_steps
from tests.slow.furniture import NAME, SOURCE, furnish
from tests.slow.machine import CANNOT, booted, why_not
from tests.slow.processes import tell
from tests.slow.scale import scaled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.documents import Block
    from tests.slow.console import Call

pytestmark = pytest.mark.slow

OTHER_KEY = "SSBhbSB0aGUgbmV3IGtleSBvZiB0aGVtIQ=="
ASSEMBLYAI_KEY = "0123456789abcdef0123456789abcdef"
SETTINGS = f"""\
API_KEY={KEY}
ASSEMBLYAI_BASE_URL=http://127.0.0.1:8100
DRAIN_TIMEOUT=20
"""
FAULT = "PORTT: is not a setting"
ENV_FILE = "/etc/audiohook/audiohook.env"
# An address of the machine that is not loopback.
OUTSIDE = "10.99.0.1"

# In full size all is compiled on the machine.
BUILD_SECONDS = scaled(300.0, 1800.0)
LIVE_SECONDS = 10.0
# Half a second of a call.
SOME_BYTES = 8000
WATCHDOG = 3.0
CURL_REFUSED = 7
STORE = "/var/lib/audiohook"

# Somebody else's work.
UPSTREAM = """
git clone --quiet upstream.git other
cd other
git config user.name Other
git config user.email other@example.com
echo '__version__ = "99.0"' >audiohook/_version.py
git commit --quiet --all --message 'Be newer'
git push --quiet
"""
ROLLING_CALLS = scaled(8, 50)
ROLLING_SECONDS = scaled(8, 45)
ROLLING_DURATION = scaled("3..6", "5..10")


@pytest.fixture
async def console(tmp_path: Path) -> AsyncIterator[Console]:
    if (reason := why_not()) is not None:
        pytest.skip(f"no machine can be booted: {reason}")
    furniture, binds = await trio.to_thread.run_sync(furnish, tmp_path)
    async with booted(tmp_path, furniture, binds) as machine:
        # Its Python may have brought a library.
        await machine.type("ldconfig", user="root")
        yield Console(machine)


async def install(at: Console, block: Block) -> None:
    """Types what installs the service, up to what starts it."""
    for command in block.commands():
        said = await at.machine.type(command, folder=SOURCE, seconds=BUILD_SECONDS)
    at.lay_out(f"{SETTINGS}PORTT=3000")
    *steps, start = next_steps(said)
    assert f"editor {ENV_FILE}" in steps
    # The first of them to find out is the check.
    for step in steps:
        done = await at.try_to(step)
        is_check = step.endswith("audiohook check")
        assert (done.code == 0) is not is_check, done
        assert not is_check or "is not a setting" in done.out, done
    failed = await at.try_to(start)
    assert failed.code != 0
    status = await at.try_to("systemctl status audiohook")
    assert f'Status: "{FAULT}' in status.out, status


async def hand_over_settings(
    at: Console, settings: Block, secret: Block, check: Block
) -> None:
    """Brings the settings that work, and a key that only root may read."""
    (at.machine.root / "home/someone/audiohook/.env").write_text(SETTINGS)
    await at.machine.type(settings.text, folder=SOURCE)
    assert await at.type(f"stat -c '%a %U %G' {ENV_FILE}") == "640 root audiohook\n"
    await at.machine.type(secret.text, feed=ASSEMBLYAI_KEY)
    shown = await at.type("stat -c '%a %U' /etc/credstore /etc/credstore/*")
    assert shown == "700 root\n600 root\n"
    await at.type(
        f"systemd-run --quiet --unit stand-in {OURS} stand-in --key {ASSEMBLYAI_KEY}"
        " --seconds-a-job 0.2"
    )
    up = "curl -sS --fail http://127.0.0.1:8100/stand-in/statistics"
    await at.wait(lambda: at.succeeds(up))
    await at.type("systemctl restart audiohook")
    # It came back when calls were taken.
    await at.type("curl -sS --fail http://127.0.0.1:9090/ready")
    found = await at.machine.type(check.text)
    assert "✗" not in found
    assert "AssemblyAI" in found


async def check_sandbox(at: Console) -> None:
    """Checks that the kernel really holds the service as the unit says."""
    pid = await at.property("MainPID")
    status = (at.machine.root / "proc" / pid / "status").read_text()
    held = dict(
        re.findall(
            r"^(NoNewPrivs|Seccomp|CapEff|CapBnd):\t(\S+)$", status, re.MULTILINE
        )
    )
    assert held == {
        "NoNewPrivs": "1",
        "Seccomp": "2",
        "CapEff": "0" * 16,
        "CapBnd": "0" * 16,
    }
    inside = f"nsenter --mount --target {pid}"
    for folder in ("/etc", "/opt/audiohook", "/var/lib", "/usr/local"):
        refused = await at.try_to(f"{inside} touch {folder}/x")
        assert "Read-only file system" in refused.err, refused
    assert await at.type(f"{inside} ls -A /home /root") == "/home:\n\n/root:\n"


async def reload(at: Console, status: Block, reload: Block) -> None:
    """Changes the key while a call lives, once well and once wrongly."""

    async def read(settings: str, says: str) -> str:
        """Has other settings read; the status when that is over."""
        (at.machine.root / ENV_FILE[1:]).write_text(settings)
        before = len(await at.lines(says))

        async def has_said_so() -> bool:
            return len(await at.lines(says)) > before

        await at.machine.type(reload.text)
        await at.wait(has_said_so)
        return await at.type(status.text)

    live, new = at.new_call(LIVE_SECONDS, KEY), at.new_call(1, OTHER_KEY)
    other = SETTINGS.replace(KEY, OTHER_KEY)
    async with trio.open_nursery() as nursery:
        await nursery.start(at.place, live)
        shown = await read(other, "reloaded")
        assert 'Status: "1 call live, 0 to be stored"' in shown
        shown = await read(f"{other}PORTT=3000\n", "reload_failed")
        assert "1 call live, 0 to be stored; the last reload failed, see the log" in (
            shown
        )
        assert live.typed is None
        # The old one is refused, and the new one taken.
        refused = await at.place(at.new_call(1, KEY), "--fast")
        assert "401 Unauthorized" in refused.out, refused
        await at.place(new, "--fast")
        shown = await read(SETTINGS, "reloaded")
        assert "failed" not in shown.partition("Status:")[2].partition("\n")[0]
    for call in (live, new):
        await at.check_whole(call)


async def keep_others_out(at: Console, drop_in: Block) -> None:
    """Has the socket listen for a proxy on the same machine alone."""
    await at.type(f"ip address add {OUTSIDE}/32 dev lo")
    ask = "curl -sS --fail --max-time 10 http://{}:" + f"{PORT}/health"
    await at.type(ask.format(OUTSIDE))
    await at.edit_unit("audiohook.socket", drop_in.text)
    await at.type("systemctl restart audiohook.socket")
    await at.type(ask.format("127.0.0.1"))
    refused = await at.try_to(ask.format(OUTSIDE))
    assert refused.code == CURL_REFUSED, refused


async def restart_in_mid_calls(at: Console) -> None:
    """Restarts the service while calls come and go, who wait and are served."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(load, at, "--calls 4 --keep 6 --duration 1..2")
        await at.wait_logged("call_stored")
        await at.type("systemctl restart audiohook")


async def load(at: Console, options: str) -> None:
    """Makes calls all of which must be stored, sample for sample."""
    await at.type(
        f"{OURS} load ws://127.0.0.1:{PORT}/ --api-key {KEY} --ramp 1"
        f" --verify {STORE} {options}",
        seconds=ROLLING_SECONDS + 90,
    )


async def die_and_hang(at: Console) -> None:
    """Kills the service, and then has it hang: it is there again by itself."""
    # In force from the next start on.
    await at.edit_unit("audiohook", f"[Service]\nWatchdogSec={WATCHDOG:.0f}")
    for fault in ("KILL", "STOP"):
        cut = at.new_call(LIVE_SECONDS, KEY)
        pid = await at.property("MainPID")

        async def is_another(pid: str = pid) -> bool:
            state = await at.type("systemctl show -p MainPID,ActiveState audiohook")
            return "ActiveState=active" in state and f"MainPID={pid}\n" not in state

        async with trio.open_nursery() as nursery:
            await nursery.start(at.place, cut)
            await at.wait_spooled(cut, SOME_BYTES)
            await at.type(f"kill -{fault} {pid}")
            await at.wait(is_another)
        await at.check_cut(cut)


async def recover_by_hand(at: Console, block: Block) -> None:
    """Finishes what a killed service has left, without starting it."""
    await at.type("systemctl revert audiohook")
    cut = at.new_call(LIVE_SECONDS, KEY)
    async with trio.open_nursery() as nursery:
        await nursery.start(at.place, cut)
        await at.wait_spooled(cut, SOME_BYTES)
        await at.type("systemctl kill --signal KILL audiohook")
        said = await at.machine.type(block.text)
    assert "0 left in the spool" in said
    assert await at.property("ActiveState") == "inactive"
    await at.check_cut(cut)
    assert [
        each.name for each in (at.store / ".spool").iterdir() if each.name[0] != "."
    ] == []


async def become_two(at: Console, block: Block, again: Block) -> None:
    """Puts two instances in the place of the one service."""
    await at.machine.type(block.text)
    said = await at.machine.type(again.text)
    at.lay_out("# Nothing else.")
    for step in next_steps(said):
        await at.type(step)
    migrates = await at.type("cat /proc/sys/net/ipv4/tcp_migrate_req")
    assert migrates == "1\n"


async def roll(at: Console, block: Block) -> None:
    """Restarts both, one after the other, while calls come and go."""
    pids = [await at.property("MainPID", f"audiohook@{i}") for i in range(2)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            load,
            at,
            f"--calls {ROLLING_CALLS} --keep {ROLLING_SECONDS}"
            f" --duration {ROLLING_DURATION}",
        )
        before = len(await at.lines("call_stored"))

        async def is_under_way() -> bool:
            return len(await at.lines("call_stored")) > before

        await at.wait(is_under_way)
        await at.machine.type(block.text, seconds=90)
    for i, old in enumerate(pids):
        assert await at.property("MainPID", f"audiohook@{i}") != old


async def upgrade(at: Console, block: Block, roll: Block) -> None:
    """Gets what has come upstream, which says that it is another version."""
    await at.machine.type(UPSTREAM)
    text = block.text.replace("install-service", "install-service --instances 2")
    assert text != block.text
    await at.machine.type(text, folder=SOURCE, seconds=BUILD_SECONDS)
    await at.machine.type(roll.text, seconds=90)
    for port in (9090, 9091):
        figures = await at.type(f"curl -sS --fail http://127.0.0.1:{port}/metrics")
        assert re.search(
            r'^audiohook_build_info\{.*version="99\.0"', figures, re.MULTILINE
        )


async def read_log(
    at: Console, queries: tuple[Block, Block, Block], call: Call, cut: Call
) -> None:
    """Finds the lines of a call, the calls that did not go well, and what else."""

    async def lines(text: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (await at.machine.type(text)).splitlines()]

    one, bad, wrong = (query.text for query in queries)
    (session,) = re.findall(r'\.session == "([^"]+)"', one)
    own = (await at.wait_stored(call)).facts["sessionId"]
    events = [line["event"] for line in await lines(one.replace(session, own))]
    assert events == ["call_opened", "call_stored", "call_ended", "call_transcribed"]
    found = [line["conversation"] for line in await lines(bad)]
    assert cut.conversation in found
    assert call.conversation not in found
    assert "reload_failed" in {line["event"] for line in await lines(wrong)}


async def stand_behind_caddy(at: Console, package: Block, site: Block) -> None:
    """Comes as Genesys will, by name and with TLS."""
    await at.machine.type(package.text)
    # As the package does, which is here without having been started.
    (at.machine.root / "etc/caddy").mkdir()
    config = at.machine.root / "etc/caddy/Caddyfile"
    config.write_text(":80\n")
    await at.type("systemctl enable --now caddy")
    lines, _, command = site.text.rpartition("\n")
    # Nobody signs certificates here but Caddy itself.
    config.write_text(lines.replace("{", "{\n    tls internal", 1))
    await at.machine.type(command)
    authority = "/var/lib/caddy/.local/share/caddy/pki/authorities/local/root.crt"
    told = await at.type(
        f"cp {authority} /srv/ca.crt && {OURS} check --from-outside wss://{NAME}/"
        f" --api-key {KEY} --ca-file /srv/ca.crt"
    )
    assert "✗" not in told
    await at.type(
        f"{OURS} call wss://{NAME}/ --api-key {KEY} --ca-file /srv/ca.crt"
        " --duration 3 --fast"
    )


async def remove(at: Console, block: Block) -> None:
    """Takes it away, but for what it has written and what was set."""
    text = block.text.replace("audiohook.socket audiohook", "audiohook@0 audiohook@1")
    assert text != block.text
    await at.machine.type(text)
    left = await at.type("systemctl list-unit-files 'audiohook*' --no-legend || true")
    assert left == ""
    for path in ("opt/audiohook", "usr/local/sbin/audiohook"):
        assert not (at.machine.root / path).exists()
    assert list(at.store.glob("calls/*"))
    assert (at.machine.root / ENV_FILE[1:]).exists()


def test_container_without_rights_is_told_from_a_fault() -> None:
    """Where no machine can be booted, CI says so and goes on."""
    deprived = ("setpriv", "--bounding-set", "-sys_admin")
    done = subprocess.run(
        [*deprived, sys.executable, "-m", "tests.slow.machine"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == CANNOT, done
    (line,) = done.stdout.splitlines()
    assert "control groups are not to be had (unshare: " in line
    assert done.stderr == ""


async def test_pages_typed_into_a_machine(
    console: Console, capsys: pytest.CaptureFixture[str]
) -> None:
    at = console
    began = trio.current_time()

    def lap(what: str) -> None:
        seconds = trio.current_time() - began
        tell(capsys, f"{seconds:5.1f} s, {at.machine.cpu_seconds:5.1f} of CPU: {what}")

    async with at.explained():
        await install(at, typed("docs/systemd.md", "make build"))
        lap("installed")
        await hand_over_settings(
            at,
            typed("docs/systemd.md", "sudo install -m 0640"),
            typed("docs/systemd.md", "sudo install -d -m 0700"),
            typed("docs/systemd.md", "sudo audiohook check"),
        )
        lap("started")
        await check_sandbox(at)
        lap("sandbox")
        call = at.new_call(3, KEY)
        await at.place(call, "--fast")
        await at.check_whole(call)
        await at.wait_logged("call_transcribed", conversation=call.conversation)
        lap("call")
        await reload(
            at,
            typed("docs/systemd.md", "systemctl status audiohook"),
            typed("docs/systemd.md", "sudo systemctl reload"),
        )
        lap("reloaded")
        await keep_others_out(at, typed("docs/systemd.md", "[Socket]"))
        lap("others kept out")
        await restart_in_mid_calls(at)
        lap("restarted")
        await die_and_hang(at)
        lap("killed, and hung")
        hung_up = at.new_call(2, KEY)
        await at.place(hung_up, "--fast", "--hang-up")
        assert (await at.wait_stored(hung_up)).facts["ended"]["complete"] is False
        await read_log(
            at,
            (
                typed(
                    "docs/operate.md",
                    "sudo journalctl -u 'audiohook*' -o cat"
                    " | jq -cR 'fromjson? | select(.session",
                ),
                typed(
                    "docs/operate.md",
                    "sudo journalctl -u 'audiohook*' -o cat"
                    " | jq -cR 'fromjson? | select(.event",
                ),
                typed(
                    "docs/operate.md",
                    "sudo journalctl -u 'audiohook*' -o cat --since today",
                ),
            ),
            call,
            hung_up,
        )
        lap("log read")
        await recover_by_hand(
            at, typed("docs/operate.md", "sudo systemctl stop audiohook.socket")
        )
        lap("recovered")
        await become_two(
            at,
            typed("docs/systemd.md", "sudo /opt/audiohook/bin/audiohook install"),
            typed("docs/scale-out.md", "sudo /opt/audiohook/bin/audiohook install"),
        )
        lap("two")
        await roll(at, typed("docs/systemd.md", "for i in"))
        lap("rolled")
        await stand_behind_caddy(
            at,
            typed("docs/first-hour.md", "sudo apt-get install caddy"),
            typed("docs/first-hour.md", "audiohook.example.com {"),
        )
        lap("behind Caddy")
        await upgrade(
            at,
            typed("docs/operate.md", "git pull"),
            typed("docs/systemd.md", "for i in"),
        )
        lap("upgraded")
        await remove(at, typed("docs/systemd.md", "sudo systemctl disable --now"))
        lap("removed")
