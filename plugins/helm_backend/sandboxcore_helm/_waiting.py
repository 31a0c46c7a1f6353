"""Waits until a release is ready, and lets go what waits for others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sandboxcore.errors import ProvisionError, ProvisionTimeoutError
from sandboxcore_kubernetes import wait_ready
from sandboxcore_kubernetes.errors import ApiError, sandbox_error

from ._identity import GATE
from ._readiness import Awaited, object_ready
from ._together import together

if TYPE_CHECKING:
    from sandboxcore.abc import Emit
    from sandboxcore_kubernetes.cluster import Cluster
    from sandboxcore_kubernetes.pods import PodState
    from sandboxcore_kubernetes.watches import PodWatch

    from ._identity import Identity

__all__ = ("Gates", "all_ready", "dependency_holds", "service_of")

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
    waits += [_object(cluster, identity, body, deadline) for body in wanted.objects]
    return [pod for found in await together(waits) for pod in found]


async def _object(cluster: Cluster, identity: Identity, body: Mapping[str, Any], deadline: float) -> list[PodState]:
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
            if object_ready({"kind": body["kind"], **found}):
                return []
        except ApiError as error:
            raise sandbox_error(error, f"{what} can't be looked at") from error
        except ValueError as error:
            raise ProvisionError(f"{what} failed: {error}") from None
        pause = _LOOK_SECONDS[min(looks, len(_LOOK_SECONDS) - 1)]
        if loop.time() + pause > deadline:
            raise ProvisionTimeoutError(f"time ran out; it still waited for {what}")
        looks += 1
        await asyncio.sleep(pause)


def dependency_holds(condition: str, pod: PodState | None) -> bool:
    """Tell whether a service is so far that another one may start (``started``, ``healthy``, ``completed``)."""
    if pod is None or pod.deleted:
        return False
    if condition == "completed":
        return pod.succeeded
    if condition == "healthy":
        return pod.ready
    return pod.succeeded or any(one.state in ("running", "terminated") for one in pod.containers[:1])


class Gates:
    """Takes the gate from each pod of an environment when what it depends on is so far.

    The chart writes the gate into the pod, and what it is for into the annotation of the same name.
    """

    def __init__(self, cluster: Cluster, watch: PodWatch, objects: Sequence[Mapping[str, Any]], namespace: str) -> None:
        self._cluster = cluster
        self._watch = watch
        self._namespace = namespace
        self._pods = {body["metadata"]["name"]: service_of(body) for body in objects if body["kind"] == "Pod"}
        self._waiting = {body["metadata"]["name"]: _needs(body) for body in objects if _is_gated(body)}
        self._opening: set[asyncio.Task[None]] = set()
        self._unsubscribe: Callable[[], None] | None = None
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __enter__(self) -> Gates:
        if self._waiting:
            self._unsubscribe = self._watch.subscribe(self._changed)
            self._look()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()
        for task in self._opening:
            task.cancel()
        self._failure.cancel()

    async def failed(self) -> None:
        """Wait until a gate could not be taken away.

        Raises:
            SandboxError: That happened.
        """
        await self._failure

    def _changed(self, pod: PodState) -> None:
        if pod.name in self._pods:
            self._look()

    def _look(self) -> None:
        states = {service: self._watch.get(name) for name, service in self._pods.items()}
        for name, needs in list(self._waiting.items()):
            if all(_holds(need, states, other) for other, need in needs.items()):
                del self._waiting[name]
                task = asyncio.ensure_future(self._open(name))
                self._opening.add(task)
                task.add_done_callback(self._opening.discard)

    async def _open(self, name: str) -> None:
        try:
            await self._cluster.patch("Pod", name, {"spec": {"schedulingGates": []}}, namespace=self._namespace)
        except ApiError as error:
            if not self._failure.done():
                self._failure.set_exception(sandbox_error(error, f"pod {name!r} could not be let go"))


def _holds(need: Mapping[str, Any], states: Mapping[str, PodState | None], other: str) -> bool:
    if other not in states and not need.get("required", True):
        return True
    return dependency_holds(str(need.get("condition", "started")), states.get(other))


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
