"""Leases, cleaning up, dying clients, and many at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from sandboxcore.errors import SandboxError, SandboxUnavailableError
from sandboxcore.local._launch import Process, wait_gone
from sandboxcore.local._programs import launcher_binary
from sandboxcore.local._removal import Remover
from sandboxcore.spec import EnvironmentSpec, ServiceSpec, VolumeMount, VolumeSpec
from sandboxcore.values import Claim, Selector

from .conftest import Backend, processes_below


def holder_of(backend: Backend, environment_id: str) -> Process:
    holder = backend.provisioner.state.folder(environment_id).holder
    assert holder is not None
    return holder


async def test_another_process_finds_and_uses_it(backend: Backend, make_backend: Callable[..., Backend]) -> None:
    await backend.make(command=("sleep", "1000"))
    other = make_backend()
    (found,) = await other.all()
    assert (found.run_id, found.owner, found.default, found.state) == ("run", "tests", "default", "ready")
    assert found.expires_at == pytest.approx(time.time() + 120, abs=10)
    assert await other.discoverer.find(Selector(environment_id="env1")) == [found]
    assert await other.discoverer.find(Selector(environment_id="other")) == []
    await other.provisioner.destroy(found)
    assert await backend.all() == []


async def test_labels_and_run_select(backend: Backend) -> None:
    await backend.make(EnvironmentSpec(services={"default": ServiceSpec()}, labels={"a": "1"}))
    assert len(await backend.discoverer.find(Selector(labels={"a": "1"}))) == 1
    assert await backend.discoverer.find(Selector(labels={"a": "2"})) == []
    assert await backend.discoverer.find(Selector(run_id="other")) == []


async def test_the_end_of_a_lease_kills_without_any_client(backend: Backend) -> None:
    made = await backend.make()
    holder = holder_of(backend, made.ref.environment_id)
    below = processes_below(holder.pid)
    assert len(below) >= 3
    end = time.time() + 1.0
    await backend.provisioner.renew([made.ref], 1.0)
    await asyncio.wait_for(wait_gone(holder), 30)
    assert time.time() >= end
    assert not set(below) & set(processes_below(1))
    (found,) = await backend.all()
    assert found.state == "failed"
    assert found.expires_at <= time.time() + 1
    await made.close()
    with pytest.raises(SandboxUnavailableError) as caught:
        await made.run("true")
    assert caught.value.started == "no"


async def test_renewing_moves_the_end_both_ways(backend: Backend) -> None:
    made = await backend.make()
    holder = holder_of(backend, made.ref.environment_id)
    await backend.provisioner.renew([made.ref], 2.0)
    await backend.provisioner.renew([made.ref], 600)
    await asyncio.sleep(2.5)
    assert holder.alive()
    assert (await backend.all())[0].expires_at > time.time() + 500
    await backend.provisioner.renew([made.ref], 0.5)
    await asyncio.wait_for(wait_gone(holder), 30)
    await backend.provisioner.destroy(made.ref)
    await backend.provisioner.renew([made.ref], 60)
    assert await backend.all() == []


async def test_the_next_one_reaps_what_has_expired(backend: Backend, make_backend: Callable[..., Backend]) -> None:
    made = await backend.make()
    holder = holder_of(backend, made.ref.environment_id)
    await backend.provisioner.renew([made.ref], 0.5)
    await asyncio.wait_for(wait_gone(holder), 30)
    await asyncio.sleep(0.5)
    other = make_backend()
    claim = Claim(run_id="later", environment_id="later", owner="tests")
    await other.provisioner.provision(EnvironmentSpec(services={"default": ServiceSpec()}), claim, other.events.append)
    await other.provisioner.aclose()
    assert [environment.environment_id for environment in await other.all()] == ["later"]


CLIENT = """
import asyncio, sys
from sandboxcore.local._config import LocalConfig
from sandboxcore.local._provisioner import LocalProvisioner
from sandboxcore.spec import EnvironmentSpec, ServiceSpec
from sandboxcore.values import Claim

async def main():
    provisioner = LocalProvisioner(LocalConfig(state_dir=sys.argv[1]))
    spec = EnvironmentSpec(services={"default": ServiceSpec(), "other": ServiceSpec(command=("sleep", "1000"))})
    claim = Claim(run_id="killed", environment_id="killed" + sys.argv[2], owner="tests", lease=float(sys.argv[3]))
    print("go", flush=True)
    await provisioner.provision(spec, claim, lambda event: None)
    print("ready", flush=True)
    await asyncio.sleep(100)

