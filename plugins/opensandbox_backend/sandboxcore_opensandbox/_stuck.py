"""BatchSandboxes that nobody will ever let go: why, and how they are freed on request.

The controller takes its finalizer away when a pool takes pods back. It never does for one whose pool is gone already, or whose
pods were all given back before it was deleted (its tasks ended under ``taskResourcePolicyWhenCompleted: Release``, say).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sandboxcore_kubernetes import ApiError

from ._batch_watch import KIND
from ._names import API_VERSION, POOL_FINALIZER
from ._notes import allocated, released

if TYPE_CHECKING:
    from sandboxcore_kubernetes import Cluster

    from ._batch_watch import BatchWatch

__all__ = ("PATIENCE", "SUSPICIOUS", "free", "until_gone", "why_stuck")

#: Seconds after which a deletion is looked into.
SUSPICIOUS = 10.0
#: Seconds that the cluster gets for taking objects and pods away.
PATIENCE = 100.0
#: Seconds in which one that was freed goes.
_FREED = 5.0
POOL = f"{API_VERSION}/Pool"


async def why_stuck(cluster: Cluster, obj: Mapping[str, Any]) -> ApiError | None:
    """Say why a BatchSandbox that is being deleted will never be gone; None where it only takes its time."""
    metadata = obj["metadata"]
    if POOL_FINALIZER not in (metadata.get("finalizers") or []):
        return None
    pool = obj["spec"].get("poolRef", "")
    reason = ""
    if await _is_gone(cluster, metadata["namespace"], pool):
        reason = f"its pool {pool!r} is gone, and with it what would have taken the pods back"
    elif set(allocated(obj)) <= set(released(obj)):
        reason = "its pods went back to the pool before it was deleted, and the controller looks at such objects no more"
    if not reason:
        return None
    name = metadata["name"]
    return ApiError(
        f"BatchSandbox {metadata['namespace']}/{name} will stay for ever: {reason}",
        hint=f"sandboxcore opensandbox unstick {name} takes its finalizer away; strip_finalizers=true does so every time",
    )


async def until_gone(
    cluster: Cluster, watch: BatchWatch, names: tuple[str, ...], *, strip: bool, patience: float = PATIENCE
) -> None:
    """Wait until BatchSandboxes that are being deleted are gone.

    Args:
        strip: Whether to free those that nobody will ever let go.
        patience: Seconds.

    Raises:
        ApiError: One stays; the message says what keeps it.
    """

    def gone() -> bool | None:
        return all(watch.get(name) is None for name in names) or None

    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    suspicious = False
    while await watch.wait_for(names, gone, timeout=min(SUSPICIOUS, left := max(0.0, deadline - loop.time()))) is None:
        suspicious = suspicious or left >= SUSPICIOUS
        for obj in filter(None, [watch.get(name) for name in names]):
            reason = await why_stuck(cluster, obj) if suspicious else None
            if reason is not None and strip:
                await free(cluster, obj)
                deadline = max(deadline, loop.time() + _FREED)
            elif reason is not None or left <= SUSPICIOUS:
                raise (reason or _slow(obj, patience))


def _slow(obj: Mapping[str, Any], patience: float) -> ApiError:
    metadata = obj["metadata"]
    kept = ", ".join(metadata.get("finalizers") or []) or "nothing"
    return ApiError(
        f"BatchSandbox {metadata['namespace']}/{metadata['name']} is still there after {patience:.0f} s, kept by {kept}",
        hint="is the OpenSandbox controller running? sandboxcore doctor -b opensandbox",
    )


async def free(cluster: Cluster, obj: Mapping[str, Any]) -> None:
    """Take the pool's finalizer away from an object that is being deleted. Idempotent."""
    metadata = obj["metadata"]
    left = [name for name in metadata.get("finalizers") or [] if name != POOL_FINALIZER]
    change = {"metadata": {"finalizers": left or None, "resourceVersion": metadata["resourceVersion"]}}
    try:
        await cluster.patch(KIND, metadata["name"], change, namespace=metadata["namespace"])
    except ApiError as error:
        if error.status not in (404, 409):
            raise


async def _is_gone(cluster: Cluster, namespace: str, pool: str) -> bool:
    try:
        await cluster.get(POOL, pool, namespace=namespace)
    except ApiError as error:
        if error.status == 404:
            return True
        raise
    return False
