"""Environments of a batch that are taken away one by one: by several at once, slowly, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import pytest_asyncio
from sandboxcore_kubernetes import ApiError, Cluster
from sandboxcore_opensandbox import _removal
from sandboxcore_opensandbox._config import OpenSandboxConfig
from sandboxcore_opensandbox._names import RELEASE
from sandboxcore_opensandbox._notes import lease_key
from sandboxcore_opensandbox._provisioner import CrdProvisioner
from sandboxcore_opensandbox._removal import Remover

from sandboxcore import Session
from sandboxcore.environment import Environment
from sandboxcore.errors import SandboxError
from tests.opensandbox.places import BUSYBOX

KIND = "sandbox.opensandbox.io/v1alpha1/BatchSandbox"
#: A program that does not end when it is asked to, and has all the time.
STUBBORN = {"image": BUSYBOX, "command": ["sleep", "infinity"], "stop_grace_period": 600}


@pytest_asyncio.fixture
async def remover(crd: Mapping[str, Any]) -> AsyncIterator[Remover]:
    """Destroy as another process does."""
    async with contextlib.aclosing(CrdProvisioner(OpenSandboxConfig(**crd))) as provisioner:
        yield provisioner.remover


async def batch(session: Session, spec: dict[str, Any], count: int) -> list[Environment]:
    made = [outcome async for outcome in session.provision_many([spec] * count)]
    assert [outcome.error for outcome in made] == [None] * count
    return [outcome.environment for outcome in made if outcome.environment is not None]


def pooled(pool: str) -> dict[str, Any]:
    return {"services": {"default": {}}, "options": {"opensandbox": {"poolRef": pool}}}


async def objects(cluster: Cluster, session: Session) -> list[str]:
    found = await cluster.list(KIND, label_selector=f"sandboxcore.dev/run-id={session.run_id}")
    return [obj["metadata"]["name"] for obj in found["items"]]


async def states(crd: Mapping[str, Any], session: Session) -> dict[str, str]:
    """Ask what others see of a session's environments."""
    async with Session("opensandbox", config=dict(crd)) as other:
        return {found.id: found.ref.state for found in await other.find(run_id=session.run_id)}


