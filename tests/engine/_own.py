"""Start an engine of our own, or join the one that another test run of this machine has started.

Each run holds a shared lock on the file ``users``, which the kernel drops when the run ends, also when it is killed. The
engine's supervisor waits for the exclusive lock: it gets it when nobody is left, and then stops the engine.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.engine._client import EngineError, problem_of, sweep
from tests.images._cache import alone
from tests.images._packages import ensure

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = {"dockerd": "docker.io", "iptables": "iptables", "ip": "iproute2"}
START_SECONDS = 90


def own_engine() -> str:
    """Return the address of our engine; it runs until this process ends, and longer if others use it then.

    Raises:
        EngineError: It can't be started here. Nothing of it runs.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        raise EngineError("no Docker engine answers (set DOCKER_HOST), and only root on Linux can start one for the tests")
    missing = ensure(PROGRAMS)
    if missing:
        raise EngineError(f"no Docker engine answers, and none can be started: {missing}")
    folder = Path(os.environ.get("SANDBOXCORE_TEST_ENGINE") or Path.home() / ".cache" / "sandboxcore-test-engine")
    folder.mkdir(parents=True, exist_ok=True)
    host = f"unix://{sockets(folder)}/docker.sock"
    with alone(folder / "starting"):
        _become_user(folder)
        if problem_of(host):
            _start(folder, host)
    return host


def sockets(folder: Path) -> Path:
    """Name the folder of an engine's sockets: containerd's have long names, and a socket's path ends after 107 bytes."""
    return Path(f"/run/sandboxcore-engine-{hashlib.sha256(bytes(folder)).hexdigest()[:8]}")


def _become_user(folder: Path) -> None:
    """Hold the engine until this process ends; waits while an engine whose users have gone is being stopped."""
    users = os.open(folder / "users", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    fcntl.flock(users, fcntl.LOCK_SH)


def _start(folder: Path, host: str) -> None:
    """Start it on the data that it kept; if they are broken, without."""
    problem = _try_to_start(folder, host)
    if problem and (folder / "data").exists():
        shutil.rmtree(folder / "data", ignore_errors=True)
        problem = _try_to_start(folder, host)
    if problem:
        raise EngineError(f"dockerd can't be started: {problem}; its log is {folder / 'log'}")


def _try_to_start(folder: Path, host: str) -> str:
    """Start the supervisor and wait until the engine answers; returns why it does not."""
    command = [sys.executable, "-m", "tests.engine._supervisor", str(folder)]
    with (folder / "log").open("wb") as log:
        supervisor = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + START_SECONDS
    while problem_of(host):
        if supervisor.poll() is not None:
            return ((folder / "log").read_text(errors="replace").strip().splitlines() or ["no word"])[-1]
        if time.monotonic() > deadline:
            supervisor.terminate()
            supervisor.wait()
            return f"it does not answer after {START_SECONDS} s"
        time.sleep(0.1)
    sweep(host)
    supervisor.returncode = 0  # it outlives us: Popen must not miss its end
    return ""
