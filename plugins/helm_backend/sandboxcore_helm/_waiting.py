"""Waits until a release is ready, and reads what waits for others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sandboxcore._at_once import together
from sandboxcore.errors import ProvisionError, ProvisionTimeoutError
from sandboxcore_kubernetes import wait_ready
from sandboxcore_kubernetes.errors import ApiError, sandbox_error
from sandboxcore_kubernetes.gates import GATE

from ._readiness import Awaited, object_ready, progress

if TYPE_CHECKING:
    from sandboxcore.abc import Emit
    from sandboxcore_kubernetes.cluster import Cluster
    from sandboxcore_kubernetes.pods import PodState
    from sandboxcore_kubernetes.watches import PodWatch

    from ._identity import Identity

__all__ = ("all_ready", "dependencies", "service_of")

_LOOK_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0)


async def all_ready(
    cluster: Cluster, watch: PodWatch, identity: Identity, wanted: Awaited, *, emit: Emit, deadline: float
) -> list[PodState]:
    """Wait until everything of a release is ready.

    Args:
        deadline: By the event loop's clock.

    Raises:
        ProvisionError: With a certain cause, as soon as it is certain.
        ProvisionTimeoutError: The deadline passed.
    """

    def wait(**which: Any) -> Coroutine[Any, Any, list[PodState]]:
        ids: Any = {"run_id": identity.run_id, "environment_id": identity.environment_id}
        return wait_ready(watch, emit=emit, deadline=deadline, backend="helm", **ids, **which)

    waits = [wait(names=wanted.pods, owners=wanted.owners)] if wanted.pods else []
    waits += [wait(labels=group.labels, count=group.count, owners=(group.owner,)) for group in wanted.replicas if group.count]
    pods_ready = asyncio.Event()

    async def pods() -> list[PodState]:
        ready = await together(waits)
        pods_ready.set()
        return [pod for found in ready for pod in found]

    objects = [_object(cluster, identity, body, deadline, pods_ready) for body in wanted.objects]
    return [pod for found in await together([pods(), *objects]) for pod in found]


async def _object(
    cluster: Cluster, identity: Identity, body: Mapping[str, Any], deadline: float, pods_ready: asyncio.Event
) -> list[PodState]:
    """Look at an object until its status says that it is ready."""
    loop = asyncio.get_running_loop()
    metadata = body["metadata"]
    what = f"{body['kind']} {metadata['name']!r}"
    looks = 0
    while True:
        try:
            found = await cluster.get(
                f"{body['apiVersion']}/{body['kind']}",
                metadata["name"],
                namespace=metadata.get("namespace") or identity.namespace,
            )
            found = {"kind": body["kind"], **found}
            if object_ready(found):
                return []
        except ApiError as error:
            raise sandbox_error(error, f"{what} can't be looked at") from error
        except ValueError as error:
            raise ProvisionError(f"{what} failed: {error}") from None
        pause = _LOOK_SECONDS[min(looks, len(_LOOK_SECONDS) - 1)]
        left = deadline - loop.time()
        if left <= 0:
            # Pods that are not ready, for which it may wait, have a cause that tells more.
            await pods_ready.wait()
            told = progress(found)
            raise ProvisionTimeoutError(f"time ran out; it still waited for {what}" + (f": {told}" if told else ""))
        looks += 1
        await asyncio.sleep(min(pause, left))


def dependencies(objects: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Read which pods have a gate, which other pods each depends on, and what must be true of those.

    The chart writes the gate into the pod, and what it is for into the annotation of the same name.
    """
    pods = {service_of(body): body["metadata"]["name"] for body in objects if body["kind"] == "Pod"}
    return {
        body["metadata"]["name"]: {
            # One that is not there is a pod that never comes.
            pods.get(other, other): str(need.get("condition", "started"))
            for other, need in _needs(body).items()
            if other in pods or need.get("required", True)
        }
        for body in objects
        if _is_gated(body)
    }


def service_of(body: Mapping[str, Any]) -> str:
    """Return the exact name of the service that a pod of a chart stands for; empty for others."""
    metadata = body["metadata"]
    exact = (metadata.get("annotations") or {}).get("sandboxcore.dev/service")
    return str(exact or (metadata.get("labels") or {}).get("inspect/service", ""))


def _is_gated(body: Mapping[str, Any]) -> bool:
    gates = (body.get("spec") or {}).get("schedulingGates") or ()
    return body["kind"] == "Pod" and any(gate.get("name") == GATE for gate in gates)


def _needs(body: Mapping[str, Any]) -> dict[str, Any]:
    found = json.loads((body["metadata"].get("annotations") or {}).get(GATE) or "{}")
    return found if isinstance(found, dict) else {}
