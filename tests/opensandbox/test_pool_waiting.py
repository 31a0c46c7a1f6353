"""Waiting for pods of pools: how long, for whose sake others let go, and what is said when they never come."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar
from unittest.mock import AsyncMock, MagicMock, Mock

import pytest
from sandboxcore_kubernetes import ApiError, Cluster
from sandboxcore_opensandbox import _pool_making, _stuck
from sandboxcore_opensandbox._batch_watch import BatchWatch
from sandboxcore_opensandbox._notes import Notes, allocated
from sandboxcore_opensandbox._parts import batch_sandbox
from sandboxcore_opensandbox._pool_looks import PoolLooks
from sandboxcore_opensandbox._pool_making import Patience
from sandboxcore_opensandbox._standing import Standing
from sandboxcore_opensandbox._stuck import until_gone
from sandboxcore_opensandbox.pools import Pools, pool_objects

from sandboxcore import Session
from sandboxcore.errors import ProvisionError, ProvisionTimeoutError, SandboxError
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
    let_go = _counted_letting_go(monkeypatch)
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


def _counted_letting_go(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Note each time that a batch gives its pods back to let others past."""
    let_go: list[object] = []
    really = _pool_making._let_go

    async def noted(*args: Any) -> None:
        let_go.append(args)
        await really(*args)

    monkeypatch.setattr(_pool_making, "_let_go", noted)
    return let_go


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
    await pools.apply(_cold("cold", where, buffer=1, maximum=2))
    looks = _counted_looks(monkeypatch)
    async with Session("opensandbox", config={**crd, "pool": "cold", "pool_wait": 0.0}) as session:
        making = asyncio.create_task(session.provision({"services": {"default": {}}}))
        await until(_more(looks, 4, making))
        while not making.done():
            await asyncio.to_thread(_warm, where, "cold")
            await asyncio.sleep(0.2)
        assert (await (await making).default.exec(["true"])).ok
    await pools.delete("cold")


