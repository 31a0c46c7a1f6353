"""Commands of services: order, ends, restarts, health, logs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import time
from pathlib import Path
from typing import Any

import pytest

from sandboxcore.errors import ProvisionTimeoutError, SandboxUnavailableError, ServiceFailedError
from sandboxcore.local import _service
from sandboxcore.local._launch import Done, Process, run
from sandboxcore.local._service import Running
from sandboxcore.spec import Dependency, EnvironmentSpec, Healthcheck, RestartPolicy, ServiceSpec, VolumeMount, VolumeSpec

from .conftest import Backend, processes_below

DATA = (VolumeMount(source="data", target="/data"),)
#: For services that are to end before they are ready, however long they take to.
NEVER = Healthcheck(test=("CMD", "false"))


def shell(line: str, **service: object) -> ServiceSpec:
    return ServiceSpec.model_validate({"command": ("sh", "-c", line), **service})


async def test_the_default_service_comes_first(backend: Backend) -> None:
    made = await backend.make(EnvironmentSpec(services={"a": ServiceSpec(), "b": ServiceSpec()}, default="b"))
    assert [sandbox.service for sandbox in made.ref.sandboxes] == ["b", "a"]
    assert {sandbox.state for sandbox in made.ref.sandboxes} == {"ready"}


async def test_names_can_be_anything(backend: Backend) -> None:
    names = ("target_env", "web.1", "a/b/../c", "ümlaut !", "-x", "x" * 200)
    made = await backend.make(EnvironmentSpec(services=dict.fromkeys(names, ServiceSpec())))
    for name in names:
        assert await made.output("id", "-u", service=name) == "0"


async def test_a_crash_names_its_exit_code_and_last_lines(backend: Backend) -> None:
    line = "for i in $(seq 30); do echo line $i; done; echo why >&2; exit 3"
    with pytest.raises(ServiceFailedError) as caught:
        await backend.make(EnvironmentSpec(services={"default": ServiceSpec(), "bad": shell(line, healthcheck=NEVER)}))
    message = str(caught.value)
    assert caught.value.service == "bad"
    assert "'bad'" in message.splitlines()[0]
    assert "exit code 3" in message.splitlines()[0]
    assert message.endswith("line 30\nwhy")
    assert "line 11\n" not in message
    assert await backend.all() == []


async def test_a_crash_later_on_is_told_to_who_still_wants_to_run_something(backend: Backend) -> None:
    made = await backend.make(command=("sh", "-c", "until test -e /tmp/go; do sleep 0.02; done; echo why >&2; exit 3"))
    running = asyncio.ensure_future(made.output("sleep", "300"))
    with contextlib.suppress(SandboxUnavailableError):  # the end that it brings about may come before its own
        await made.output("touch", "/tmp/go")
    with pytest.raises(SandboxUnavailableError, match=r"service 'default' ended: exit code 3; its last output:\nwhy"):
        await running
    with pytest.raises(SandboxUnavailableError, match=r"service 'default' ended: exit code 3; its last output:\nwhy"):
        await made.output("true")


async def test_a_command_that_can_not_start_is_a_failure(backend: Backend) -> None:
    with pytest.raises(ServiceFailedError, match="could not start its command"):
        await backend.make(command=("/no/such/program",))
    assert await backend.all() == []


async def test_a_default_service_that_ends_well_is_a_failure_with_a_hint(backend: Backend) -> None:
    with pytest.raises(ServiceFailedError, match="exit code 0") as caught:
        await backend.make(command=("true",), healthcheck=NEVER)
    assert "sleep" in (caught.value.hint or "")


@pytest.mark.parametrize(("command", "words"), [("/no/such/program", "could not start its command"), ("false", "exit code 1")])
@pytest.mark.parametrize("check", [None, Healthcheck(test=("CMD", "false"), interval=0.05, retries=1)])
async def test_a_command_that_is_over_before_its_sandbox_is_one_that_failed(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, command: str, words: str, check: Healthcheck | None
) -> None:
    died = Running._died

    def late(running: Running, pidfd: int) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(pidfd)
        loop.call_later(2.0, died, running, pidfd)

    monkeypatch.setattr(Running, "_died", late)
    with pytest.raises(ServiceFailedError, match=words):
        await backend.make(command=(command,), healthcheck=check)


async def test_a_sandbox_that_is_gone_before_it_is_looked_for_counts_as_it_ended(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = True

    async def run_slowly(*arguments: Any, **options: Any) -> Done:
        nonlocal slow
        done = await run(*arguments, **options)
        process = Process.parse(done.stdout)
        while slow and process and Path(f"/proc/{process.pid}").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        slow = False
        return done

    monkeypatch.setattr(_service, "run", run_slowly)
    needed = {"job": Dependency(condition="completed")}
    services = {"default": ServiceSpec(depends_on=needed), "job": ServiceSpec(command=("true",))}
    made = await backend.make(EnvironmentSpec(services=services))
    states = {sandbox.service: (sandbox.state, sandbox.exit_code) for sandbox in made.ref.sandboxes}
    assert states == {"default": ("ready", None), "job": ("completed", 0)}
    slow = True
    with pytest.raises(ServiceFailedError, match="could not start its command"):
        await backend.make(command=("/no/such/program",))


async def test_one_shots_complete_in_order(backend: Backend) -> None:
    spec = EnvironmentSpec(
        services={
            "default": shell(
                "cat /data/a /data/b; sleep 1000", volumes=DATA, depends_on={"second": Dependency(condition="completed")}
            ),
            "second": shell(
                "cat /data/a && echo b > /data/b", volumes=DATA, depends_on={"first": Dependency(condition="completed")}
            ),
            "first": shell("sleep 0.3; echo a > /data/a", volumes=DATA),
        },
        volumes={"data": VolumeSpec()},
    )
    made = await backend.make(spec)
    await backend.assert_log(made, b"a\nb\n")
    states = {sandbox.service: sandbox.state for sandbox in (await backend.all())[0].sandboxes}
    assert states == {"default": "ready", "first": "completed", "second": "completed"}


async def test_a_service_waits_until_another_is_healthy(backend: Backend) -> None:
    check = Healthcheck(test=("CMD-SHELL", "test -e /data/up"), interval=30)
    spec = EnvironmentSpec(
        services={
            "default": shell("ls /data; sleep 1000", volumes=DATA, depends_on={"server": Dependency(condition="healthy")}),
            "server": shell("sleep 0.5; touch /data/up; sleep 1000", volumes=DATA, healthcheck=check),
        },
        volumes={"data": VolumeSpec()},
    )
    began = time.monotonic()
    made = await backend.make(spec)
    assert time.monotonic() - began < 25
    await backend.assert_log(made, b"up\n")


async def test_unhealthy_fails_when_it_is_certain(backend: Backend) -> None:
    check = Healthcheck(test=("CMD", "false"), interval=0.2, retries=2)
    with pytest.raises(ServiceFailedError, match=r"unhealthy.*exit code 1"):
        await backend.make(command=("sleep", "1000"), healthcheck=check)


async def test_a_hanging_healthcheck_is_a_failed_one(backend: Backend) -> None:
    check = Healthcheck(test=("sleep", "1000"), interval=0.1, timeout=0.3, retries=1)
    with pytest.raises(ServiceFailedError, match=r"longer than 0\.3 s"):
        await backend.make(healthcheck=check)


async def test_ending_well_before_being_healthy_is_a_failure(backend: Backend) -> None:
    with pytest.raises(ServiceFailedError, match="before it was healthy"):
        await backend.make(EnvironmentSpec(services={"default": ServiceSpec(), "job": shell("sleep 0.3", healthcheck=NEVER)}))


async def test_restarts_follow_the_policy(backend: Backend) -> None:
    line = "echo again >> /data/log; [ $(wc -l < /data/log) -ge 3 ] && sleep 1000; exit 1"
    spec = EnvironmentSpec(
        services={
            "default": ServiceSpec(volumes=DATA),
            "flaky": shell(line, volumes=DATA, restart=RestartPolicy(name="on-failure", max_retries=5)),
        },
        volumes={"data": VolumeSpec()},
    )
    made = await backend.make(spec)
    deadline = time.monotonic() + 30
    while (log := (await made.run("cat", "/data/log")).text()) != "again\n" * 3 and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    assert log == "again\n" * 3
    assert (await backend.all())[0].sandboxes[1].state == "ready"


async def test_a_service_that_dies_later_is_seen(backend: Backend) -> None:
    late = shell("until test -e /data/go; do sleep 0.02; done; exit 4", volumes=DATA)
    services = {"default": ServiceSpec(volumes=DATA), "late": late}
    made = await backend.make(EnvironmentSpec(services=services, volumes={"data": VolumeSpec()}))
    await made.output("touch", "/data/go")
    data = [chunk async for chunk in backend.discoverer.logs(made.sandbox("late"), follow=True)]
    assert data == []
    seen = (await backend.all())[0].sandboxes[1]
    assert (seen.state, seen.exit_code) == ("failed", 4)


async def test_the_time_limit_names_what_is_missing(backend: Backend) -> None:
    began = time.monotonic()
    one = await backend.make()
    took = time.monotonic() - began
    with pytest.raises(ProvisionTimeoutError, match="'default' to be healthy"):
        await backend.make(healthcheck=NEVER, timeout=5 + 5 * took)
    assert [found.environment_id for found in await backend.all()] == [one.ref.environment_id]


async def test_cancelling_leaves_nothing(backend: Backend) -> None:
    for delay in (0.0, 0.01, 0.03, 0.06, 0.1, 0.3):
        task = asyncio.ensure_future(backend.make(healthcheck=NEVER))
        await asyncio.sleep(delay)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await backend.all() == []


async def test_logs_have_both_streams_a_tail_and_an_end(backend: Backend) -> None:
    made = await backend.make(command=("sh", "-c", "echo out; echo err >&2; printf '\\377 no newline'; sleep 1000"))
    await backend.assert_log(made, b"out\nerr\n\xff no newline")
    assert await backend.logs(made, tail=1) == b"\xff no newline"
    assert await backend.logs(made, tail=0) == b""


async def test_logs_are_followed_to_the_end(backend: Backend) -> None:
    line = "for i in 1 2 3; do echo line $i; sleep 0.2; done"
    made = await backend.make(EnvironmentSpec(services={"default": ServiceSpec(), "talker": shell(line)}))
    assert await backend.logs(made, "talker", follow=True) == b"line 1\nline 2\nline 3\n"


async def test_logs_are_followed_by_a_client_of_very_many_sandboxes(backend: Backend) -> None:
    """Whose descriptors have numbers that select() does not take."""
    line = "until test -e /data/go; do sleep 0.05; done; echo gone"
    services = {"default": ServiceSpec(volumes=DATA), "talker": shell(line, volumes=DATA)}
    made = await backend.make(EnvironmentSpec(services=services, volumes={"data": VolumeSpec()}))
    low = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, low[1]), low[1]))
    taken = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
    try:
        following = asyncio.create_task(backend.logs(made, "talker", follow=True))
        await made.output("touch", "/data/go")
        assert await following == b"gone\n"
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, low)


async def test_logs_are_bounded_and_keep_the_newest(backend: Backend) -> None:
    line = "i=0; while [ $i -lt 24 ]; do head -c 1048576 /dev/zero; echo; echo block $i; i=$((i+1)); done; echo end; sleep 1000"
    made = await backend.make(command=("sh", "-c", line))
    for _ in range(200):
        data = await backend.logs(made, tail=1)
        if data == b"end\n":
            break
        await asyncio.sleep(0.05)
    whole = await backend.logs(made)
    assert len(whole) <= 18 << 20
    assert whole.endswith(b"block 23\nend\n")
    assert b"block 20\n" in whole


async def test_killing_the_environment_kills_every_process(backend: Backend) -> None:
    made = await backend.make(command=("sh", "-c", "setsid sleep 1000 & sleep 1000"))
    await made.run("sh", "-c", "setsid sleep 1000 > /dev/null 2>&1 &")
    holder = int((backend.provisioner.state.folder(made.ref.environment_id).path / "holder").read_text().split()[0])
    before = processes_below(holder)
    assert len(before) >= 6
    await made.close()
    await backend.provisioner.destroy(made.ref)
    assert [pid for pid in before if pid in processes_below(1)] == []
    await backend.provisioner.destroy(made.ref)


async def test_tty_and_stdin_open_reach_the_command(backend: Backend) -> None:
    spec = EnvironmentSpec(
        services={
            "default": ServiceSpec(),
            "tty": ServiceSpec(command=("sh", "-c", "test -t 1 && echo terminal; sleep 1000"), tty=True),
            "open": ServiceSpec(command=("cat",), stdin_open=True),
        }
    )
    made = await backend.make(spec)
    await backend.assert_log(made, b"terminal\r\n", "tty")
    assert made.sandbox("open").state == "ready"
