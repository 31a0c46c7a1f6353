"""Waiting for pods of pools: how long, for whose sake others let go, and what is said when they never come."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import pytest
from sandboxcore_kubernetes import ApiError, Cluster
from sandboxcore_opensandbox import _pool_making
from sandboxcore_opensandbox._notes import Notes, allocated
from sandboxcore_opensandbox._parts import batch_sandbox
from sandboxcore_opensandbox._pool_looks import PoolLooks
from sandboxcore_opensandbox._pool_making import Patience
from sandboxcore_opensandbox._stuck import until_gone
from sandboxcore_opensandbox.pools import Pools, pool_objects

from sandboxcore import Session
from sandboxcore.errors import ProvisionError, SandboxError
from tests.cluster import kubectl
from tests.opensandbox import places
from tests.opensandbox.kit import IMAGES

KIND = "sandbox.opensandbox.io/v1alpha1/BatchSandbox"
POOL = "sandbox.opensandbox.io/v1alpha1/Pool"
KEEP = "test.sandboxcore.dev/keep"
T = TypeVar("T")


async def until(look: Callable[[], Awaitable[T | None]]) -> T:
    """Look until there is something."""
    async with asyncio.timeout(120):
        while True:
            found = await look()
            if found is not None:
                return found
            await asyncio.sleep(0.1)


class Elder:
    """A batch of another client, which has waited longer than any of ours."""

    def __init__(self, cluster: Cluster, batch: str) -> None:
        self._cluster = cluster
        self._batch = batch
        self._names: list[str] = []

    async def ask(self, pool: str, pods: int = 1) -> None:
        """Ask a pool for pods."""
        notes = Notes(
            batch=self._batch,
            run_id="elder",
            environments=(self._batch,),
            services=("a",),
            part=("a",),
            owner="elder",
            created=1.0,
            pool=pool,
            queued=1.0,
        )
        self._names.append(f"{self._batch}-{pool}")
        where = self._cluster.namespace
        obj = batch_sandbox(self._names[-1], where, notes, lease_end=time.time() + 600, grace=60, replicas=pods)
        await self._cluster.create(obj)

    async def served(self) -> None:
        """Wait until it has all that it asked for."""

        async def look() -> bool | None:
            found = [await self._cluster.get(KIND, name) for name in self._names]
            return all(len(allocated(obj)) == obj["spec"]["replicas"] for obj in found) or None

        await until(look)

    async def leave(self) -> None:
        """Give all back."""
        for name in self._names:
            await self._cluster.delete(KIND, name)


async def given(cluster: Cluster, session: Session, pool: str) -> dict[str, Any]:
    """Wait until a session was given a pod of a pool; returns the object that has it."""

    async def look() -> dict[str, Any] | None:
        found = (await cluster.list(KIND, label_selector=f"sandboxcore.dev/run-id={session.run_id}"))["items"]
        return next((obj for obj in found if obj["spec"]["poolRef"] == pool and allocated(obj)), None)

    return await until(look)


async def keep(cluster: Cluster, kind: str, name: str, finalizers: Sequence[str] = (KEEP,)) -> None:
    """Let an object stay when it is deleted, or no longer."""
    try:
        await cluster.patch(kind, name, {"metadata": {"finalizers": list(finalizers) or None}})
    except ApiError as error:
        if error.status != 404:
            raise


def from_pools(*pools: str, **service: Any) -> dict[str, Any]:
    return {"services": {pool: {**service, "options": {"opensandbox": {"poolRef": pool}}} for pool in pools}}


async def test_an_older_batch_is_let_past_in_whichever_pool(crd: Mapping[str, Any], cluster: Cluster) -> None:
    """Each has the only pod of one pool and lacks that of the other. Who let go comes back, though its old Secret is there."""
    for pool in ("left", "right"):
        await asyncio.to_thread(places.make_pool, crd["namespace"], pool, buffer=1, maximum=1)
    elder = Elder(cluster, "elder")
    await elder.ask("left")
    await elder.served()
    async with Session("opensandbox", config={**crd, "pool_wait": 200.0}) as session:
        making = asyncio.create_task(session.provision(from_pools("left", "right", env={"TOKEN": "s3cret"})))
        secret = f"{(await given(cluster, session, 'right'))['metadata']['name']}-env"
        await keep(cluster, "Secret", secret)
        try:
            await elder.ask("right")
            await elder.served()
            await elder.leave()
            environment = await making
            for sandbox in environment:
                assert (await sandbox.exec(["sh", "-c", "echo $TOKEN"])).stdout == b"s3cret\n"
        finally:
            await keep(cluster, "Secret", secret, ())
        await environment.destroy()
    assert places.left_over(crd["namespace"], session.run_id) == []


async def test_pods_that_are_never_taken_back_are_told(
    crd: Mapping[str, Any], cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instead of that there is an object of the name already."""
    await asyncio.to_thread(places.make_pool, crd["namespace"], "kept", buffer=2, maximum=2)
    monkeypatch.setattr(_pool_making, "PATIENCE", 1.0)
    kept: list[str] = []

    async def then_let_go(*args: Any, **options: Any) -> None:
        try:
            await until_gone(*args, **options)
        finally:
            await keep(cluster, KIND, kept[0], ())

    monkeypatch.setattr(_pool_making, "until_gone", then_let_go)
    elder = Elder(cluster, "kept-elder")
    async with Session("opensandbox", config={**crd, "pool": "kept"}) as session:
        holder = await session.provision({"services": {"a": {}}})
        making = asyncio.create_task(session.provision({"services": {"a": {}, "b": {}}}))

        async def asked() -> str | None:
            found = (await cluster.list(KIND, label_selector=f"sandboxcore.dev/run-id={session.run_id}"))["items"]
            names = [obj["metadata"]["name"] for obj in found if obj["metadata"]["name"] != holder.id and allocated(obj)]
            return names[0] if names else None

        kept.append(await until(asked))
        before = (await cluster.get(KIND, kept[0]))["metadata"]["finalizers"]
        await keep(cluster, KIND, kept[0], (*before, KEEP))
        await elder.ask("kept")
        with pytest.raises(SandboxError, match=f"{kept[0]} is still there after 1 s, kept by .*{KEEP}"):
            await making
        await elder.leave()
    assert places.left_over(crd["namespace"], session.run_id) == []