@pytest.mark.parametrize("kind", ["pool", "image"])
async def test_two_that_take_the_rest_of_a_batch_at_once(
    session: Session, remover: Remover, pool: str, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Each sees the other's still there. Were all pods given back before the object is deleted, it would stay for ever."""
    spec = pooled(pool) if kind == "pool" else {"services": {"default": {"image": BUSYBOX, "command": ["sleep", "infinity"]}}}
    first, second = await batch(session, spec, 2)
    both, shrink = asyncio.Barrier(2), Remover._shrink

    async def together(self: Remover, *details: Any) -> None:
        await both.wait()
        await shrink(self, *details)

    monkeypatch.setattr(Remover, "_shrink", together)
    await asyncio.gather(first.destroy(), remover.destroy(second.ref))
    assert await objects(cluster, session) == []
    await second.destroy()


async def test_pods_that_do_not_end_are_named_and_the_environment_is_not_forgotten(
    crd: Mapping[str, Any], session: Session, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await batch(session, {"services": {"default": STUBBORN}}, 2)
    name = first.ref.sandboxes[0].data["pod"]
    with monkeypatch.context() as patch:
        patch.setattr(_removal, "PATIENCE", 1.0)
        for _ in range(2):  # it may be tried again
            with pytest.raises(SandboxError, match=f"these pods do not end within 1 s: {name}") as caught:
                await first.destroy()
            assert "stop_grace_period" in (caught.value.hint or "")
            assert await states(crd, session) == {first.id: "destroying", second.id: "ready"}
    await cluster.delete("Pod", name, grace=0)
    await first.destroy()
    assert await states(crd, session) == {second.id: "ready"}
    destroying = asyncio.create_task(second.destroy())
    await _until_it_ends(cluster, second.ref.sandboxes[0].data["pod"])
    await destroying


async def _until_it_ends(cluster: Cluster, name: str) -> None:
    """Wait until a pod is asked to end, and end it."""
    deadline = time.monotonic() + 60
    while "deletionTimestamp" not in (await cluster.get("Pod", name))["metadata"]:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    await cluster.delete("Pod", name, grace=0)


async def test_a_pool_that_takes_no_pods_back_is_told(
    crd: Mapping[str, Any], session: Session, pool: str, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As without a controller: what asks it to take them back does not get there."""
    first, second = await batch(session, pooled(pool), 2)
    patch_object = Cluster.patch

    async def deaf(self: Cluster, kind: str, name: str, change: Any, **options: Any) -> Any:
        (change["metadata"].get("annotations") or {}).pop(RELEASE, None)
        return await patch_object(self, kind, name, change, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Cluster, "patch", deaf)
        patch.setattr(_removal, "PATIENCE", 1.0)
        with pytest.raises(SandboxError, match=f"pool '{pool}' has not taken pods .* back after 1 s: {pool}-") as caught:
            await first.destroy()
        assert "controller" in (caught.value.hint or "")
    assert await states(crd, session) == {first.id: "destroying", second.id: "ready"}
    await first.destroy()
    assert await states(crd, session) == {second.id: "ready"}
    await second.destroy()


async def test_what_another_has_taken_away_is_gone(
    session: Session, remover: Remover, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it was there when it was looked for."""
    first, second = await batch(session, {"services": {"default": {"image": BUSYBOX, "command": ["sleep", "infinity"]}}}, 2)
    shrink = Remover._shrink

    async def late(self: Remover, *details: Any) -> None:
        if self is not remover:
            await remover.remove(first.ref.data["namespace"], first.ref.data["batch"], session.run_id)
        await shrink(self, *details)

    monkeypatch.setattr(Remover, "_shrink", late)
    await first.destroy()
    await second.destroy()
    with pytest.raises(ApiError):
        await cluster.get(KIND, first.ref.data["batch"])


async def test_a_run_that_has_nothing_is_no_longer_watched(crd: Mapping[str, Any], remover: Remover) -> None:
    """Who cleans up after many runs would have a request open for each."""
    spec = {"services": {"default": {"image": BUSYBOX, "command": ["sleep", "infinity"]}}}
    for _ in range(2):
        async with Session("opensandbox", config=dict(crd)) as session:
            kept = [await session.provision(spec, keep=True, lease=300.0) for _ in range(2)]
        await remover.destroy(kept[0].ref)
        assert _watches() == 1
        await remover.destroy(kept[1].ref)
        assert _watches() == 0


async def test_the_own_run_is_watched_to_its_end(crd: Mapping[str, Any]) -> None:
    """Who makes one environment after the other need not begin anew each time."""
    spec = {"services": {"default": {"image": BUSYBOX, "command": ["sleep", "infinity"]}}}
    async with Session("opensandbox", config=dict(crd)) as session:
        await (await session.provision(spec)).destroy()
        assert _watches() == 1
    assert _watches() == 0


@pytest.mark.parametrize("from_pool", [False, True])
async def test_what_a_destroyed_environment_was_promised_is_forgotten(
    session: Session, pool: str, cluster: Cluster, from_pool: bool
) -> None:
    images = {"services": {"default": {"image": BUSYBOX, "command": ["sleep", "infinity"]}}}
    first, second, third = await batch(session, pooled(pool) if from_pool else images, 3)
    await first.keep(3600.0)
    name = first.ref.data["parts"][0]
    assert lease_key(first.id) in (await cluster.get(KIND, name))["metadata"]["annotations"]
    for gone in (first, second):  # the second was promised nothing of its own
        await gone.destroy()
        assert lease_key(gone.id) not in (await cluster.get(KIND, name))["metadata"]["annotations"]
    await third.destroy()


def _watches() -> int:
    return sum(task.get_name() == "sandboxcore BatchSandbox watch" for task in asyncio.all_tasks())
