"""One Lease object a client run: one renewal for any number of environments, and what cleanup judges by."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import ApiError
from .naming import MANAGED_BY, OWNER, RUN_ID, dns_label, label_value

if TYPE_CHECKING:
    from .cluster import Cluster

__all__ = ("RunLease", "acquire", "drop", "expired", "lease_name", "read", "read_all", "renew")

_KIND = "Lease"
_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"  # metav1.MicroTime


@dataclass(frozen=True, kw_only=True, slots=True)
class RunLease:
    """A run's claim on all that carries its label. Times are seconds since the epoch, by the server's clock."""

    name: str
    namespace: str
    run_id: str
    owner: str
    acquired_at: float
    renewed_at: float
    duration: float
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def expires_at(self) -> float:
        """When it may be reaped, unless it is renewed."""
        return self.renewed_at + self.duration


def lease_name(run_id: str) -> str:
    """Name a run's Lease."""
    return dns_label(f"sandboxcore-{run_id}".lower())


async def acquire(
    cluster: Cluster,
    run_id: str,
    owner: str,
    duration: float,
    *,
    namespace: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> RunLease:
    """Claim a run for ``duration`` seconds from now; one that is there already is renewed, whoever made it.

    Raises:
        ApiError: The server refuses.
    """
    now = _stamp(await cluster.server_time())
    spec = {"holderIdentity": owner, "leaseDurationSeconds": _whole(duration), "acquireTime": now, "renewTime": now}
    metadata = {
        "name": lease_name(run_id),
        "namespace": namespace or cluster.namespace,
        "labels": {RUN_ID: label_value(run_id), MANAGED_BY: "sandboxcore", **(labels or {})},
        "annotations": {OWNER: owner, RUN_ID: run_id},
    }
    document = {"apiVersion": "coordination.k8s.io/v1", "kind": _KIND, "metadata": metadata, "spec": spec}
    try:
        return _read(await cluster.create(document))
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise
    return await renew(cluster, run_id, duration, namespace=namespace)


async def renew(cluster: Cluster, run_id: str, duration: float, *, namespace: str | None = None) -> RunLease:
    """Move the expiry of a run to ``duration`` seconds from now.

    Raises:
        ApiError: With status 404: somebody has reaped the run.
    """
    change = {"spec": {"renewTime": _stamp(await cluster.server_time()), "leaseDurationSeconds": _whole(duration)}}
    return _read(await cluster.patch(_KIND, lease_name(run_id), change, namespace=namespace))


async def read(cluster: Cluster, run_id: str, *, namespace: str | None = None) -> RunLease | None:
    """Read a run's claim; None: it has none."""
    try:
        return _read(await cluster.get(_KIND, lease_name(run_id), namespace=namespace))
    except ApiError as error:
        if error.status == 404:
            return None
        raise


async def read_all(cluster: Cluster, *, namespace: str | None = None) -> list[RunLease]:
    """Read the claims of all runs in a namespace."""
    found = await cluster.list(_KIND, namespace=namespace, label_selector=f"{RUN_ID},{MANAGED_BY}=sandboxcore")
    return [_read(item) for item in found["items"]]


async def expired(cluster: Cluster, *, namespace: str | None = None) -> list[RunLease]:
    """List the runs whose time is past, by the server's clock."""
    now = await cluster.server_time()
    return [lease for lease in await read_all(cluster, namespace=namespace) if lease.expires_at < now]


async def drop(cluster: Cluster, run_id: str, *, namespace: str | None = None) -> None:
    """Give a run's claim up, after everything that carried its label is gone. Idempotent."""
    await cluster.delete(_KIND, lease_name(run_id), namespace=namespace)


def _whole(duration: float) -> int:
    return max(1, -(-int(duration * 1000) // 1000))


def _stamp(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime(_FORMAT)


def _seconds(stamp: str | None) -> float:
    return datetime.datetime.fromisoformat(stamp).timestamp() if stamp else 0.0


def _read(document: Mapping[str, Any]) -> RunLease:
    metadata, spec = document["metadata"], document.get("spec") or {}
    labels = metadata.get("labels") or {}
    return RunLease(
        name=metadata["name"],
        namespace=metadata["namespace"],
        run_id=(metadata.get("annotations") or {}).get(RUN_ID) or labels.get(RUN_ID, ""),
        owner=spec.get("holderIdentity") or "",
        acquired_at=_seconds(spec.get("acquireTime") or metadata.get("creationTimestamp")),
        renewed_at=_seconds(spec.get("renewTime") or metadata.get("creationTimestamp")),
        duration=float(spec.get("leaseDurationSeconds") or 0),
        labels=labels,
    )