async def test_who_lets_others_past_waits_for_them_though_the_pool_only_warms_up(
    crd: Mapping[str, Any], cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instead of letting go over and over, because ``pool_wait`` is over."""
    where = crd["namespace"]
    await Pools(cluster).apply(_cold("chilly", where, buffer=1, maximum=2))
    let_go = _counted_letting_go(monkeypatch)
    looks = _counted_looks(monkeypatch)
    elder = Elder(cluster, "chilly-elder")
    await elder.ask("chilly", 2)
    async with Session("opensandbox", config={**crd, "pool": "chilly", "pool_wait": 0.0}) as session:
        making = asyncio.create_task(session.provision({"services": {"default": {}}}))

        async def has_let_go() -> bool | None:
            return bool(let_go) or making.done() or None

        await until(has_let_go)
        await until(_more(looks, len(looks) + 12, making))
        assert not making.done()
        assert len(let_go) == 1
        await elder.leave()
        while not making.done():
            await asyncio.to_thread(_warm, where, "chilly")
            await asyncio.sleep(0.2)
        await making
    await Pools(cluster).delete("chilly")


def _cold(name: str, where: str, **options: Any) -> list[dict[str, Any]]:
    """Build a pool whose pods are not ready before they are warmed."""
    objects = pool_objects(name, places.DEBIAN, namespace=where, **options)
    [pool] = [obj for obj in objects if obj["kind"] == "Pool"]
    probe = {"exec": {"command": ["test", "-e", "/tmp/warm"]}, "periodSeconds": 1}
    pool["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] = probe
    return objects


def _warm(where: str, pool: str) -> None:
    selector = f"sandbox.opensandbox.io/pool-name={pool}"
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
async def test_pods_that_can_not_start_fail_nobody_while_others_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool of them all has good pods, but those are in use."""
    states = {name: Mock(ready=name == "used", deleted=False) for name in ("used", "bad", "new")}
    for name, state in states.items():
        state.name = name
    bad = {"bad"}
    causes = {name: Mock(pod=name, message="no such image", hint="") for name in states}
    monkeypatch.setattr(Standing, "ripe", lambda self, watch, now: [causes[name] for name in sorted(bad)])
    cluster = MagicMock()
    cluster.pods.return_value.__aenter__.return_value.pods = states
    notes = Notes(batch="b", run_id="r", environments=("b",), services=("a",), part=("a",), owner="o", created=1.0, pool="p")
    part = _pool_making._OfPool("p", [("b", notes)], {"b": 1})
    marks = {"sandbox.opensandbox.io/alloc-status": '{"pods":["used"]}'}
    holder = {"metadata": {"name": "holder", "annotations": marks}}
    await part.check(Mock(), cluster, {}, [holder], late=False)
    bad.add("new")
    with pytest.raises(ProvisionError, match=r"pods of pool 'p' can't start: no such image \(pod bad\)"):
        await part.check(Mock(), cluster, {}, [holder], late=False)


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
        self.may = asyncio.Event()
        self.may.set()

    async def list(self, kind: str) -> dict[str, Any]:
        self.asked.append(kind)
        await self.may.wait()
        return {"items": [{"spec": {"poolRef": "p"}}, {"spec": {"template": {}}}]}

    async def get(self, kind: str, name: str) -> dict[str, Any]:
        self.asked.append(f"{kind} {name}")
        await self.may.wait()
        return {"metadata": {"name": name}}

    def was_asked(self, times: int) -> Callable[[], Awaitable[bool | None]]:
        """Tell whether so much was asked, to who waits for it."""

        async def look() -> bool | None:
            return len(self.asked) >= times or None

        return look


@pytest.mark.tier("none")
async def test_many_who_wait_look_once() -> None:
    client = _Counting()
    looks = PoolLooks(client)  # type: ignore[arg-type]
    found = await asyncio.gather(*(looks.requests() for _ in range(64)), *(looks.pool("p") for _ in range(64)))
    assert sorted(client.asked) == [KIND, f"{POOL} p"]
    assert found[0] == [{"spec": {"poolRef": "p"}}]


@pytest.mark.tier("none")
async def test_a_look_that_fails_fails_once_for_all_who_wait() -> None:
    client = Mock(list=AsyncMock(side_effect=ApiError("no answer")))
    looks = PoolLooks(client)
    found = await asyncio.gather(*(looks.requests() for _ in range(64)), return_exceptions=True)
    assert [str(error) for error in found] == ["no answer"] * 64
    client.list.assert_awaited_once()
    client.list = AsyncMock(return_value={"items": []})
    assert await looks.requests() == []


@pytest.mark.tier("none")
async def test_who_no_longer_waits_takes_a_look_from_nobody() -> None:
    client = _Counting()
    looks = PoolLooks(client)  # type: ignore[arg-type]
    client.may.clear()
    waiting = [asyncio.create_task(looks.requests()) for _ in range(2)]
    await until(client.was_asked(1))
    waiting[0].cancel()
    client.may.set()
    assert await waiting[1] == [{"spec": {"poolRef": "p"}}]
    client.may.clear()
    alone = asyncio.create_task(looks.pool("p"))
    await until(client.was_asked(2))
    alone.cancel()
    await asyncio.wait((alone,))
    client.may.set()
    assert (await looks.pool("p"))["metadata"]["name"] == "p"


class _Stuck:
    """A cluster that has one object which nobody will ever let go, and no pool."""

    def __init__(self) -> None:
        metadata = {"name": "b", "namespace": "ns", "uid": "u", "resourceVersion": "1"}
        self.watch = BatchWatch(self, "ns", "r")  # type: ignore[arg-type]
        self.watch.put({"metadata": metadata | {"finalizers": [_stuck.POOL_FINALIZER]}, "spec": {"poolRef": "p"}})
        self.freed: list[str] = []

    async def get(self, *args: Any, **options: Any) -> Any:
        raise ApiError("not found", status=404)

    async def delete(self, *args: Any, **options: Any) -> bool:
        return True

    async def patch(self, kind: str, name: str, *args: Any, **options: Any) -> None:
        self.freed.append(name)
        self.watch._take("DELETED", {"metadata": {"name": name}})


@pytest.mark.tier("none")
async def test_nothing_is_judged_before_its_time() -> None:
    """However short the patience is: the controller may be about to let go."""
    cluster = _Stuck()
    with pytest.raises(ApiError, match="b is still there after 0 s"):
        await until_gone(cluster, cluster.watch, ("b",), strip=True, patience=0.1)  # type: ignore[arg-type]
    assert cluster.freed == []


@pytest.mark.tier("none")
async def test_what_stays_for_ever_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_stuck, "SUSPICIOUS", 0.05)
    cluster = _Stuck()
    with pytest.raises(ApiError, match="b will stay for ever: its pool 'p' is gone"):
        await until_gone(cluster, cluster.watch, ("b",), strip=False)  # type: ignore[arg-type]
    await until_gone(cluster, cluster.watch, ("b",), strip=True)  # type: ignore[arg-type]
    assert cluster.freed == ["b"]


@pytest.mark.tier("none")
async def test_letting_go_when_the_time_is_up_is_told_as_that() -> None:
    cluster = _Stuck()
    job = Mock(deadline=asyncio.get_running_loop().time(), batch="mine", namespace="ns")
    with pytest.raises(ProvisionTimeoutError, match=r"did not come in time; it let older batches past, and .* still there"):
        await _pool_making._let_go(job, cluster, cluster.watch, ("b",))  # type: ignore[arg-type]
    assert cluster.freed == []


@pytest.mark.tier("none")
async def test_a_pool_that_stays_full_is_told_by_who_lets_others_past() -> None:
    """With who has it, and without asking for its pods once more."""
    pool = {"metadata": {"name": "p"}, "spec": {"capacitySpec": {"poolMax": 2}}, "status": {"total": 2, "allocated": 2}}
    notes = Notes(
        batch="elder", run_id="r", environments=("elder",), services=("a",), part=("a",), owner="o", created=1.0, pool="p"
    )
    elder = batch_sandbox("elder", "ns", notes, lease_end=1.0, grace=1.0, replicas=3)
    looks = Mock(requests=AsyncMock(return_value=[elder]), pool=AsyncMock(return_value=pool))
    job = Mock(deadline=asyncio.get_running_loop().time() + 600, claims=[Mock()], batch="mine")
    with pytest.raises(ProvisionError, match="pool 'p' has no room for 1 pods: total 2, allocated 2"):
        await _pool_making._until_served(job, looks, ["elder"], [("mine", notes)], Patience(0.0))
