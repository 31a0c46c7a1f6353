"""The one connection to the cluster that provisioner, discoverer and channels of a session share."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sandboxcore_kubernetes import Cluster

    from ._batch_watch import BatchWatch
    from ._config import OpenSandboxConfig
    from ._pool_looks import PoolLooks

__all__ = ("Connection",)


class Connection:
    """Connects when it is first needed."""

    def __init__(self, config: OpenSandboxConfig) -> None:
        self.config = config
        self._cluster: Cluster | None = None
        self._watches: dict[str, BatchWatch] = {}
        self._users: Counter[BatchWatch] = Counter()
        self._own_runs: set[str] = set()
        self._looks: PoolLooks | None = None
        self._gate = asyncio.Lock()

    async def cluster(self) -> Cluster:
        """Return the client.

        Raises:
            UsageError: The configuration leads nowhere.
            ApiError: The server can't be reached, or does not let us in.
        """
        if self._cluster is None:
            async with self._gate:
                if self._cluster is None:
                    from sandboxcore_kubernetes import Cluster

                    self._cluster = await Cluster.connect(self.config)
        return self._cluster

    @contextlib.asynccontextmanager
    async def batches(self, run_id: str) -> AsyncIterator[BatchWatch]:
        """Have the watch of a run's BatchSandboxes. All that have it share it.

        It goes on after them while there are any, and to the end where it is the run of what is made here.

        Raises:
            ApiError: The server refuses.
        """
        from ._batch_watch import BatchWatch

        cluster = await self.cluster()
        if run_id not in self._watches:
            self._watches[run_id] = BatchWatch(cluster, cluster.namespace, run_id)
        watch = self._watches[run_id]
        self._users[watch] += 1
        try:
            await watch.begin()
            yield watch
        finally:
            self._users[watch] -= 1
            await self._end_unused()

    def put(self, run_id: str, obj: Mapping[str, Any]) -> None:
        """Let those who have the watch of a run know what was made for it here."""
        self._own_runs.add(run_id)
        watch = self._watches.get(run_id)
        if watch is not None:
            watch.put(obj)

    async def _end_unused(self) -> None:
        """End the watches that nobody has and that have nothing to tell: who cleans up after others sees many runs."""
        for run_id, watch in list(self._watches.items()):
            unused = not self._users[watch] and watch.is_empty and run_id not in self._own_runs
            if unused and self._watches.get(run_id) is watch:  # and nobody else has just ended it
                del self._watches[run_id], self._users[watch]
                await watch.aclose()

    async def looks(self) -> PoolLooks:
        """Return what all that wait for pools look at them with."""
        from ._pool_looks import PoolLooks

        cluster = await self.cluster()
        if self._looks is None:
            self._looks = PoolLooks(cluster)
        return self._looks

    async def aclose(self) -> None:
        """End watches and close the connection. Idempotent."""
        while self._watches:
            _, watch = self._watches.popitem()
            await watch.aclose()
        cluster, self._cluster, self._looks = self._cluster, None, None
        if cluster is not None:
            await cluster.aclose()
