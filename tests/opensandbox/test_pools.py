"""Environments out of warm pools: what is given, what is refused, and what is left in the pool."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import Any

import pytest
from sandboxcore_kubernetes import Cluster
from sandboxcore_opensandbox._config import OpenSandboxConfig
from sandboxcore_opensandbox._pod_channel import BatchChannel
from sandboxcore_opensandbox._provisioner import CrdProvisioner
from sandboxcore_opensandbox.pools import Pools

from sandboxcore import Session
from sandboxcore.environment import Environment
from sandboxcore.errors import (
    CapabilityError,
    GuestUnavailableError,
    ProvisionError,
    SandboxUnavailableError,
    ServiceFailedError,
    UsageError,
)
from tests.cluster import kubectl
from tests.opensandbox import places
from tests.opensandbox.kit import IMAGES

KIND = "sandbox.opensandbox.io/v1alpha1/BatchSandbox"


def config_of(crd: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {**crd, **more}


def one(pool: str, **service: Any) -> dict[str, Any]:
    return {"services": {"default": service}, "options": {"opensandbox": {"poolRef": pool}}}


async def test_a_sandbox_is_given_with_all_that_its_service_has(session: Session, pool: str) -> None:
    files = {"/etc/app/settings": {"content": b"\x00\xff", "mode": 0o640}}
    spec = one(pool, env={"TOKEN": "s3cret"}, working_dir="/srv/app", files=files)
    async with session.environment(spec) as environment:
        sandbox = environment.default
        assert (await sandbox.exec(["sh", "-c", "echo $TOKEN; pwd"])).stdout == b"s3cret\n/srv/app\n"
        assert await sandbox.read_file("/etc/app/settings") == b"\x00\xff"
        assert (await sandbox.exec(["stat", "-c", "%a", "/etc/app/settings"])).text() == "640\n"
        await sandbox.write_file("note", b"relative")
        assert await sandbox.read_file("/srv/app/note") == b"relative"
        assert "s3cret" not in str(environment.ref)


async def test_several_services_know_each_other_by_name(session: Session, pool: str, cluster: Cluster) -> None:
    """All from one pool, in one object, allocated together."""
    spec = one(pool)
    spec["services"] = {"agent": {}, "victim": {"aliases": ["target"]}}
    async with session.environment(spec) as environment:
        found = (await cluster.list(KIND, label_selector=f"sandboxcore.dev/run-id={session.run_id}"))["items"]
        assert [obj["spec"]["replicas"] for obj in found] == [2]
        for name in ("victim", "target"):
            looked = await environment["agent"].exec(["getent", "hosts", name])
            assert looked.text().split()[0] == await _address(cluster, environment, "victim")


async def test_services_from_two_pools_know_each_other(
    crd: Mapping[str, Any], session: Session, pool: str, cluster: Cluster
) -> None:
    """Each pool has an object of its own, and the environment is one."""
    await asyncio.to_thread(places.make_pool, crd["namespace"], "second", buffer=1, maximum=1)
    spec = one(pool)
    spec["services"] = {"agent": {}, "victim": {"options": {"opensandbox": {"poolRef": "second"}}}}
    async with session.environment(spec) as environment:
        assert [sandbox.data["pool"] for sandbox in environment.ref.sandboxes] == [pool, "second"]
        for name, other in (("agent", "victim"), ("victim", "agent")):
            looked = await environment[name].exec(["getent", "hosts", other])
            assert looked.text().split()[0] == await _address(cluster, environment, other)
    await Pools(cluster).delete("second")


async def _address(cluster: Cluster, environment: Environment, service: str) -> str:
    [name] = [sandbox.data["pod"] for sandbox in environment.ref.sandboxes if sandbox.service == service]
    return str((await cluster.get("Pod", name))["status"]["podIP"])


async def test_a_pool_that_is_not_there_is_told_with_those_that_are(session: Session, pool: str) -> None:
    with pytest.raises(UsageError, match=r"no pool 'shred'.*did you mean 'shared'.*shared \(\d of 5 free\)"):
        await session.provision(one("shred"))


async def test_another_image_is_refused(session: Session, pool: str) -> None:
    with pytest.raises(CapabilityError, match=r"has 'sandboxcore.test/debian:1', not 'other:1'"):
        await session.provision(one(pool, image="other:1"))


async def test_a_command_needs_a_task_executor(session: Session, pool: str) -> None:
    with pytest.raises(CapabilityError, match="no task-executor") as caught:
        await session.provision(one(pool, command=["serve", "--port", "80"]))
    assert "task-executor-installer" in (caught.value.hint or "")


@pytest.mark.parametrize("service", [{"volumes": [{"target": "/v", "type": "tmpfs"}]}, {"networks": None}])
async def test_what_a_running_pod_can_not_have_is_refused(session: Session, pool: str, service: dict[str, Any]) -> None:
    with pytest.raises(CapabilityError):
        await session.provision(one(pool, **service))


async def test_more_than_the_pool_may_have_is_said_at_once(session: Session, pool: str) -> None:
    spec = one(pool)
    spec["services"] = {f"s{number}": {} for number in range(6)}
    with pytest.raises(ProvisionError, match=r"may have 5 pods \(poolMax\) and 6 are needed"):
        await session.provision(spec)


async def test_a_full_pool_names_its_holders(crd: Mapping[str, Any], session: Session, pool: str) -> None:
    spec = one(pool)
    spec["services"] = {f"s{number}": {} for number in range(4)}
    async with session.environment(spec) as holder, Session("opensandbox", config=config_of(crd, pool_wait=1.0)) as other:
        with pytest.raises(ProvisionError) as caught:
            await other.provision({**spec, "services": {"a": {}, "b": {}}})
        first = caught.value.message.splitlines()[0]
        for words in ("'shared' has no room for 2 pods", "allocated", "poolMax 5", holder.id, session.owner):
            assert words in first
        assert await other.find(run_id=other.run_id) == []


async def test_a_batch_is_one_object_and_each_environment_goes_by_itself(session: Session, pool: str, cluster: Cluster) -> None:
    outcomes = [outcome async for outcome in session.provision_many([one(pool)] * 3)]
    environments = [outcome.environment for outcome in outcomes if outcome.environment is not None]
    assert [outcome.error for outcome in outcomes] == [None] * 3
    [obj] = (await cluster.list(KIND, label_selector=f"sandboxcore.dev/run-id={session.run_id}"))["items"]
    assert obj["spec"]["replicas"] == 3
    hosts = {(await environment.default.exec(["hostname"])).stdout for environment in environments}
    assert len(hosts) == 3
    await environments[1].destroy()
    left = {environment.id for environment in await session.find(run_id=session.run_id)}
    assert left == {environments[0].id, environments[2].id}
    with pytest.raises(SandboxUnavailableError):
        await environments[1].default.exec(["true"])
    assert (await environments[2].default.exec(["true"])).ok
    await asyncio.gather(environments[0].destroy(), environments[2].destroy())
    assert (await cluster.list(KIND, label_selector=f"sandboxcore.dev/run-id={session.run_id}"))["items"] == []


async def test_two_batches_that_hold_each_other_up_both_get_on(crd: Mapping[str, Any], pool: str) -> None:
    """Of 5 pods each wants 4, and the controller gives both a part: one lets go, and has them when the other is done."""

    async def use(number: int) -> float:
        async with Session("opensandbox", config=config_of(crd, pool_wait=100.0)) as session:
            outcomes = [outcome async for outcome in session.provision_many([one(pool)] * 4)]
            assert [outcome.error for outcome in outcomes] == [None] * 4, number
            for outcome in outcomes:
                assert outcome.environment is not None
                assert (await outcome.environment.default.exec(["true"])).ok
        return time.monotonic()

    first, second = await asyncio.gather(use(1), use(2))
    assert first != second


async def test_a_pod_that_dies_is_seen(crd: Mapping[str, Any], session: Session, pool: str, cluster: Cluster) -> None:
    """The controller replaces none that it has handed out, and says nothing of it."""
    async with session.environment(one(pool)) as environment, Session("opensandbox", config=dict(crd)) as other:
        await cluster.delete("Pod", environment.ref.sandboxes[0].data["pod"], grace=0)
        deadline = time.monotonic() + 60
        while (found := (await other.find(environment_id=environment.id))[0].ref).sandboxes[0].state == "ready":
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        assert (found.state, found.sandboxes[0].state) == ("failed", "failed")
        with pytest.raises(SandboxUnavailableError):
            while time.monotonic() < deadline:
                await environment.default.exec(["true"])


async def test_what_a_pool_gives_back_as_it_was_is_not_used_again(crd: Mapping[str, Any], cluster: Cluster) -> None:
    """recycleStrategy Noop: marked when it was used, found dirty when it was not marked."""
    where = crd["namespace"]
    await asyncio.to_thread(places.make_pool, where, "noop", buffer=1, maximum=1, recycle="Noop")
    [pod] = await _pods_of(cluster, "noop")
    await asyncio.to_thread(kubectl, "-n", where, "exec", pod, "--", "touch", "-d", "1 hour", "/tmp/left-here")
    async with Session("opensandbox", config=config_of(crd, pool="noop", pool_wait=30.0)) as session:
        with pytest.raises(ProvisionError, match=f"pod {pod} is not clean .* /tmp/left-here was changed"):
            await session.provision({"services": {"default": {}}})
        await asyncio.to_thread(kubectl, "-n", where, "exec", pod, "--", "rm", "/tmp/left-here")
        await cluster.patch("Pod", pod, {"metadata": {"annotations": {"sandboxcore.dev/used-by": None}}})
        first = await session.provision({"services": {"default": {}}})
        assert first.ref.sandboxes[0].data["pod"] == pod
        ref = first.ref
        await first.destroy()
        async with contextlib.aclosing(CrdProvisioner(OpenSandboxConfig(**crd))) as provisioner:
            channel = BatchChannel(ref.sandboxes[0], provisioner.connection)
            with pytest.raises(GuestUnavailableError, match="is gone"):
                await channel.open(["true"], asyncio.Protocol())
        with pytest.raises(ProvisionError, match=f"pod {pod} .* was used by environment {ref.environment_id}"):
            await session.provision({"services": {"default": {}}})
    await Pools(cluster).delete("noop")


async def _pods_of(cluster: Cluster, pool: str) -> list[str]:
    found = await cluster.list("Pod", label_selector=f"sandbox.opensandbox.io/pool-name={pool}")
    return [pod["metadata"]["name"] for pod in found["items"]]


async def test_a_pool_is_deleted_after_its_users_only(session: Session, cluster: Cluster, crd: Mapping[str, Any]) -> None:
    await asyncio.to_thread(places.make_pool, crd["namespace"], "brief", buffer=1, maximum=2)
    pools = Pools(cluster)
    environment = await session.provision(one("brief"))
    with pytest.raises(UsageError, match=f"is in use by {environment.id}"):
        await pools.delete("brief")
    scaled = await pools.scale("brief", pool_max=3)
    assert (scaled.maximum, scaled.holders) == (3, {f"{environment.id} ({session.owner})": 1})
    assert (await pools.drain("brief")).total == 1
    await pools.delete("brief", holders=True)
    assert "brief" not in {pool.name for pool in await pools.all()}
    await environment.destroy()


async def test_commands_run_as_tasks(crd: Mapping[str, Any], cluster: Cluster) -> None:
    """With their service's environment, and with what they wrote; one that fails takes all away."""
    await asyncio.to_thread(
        places.make_pool, crd["namespace"], "tasks", buffer=1, maximum=2, task_executor=IMAGES["task-executor"]
    )
    async with Session("opensandbox", config=config_of(crd, pool="tasks")) as session:
        line = "echo out; echo err >&2; echo $A > /tmp/ran; exec sleep 300"
        spec = {"services": {"default": {"entrypoint": ["sh", "-c", line], "env": {"A": "b"}}}}
        async with session.environment(spec) as environment:
            ran = ["sh", "-c", "until [ -s /tmp/ran ]; do sleep 0.1; done; cat /tmp/ran"]
            assert (await environment.default.exec(ran, timeout=60)).stdout == b"b\n"
            assert b"".join([data async for data in environment.logs()]) == b"out\nerr\n"
        with pytest.raises(ServiceFailedError, match="its command failed in 1 of 1 pods"):
            await session.provision({"services": {"default": {"command": ["/no/such/program"]}}})
        assert await session.find(run_id=session.run_id) == []
    await Pools(cluster).delete("tasks")
