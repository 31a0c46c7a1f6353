"""What pools have and who asks them for what: looked at once for all of a session that wait for pods."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sandboxcore_kubernetes import ApiError

from ._batch_watch import KIND
from ._pool_fit import POOL, no_pool

if TYPE_CHECKING:
    from sandboxcore_kubernetes import Cluster

__all__ = ("LOOK_SECONDS", "PoolLooks")

T = TypeVar("T")
Object = Mapping[str, Any]
#: Seconds for which what was seen is used.
LOOK_SECONDS = 0.5


class PoolLooks:
    """Looks at pools and at the requests that they have, however many want to know it, once in a while."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._requests = _Look(self._list)
        self._pools: dict[str, _Look[Object]] = {}

    async def pool(self, name: str) -> Object:
        """Read a pool.

        Raises:
            UsageError: It is not there.
            ApiError: The cluster refused.
        """
        if name not in self._pools:
            self._pools[name] = _Look(lambda: self._get(name))
        return await self._pools[name].fresh()

    async def requests(self) -> list[Object]:
        """List the BatchSandboxes that ask a pool for pods, or have them.

        Raises:
            ApiError: The cluster refused.
        """
        return await self._requests.fresh()

    async def _get(self, name: str) -> Object:
        try:
            return await self._cluster.get(POOL, name)
        except ApiError as error:
            if error.status == 404:
                raise await no_pool(self._cluster, name) from error
            raise

    async def _list(self) -> list[Object]:
        found = (await self._cluster.list(KIND))["items"]
        return [obj for obj in found if obj["spec"].get("poolRef") and "template" not in obj["spec"]]


class _Look(Generic[T]):
    """Something that is asked for when it is wanted and what is known of it is old."""

    def __init__(self, ask: Callable[[], Awaitable[T]]) -> None:
        self._ask = ask
        self._asking: asyncio.Task[T] | None = None
        self._waiting = 0
        self._found: tuple[float, T] | None = None

    async def fresh(self) -> T:
        """Return it, or raise what asking for it has raised, which all who wait have in common."""
        now = asyncio.get_running_loop().time()
        if self._found is not None and now - self._found[0] < LOOK_SECONDS:
            return self._found[1]
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._look(now))
        self._waiting += 1
        try:
            return await asyncio.shield(self._asking)
        finally:
            self._waiting -= 1
            if not self._waiting and self._asking is not None:  # nobody wants to know it any more
                self._asking.cancel()
                self._asking = None

    async def _look(self, now: float) -> T:
        found = await self._ask()
        self._found = now, found
        return found
