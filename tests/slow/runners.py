"""Ways to start ``audiohook`` that are not the product's, as code for Python."""

from __future__ import annotations

# As systemd hands over a socket: from 3 on, to the process itself.
SOCKET_AT_3 = """
import os, sys
number, arguments = int(sys.argv[1]), sys.argv[2:]
if number != 3:
    os.dup2(number, 3)
    os.close(number)
os.set_inheritable(3, True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1",
               "LISTEN_FDNAMES": "audiohook"}
os.execv(sys.executable, [sys.executable, "-m", "audiohook", *arguments])
"""

# A handler of Python's runs in the main thread, between two steps of the loop.
BLOCKED_BY_SIGNAL = """
import signal, time
from audiohook.cli import main
signal.signal(signal.SIGUSR1, lambda *_: time.sleep({seconds}))
main()
"""
