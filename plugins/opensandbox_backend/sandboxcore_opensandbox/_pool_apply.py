"""Create pools and what goes with them, or change them to what a manifest says."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sandboxcore._closing import finish
from sandboxcore.errors import SandboxError, UsageError
from sandboxcore_kubernetes import ApiError
from sandboxcore_kubernetes.cluster import APPLY_PATCH, JSON_PATCH, STRATEGIC_MERGE_PATCH
from sandboxcore_kubernetes.guest_mount import GUEST_FOLDER, guest_mount

from ._errors import mapped
from ._names import API_VERSION, OWN_POOL_LABEL, POOL_LABEL

if TYPE_CHECKING:
    from sandboxcore_kubernetes import Cluster

__all__ = ("Application",)

Object = dict[str, Any]
_MANAGER = "sandboxcore"
_UNDO_SECONDS = 30.0


class Application:
    """One manifest on its way into the cluster.

    Args:
        cluster: A client in whose namespace all of it goes.
        objects: Pools, and what goes with them.

    Raises:
        UsageError: Among the objects is no Pool, or one that belongs into another namespace.
    """

    def __init__(self, cluster: Cluster, objects: Sequence[Mapping[str, Any]]) -> None:
        self._cluster = cluster
        self._pools = [obj for obj in objects if obj.get("kind") == "Pool"]
        self._others = [obj for obj in objects if obj.get("kind") != "Pool"]
        self._there: set[str] = set()
        self._created: list[Object] = []
        if not self._pools:
            raise UsageError("there is no Pool to create", hint="sandboxcore opensandbox pool template > pool.yaml")
        for obj in objects:
            named = obj["metadata"].get("namespace")
            if named and named != cluster.namespace:
                raise UsageError(
                    f"{obj['kind']} {obj['metadata']['name']!r} has namespace {named!r}, and {cluster.namespace!r} is asked for",
                    hint=f"ask for namespace {named!r}, or take metadata.namespace out of the manifest",
                )

    async def run(self) -> list[str]:
        """Do it; where something is refused, what was created is taken away again.

        Returns:
            Names of the pools.

        Raises:
            ProvisionError: The cluster refuses one of the objects.
        """
        try:
            self._there = {pool["metadata"]["name"] for pool in self._pools if await self._find(pool) is not None}
            # A pool makes its pods at once, so what they need comes first, and is given to the pool when that is there.
            there = [await self._put(obj) for obj in self._others]
            there += [await self._guest(name) for name in self._missing_guests()]
            pools = [await self._put_pool(pool) for pool in self._pools]
            for obj in there:
                await self._give(obj, [pool for pool in pools if _is_of(obj, pool)])
        except BaseException:
            await finish(self._undo(), seconds=_UNDO_SECONDS, what="taking away what was created")
            raise
        return [pool["metadata"]["name"] for pool in self._pools]

    async def _put(self, obj: Mapping[str, Any]) -> Object:
        found = await self._find(obj)
        if found is not None and found.get("immutable"):  # it is what it is: a guest that pods have mounted, say
            return found
        kind, name = _kind(obj), obj["metadata"]["name"]
        try:  # what it has from others, or from the cluster itself, stays
            made = await self._cluster.patch(kind, name, obj, content_type=APPLY_PATCH, field_manager=_MANAGER, force=True)
        except ApiError as error:
            raise mapped(error, f"{'create' if found is None else 'change'} {obj['kind']} {name!r}") from error
        return self._noted(made, found)

    async def _put_pool(self, pool: Mapping[str, Any]) -> Object:
        """Create a pool, or replace all that it wants: what the manifest does not have must not stay."""
        name = pool["metadata"]["name"]
        if name not in self._there and (made := await self._create(pool)) is not None:
            return self._noted(made, None)
        found = await self._find(pool) or pool
        try:
            changes = [{"op": "add", "path": "/spec", "value": pool.get("spec") or {}}]
            for key in ("labels", "annotations"):
                merged = (found["metadata"].get(key) or {}) | (pool["metadata"].get(key) or {})
                changes.append({"op": "add", "path": f"/metadata/{key}", "value": merged})
            return await self._cluster.patch(_kind(pool), name, changes, content_type=JSON_PATCH, field_manager=_MANAGER)
        except ApiError as error:
            raise mapped(error, f"change Pool {name!r}") from error

    async def _create(self, pool: Mapping[str, Any]) -> Object | None:
        """Create a pool; None: somebody else was faster."""
        try:
            return await self._cluster.create(pool, field_manager=_MANAGER)
        except ApiError as error:
            if error.reason == "AlreadyExists":
                return None
            raise mapped(error, f"create Pool {pool['metadata']['name']!r}") from error

    async def _guest(self, name: str) -> Object:
        """Make the guest that templates mount, where there is none; whoever's one is there, it is left as it is."""
        guest = guest_mount(name).config_map
        found = await self._find(guest)
        return found if found is not None else await self._put(guest)

    def _missing_guests(self) -> list[str]:
        given = {obj["metadata"]["name"] for obj in self._others if obj["kind"] == "ConfigMap"}
        return sorted(set().union(*map(_guests, self._pools)) - given)

    async def _find(self, obj: Mapping[str, Any]) -> Object | None:
        name = obj["metadata"]["name"]
        try:
            return await self._cluster.get(_kind(obj), name)
        except ApiError as error:
            if error.status == 404:
                return None
            raise mapped(error, f"look for {obj['kind']} {name!r}") from error

    async def _give(self, obj: Object, pools: Sequence[Object]) -> None:
        """Let an object go when the last of its pools goes; one that was made elsewhere and belongs to nobody stays so."""
        if not pools or not (self._is_created(obj) or obj["metadata"].get("ownerReferences")):
            return
        owners = [_reference(pool) for pool in pools]
        name = obj["metadata"]["name"]
        try:
            change = {"metadata": {"ownerReferences": owners}}  # besides those that there are
            await self._cluster.patch(_kind(obj), name, change, content_type=STRATEGIC_MERGE_PATCH)
        except ApiError as error:
            raise mapped(error, f"give {obj['kind']} {name!r} to its pool") from error

    def _noted(self, made: Object, before: Object | None) -> Object:
        if before is None:
            self._created.append(made)
        return made

    def _is_created(self, obj: Object) -> bool:
        return any(obj["metadata"]["uid"] == made["metadata"]["uid"] for made in self._created)

    async def _is_wanted(self, made: Object) -> bool:
        """Tell whether an object is of use to a pool that somebody else has made since this began."""
        for pool in self._pools:
            if pool["metadata"]["name"] not in self._there and _is_of(made, pool):
                found = await self._find(pool)
                if found is not None and not self._is_created(found):
                    return True
        return False

    async def _undo(self) -> None:
        for made in reversed(self._created):
            with contextlib.suppress(SandboxError):
                if not await self._is_wanted(made):
                    await self._cluster.delete(_kind(made), made["metadata"]["name"], uid=made["metadata"]["uid"])


