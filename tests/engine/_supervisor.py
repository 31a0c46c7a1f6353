"""Run dockerd as long as it has users: ``python -m tests.engine._supervisor FOLDER``, started by ``_own``.

Engines of one machine share iptables. dockerd may set the policy of the chain FORWARD to DROP, which would cut off bridges
that are not Docker's, as that of a Kubernetes on the same machine (``sbxtest0`` of the test cluster): it is set back.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.engine._client import problem_of, sweep
from tests.engine._own import sockets
from tests.images._packages import found

BRIDGE = "sbxdock0"
BRIDGE_ADDRESS = "10.87.0.1/16"
#: Networks that Docker chooses from: its own default has 31 only, and tests make more than that.
POOL = "base=10.90.0.0/15,size=24"
PR_SET_PDEATHSIG = 1


def main(folder: Path) -> int:
    """Start dockerd, wait for its end, which the last user's end brings about, and remove what it leaves."""
    policy = _forward_policy()
    _make_bridge()
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    dockerd = subprocess.Popen(_command(folder), stdin=subprocess.DEVNULL, preexec_fn=_end_with_parent)
    signal.signal(signal.SIGTERM, lambda *_: dockerd.terminate())
    threading.Thread(target=_set_policy_back, args=(folder, policy), daemon=True).start()
    threading.Thread(target=_stop_without_users, args=(folder, dockerd), daemon=True).start()
    code = dockerd.wait()
    shutil.rmtree(sockets(folder), ignore_errors=True)
    _run("ip", "link", "delete", BRIDGE)
    return code


def _command(folder: Path) -> list[str]:
    return [
        found("dockerd") or "dockerd",
        *("--host", f"unix://{sockets(folder)}/docker.sock", "--pidfile", f"{folder}/docker.pid"),
        *("--data-root", f"{folder}/data", "--exec-root", str(sockets(folder))),
        *("--bridge", BRIDGE, "--default-address-pool", POOL, "--log-level", "warn"),
    ]


def _end_with_parent() -> None:
    """Have the kernel end dockerd when its supervisor is killed (prctl(2)); it then stops its containers itself."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _set_policy_back(folder: Path, policy: str) -> None:
    """Do so once it answers; by then it has made its rules."""
    while problem_of(f"unix://{sockets(folder)}/docker.sock"):
        time.sleep(0.1)
    if policy:
        _run("iptables", "--policy", "FORWARD", policy)


def _stop_without_users(folder: Path, dockerd: subprocess.Popen[bytes]) -> None:
    """Wait until no process holds the engine; with its containers killed first, dockerd needn't wait for each to end."""
    users = os.open(folder / "users", os.O_RDWR | os.O_CLOEXEC)
    fcntl.flock(users, fcntl.LOCK_EX)
    try:
        sweep(f"unix://{sockets(folder)}/docker.sock")
    finally:
        dockerd.terminate()


def _forward_policy() -> str:
    listed = _run("iptables", "--list-rules", "FORWARD")
    words = listed.split()
    return words[2] if words[:2] == ["-P", "FORWARD"] else ""


def _make_bridge() -> None:
    _run("ip", "link", "delete", BRIDGE)
    _run("ip", "link", "add", BRIDGE, "type", "bridge")
    _run("ip", "address", "add", BRIDGE_ADDRESS, "dev", BRIDGE)
    _run("ip", "link", "set", BRIDGE, "up")


def _run(program: str, *arguments: str) -> str:
    """Run a program whose failure shows later, in dockerd's own words."""
    command = [found(program) or program, *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False).stdout


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
