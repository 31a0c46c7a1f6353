"""Leases: the end of a BatchSandbox is moved while its environments' owners live.

The environments of a batch share an object, and so the end at which the controller deletes it: the last of theirs. All have the
end that is written there for all, but those that were promised another one (``keep``, say): that is written there for each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sandboxcore_kubernetes import ApiError

from ._batch_watch import KIND
from ._changing import change
from ._errors import mapped
from ._notes import LEASE, expire_time, lease_end, lease_key, live_environments, read

if TYPE_CHECKING:
    from sandboxcore.values import EnvironmentRef

    from ._connection import Connection

__all__ = ("lease_change", "renew")

#: How many objects are changed at once.
_AT_ONCE = 16


async def renew(connection: Connection, environments: Sequence[EnvironmentRef], lease: float) -> None:
    """Move the end of the leases to ``lease`` seconds from now; those that are gone are passed over.

    Raises:
        SandboxError: The cluster refuses, or can't be reached.
    """
    cluster = await connection.cluster()
    # The controller goes by the cluster's clock, and so does the lease.
    end, grace = await cluster.server_time() + lease, connection.config.expire_grace
    parts: dict[tuple[str, str], set[str]] = {}
    for ref in environments:
        for name in ref.data["parts"]:
            parts.setdefault((ref.data["namespace"], name), set()).add(ref.environment_id)

    # What only one environment has needs no look at what others have there.
    alone = {
        (ref.data["namespace"], name) for ref in environments if not ref.data.get("shared", True) for name in ref.data["parts"]
    }
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(namespace: str, name: str, renewed: set[str]) -> None:
        try:
            async with room:
                if (namespace, name) in alone:
                    await cluster.patch(KIND, name, _of_one(min(renewed), end, grace), namespace=namespace)
                else:
                    await change(cluster, name, namespace, lambda obj: lease_change(obj, renewed, end, grace))
        except ApiError as error:
            if error.status != 404:
                raise mapped(error, f"renew the lease of BatchSandbox {name}") from error

    await asyncio.gather(*(one(namespace, name, renewed) for (namespace, name), renewed in sorted(parts.items())))


def _of_one(environment_id: str, end: float, grace: float) -> dict[str, Any]:
    marks = {LEASE: f"{end:.3f}", lease_key(environment_id): None}
    return {"metadata": {"annotations": marks}, "spec": {"expireTime": expire_time(end + grace)}}


def lease_change(obj: Mapping[str, Any], renewed: Collection[str], end: float, grace: float) -> dict[str, Any] | None:
    """Build the patch that gives some environments of an object a new end, and no other one; None where they are all gone.

    Args:
        end: Seconds since the epoch.
        grace: Seconds past the last end of all at which the controller deletes the object.
    """
    notes = read(obj)
    live = live_environments(obj, notes) if notes else ()
    if not set(renewed).intersection(live):
        return None
    marks = obj["metadata"].get("annotations") or {}
    sharing = {name for name in live if lease_key(name) not in marks}
    text = f"{end:.3f}"
    if sharing.issubset(renewed):
        changes = {LEASE: text} | {lease_key(name): None for name in live if name in renewed and name not in sharing}
    else:
        changes = {lease_key(name): text for name in live if name in renewed}
    last = max(end if name in renewed else lease_end(obj, name) for name in live)
    return {"metadata": {"annotations": changes}, "spec": {"expireTime": expire_time(last + grace)}}
