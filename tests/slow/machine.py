"""A machine with systemd as its first process, booted for a test and thrown away.

It is this machine once more: all that is installed here is there too, by an overlay
of which the upper layer is in memory, so nothing that is done there reaches a disk.
Processes, network, control groups, mounts and users are its own, and nothing of what
this machine runs is started. It boots in two or three seconds.

As a program it says whether a machine can be booted here, and ends with `CANNOT` if
not: ``python -m tests.slow.machine``.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

SOMEONE = "someone"
"""A user who may use sudo."""

BOOT_SECONDS = 60.0
POWEROFF_SECONDS = 10.0
TYPE_SECONDS = 60.0

CANNOT = 3
"""Exit code that no fault has."""

_NEEDED = {
    "systemd-nspawn": "systemd-container",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "sudo": "sudo",
    "jq": "jq",
    "caddy": "caddy",
}

# What can be forbidden even to root: mounts, and control groups of one's own. The
# root folder must hold the whole system, since mounts below it are not seen.
_MOUNTS = """
mount -t tmpfs -o mode=755 tmpfs "$base"
cd "$base"
mkdir upper work root
mount -t overlay -o "lowerdir=/,upperdir=$base/upper,workdir=$base/work" overlay root
test -x root/usr/lib/systemd/systemd || test -x root/lib/systemd/systemd
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir "/sys/fs/cgroup/$name"
"""

# Two machines in one control group would each take the other's services for their own.
_ENTER_GROUP = """
echo $$ >"/sys/fs/cgroup/$name/cgroup.procs"
"""

# What was killed may take a moment to be gone.
_LEAVE_GROUP = """
mount -t cgroup2 cgroup2 /sys/fs/cgroup
tries=50
until find "/sys/fs/cgroup/$name" -depth -type d -exec rmdir {} + 2>/dev/null; do
    tries=$((tries - 1))
    test "$tries" -gt 0
    sleep 0.1
