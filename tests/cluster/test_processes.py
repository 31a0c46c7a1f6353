"""When a daemon is gone: not before nothing of it holds what it listened on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster._processes import _start_time, wait_for

pytestmark = [
    pytest.mark.tier("none"),
    pytest.mark.skipif(sys.platform != "linux", reason="the cluster's daemons run on Linux only"),
]

#: Its first thread ends and becomes a zombie, the other one goes on: so is a process for a moment that was killed.
HALF_ENDED = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(300,)).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_process_is_gone_with_its_last_thread() -> None:
    with subprocess.Popen([sys.executable, "-c", HALF_ENDED]) as process:
        try:
            wait_for("the end of the first thread", lambda: state(process.pid) == "Z", timeout=60)
            assert _start_time(process.pid)
        finally:
            process.kill()
        wait_for("the end of the process", lambda: not _start_time(process.pid), timeout=60)
        assert state(process.pid) == "Z", "it was waited for, so this says nothing of zombies"
