"""Pools of warm pods: create, look at, scale, drain and delete them.

::

    async with await Cluster.connect(config) as cluster:
        pools = Pools(cluster)
        await pools.apply(pool_objects("agents", "python:3.12", buffer=5, maximum=50))
        await pools.warm("agents", 5)
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sandboxcore.errors import ProvisionError, ProvisionTimeoutError, UsageError
from sandboxcore_kubernetes import ApiError

from ._batch_watch import KIND as BATCH_SANDBOX
from ._errors import mapped
from ._names import POOL_LABEL
from ._notes import allocated, read
from ._pool_apply import Application
from ._pool_fit import POOL, PoolFit, fit, no_pool, room
from ._pool_template import pool_objects, pool_yaml
from ._standing import Standing

if TYPE_CHECKING:
    from sandboxcore_kubernetes import Cluster

__all__ = ("Pool", "Pools", "pool_objects", "pool_yaml")

Object = dict[str, Any]
_POLL = 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """One pool as it is now.

    Args:
        total: Pods that there are.
        allocated: Those that somebody has.
        available: Those that are ready to be given.
        holders: BatchSandbox to the number of pods that it has.
        fit: What its template has for us.
    """

    name: str
    total: int
    allocated: int
    available: int
    maximum: int
    minimum: int
    buffer: tuple[int, int]
    holders: Mapping[str, int]
    fit: PoolFit | None = None
    problem: str = ""


class Pools:
    """The pools of the client's namespace.

    Args:
        cluster: A client; it is not closed with this.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def all(self) -> list[Pool]:
        """List all pools, with who holds their pods.

        Raises:
            CapabilityError: The cluster has no OpenSandbox.
        """
        try:
            pools, batches = await asyncio.gather(self._cluster.list(POOL), self._cluster.list(BATCH_SANDBOX))
        except ApiError as error:
            raise mapped(error, "list the pools") from error
        return [_read(pool, batches["items"]) for pool in pools["items"]]

    async def get(self, name: str) -> Pool:
        """Look at one pool.

        Raises:
            UsageError: There is no such pool; the message has those that there are.
        """
        found = next((pool for pool in await self.all() if pool.name == name), None)
        if found is None:
            raise await no_pool(self._cluster, name)
        return found

    async def apply(self, objects: Sequence[Mapping[str, Any]]) -> list[str]:
        """Create pools and what goes with them, or change them to what is given now.

        The guest that a template mounts is made if it is missing. A pool's guest and a policy for nothing but its pods go when
        the pool goes, if they were made here; everything else is made, and stays. What is immutable is never changed.

        Returns:
            Names of the pools.

        Raises:
            UsageError: Among the objects is no Pool, or one has another namespace than the client.
            ProvisionError: The cluster refuses one of them. What was created is gone again; what was changed stays so.
        """
        return await Application(self._cluster, objects).run()

    async def scale(
        self,
        name: str,
        *,
        buffer_min: int | None = None,
        buffer_max: int | None = None,
        pool_min: int | None = None,
        pool_max: int | None = None,
    ) -> Pool:
        """Change how many pods a pool keeps and may have; what is not given stays.

        Raises:
            UsageError: There is no such pool, or the numbers contradict each other.
        """
        now = await self.get(name)
        known = {"bufferMin": now.buffer[0], "bufferMax": now.buffer[1], "poolMin": now.minimum, "poolMax": now.maximum}
        given = {"bufferMin": buffer_min, "bufferMax": buffer_max, "poolMin": pool_min, "poolMax": pool_max}
        wanted = known | {key: value for key, value in given.items() if value is not None}
        if wanted["bufferMin"] > wanted["bufferMax"] or wanted["poolMin"] > wanted["poolMax"]:
            raise UsageError(f"pool {name!r}: a minimum is above its maximum: {wanted}")
        try:
            await self._cluster.patch(POOL, name, {"spec": {"capacitySpec": wanted}})
        except ApiError as error:
            raise mapped(error, f"scale pool {name!r}") from error
        return await self.get(name)

    async def warm(self, name: str, pods: int, *, timeout: float = 120.0) -> Pool:
        """Wait until a pool has so many pods to give.

        Raises:
            ProvisionError: Its pods can't start; the message says why.
            ProvisionTimeoutError: Not in time.
        """
        selector = f"{POOL_LABEL}={name}"
        deadline = asyncio.get_running_loop().time() + timeout
        standing = Standing()
        async with self._cluster.pods(None, selector) as watch:
            while (now := await self.get(name)).available < pods:
                for cause in standing.ripe(watch, asyncio.get_running_loop().time()):
                    what = f"pods of pool {name!r} can't start: {cause.message} (pod {cause.pod})"
                    raise ProvisionError(what, hint=cause.hint or None)
                if asyncio.get_running_loop().time() > deadline:
                    what = f"pool {name!r} has {now.available} of {pods} pods ready after {timeout:g} s"
                    raise ProvisionTimeoutError(what, hint="is the OpenSandbox controller running, and has the cluster room?")
                await asyncio.sleep(_POLL)
        return now

    async def drain(self, name: str, *, timeout: float = 60.0) -> Pool:
        """Let a pool have no pods but those that somebody has, and wait until that is so.

        Raises:
            UsageError: There is no such pool.
            ProvisionTimeoutError: Not in time.
        """
        await self.scale(name, buffer_min=0, buffer_max=0, pool_min=0)
        deadline = asyncio.get_running_loop().time() + timeout
        while (now := await self.get(name)).total > now.allocated:
            if asyncio.get_running_loop().time() > deadline:
                raise ProvisionTimeoutError(f"pool {name!r} still has {now.total - now.allocated} pods that nobody has")
            await asyncio.sleep(_POLL)
        return now

    async def delete(self, name: str, *, holders: bool = False, timeout: float = 60.0) -> None:
        """Delete a pool, after those who hold its pods: the other way round they would stay for ever.

        Args:
            holders: Delete the BatchSandboxes that hold its pods, too.

        Raises:
            UsageError: There is no such pool, or somebody holds its pods and ``holders`` is not set.
            ProvisionTimeoutError: It is not gone in time.
        """
        pool = await self.get(name)
        users = await self._users(name)
        if users and not holders:
            raise UsageError(
                f"pool {name!r} is in use by {', '.join(sorted(users)[:10])}; without it they could not be deleted",
                hint="destroy them first, or give --holders to delete them, too",
            )
        try:
            await asyncio.gather(*(self._cluster.delete(BATCH_SANDBOX, user) for user in users))
            await self._until(lambda: self._users(name), f"the BatchSandboxes of pool {name!r}", timeout)
            await self._cluster.delete(POOL, pool.name)
            await self._until(lambda: self._pods(name), f"the pods of pool {name!r}", timeout)
        except ApiError as error:
            raise mapped(error, f"delete pool {name!r}") from error

    async def _users(self, name: str) -> list[str]:
        found = (await self._cluster.list(BATCH_SANDBOX))["items"]
        return [obj["metadata"]["name"] for obj in found if obj["spec"].get("poolRef") == name and "template" not in obj["spec"]]

    async def _pods(self, name: str) -> list[str]:
        found = await self._cluster.list("Pod", label_selector=f"{POOL_LABEL}={name}")
        return [pod["metadata"]["name"] for pod in found["items"]]

    async def _until(self, left: Any, what: str, timeout: float) -> None:
        deadline = asyncio.get_running_loop().time() + timeout
        while names := await left():
            if asyncio.get_running_loop().time() > deadline:
                raise ProvisionTimeoutError(f"{what} are still there after {timeout:g} s: {', '.join(sorted(names)[:5])}")
            await asyncio.sleep(_POLL)


def _read(pool: Object, batches: Sequence[Object]) -> Pool:
    has, capacity = room(pool), (pool["spec"].get("capacitySpec") or {})
    name = pool["metadata"]["name"]
    problem, found = "", None
    try:
        found = fit(pool)
    except Exception as error:
        problem = str(error)
    holders = {_label(obj): len(allocated(obj)) for obj in batches if obj["spec"].get("poolRef") == name and allocated(obj)}
    return Pool(
        name=name,
        total=has.total,
        allocated=has.allocated,
        available=has.available,
        maximum=has.maximum,
        minimum=int(capacity.get("poolMin") or 0),
        buffer=(int(capacity.get("bufferMin") or 0), int(capacity.get("bufferMax") or 0)),
        holders=holders,
        fit=found,
        problem=problem,
    )


def _label(obj: Object) -> str:
    notes = read(obj)
    return f"{obj['metadata']['name']} ({notes.owner})" if notes else obj["metadata"]["name"]
