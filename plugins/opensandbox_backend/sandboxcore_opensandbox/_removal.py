"""Take environments away: whole batches by their objects, single environments of a batch by their pods."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sandboxcore_kubernetes import ApiError
from sandboxcore_kubernetes.naming import MANAGED_BY, RUN_ID

from ._batch_watch import KIND
from ._describe import pod_names, pods_of
from ._errors import mapped
from ._names import BATCH_LABEL, POOL_LABEL, RELEASE
from ._notes import BATCH, Notes, gone_key, live_environments, read, released
from ._stuck import SUSPICIOUS, free, why_stuck

if TYPE_CHECKING:
    from sandboxcore.values import EnvironmentRef
    from sandboxcore_kubernetes import Cluster

    from ._batch_watch import BatchWatch
    from ._connection import Connection

__all__ = ("Remover",)

Object = Mapping[str, Any]

#: Seconds that the cluster gets for taking objects and pods away.
PATIENCE = 100.0
_JSON_PATCH = "application/json-patch+json"
_CONFLICTS = 20


class _Batch:
    """What is to go of one batch; whoever holds the gate does it for all."""

    def __init__(self) -> None:
        self.gate = asyncio.Lock()
        self.wanted: set[str] = set()
        self.users = 0


class Remover:
    """Destroys environments; those of one batch that are destroyed at the same time go with the same requests."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._batches: dict[tuple[str, str], _Batch] = {}

    async def destroy(self, environment: EnvironmentRef) -> None:
        """Take an environment away and wait until it is gone. Idempotent.

        Raises:
            SandboxError: Something keeps it; the message says what, and what to do.
        """
        key = (environment.data["namespace"], environment.data["batch"])
        batch = self._batches.setdefault(key, _Batch())
        batch.users += 1
        batch.wanted.add(environment.environment_id)
        try:
            async with batch.gate:
                if environment.environment_id in batch.wanted:
                    going = set(batch.wanted)
                    await self.remove(*key, environment.run_id, going)
                    batch.wanted -= going
        finally:
            batch.users -= 1
            if not batch.users:
                self._batches.pop(key, None)

    async def remove(self, namespace: str, batch: str, run_id: str, going: set[str] | None = None) -> None:
        """Take environments of a batch away; None: all of it, however far it was made.

        Raises:
            SandboxError: Something keeps them.
        """
        cluster = await self._connection.cluster()
        try:
            found = await cluster.list(KIND, namespace=namespace, label_selector=f"{BATCH}={batch}")
            parts = [(obj, notes) for obj in found["items"] if (notes := read(obj))]
            watch = await self._connection.batches(run_id)
            alive = {name for obj, notes in parts for name in live_environments(obj, notes)}
            if going is not None and alive - going:
                await asyncio.gather(*(self._shrink(cluster, watch, obj, notes, going) for obj, notes in parts))
                alive = await self._alive(cluster, namespace, batch)
                if alive:
                    return
            await self._delete(cluster, watch, namespace, batch, run_id, parts)
        except ApiError as error:
            raise mapped(error, f"destroy batch {batch}") from error

    async def _alive(self, cluster: Cluster, namespace: str, batch: str) -> set[str]:
        found = await cluster.list(KIND, namespace=namespace, label_selector=f"{BATCH}={batch}")
        return {name for obj in found["items"] if (notes := read(obj)) for name in live_environments(obj, notes)}

    # -- whole batches

    async def _delete(
        self,
        cluster: Cluster,
        watch: BatchWatch,
        namespace: str,
        batch: str,
        run_id: str,
        parts: Sequence[tuple[Object, Notes]],
    ) -> None:
        """Delete the objects first, or the controller would make their pods again; then what they leave."""
        names = tuple(obj["metadata"]["name"] for obj, _ in parts)
        await asyncio.gather(*(cluster.delete(KIND, name, namespace=namespace) for name in names))
        await self._until_gone(cluster, watch, namespace, names)
        selector = f"{RUN_ID}={run_id},{BATCH}={batch}"
        kinds = {kind for _, notes in parts for kind in notes.kinds}
        await asyncio.gather(
            *(cluster.delete_collection("Pod", namespace=namespace, label_selector=f"{BATCH_LABEL}={name}") for name in names),
            *(cluster.delete_collection(kind, namespace=namespace, label_selector=selector) for kind in kinds),
        )
        await self._pods_gone(cluster, namespace, run_id, batch)
        await asyncio.gather(*(self._handed_back(cluster, namespace, obj, notes) for obj, notes in parts if notes.pool))

    async def _until_gone(self, cluster: Cluster, watch: BatchWatch, namespace: str, names: tuple[str, ...]) -> None:
        def gone() -> bool | None:
            return all(watch.get(name) is None for name in names) or None

        waited = 0.0
        while await watch.wait_for(names, gone, timeout=SUSPICIOUS) is None:
            waited += SUSPICIOUS
            for obj in filter(None, [watch.get(name) for name in names]):
                reason = await why_stuck(cluster, obj)
                if reason is not None and self._connection.config.strip_finalizers:
                    await free(cluster, obj)
                elif reason is not None or waited >= PATIENCE:
                    raise (reason or _slow(obj, namespace))

    async def _pods_gone(self, cluster: Cluster, namespace: str, run_id: str, batch: str) -> None:
        """Wait for the pods that were made from images."""
        async with cluster.pods(namespace, f"{RUN_ID}={run_id}") as pods:

            def left() -> list[str]:
                return sorted(pod.name for pod in pods.pods.values() if pod.labels.get(BATCH) == batch)

            try:
                await pods.wait_for(lambda _: not left(), timeout=PATIENCE)
            except TimeoutError:
                listed = ", ".join(left()[:5])
                raise mapped(
                    ApiError(f"these pods do not end: {listed}", hint="look at their node, and at what they have as preStop"),
                    f"destroy batch {batch}",
                ) from None

    async def _handed_back(self, cluster: Cluster, namespace: str, obj: Object, notes: Notes) -> None:
        """Wait until the pool deletes the pods that it took back, where that is what it does."""
        if notes.recycle not in ("", "Delete"):
            return
        names = set(pods_of(obj, notes, notes.environments))
        if not names:
            return
        async with cluster.pods(namespace, f"{POOL_LABEL}={notes.pool}") as pods:
            try:
                await pods.wait_for(
                    lambda watch: all((pod := watch.get(name)) is None or pod.deleted for name in names), timeout=10.0
                )
            except TimeoutError:  # they are the pool's by now, and it may see that otherwise
                return

    # -- single environments of a batch

    async def _shrink(self, cluster: Cluster, watch: BatchWatch, obj: Object, notes: Notes, going: set[str]) -> None:
        """Let the pods of some environments go, and mark those as gone; the others keep theirs."""
        ids = [name for name in notes.environments if name in going]
        if notes.pool:
            await self._release(cluster, watch, obj, notes, ids)
        else:
            await self._gate(cluster, obj, notes, ids)

    async def _release(self, cluster: Cluster, watch: BatchWatch, obj: Object, notes: Notes, ids: Sequence[str]) -> None:
        name, namespace = obj["metadata"]["name"], obj["metadata"]["namespace"]
        pods = pods_of(obj, notes, ids)
        for _ in range(_CONFLICTS):
            marks: dict[str, Any] = {gone_key(environment): "" for environment in ids}
            before = json.loads((obj["metadata"].get("annotations") or {}).get(RELEASE) or "{}").get("pods") or []
            marks[RELEASE] = json.dumps({"pods": sorted({*before, *pods})}, separators=(",", ":"))
            change = {"metadata": {"annotations": marks, "resourceVersion": obj["metadata"]["resourceVersion"]}}
            try:
                await cluster.patch(KIND, name, change, namespace=namespace)
                break
            except ApiError as error:
                if error.status == 404:
                    return
                if error.status != 409:
                    raise
            obj = await cluster.get(KIND, name, namespace=namespace)
        wanted = set(pods)

        def back() -> bool | None:
            now = watch.get(name)
            return (now is None or wanted <= set(released(now))) or None

        await watch.wait_for((name,), back, timeout=PATIENCE)

    async def _gate(self, cluster: Cluster, obj: Object, notes: Notes, ids: Sequence[str]) -> None:
        """Keep the controller from making the pods again: it would, at the same index, so what it makes must not run.

        A pod with a scheduling gate is never given to a node; it goes with the rest of the batch.
        """
        name, namespace = obj["metadata"]["name"], obj["metadata"]["namespace"]
        indices = [notes.index(environment, service) for environment in ids for service in notes.part]
        image = obj["spec"]["template"]["spec"]["containers"][0]["image"]
        changes = [{"op": "replace", "path": f"/spec/shardPatches/{index}", "value": _placeholder(image)} for index in indices]
        marks = [
            {"op": "add", "path": f"/metadata/annotations/{gone_key(environment).replace('/', '~1')}", "value": ""}
            for environment in ids
        ]
        await cluster.patch(KIND, name, [*changes, *marks], namespace=namespace, content_type=_JSON_PATCH)
        names = pod_names(obj, notes)
        pods = [names[index] for index in indices]
        async with cluster.pods(namespace, f"{RUN_ID}={notes.run_id}") as watch:
            await asyncio.gather(*(cluster.delete("Pod", pod, namespace=namespace) for pod in pods))
            await watch.wait_for(lambda now: all(now.get(pod) is None for pod in pods), timeout=PATIENCE)


def _placeholder(image: str) -> dict[str, Any]:
    """Build the patch of a pod that is to be nobody's. The template shows through it, so its labels are emptied, not removed."""
    spec = {
        "$patch": "replace",
        "containers": [{"name": "gone", "image": image}],
        "schedulingGates": [{"name": "sandboxcore.dev/gone"}],
    }
    return {"metadata": {"labels": {RUN_ID: "", BATCH: "", MANAGED_BY: ""}}, "spec": spec}


def _slow(obj: Object, namespace: str) -> ApiError:
    name, finalizers = obj["metadata"]["name"], obj["metadata"].get("finalizers") or []
    return ApiError(
        f"BatchSandbox {namespace}/{name} is still there after {PATIENCE:g} s, kept by {', '.join(finalizers) or 'nothing'}",
        hint="is the OpenSandbox controller running? sandboxcore doctor -b opensandbox",
    )
