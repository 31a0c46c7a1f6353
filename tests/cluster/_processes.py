"""Daemons that outlive the process that starts them: one pid file and one log each."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from ._layout import HERE, ClusterError, Layout


def alive(layout: Layout, name: str) -> int:
    """Return the pid of a daemon that runs, or 0; a pid that another process has by now does not count."""
    try:
        pid, started = (layout.root / "run" / f"{name}.pid").read_text().split()
    except (OSError, ValueError):
        return 0
    return int(pid) if _start_time(int(pid)) == started else 0


def start(layout: Layout, name: str, argv: list[str | Path]) -> None:
    """Start a daemon in the cluster's network namespace; no-op if it runs."""
    if alive(layout, name):
        return
    # nsenter takes the network alone: the kubelet's mounts must be seen by containerd, so all share the machine's.
    command = ["nsenter", f"--net=/run/netns/{layout.name}", *map(str, argv)]
    log = layout.root / "logs" / f"{name}.log"
    # The shell ends at once, so the daemon is nobody's child here: it leaves no zombie, and no Popen that is not waited for.
    shell = ["setsid", "sh", "-c", '"$@" </dev/null >>"$0" 2>&1 & echo $!', str(log), *command]
    pid = int(subprocess.run(shell, stdout=subprocess.PIPE, check=True, cwd=HERE.parent.parent).stdout)
    (layout.root / "run" / f"{name}.pid").write_text(f"{pid} {_start_time(pid)}")


def stop(layout: Layout, name: str, *, grace: float = 15.0) -> None:
    """End a daemon, after `grace` seconds by force (0: at once), and return when it is gone; no-op if it does not run.

    Raises:
        ClusterError: it is still there half a minute after it was killed.
    """
    pid = alive(layout, name)
    if pid and grace:
        os.kill(pid, signal.SIGTERM)
        _gone(layout, name, grace)
    if alive(layout, name):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        if not _gone(layout, name, 30):
            raise ClusterError(f"{name} (process {pid}) does not end, though it was killed")
    (layout.root / "run" / f"{name}.pid").unlink(missing_ok=True)


def wait_for(what: str, ready: Callable[[], object], *, timeout: float = 120.0, interval: float = 0.2) -> None:
    """Wait until `ready` returns something true.

    Raises:
        ClusterError: it did not within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not ready():
        if time.monotonic() > deadline:
            raise ClusterError(f"{what} did not happen within {timeout:.0f} s")
        time.sleep(interval)


def _gone(layout: Layout, name: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while alive(layout, name) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(layout, name)


def _start_time(pid: int) -> str:
    """Read when a process started, in clock ticks since boot (proc(5), field 22); empty if it is gone or a zombie.

    One whose first thread alone is a zombie is not gone: the others (their number is field 20) still hold what it listens on.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" and int(fields[17]) <= 1 else fields[19]
