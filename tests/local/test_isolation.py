"""What a sandbox is shut off from, on the real thing."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

from sandboxcore.spec import EnvironmentSpec, NetworkSpec, ServiceSpec

from .conftest import Backend


async def test_other_processes_are_not_seen(backend: Backend) -> None:
    made = await backend.make()
    pids = await made.output("sh", "-c", "echo /proc/[0-9]*")
    seen = [Path(path).name for path in pids.split()]
    assert "1" in seen
    assert len(seen) < 10


async def test_only_loopback_exists(backend: Backend) -> None:
    made = await backend.make()
    lines = (await made.output("cat", "/proc/net/dev")).splitlines()[2:]
    assert [line.split(":")[0].strip() for line in lines] == ["lo"]


async def test_files_of_the_host_can_not_be_read(backend: Backend, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hidden")
    secret.chmod(0o644)
    made = await backend.make()
    for path in (secret, Path("/etc/shadow"), Path("/etc/ssh"), Path.home(), backend.provisioner.state.path):
        result = await made.run("sh", "-c", f"cat {path}/* {path}")
        assert not result.ok, path
        assert b"hidden" not in result.stdout


async def test_programs_of_the_host_can_not_be_changed(backend: Backend) -> None:
    made = await backend.make()
    for path in ("/usr/bin/planted", "/etc/ssl/certs/planted", "/proc/sys/kernel/hostname"):
        assert not (await made.run("sh", "-c", f"echo x > {path}")).ok, path


async def test_the_places_to_write_are_the_sandboxes_own(backend: Backend) -> None:
    one, other = await backend.make(working_dir="/work"), await backend.make(working_dir="/work")
    for path in ("/tmp", "/var/tmp", "/home/agent", "/root", "/run", "/work", "/dev/shm", "/usr/src", "/opt"):
        await one.output("sh", "-c", f"echo mine > {path}/file")
        assert not (await other.run("cat", f"{path}/file")).ok, path
        assert not os.path.exists(f"{path}/file")  # noqa: PTH110  Path.exists raises where a folder is closed


async def test_the_working_directory_is_on_disk(backend: Backend) -> None:
    """More than a tmpfs would hold fits."""
    made = await backend.make(working_dir="/work")
    kinds = await made.output("stat", "-f", "-c", "%T", "/work", "/tmp", "/home/agent")
    assert "tmpfs" not in kinds.split()


async def test_root_of_the_sandbox_is_not_root_of_the_host(backend: Backend) -> None:
    made = await backend.make(command=("sleep", "1000"))
    assert await made.output("id", "-u") == "0"
    await made.output("sh", "-c", "echo x > /root/file")
    folder = Path(made.sandbox("default").data["folder"])
    assert (folder / "root/root/file").stat().st_uid not in ({0} if os.geteuid() == 0 else set())


async def test_capabilities_are_dockers(backend: Backend) -> None:
    made = await backend.make()
    status = await made.output("cat", "/proc/self/status")
    assert "CapEff:\t00000000a80425fb" in status
    assert "CapBnd:\t00000000a80425fb" in status
    assert "NoNewPrivs:\t1" in status


async def test_capabilities_can_be_added_and_dropped(backend: Backend) -> None:
    made = await backend.make(cap_add=("NET_ADMIN",), cap_drop=("CAP_NET_RAW",))
    line = next(line for line in (await made.output("cat", "/proc/self/status")).splitlines() if line.startswith("CapEff"))
    mask = int(line.split()[1], 16)
    assert mask >> 12 & 1
    assert not mask >> 13 & 1


async def test_a_read_only_root_leaves_volumes_writable(backend: Backend) -> None:
    mounts = ({"target": "/data"}, {"type": "tmpfs", "target": "/scratch", "mode": 0o700, "size_bytes": 1 << 20})
    made = await backend.make(read_only=True, volumes=mounts, working_dir="/work")
    assert not (await made.run("touch", "/work/x")).ok
    assert not (await made.run("touch", "/tmp/x")).ok
    await made.output("touch", "/data/x", "/scratch/x", "/dev/shm/x")
    assert await made.output("stat", "-c", "%a", "/scratch") == "700"


async def test_siblings_reach_each_other_by_name_and_strangers_do_not(backend: Backend) -> None:
    serve = (
        "import socket;s=socket.create_server(('0.0.0.0',8000));print('up',flush=True)\nwhile 1: s.accept()[0].sendall(b'hello')"
    )
    spec = EnvironmentSpec(
        services={
            "default": ServiceSpec(networks={"one": ()}),
            "target_env": ServiceSpec(
                command=("/usr/bin/env", "python3", "-c", serve),
                networks={"one": ("web.local",)},
                hostname="victim",
                aliases=("alias",),
            ),
            "stranger": ServiceSpec(networks={"two": ()}),
            "alone": ServiceSpec(networks=None),
        },
        networks={"one": NetworkSpec(), "two": NetworkSpec()},
    )
    made = await backend.make(spec)
    await backend.assert_log(made, b"up\n", "target_env")
    ask = "import socket,sys;print(socket.create_connection((sys.argv[1],8000),5).recv(9).decode())"
    for name in ("target_env", "victim", "alias", "web.local"):
        assert await made.output("python3", "-c", ask, name) == "hello"
    for stranger in ("stranger", "alone"):
        assert not (await made.run("python3", "-c", ask, "target_env", service=stranger)).ok
        assert not (await made.run("python3", "-c", ask, "127.0.1.2", service=stranger)).ok
    assert await made.output("cat", "/etc/hostname", service="target_env") == "victim"


async def test_environments_do_not_share_a_network(backend: Backend) -> None:
    one, other = await backend.make(), await backend.make()
    assert await one.output("readlink", "/proc/self/ns/net") != await other.output("readlink", "/proc/self/ns/net")
    assert await one.output("readlink", "/proc/self/ns/ipc") != await other.output("readlink", "/proc/self/ns/ipc")


async def test_internet_is_the_network_of_the_host(backend: Backend) -> None:
    made = await backend.make(network_policy={"internet": True})
    assert await made.output("readlink", "/proc/self/ns/net") == str(Path("/proc/self/ns/net").readlink())


async def test_secrets_are_not_in_the_arguments_of_any_process(backend: Backend) -> None:
    secret = secrets.token_hex()
    made = await backend.make(env={"TOKEN": secret}, files={"/etc/key": {"content": secret.encode()}})
    assert await made.output("sh", "-c", "echo $TOKEN; cat /etc/key") == f"{secret}\n{secret}"
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert secret.encode() not in path.read_bytes()
        except OSError:
            continue
    described = "".join(path.read_text() for path in Path(made.ref.data["folder"]).glob("*.json"))
    assert secret not in described


@pytest.mark.skipif(os.geteuid() != 0, reason="a folder that only root can search is needed")
async def test_the_state_folder_may_be_closed_to_others(backend: Backend) -> None:
    made = await backend.make()
    assert backend.provisioner.state.path.stat().st_mode & 0o077 == 0
    assert await made.output("id", "-u") == "0"


FORKS = """
import os, signal
made = []
try:
    while len(made) < 130:
        pid = os.fork()
        if not pid:
            signal.pause()
        made.append(pid)
except BlockingIOError:
    pass
for pid in made:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
print(len(made))
"""


async def test_pids_are_bounded(backend: Backend) -> None:
    """By how many live at once, however many there were: the kernel gives low numbers once only."""
    from sandboxcore.local._check import pids_are_bounded

    if not pids_are_bounded():
        pytest.skip("needs Linux 6.14")
    made = await backend.make(resources={"pids": 100})
    most = 100 - len(("the command's minder", "python"))
    near = range(most - 5, most + 1)  # a minder tells of its command's end before its own
    assert int(await made.output("python3", "-S", "-c", FORKS, timeout=20)) in near
    for _ in range(1000):
        assert (await made.run("true", timeout=10)).ok
    assert int(await made.output("python3", "-S", "-c", FORKS, timeout=20)) in near
