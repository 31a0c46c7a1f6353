"""Take environments away: whole batches by their objects, single environments of a batch by their pods."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sandboxcore._at_once import together
from sandboxcore_kubernetes import ApiError
from sandboxcore_kubernetes.cluster import JSON_PATCH
from sandboxcore_kubernetes.naming import MANAGED_BY, RUN_ID

from ._batch_watch import KIND
from ._changing import change
from ._describe import pod_names, pods_of
from ._errors import mapped
from ._names import BATCH_LABEL, POOL_LABEL, RELEASE
from ._notes import BATCH, Notes, gone_key, lease_key, live_environments, read, released
from ._stuck import PATIENCE, until_gone

if TYPE_CHECKING:
    from sandboxcore.values import EnvironmentRef
    from sandboxcore_kubernetes import Cluster

    from ._batch_watch import BatchWatch
    from ._connection import Connection

__all__ = ("Remover",)

Object = Mapping[str, Any]


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
            parts = await _parts(cluster, namespace, batch)
            async with self._connection.batches(run_id) as watch:
                if going is not None and _alive(parts) - going:
                    await together(self._shrink(cluster, watch, obj, notes, going) for obj, notes in parts)
                    if _alive(await _parts(cluster, namespace, batch)):
                        return
                await self._delete(cluster, watch, namespace, batch, run_id, parts)
        except ApiError as error:
            raise mapped(error, f"destroy batch {batch}") from error

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
        await self._delete_objects(cluster, watch, namespace, names)
        selector = f"{RUN_ID}={run_id},{BATCH}={batch}"
        kinds = {kind for _, notes in parts for kind in notes.kinds}
        await asyncio.gather(
            *(cluster.delete_collection("Pod", namespace=namespace, label_selector=f"{BATCH_LABEL}={name}") for name in names),
            *(cluster.delete_collection(kind, namespace=namespace, label_selector=selector) for kind in kinds),
        )
        await self._pods_gone(cluster, namespace, run_id, batch)
        await asyncio.gather(*(self._handed_back(cluster, namespace, obj, notes) for obj, notes in parts if notes.pool))

    async def _delete_objects(self, cluster: Cluster, watch: BatchWatch, namespace: str, names: tuple[str, ...]) -> None:
        await asyncio.gather(*(cluster.delete(KIND, name, namespace=namespace) for name in names))
        await until_gone(cluster, watch, names, strip=self._connection.config.strip_finalizers)

    async def _pods_gone(self, cluster: Cluster, namespace: str, run_id: str, batch: str) -> None:
        """Wait for the pods that were made from images."""
        async with cluster.pods(namespace, f"{RUN_ID}={run_id}") as pods:

            def left() -> list[str]:
                return sorted(pod.name for pod in pods.pods.values() if pod.labels.get(BATCH) == batch)

            try:
                await pods.wait_for(lambda _: not left(), timeout=PATIENCE)
            except TimeoutError:
                raise _lasting(left()) from None

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
        """Give the pods of environments back, and wait until the pool has taken them.

        Those of the last environments stay with the object until it is deleted, which is done here: the controller never lets go
        of one that gave all its pods back before. Others may take the rest away at the same time, so it is asked anew.
        """
        name, namespace = obj["metadata"]["name"], obj["metadata"]["namespace"]

        def marked(now: Object) -> dict[str, Any]:
            marks: dict[str, str | None] = {gone_key(environment): "" for environment in ids}
            marks |= dict.fromkeys(map(lease_key, ids))
            if set(live_environments(now, notes)).difference(ids):
                before = json.loads((now["metadata"].get("annotations") or {}).get(RELEASE) or "{}").get("pods") or []
                marks[RELEASE] = json.dumps({"pods": sorted({*before, *pods_of(now, notes, ids)})}, separators=(",", ":"))
            return {"metadata": {"annotations": marks}}

        now = await change(cluster, name, namespace, marked)
        if now is None:
            return
        if not live_environments(now, notes):
            await self._delete_objects(cluster, watch, namespace, (name,))
            await self._handed_back(cluster, namespace, now, notes)
            return
        wanted = set(pods_of(now, notes, ids))

        def back() -> bool | None:
            seen = watch.get(name)
            return (seen is None or wanted <= set(released(seen))) or None

        if await watch.wait_for((name,), back, timeout=PATIENCE) is None:
            listed = ", ".join(sorted(wanted)[:5])
            raise ApiError(
                f"pool {notes.pool!r} has not taken pods of BatchSandbox {name} back after {PATIENCE:.0f} s: {listed}",
                hint="is the OpenSandbox controller running? sandboxcore doctor -b opensandbox",
            )

    async def _gate(self, cluster: Cluster, obj: Object, notes: Notes, ids: Sequence[str]) -> None:
        """Keep the controller from making the pods again: it would, at the same index, so what it makes must not run.

        A pod with a scheduling gate is never given to a node; it goes with the rest of the batch.
        """
        name, namespace = obj["metadata"]["name"], obj["metadata"]["namespace"]
        indices = [notes.index(environment, service) for environment in ids for service in notes.part]
        image = obj["spec"]["template"]["spec"]["containers"][0]["image"]
        changes = [{"op": "replace", "path": f"/spec/shardPatches/{index}", "value": _placeholder(image)} for index in indices]
        marks = [_marked(gone_key(environment)) for environment in ids]
        # What is not there can't be taken away, so it is put there before.
        unmarks = [_marked(lease_key(environment), op) for environment in ids for op in ("add", "remove")]
        try:
            await cluster.patch(KIND, name, [*changes, *marks, *unmarks], namespace=namespace, content_type=JSON_PATCH)
        except ApiError as error:
            if error.status != 404:  # else somebody deletes the whole batch, and these pods with it
                raise
        names = pod_names(obj, notes)
        pods = [names[index] for index in indices]
        async with cluster.pods(namespace, f"{RUN_ID}={notes.run_id}") as watch:
            await asyncio.gather(*(cluster.delete("Pod", pod, namespace=namespace) for pod in pods))
            try:
                await watch.wait_for(lambda now: all(now.get(pod) is None for pod in pods), timeout=PATIENCE)
            except TimeoutError:
                raise _lasting([pod for pod in pods if watch.get(pod) is not None]) from None


async def _parts(cluster: Cluster, namespace: str, batch: str) -> list[tuple[Object, Notes]]:
    found = await cluster.list(KIND, namespace=namespace, label_selector=f"{BATCH}={batch}")
    return [(obj, notes) for obj in found["items"] if (notes := read(obj))]


def _alive(parts: Sequence[tuple[Object, Notes]]) -> set[str]:
    return {name for obj, notes in parts for name in live_environments(obj, notes)}


def _marked(annotation: str, op: str = "add") -> dict[str, str]:
    """Build the step of a JSON patch that sets a mark, or takes it away."""
    step = {"op": op, "path": f"/metadata/annotations/{annotation.replace('/', '~1')}"}
    return step | ({"value": ""} if op == "add" else {})


def _lasting(pods: Sequence[str]) -> ApiError:
    return ApiError(
        f"these pods do not end within {PATIENCE:.0f} s: {', '.join(pods[:5])}",
        hint="they have as long as their stop_grace_period says; else look at their node, and at what they have as preStop",
    )


def _placeholder(image: str) -> dict[str, Any]:
    """Build the patch of a pod that is to be nobody's. The template shows through it, so its labels are emptied, not removed."""
    spec = {
        "$patch": "replace",
        "containers": [{"name": "gone", "image": image}],
        "schedulingGates": [{"name": "sandboxcore.dev/gone"}],
    }
    return {"metadata": {"labels": {RUN_ID: "", BATCH: "", MANAGED_BY: ""}}, "spec": spec}
