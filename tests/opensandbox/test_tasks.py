"""Commands of services that run as tasks in pods of a pool: each with what is its own, and what became of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any
from unittest.mock import Mock

import pytest
import pytest_asyncio
from sandboxcore_kubernetes import Cluster, PodState
from sandboxcore_opensandbox._config import OpenSandboxConfig
from sandboxcore_opensandbox._notes import Notes
from sandboxcore_opensandbox._parts import batch_sandbox, divide
from sandboxcore_opensandbox._pool_fit import PoolFit
from sandboxcore_opensandbox._task_ends import TaskEnds, exit_code

from sandboxcore import Session
from sandboxcore.environment import Environment
from sandboxcore.spec import EnvironmentSpec
from tests.opensandbox import places
from tests.opensandbox.kit import IMAGES

KIND = "sandbox.opensandbox.io/v1alpha1/BatchSandbox"


@pytest.fixture(scope="module")
def tasks(crd: Mapping[str, Any]) -> Mapping[str, Any]:
    """Make a pool whose pods run tasks."""
    places.make_pool(crd["namespace"], "tasks-of-all-kinds", buffer=2, maximum=4, task_executor=IMAGES["task-executor"])
    return {**crd, "pool": "tasks-of-all-kinds"}


@pytest_asyncio.fixture
async def tasked(tasks: Mapping[str, Any]) -> AsyncIterator[Session]:
    """Open a session on that pool; at its end nothing of its run may be left."""
    async with Session("opensandbox", config=dict(tasks)) as opened:
        yield opened
    assert places.left_over(tasks["namespace"], opened.run_id) == []


def shell(line: str, **more: Any) -> dict[str, Any]:
    return {"entrypoint": ["sh", "-c", line], **more}


async def logs(environment: Environment, service: str) -> bytes:
    return b"".join([data async for data in environment.logs(service)])


async def until_it_says(environment: Environment, service: str, wanted: bytes) -> bytes:
    deadline = time.monotonic() + 60
    while wanted not in (said := await logs(environment, service)):
        assert time.monotonic() < deadline, said
        await asyncio.sleep(0.1)
    return said


async def test_a_task_has_nothing_of_its_sibling(tasked: Session) -> None:
    """The first one is the template of both, and what it has must not show through."""
    line = "echo at $PWD with $ONLY.; exec sleep 300"
    services = {"a": shell(line, working_dir="/srv/a", env={"ONLY": "a"}), "b": shell(line)}
    async with tasked.environment({"services": services}) as environment:
        assert await until_it_says(environment, "a", b"at ") == b"at /srv/a with a.\n"
        own = (await environment["b"].exec(["pwd"])).text().strip()
        assert await until_it_says(environment, "b", b"at ") == f"at {own} with .\n".encode()


async def test_a_task_has_not_its_siblings_timeout(tasked: Session, cluster: Cluster) -> None:
    """The controller has one for all tasks of an object."""
    limited = shell("exec sleep 300", options={"opensandbox": {"task_timeout": 200}})
    async with tasked.environment({"services": {"a": limited, "b": shell("exec sleep 300")}}):
        found = (await cluster.list(KIND, label_selector=f"sandboxcore.dev/run-id={tasked.run_id}"))["items"]
        assert {obj["spec"]["taskTemplate"]["spec"].get("timeoutSeconds") for obj in found} == {200, None}
        assert all("timeoutSeconds" not in str(obj["spec"].get("shardTaskPatches")) for obj in found)


@pytest.mark.tier("none")
def test_services_whose_tasks_have_other_timeouts_are_apart() -> None:
    limits = {"a": 5, "b": None, "c": 5, "d": 6}
    services = {
        name: {"command": ["serve"], "options": {"opensandbox": {"task_timeout": limit} if limit else {}}}
        for name, limit in limits.items()
    }
    spec = EnvironmentSpec.model_validate({"services": services | {"idle": {}}})
    pools = {"p": PoolFit(name="p", image="i", container="sandbox", tasks=True)}
    found = divide(spec, OpenSandboxConfig(pool="p"), pools)
    assert [(group.tasks, group.services) for group in found] == [
        (True, ("a", "c")),
        (True, ("b",)),
        (True, ("d",)),
        (False, ("idle",)),
    ]


async def test_how_a_task_ended_is_told(tasks: Mapping[str, Any], tasked: Session) -> None:
    """By its service's state with the exit code, as others see it, and at the end of its log."""
    until = "until [ -e /tmp/end ]; do sleep 0.1; done;"
    services = {
        "bad": shell(f"echo out; {until} printf err >&2; exit 3"),
        "good": shell(f"{until} exit 0"),
        "on": shell("exec sleep 300"),
    }
    async with tasked.environment({"services": services}) as environment, Session("opensandbox", config=dict(tasks)) as other:
        assert await _states(other, environment) == {"bad": ("ready", None), "good": ("ready", None), "on": ("ready", None)}
        for name in ("bad", "good"):
            await environment[name].write_file("/tmp/end", b"")
        said = await until_it_says(environment, "bad", b"ended")
        assert said == b"out\nerr\nsandboxcore: the command of service 'bad' ended with exit code 3\n"
        assert b"ended" not in await logs(environment, "on")
        deadline = time.monotonic() + 60
        wanted = {"bad": ("failed", 3), "good": ("completed", 0), "on": ("ready", None)}
        while (found := await _states(other, environment)) != wanted:  # the controller looks now and then
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.2)
        [seen] = await other.find(environment_id=environment.id)
        assert seen.ref.state == "failed"