async def test_a_batch_does_not_let_go_for_itself(
    crd: Mapping[str, Any], cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Services with commands and without are two requests of one moment on one pool."""
    await asyncio.to_thread(
        places.make_pool, crd["namespace"], "mixed", buffer=2, maximum=2, task_executor=IMAGES["task-executor"]
    )
    let_go: list[object] = []
    really = _pool_making._let_go

    async def noted(*args: Any) -> None:
        let_go.append(args)
        await really(*args)

    monkeypatch.setattr(_pool_making, "_let_go", noted)
    looks = _counted_looks(monkeypatch)
    holder = Elder(cluster, "mixed-holder")
    await holder.ask("mixed")
    await holder.served()
    async with Session("opensandbox", config={**crd, "pool": "mixed", "pool_wait": 200.0}) as session:
        spec = {"services": {"idle": {}, "busy": {"command": ["sh", "-c", "exec sleep 300"]}}}
        making = asyncio.create_task(session.provision(spec))
        await until(_more(looks, 8, making))
        assert let_go == []
        await holder.leave()
        await making
    assert let_go == []


def _counted_looks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Note each look at what is asked of pools."""
    looks: list[float] = []
    really = PoolLooks.requests

    async def noted(self: PoolLooks) -> Any:
        found = await really(self)
        looks.append(time.monotonic())
        return found

    monkeypatch.setattr(PoolLooks, "requests", noted)
    return looks


def _more(looks: Sequence[float], number: int, making: asyncio.Task[Any]) -> Callable[[], Awaitable[bool | None]]:
    async def look() -> bool | None:
        return len(looks) >= number or making.done() or None

    return look


async def test_a_pool_that_still_warms_up_is_waited_for(
    crd: Mapping[str, Any], cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though ``pool_wait`` is over: that is for pools that are full."""
    where = crd["namespace"]
    pools = Pools(cluster)
    objects = pool_objects("cold", places.DEBIAN, buffer=1, maximum=2, namespace=where)
    [pool] = [obj for obj in objects if obj["kind"] == "Pool"]
    probe = {"exec": {"command": ["test", "-e", "/tmp/warm"]}, "periodSeconds": 1}
    pool["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] = probe
    await pools.apply(objects)
    looks = _counted_looks(monkeypatch)
    async with Session("opensandbox", config={**crd, "pool": "cold", "pool_wait": 0.0}) as session:
        making = asyncio.create_task(session.provision({"services": {"default": {}}}))
        await until(_more(looks, 4, making))
        while not making.done():
            await asyncio.to_thread(_warm, where)
            await asyncio.sleep(0.2)
        assert (await (await making).default.exec(["true"])).ok
    await pools.delete("cold")


def _warm(where: str) -> None:
    selector = "sandbox.opensandbox.io/pool-name=cold"
    for name in kubectl("-n", where, "get", "pods", "-l", selector, "-o", "name").split():
        kubectl("-n", where, "exec", name, "--", "touch", "/tmp/warm", check=False)


async def test_why_new_pods_can_not_start_is_told_though_others_are_in_use(crd: Mapping[str, Any], cluster: Cluster) -> None:
    await asyncio.to_thread(places.make_pool, crd["namespace"], "aging", buffer=1, maximum=3)
    async with Session("opensandbox", config={**crd, "pool": "aging"}) as session:
        holder = await session.provision({"services": {"default": {}}})
        pool = await cluster.get(POOL, "aging")
        template = json.loads(json.dumps(pool["spec"]["template"]))
        template["spec"]["containers"][0]["image"] = "registry.invalid/no/such:image"
        await cluster.patch(POOL, "aging", {"spec": {"template": template}})
        mine = holder.ref.sandboxes[0].data["pod"]

        async def all_new() -> bool | None:
            found = (await cluster.list("Pod", label_selector="sandbox.opensandbox.io/pool-name=aging"))["items"]
            old = [pod for pod in found if pod["spec"]["containers"][0]["image"] == places.DEBIAN]
            for pod in old:
                if pod["metadata"]["name"] != mine:
                    await cluster.delete("Pod", pod["metadata"]["name"])
            return (len(old) == 1 and len(found) > 1) or None

        await until(all_new)
        with pytest.raises(ProvisionError, match=r"pods of pool 'aging' can't start: .*registry\.invalid"):
            await session.provision({"services": {"default": {}}})
        await holder.destroy()
    await Pools(cluster).delete("aging")


@pytest.mark.tier("none")
def test_only_the_time_counts_in_which_a_pool_is_full() -> None:
    patience = Patience(10.0)
    assert not patience.looked(0.0, full=False)
    assert not patience.looked(100.0, full=True)
    assert not patience.looked(106.0, full=False)
    assert not patience.looked(500.0, full=True)
    assert not patience.looked(503.0, full=True)
    assert patience.looked(504.0, full=True)


class _Counting:
    """A client that counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def list(self, kind: str) -> dict[str, Any]:
        self.asked.append(kind)
        await asyncio.sleep(0)
        return {"items": [{"spec": {"poolRef": "p"}}, {"spec": {"template": {}}}]}

    async def get(self, kind: str, name: str) -> dict[str, Any]:
        self.asked.append(f"{kind} {name}")
        await asyncio.sleep(0)
        return {"metadata": {"name": name}}


@pytest.mark.tier("none")
async def test_many_who_wait_look_once() -> None:
    client = _Counting()
    looks = PoolLooks(client)  # type: ignore[arg-type]
    found = await asyncio.gather(*(looks.requests() for _ in range(64)), *(looks.pool("p") for _ in range(64)))
    assert sorted(client.asked) == [KIND, f"{POOL} p"]
    assert found[0] == [{"spec": {"poolRef": "p"}}]