def _kind(obj: Mapping[str, Any]) -> str:
    return f"{obj['apiVersion']}/{obj['kind']}"


def _reference(pool: Object) -> Object:
    return {"apiVersion": API_VERSION, "kind": "Pool", "name": pool["metadata"]["name"], "uid": pool["metadata"]["uid"]}


def _is_of(obj: Object, pool: Mapping[str, Any]) -> bool:
    """Tell whether an object is of use to a pool and, by all that can be seen, to nobody else: its policy, or its guest."""
    if obj["kind"] == "ConfigMap":
        return obj["metadata"]["name"] in _guests(pool)
    if obj["kind"] != "NetworkPolicy":
        return False
    chosen = (obj["spec"].get("podSelector") or {}).get("matchLabels") or {}
    return pool["metadata"]["name"] in (chosen.get(OWN_POOL_LABEL), chosen.get(POOL_LABEL))


def _guests(pool: Mapping[str, Any]) -> set[str]:
    """Name the ConfigMaps that a template mounts where the guest is looked for."""
    body = ((pool.get("spec") or {}).get("template") or {}).get("spec") or {}
    mounts = [mount for container in body.get("containers") or () for mount in container.get("volumeMounts") or ()]
    mounted = {mount.get("name") for mount in mounts if mount.get("mountPath") == GUEST_FOLDER}
    names = {(volume.get("configMap") or {}).get("name") for volume in body.get("volumes") or () if volume["name"] in mounted}
    return {name for name in names if name}