async def _states(session: Session, environment: Environment) -> dict[str, tuple[str, int | None]]:
    [found] = await session.find(environment_id=environment.id)
    return {sandbox.service: (sandbox.state, sandbox.exit_code) for sandbox in found.ref.sandboxes}


@pytest.mark.tier("none")
@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b'HTTP/1.0 200 OK\r\n\r\n[{"name":"b-0","processStatus":{"terminated":{"exitCode":0}}}]', 0),
        (b'HTTP/1.0 200 OK\r\n\r\n[{"name":"b-0","processStatus":{"terminated":{"exitCode":137}}}]', 137),
        (b'HTTP/1.0 200 OK\r\n\r\n[{"name":"b-0","processStatus":{"running":{}}}]', None),
        (b'HTTP/1.0 200 OK\r\n\r\n[{"name":"other-0","processStatus":{"terminated":{"exitCode":1}}}]', None),
        (b'HTTP/1.0 500 Oh\r\n\r\n{"code":"Internal Server Error"}', None),
        (b'HTTP/1.0 200 OK\r\n\r\n[{"name":"b-0","proc', None),
        (b'HTTP/1.0 200 OK\r\n\r\n["b-0"]', None),
        (b"", None),
    ],
)
def test_what_a_task_executor_says_is_an_exit_code_or_nothing(answer: bytes, code: int | None) -> None:
    assert exit_code(answer, "b") == code


class Executors:
    """A cluster whose task-executors never answer, but for those that are named."""

    def __init__(self, *answering: str) -> None:
        self.answering = answering
        self.asked: list[str] = []

    async def port_forward(
        self, pod: str, port: int, protocol: asyncio.StreamReaderProtocol, *, namespace: str
    ) -> asyncio.Transport:
        """Connect, where there is an answer."""
        self.asked.append(pod)
        if pod not in self.answering:
            await asyncio.Event().wait()
        transport = Mock(asyncio.Transport)
        protocol.connection_made(transport)
        protocol.data_received(b'HTTP/1.0 200 OK\r\n\r\n[{"name":"b-0","processStatus":{"terminated":{"exitCode":3}}}]')
        protocol.eof_received()
        return transport


def with_tasks(pods: int) -> tuple[dict[str, Any], dict[str, PodState]]:
    """Build a part of which one task has failed, and its pods."""
    names = tuple(f"e{index}" for index in range(pods))
    notes = Notes(
        batch="b", run_id="r", environments=names, services=("s",), part=("s",), owner="o", created=1.0, pool="p", tasks=True
    )
    obj = batch_sandbox("b", "ns", notes, lease_end=1.0, grace=1.0, replicas=pods)
    given = ",".join(f'"pod{index}"' for index in range(pods))
    obj["metadata"] |= {"uid": "u"}
    obj["metadata"]["annotations"]["sandbox.opensandbox.io/alloc-status"] = f'{{"pods":[{given}]}}'
    obj["status"] = {"taskFailed": 1}
    return obj, {f"pod{index}": Mock(PodState, deleted=False) for index in range(pods)}


@pytest.mark.tier("none")
async def test_task_executors_that_do_not_answer_hold_nobody_up() -> None:
    """What is found is waited for before leases are renewed, however many there are."""
    obj, pods = with_tasks(1000)
    async with asyncio.timeout(60):
        assert await TaskEnds().of(Executors(), [obj], pods) == {}  # type: ignore[arg-type]


@pytest.mark.tier("none")
async def test_a_task_executor_that_has_answered_is_not_asked_again() -> None:
    obj, pods = with_tasks(2)
    executors, ends = Executors("pod0"), TaskEnds()
    for _ in range(2):
        assert await ends.of(executors, [obj], pods) == {"pod0": 3}  # type: ignore[arg-type]
    assert sorted(executors.asked) == ["pod0", "pod1", "pod1"]
