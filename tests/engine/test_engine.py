"""An engine of our own: shared by the runs that use it, gone with the last of them, its kept data swept."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engine._own import sockets

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 100

#: A test run: prints the engine's address, makes what a killed one would leave, and waits.
RUN = """
import sys, docker
from tests.engine import docker_host
from tests.engine._images import load_images
host = docker_host()
load_images(host, ["busybox"])
client = docker.DockerClient(base_url=host)
print(host, len(client.containers.list(all=True)), len(client.networks.list(filters={"type": "custom"})), flush=True)
if sys.argv[1] == "leave":
    client.networks.create("left")
    client.containers.run("sandboxcore.test/busybox:1", ["sleep", "1000"], network="left", detach=True)
print("made", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def network() -> Iterator[list[str]]:
    """Give a prefix for commands in a network of their own: a second engine would take another's iptables rules away."""
    if os.geteuid() != 0 or not (shutil.which("dockerd") and shutil.which("nsenter")):
        pytest.skip("only root can start an engine, and dockerd must be installed")
    holder = subprocess.Popen(["unshare", "--net", "--mount", "sleep", "900"])
    try:
        prefix = ["nsenter", "--net", "--mount", "--target", str(holder.pid)]
        wait_for(lambda: Path(f"/proc/{holder.pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink())
        subprocess.run([*prefix, "ip", "link", "set", "lo", "up"], check=True)
        yield prefix
    finally:
        holder.kill()
        holder.wait()


def start(prefix: list[str], folder: Path, *, leave: bool) -> tuple[subprocess.Popen[str], str]:
    environment = {key: value for key, value in os.environ.items() if key != "DOCKER_HOST"}
    environment["SANDBOXCORE_TEST_ENGINE"] = str(folder)
    command = [*prefix, sys.executable, "-c", RUN, "leave" if leave else "keep"]
    run = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    found = run.stdout.readline().strip()
    assert run.stdout.readline() == "made\n"
    return run, found


def kill(run: subprocess.Popen[str]) -> None:
    run.send_signal(signal.SIGKILL)
    run.communicate()


def processes(folder: Path) -> list[str]:
    """Find what runs for the engine of a folder, whoever started it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in command:
            found.append(command)
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.timeout(600)
def test_it_ends_with_its_last_user_and_nothing_is_left(network: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "engine"
    first, seen_by_first = start(network, folder, leave=True)
    second, seen_by_second = start(network, folder, leave=False)
    assert seen_by_first == f"unix://{sockets(folder)}/docker.sock 0 0"
    assert seen_by_second == f"unix://{sockets(folder)}/docker.sock 1 1"
    kill(first)
    assert processes(folder)
    kill(second)
    wait_for(lambda: not processes(folder))
    assert not sockets(folder).exists()
    third, seen_by_third = start(network, folder, leave=False)
    assert seen_by_third == f"unix://{sockets(folder)}/docker.sock 0 0"
    kill(third)
    wait_for(lambda: not processes(folder))
