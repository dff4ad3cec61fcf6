"""A network and names of one's own, so that pages can be typed to the last digit.

Port 443, 3000 and 9090 are free there, whatever else runs on this machine, and a public
name leads to loopback. It takes root, as the tests of units and of full disks do.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NAME = "audiohook.example.com"
BEGIN_SECONDS = 20.0
# What `ip link set lo up` does, without the program.
_LOOPBACK_UP = """
import fcntl, socket, struct, time
IFF_UP, SIOCSIFFLAGS = 1, 0x8914
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
    fcntl.ioctl(plain, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))
print("up", flush=True)
time.sleep(1e6)
"""


@asynccontextmanager
async def own_network(folder: Path, work: Path) -> AsyncIterator[tuple[str, ...]]:
    """Has a network of its own while the block lasts.

    Args:
        folder: For the file of names.
        work: What is to be the working folder of whoever enters.

    Yields:
        What has to stand before a command for it to run in there.
    """
    names = folder / "hosts"
    names.write_text(f"127.0.0.1 localhost {NAME}\n")
    # Of /run, ssh's daemon wants a folder to be there.
    script = (
        f"mount --bind {names} /etc/hosts && mount -t tmpfs own /run && mkdir /run/sshd"
        ' && exec "$0" -c "$1"'
    )
    holder = await trio.lowlevel.open_process(
        [
            "unshare",
            "--net",
            "--mount",
            "sh",
            "-c",
            script,
            sys.executable,
            _LOOPBACK_UP,
        ],
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        with trio.fail_after(BEGIN_SECONDS):
            said = await holder.stdout.receive_some()
        assert said.startswith(b"up"), said
        yield ("nsenter", f"--target={holder.pid}", "--net", "--mount", f"--wd={work}")
    finally:
        holder.kill()
        with trio.CancelScope(shield=True):
            await holder.wait()