asyncio.run(main())
"""


def commands(pids: Iterable[int]) -> list[bytes]:
    """Read the command lines of those processes that still are."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            found.append(Path(f"/proc/{pid}/cmdline").read_bytes())
    return found


async def test_a_client_killed_at_any_moment_leaves_only_what_is_found(backend: Backend, tmp_path: Path) -> None:
    backend.provisioner.state.ensure()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    before = set(processes_below(1))
    for index, delay in enumerate((0.0, 0.004, 0.008, 0.012, 0.02, 0.03, 0.05, 0.08, 0.12, 1.0)):
        argv = [sys.executable, "-c", CLIENT, str(backend.provisioner.state.path), str(index), "300"]
        client = subprocess.Popen(argv, stdout=subprocess.PIPE, env=environment, start_new_session=True)
        assert client.stdout is not None
        assert client.stdout.readline() == b"go\n"
        await asyncio.sleep(delay)
        client.send_signal(signal.SIGKILL)
        client.wait()
        client.stdout.close()
    await asyncio.sleep(0.3)
    for found in await backend.all():
        assert found.run_id in ("killed", "")
        await backend.provisioner.destroy(found)
    assert list(backend.provisioner.state.environments.iterdir()) == []
    deadline = time.monotonic() + 30
    while left := [command for command in commands(set(processes_below(1)) - before) if str(tmp_path).encode() in command]:
        assert time.monotonic() < deadline, left
        await asyncio.sleep(0.05)


def _hold(backend: Backend, folder: Path) -> list[str]:
    return [str(launcher_binary()), "hold", "--dir", str(folder), "--nets", "1", *backend.provisioner.mapping.arguments()]


async def test_a_holder_that_starts_while_its_folder_goes_goes_too(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client was killed, so nobody waits for it."""
    backend.provisioner.state.ensure()
    folder = backend.provisioner.state.folder("late")
    folder.path.mkdir()
    (folder.path / "lease").write_text(f"{time.time() + 300:020.6f}\n")
    argv = _hold(backend, folder.path)
    late: list[asyncio.subprocess.Process] = []
    remove_files = Remover._remove_files

    async def while_it_goes(*arguments: Any) -> str:
        if not late:
            late.append(await asyncio.create_subprocess_exec(*argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(late[0].wait(), 1)
        return await remove_files(*arguments)

    monkeypatch.setattr(Remover, "_remove_files", while_it_goes)
    await backend.provisioner._remover.remove(folder)
    assert not folder.path.exists()
    assert await late[0].wait() != 0
    deadline = time.monotonic() + 30
    while left := [command for command in commands(processes_below(1)) if str(folder.path).encode() in command]:
        assert time.monotonic() < deadline, left
        await asyncio.sleep(0.05)


async def test_removals_and_starts_do_not_wait_for_each_other(
    make_backend: Callable[..., Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A removal that waits for its turn has not got what a start needs that has its turn."""
    backend = make_backend(starts_at_once=1)
    starts, remover = backend.provisioner._starts, backend.provisioner._remover
    backend.provisioner.state.ensure()
    folder = backend.provisioner.state.folder("both")
    folder.path.mkdir()
    (folder.path / "lease").write_text(f"{time.time() + 300:020.6f}\n")
    async with starts:  # others are before both
        removing = asyncio.ensure_future(remover.remove(folder))
        await asyncio.sleep(0.1)
        held = await asyncio.create_subprocess_exec(*_hold(backend, folder.path), stdout=subprocess.DEVNULL)
        assert await asyncio.wait_for(held.wait(), 30) == 0
        holder = folder.holder
    await removing
    assert not folder.path.exists()
    assert holder is not None
    assert not holder.alive()


LOOP = """
import asyncio, sys
from sandboxcore.local._config import LocalConfig
from sandboxcore.local._provisioner import LocalProvisioner
from sandboxcore.spec import EnvironmentSpec, Healthcheck, ServiceSpec
from sandboxcore.values import Claim

async def main():
    provisioner = LocalProvisioner(LocalConfig(state_dir=sys.argv[1]))
    never = EnvironmentSpec(services={"default": ServiceSpec(healthcheck=Healthcheck(test=("false",)))})
    claims = [Claim(run_id="r", environment_id=f"e{index}", owner="tests") for index in range(4)]
    tasks = [asyncio.ensure_future(provisioner.provision(never, claim, lambda event: None)) for claim in claims]
    await asyncio.sleep(float(sys.argv[2]))
    tasks[0].cancel()  # its clean-up is under way when the loop ends
    await asyncio.sleep(0.001)

asyncio.run(main())
"""


@pytest.mark.parametrize("delay", ["0.01", "0.3"])
def test_the_end_of_the_loop_leaves_nothing(tmp_path: Path, delay: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    argv = [sys.executable, "-c", LOOP, str(tmp_path / "state"), delay]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "state/envs").iterdir()) == []


