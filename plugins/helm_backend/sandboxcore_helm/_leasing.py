"""Claims environments: by one Lease for all that a session made and renews, by their records for all others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sandboxcore_kubernetes import leases
from sandboxcore_kubernetes.errors import ApiError
from sandboxcore_kubernetes.naming import ENVIRONMENT_ID, RUN_ID

from ._identity import EXPIRES, EXPIRES_EXACTLY
from ._record import OWNED
from ._removal import GUEST

if TYPE_CHECKING:
    from sandboxcore.values import Claim, EnvironmentRef
    from sandboxcore_kubernetes.cluster import Cluster
    from sandboxcore_kubernetes.leases import RunLease

__all__ = ("RunClaim",)


class RunClaim:
    """What a run shares in a namespace, for as long as it has environments: its Lease, and the ConfigMap with the guest."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._lock = asyncio.Lock()
        self._lease: RunLease | None = None
        self._guest: str | None = None
        #: Environments of ours that the Lease claims, and those of them that are being made.
        self._held: set[str] = set()
        self._making: set[str] = set()

    async def hold(self, claim: Claim) -> str:
        """Claim an environment that is about to be made; returns the Lease's name.

        Raises:
            ApiError: The server refuses.
        """
        async with self._lock:
            if self._lease is not None and not self._making:
                await self._see_whether_it_is_there()
            if self._lease is None:
                self._lease = await leases.acquire(
                    self._cluster, claim.run_id, claim.owner, claim.lease, namespace=self._namespace
                )
            self._held.add(claim.environment_id)
            self._making.add(claim.environment_id)
            return self._lease.name

    def made(self, environment_id: str) -> None:
        """Take note that an environment is made, or never will be. Idempotent."""
        self._making.discard(environment_id)

    async def _see_whether_it_is_there(self) -> None:
        """Renew the Lease: somebody may have cleaned up this run, and with its environments what they share."""
        assert self._lease is not None
        try:
            self._lease = await leases.renew(self._cluster, self._lease.run_id, self._lease.duration, namespace=self._namespace)
        except ApiError as error:
            if error.status != 404:
                raise
            self._lease = self._guest = None

    async def guest(self) -> str:
        """Return the name of a ConfigMap with the guest, which lives as long as the Lease."""
        async with self._lock:
            assert self._lease is not None
            if self._guest is None:
                self._guest = f"{self._lease.name}-guest"[:253]
                await self._make_guest(self._guest, {RUN_ID: self._lease.run_id, GUEST: "run"})
            return self._guest

    async def own_guest(self, name: str, labels: dict[str, str]) -> None:
        """Make a ConfigMap with the guest for one environment, which outlives the run."""
        await self._make_guest(name, {**labels, GUEST: "environment"})

    async def _make_guest(self, name: str, labels: dict[str, str]) -> None:
        from sandboxcore_kubernetes.guest_mount import guest_mount

        try:
            await self._cluster.create(guest_mount(name, namespace=self._namespace, labels=labels).config_map)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise

    async def release(self, environment_id: str) -> None:
        """Claim it no longer; with the last one goes what the run shares."""
        async with self._lock:
            self._held.discard(environment_id)
            if self._held or self._lease is None:
                return
            run_id, self._lease, self._guest = self._lease.run_id, None, None
            await drop_run(self._cluster, self._namespace, run_id)

    def holds(self, environment_id: str) -> bool:
        """Tell whether an environment is one that this process made and the Lease claims."""
        return environment_id in self._held

    async def renew(self, environments: Sequence[EnvironmentRef], lease: float) -> None:
        """Move the expiry of environments; those that the Lease claims share one request."""
        held = {ref.environment_id for ref in environments} & self._held
        if held and self._lease is not None and _whole(lease) == self._lease.duration:
            try:
                self._lease = await leases.renew(self._cluster, self._lease.run_id, lease, namespace=self._namespace)
            except ApiError as error:
                if error.status != 404:
                    raise
                held = set()
        else:
            held = set()
        others = [ref for ref in environments if ref.environment_id not in held]
        await asyncio.gather(*(self._annotate(ref, lease) for ref in others))

    async def _annotate(self, ref: EnvironmentRef, lease: float) -> None:
        if "release" not in ref.data:
            return
        until = await self._cluster.server_time() + lease
        change = {"metadata": {"labels": {EXPIRES: str(int(until))}, "annotations": {EXPIRES_EXACTLY: repr(until)}}}
        namespace = ref.data["namespace"]
        for name in await self._records(namespace, ref.environment_id):
            try:
                await self._cluster.patch("Secret", name, change, namespace=namespace)
            except ApiError as error:
                if error.status != 404:
                    raise

    async def _records(self, namespace: str, environment_id: str) -> Iterable[str]:
        selector = f"{OWNED},{ENVIRONMENT_ID}={environment_id}"
        found = await self._cluster.list("Secret", namespace=namespace, label_selector=selector)
        return [item["metadata"]["name"] for item in found["items"]]


def _whole(lease: float) -> float:
    return float(max(1, -(-int(lease * 1000) // 1000)))


async def drop_run(cluster: Cluster, namespace: str, run_id: str) -> None:
    """Take away what a run shares, unless an environment still needs it (one of another process with the same run id)."""
    found: dict[str, Any] = await cluster.list(
        "Secret", namespace=namespace, label_selector=f"{OWNED},{RUN_ID}={run_id},{_LEASED}"
    )
    if found["items"]:
        return
    await cluster.delete_collection("ConfigMap", label_selector=f"{RUN_ID}={run_id},{GUEST}=run", namespace=namespace)
    await leases.drop(cluster, run_id, namespace=namespace)


_LEASED = "sandboxcore.dev/lease"