done
"""

# Nothing of what this machine is for, and nobody's files: only what each machine of
# its kind has.
_STRIP = """
cd root
mount -t tmpfs -o mode=711 tmpfs root
mount -t tmpfs -o mode=755 tmpfs home
rm -rf etc/systemd/system etc/systemd/*.conf.d etc/rc?.d etc/fstab etc/sysctl.d \\
    etc/profile.d etc/xdg/pip etc/pip.conf var/log/journal \\
    etc/caddy var/lib/caddy/* var/lib/caddy/.[!.]* \\
    etc/audiohook etc/credstore etc/sysusers.d \\
    opt/audiohook usr/local/sbin/audiohook var/lib/audiohook
mkdir -p etc/systemd/system var/log/journal
>etc/environment
cat /proc/sys/kernel/random/uuid | tr -d - >etc/machine-id
for user in audiohook $someone; do
    if chroot . id "$user" >/dev/null 2>&1; then chroot . userdel "$user"; fi
done
chroot . useradd --create-home --shell /bin/bash "$someone"
echo "$someone ALL=(ALL) NOPASSWD: ALL" >"etc/sudoers.d/$someone"
chmod 0440 "etc/sudoers.d/$someone"
cp -a "$furniture/." .
chroot . chown -R "$someone:" "/home/$someone"
for folder in $passable; do chmod o+x ".$folder"; done
"""

# What systemd-nspawn notes of its machines is not for this machine's systemd.
_BOOT = """
mount -t tmpfs tmpfs /run
exec systemd-nspawn --quiet --boot --directory="$base/root" --machine="$name" \\
    --register=no --keep-unit --private-network --resolv-conf=off --timezone=off \\
    --link-journal=no --console=read-only --notify-ready=yes "$@"
"""


# Each of them may hang as well.
_LOOK = """
ps axfo pid,stat,wchan:20,args
timeout 3 systemctl list-jobs --no-pager
timeout 3 journalctl --no-pager --lines 300
"""


@dataclass(frozen=True, slots=True)
class Typed:
    """What came of something typed.

    Attributes:
        code: How it ended.
        out: What it printed.
        err: What it complained of.
    """

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that runs.

    Attributes:
        leader: Its first process, as this machine numbers it.
    """

    leader: int

    @property
    def root(self) -> Path:
        """Its root folder, for tests to read and write."""
        return Path(f"/proc/{self.leader}/root")

    @property
    def cpu_seconds(self) -> float:
        """What all its processes have taken of the processors so far."""
        told = (self.root / "sys/fs/cgroup/cpu.stat").read_text().split()
        return int(told[told.index("usage_usec") + 1]) / 1e6

    async def try_to(
        self,
        text: str,
        *,
        user: str = SOMEONE,
        folder: str = "~",
        feed: str = "",
        seconds: float = TYPE_SECONDS,
    ) -> Typed:
        """Types text into a login shell there, which ends at the first fault.

        Args:
            text: For the shell.
            user: Who types it.
            folder: Where.
            feed: What its standard input has.
            seconds: For so long at most.

        Raises:
            trio.TooSlowError: It takes longer.
        """
        with trio.move_on_after(seconds):
            done = await trio.run_process(
                [
                    *("nsenter", "--all", "--target", str(self.leader)),
                    *("/bin/su", "--login", user, "--command"),
                    f"set -e\ncd {folder}\n{text}",
                ],
                stdin=feed.encode(),
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
            return Typed(done.returncode, done.stdout.decode(), done.stderr.decode())
        raise trio.TooSlowError(f"{text!r} has not ended within {seconds} s")

    async def type(
        self,
        text: str,
        *,
        user: str = SOMEONE,
        folder: str = "~",
        feed: str = "",
        seconds: float = TYPE_SECONDS,
    ) -> str:
        """Types what must go well; what it prints.

        Args:
            text: As for `try_to`.
            user: As there.
            folder: As there.
            feed: As there.
            seconds: As there.
        """
        done = await self.try_to(
            text, user=user, folder=folder, feed=feed, seconds=seconds
        )
        assert done.code == 0, (text, done)
        return done.out

    async def look(self) -> str:
        """Returns what goes on there, and what has; for somebody who seeks a fault."""
        done = await trio.run_process(
            ["nsenter", "--all", "--target", str(self.leader), "sh", "-c", _LOOK],
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
        )
        return done.stdout.decode()


@asynccontextmanager
async def booted(
    base: Path, furniture: Path, binds: Iterable[tuple[Path, str]] = ()
) -> AsyncIterator[Machine]:
    """Boots a machine, which is up when this returns and gone after the block.

    Args:
        base: Folder of its own for it.
        furniture: Put into its root before it boots. What lies in the home of
            `SOMEONE` is theirs, all else root's.
        binds: Folders of this machine, and where they are to be seen there.

    Raises:
        RuntimeError: It did not boot.
    """
    name = f"audiohook-{uuid.uuid4().hex[:12]}"
    (place := base / "machine").mkdir()
    log = base / "console.log"
    binds = list(binds)
    options = [f"--bind-ro={ours}:{theirs}" for ours, theirs in binds]
    variables = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "NOTIFY_SOCKET": f"@{name}",
        "base": str(place),
        "name": name,
        "furniture": str(furniture),
        "someone": SOMEONE,
        "passable": " ".join(_closed_above(theirs for _, theirs in binds)),
    }
    news = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_DGRAM)
    await news.bind(f"\0{name}")
    with log.open("wb") as stream:
        process = await trio.lowlevel.open_process(
            _in_own_mounts(_MOUNTS + _ENTER_GROUP + _STRIP + _BOOT, *options),
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            # Ctrl-C at the tests is none at the machine.
            start_new_session=True,
        )
    try:
        # Closed afterwards: its first process would wait for somebody to read more.
        with news:
            is_up = await _wait_up(news, process)
        if not is_up:
            raise RuntimeError(f"the machine did not boot: {log.read_text()}")
        yield Machine(_leader(process))
    finally:
        with trio.CancelScope(shield=True):
            await _end(process)
            await trio.run_process(
                _in_own_mounts(_LEAVE_GROUP), env=variables, check=False
            )


def _in_own_mounts(script: str, *arguments: str) -> list[str]:
    """Returns the command that runs a script whose mounts nobody else sees."""
    return [
        *("unshare", "--mount", "--propagation", "private"),
        *("sh", "-euc", script, "sh", *arguments),
    ]


def _closed_above(paths: Iterable[str]) -> list[str]:
    """Returns folders above these that exist here and not everybody may pass."""
    above = {folder for path in paths for folder in Path(path).parents}
    return sorted(
        str(folder)
        for folder in above
        if folder.exists() and not folder.stat().st_mode & 1
    )


async def _wait_up(news: trio.socket.SocketType, process: trio.Process) -> bool:
    """Waits until the machine says that it is up; whether it did."""
    is_up = False

    async def listen(scope: trio.CancelScope) -> None:
        nonlocal is_up
        while not is_up:
            is_up = b"READY=1" in (await news.recv(4096)).split(b"\n")
        scope.cancel()

    with trio.move_on_after(BOOT_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen, nursery.cancel_scope)
            await process.wait()
            nursery.cancel_scope.cancel()
    return is_up


def _leader(process: trio.Process) -> int:
    (pid,) = _children(process.pid)
    return pid


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except FileNotFoundError:
        return []
    return [int(each) for each in text.split()]


async def _end(process: trio.Process) -> None:
    """Has the machine power off, and takes its plug out if it does not."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with trio.move_on_after(POWEROFF_SECONDS):
            await process.wait()
    if process.poll() is None:
        # With its first process all others of the machine end.
        for pid in _children(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.kill()
        await process.wait()


@cache
def why_not() -> str | None:
    """Finds out what keeps a machine from being booted here; None if nothing does."""
    if os.geteuid() != 0:
        return "only root can boot one"
    for program, package in _NEEDED.items():
        if shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
            return f"{program} is missing; on Debian: apt-get install {package}"
    name = f"audiohook-{uuid.uuid4().hex[:12]}"
    script = f"{_MOUNTS}\nexec unshare --pid --fork --net --ipc --uts --cgroup true"
    tried = subprocess.run(
        _in_own_mounts(f"base=/mnt; name={name}; {script}"),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    subprocess.run(
        _in_own_mounts(f"name={name}; {_LEAVE_GROUP}"),
        capture_output=True,
        check=False,
        timeout=30,
    )
    if tried.returncode:
        said = " ".join(tried.stderr.split()) or "the root folder is not the system's"
        return f"namespaces, mounts or control groups are not to be had ({said})"
    return None


if __name__ == "__main__":
    reason = why_not()
    print(reason or "a machine can be booted here")  # noqa: T201
    sys.exit(CANNOT if reason else 0)