async def test_half_made_ones_expire_too(backend: Backend) -> None:
    backend.provisioner.state.ensure()
    folder = backend.provisioner.state.environments / "half"
    folder.mkdir()
    (found,) = await backend.all()
    assert (found.environment_id, found.state) == ("half", "creating")
    assert time.time() < found.expires_at < time.time() + 61
    await backend.provisioner.destroy(found)
    assert await backend.all() == []


async def test_a_pid_of_somebody_else_is_never_killed(backend: Backend) -> None:
    sleeper = subprocess.Popen(["sleep", "100"])
    try:
        made = await backend.make()
        holder_file = backend.provisioner.state.folder(made.ref.environment_id).path / "holder"
        real = holder_of(backend, made.ref.environment_id)
        holder_file.write_text(f"{sleeper.pid} 1\n")
        await made.close()
        await backend.provisioner.destroy(made.ref)
        assert sleeper.poll() is None
        os.kill(real.pid, signal.SIGKILL)
    finally:
        sleeper.kill()
        sleeper.wait()


async def test_a_state_folder_that_others_can_write_is_refused(make_backend: Callable[..., Backend], tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state").chmod(0o777)
    with pytest.raises(SandboxError, match="somebody else"):
        await make_backend().make()


async def test_what_a_sandbox_left_is_removed_however_it_looks(backend: Backend) -> None:
    mess = """
import os
os.chdir('/work')
for _ in range(1500):
    os.mkdir('d'); os.chdir('d')
os.mkdir('/work/closed'); open('/work/closed/file', 'w').close(); os.chmod('/work/closed', 0)
os.symlink('/', '/work/root'); os.mkfifo('/work/pipe'); open(b'/work/\\xff\\n', 'w').close()
"""
    made = await backend.make(working_dir="/work")
    result = await made.run("python3", "-c", mess)
    assert result.ok, result.error_text()
    await made.close()
    await backend.provisioner.destroy(made.ref)
    assert not Path(made.ref.data["folder"]).exists()


async def test_volumes_are_shared_in_an_environment_and_go_with_it(backend: Backend) -> None:
    mounts = (VolumeMount(source="v", target="/shared"),)
    part = (VolumeMount(source="v", target="/part", read_only=True, subpath="inner/most"),)
    services = {"default": ServiceSpec(volumes=mounts), "reader": ServiceSpec(volumes=mounts), "part": ServiceSpec(volumes=part)}
    spec = EnvironmentSpec(services=services, volumes={"v": VolumeSpec()})
    one, other = await backend.make(spec), await backend.make(spec)
    await one.output("sh", "-c", "echo hi > /shared/file")
    assert await one.output("cat", "/shared/file", service="reader") == "hi"
    await one.output("sh", "-c", "echo part > /shared/inner/most/file")
    assert await one.output("cat", "/part/file", service="part") == "part"
    assert not (await one.run("touch", "/part/new", service="part")).ok
    assert not (await other.run("cat", "/shared/file")).ok
    folder = Path(one.ref.data["folder"])
    assert (folder / "volumes/0/file").exists()
    await one.close()
    await backend.provisioner.destroy(one.ref)
    assert not folder.exists()


async def test_fifty_at_once_are_made_and_gone_in_bounded_time(backend: Backend) -> None:
    began = time.monotonic()
    made = await asyncio.gather(*(backend.make(lease=300) for _ in range(50)))
    created = time.monotonic() - began
    assert [await one.output("echo", "x") for one in made] == ["x"] * 50
    began = time.monotonic()
    for one in made:
        await one.close()
    await asyncio.gather(*(backend.provisioner.destroy(one.ref) for one in made))
    destroyed = time.monotonic() - began
    assert await backend.all() == []
    assert created < 30
    assert destroyed < 30
