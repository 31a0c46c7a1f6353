"""Creates objects natively, as Helm would: one POST each, under Helm's field manager, with Helm's marks of ownership."""

from __future__ import annotations

import asyncio
import copy
import re
from collections.abc import Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from sandboxcore._at_once import together
from sandboxcore.errors import ProvisionError
from sandboxcore_kubernetes.diagnosis import has_no_account_yet
from sandboxcore_kubernetes.errors import ApiError

from ._manifest import WORKLOADS
from ._record import ownership

if TYPE_CHECKING:
    from sandboxcore_kubernetes.cluster import Cluster

    from ._identity import Identity

__all__ = ("FIELD_MANAGER", "Creator", "dressed", "is_kept")

FIELD_MANAGER = "helm"
_KEEP = "helm.sh/resource-policy"
#: The server's own collisions, which say nothing about the request, and the pauses (s) before it is asked again.
_COLLISION = re.compile(r"Operation cannot be fulfilled on resourcequotas|etcdserver: |the object has been modified")
_COLLISION_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
#: Likewise while the controller manager has not given a new namespace its account. One that lost the server for two seconds may
#: take most of a minute to look again; the environment's time limit ends this earlier.
_ACCOUNT_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0, *[8.0] * 14)

T = TypeVar("T")


def is_kept(body: Mapping[str, Any]) -> bool:
    """Tell whether the chart wants the object to outlive the release."""
    return str(((body.get("metadata") or {}).get("annotations") or {}).get(_KEEP, "")).strip().lower() == "keep"


def dressed(body: Mapping[str, Any], identity: Identity, *, hook: bool = False) -> dict[str, Any]:
    """Copy an object with the marks that it is created with.

    What Helm has to keep carries no label of ours, so that nothing that selects by it takes it away; a hook is not a
    part of its release, so it has ours only.
    """
    found = copy.deepcopy(dict(body))
    metadata = found.setdefault("metadata", {})
    labels, annotations = ({}, {}) if hook else ownership(identity.release, identity.namespace)
    ours = {} if is_kept(body) else identity.labels
    metadata["labels"] = {**(metadata.get("labels") or {}), **labels, **ours}
    merged = {**(metadata.get("annotations") or {}), **annotations}
    if merged:
        metadata["annotations"] = merged
    return found


class Creator:
    """Sends what makes one environment, and can tell when nothing of it is on its way any more."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._sending: set[asyncio.Future[Any]] = set()

    async def settled(self) -> None:
        """Wait until every request that was begun has been answered: only then can what they made be taken away."""
        while self._sending:
            await asyncio.wait(set(self._sending))

    async def unbroken(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something that a cancellation does not cut in half; it goes on, and ``settled`` waits for it."""
        task = asyncio.ensure_future(work)
        self._sending.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Future[Any]) -> None:
        self._sending.discard(task)
        if not task.cancelled():
            task.exception()

    async def post(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object in its namespace, or in that of the client.

        Raises:
            ApiError: The server refuses; what it refuses only for a moment was tried again.
        """
        tries = 0
        while True:
            try:
                return await self.unbroken(self._cluster.create(body, field_manager=FIELD_MANAGER))
            except ApiError as error:
                pauses = _pauses(error)
                if tries >= len(pauses):
                    raise
            await asyncio.sleep(pauses[tries])
            tries += 1

    async def post_all(self, bodies: Sequence[Mapping[str, Any]], namespace: str) -> None:
        """Create objects, namespaces first and those that make pods last; the first refusal ends it.

        Raises:
            ProvisionError: The server refuses an object; the message names it.
        """
        for turn in range(3):
            group = [body for body in bodies if _turn(body) == turn]
            await together(self._post_one(body, namespace) for body in group)

    async def _post_one(self, body: Mapping[str, Any], namespace: str) -> None:
        kind = f"{body['apiVersion']}/{body['kind']}"
        name = (body.get("metadata") or {}).get("name", "")
        try:
            resource = await self._cluster.resource(kind)
            placed = dict(body)
            if resource.namespaced:
                placed["metadata"] = {"namespace": namespace, **body["metadata"]}
            await self.post(placed)
        except ApiError as error:
            raise refusal(error, f"{body['kind']} {name!r} could not be created") from error


def _turn(body: Mapping[str, Any]) -> int:
    return 0 if body["kind"] == "Namespace" else 2 if body["kind"] in WORKLOADS else 1


def _pauses(error: ApiError) -> Sequence[float]:
    if error.status in (409, 500) and error.reason != "AlreadyExists" and _COLLISION.search(error.message):
        return _COLLISION_SECONDS
    return _ACCOUNT_SECONDS if error.status == 403 and has_no_account_yet(error.message) else ()


def refusal(error: ApiError, doing: str) -> ProvisionError:
    """Say why the API server did not take an object.

    Raises:
        SandboxError: Of another class, where the table of the Kubernetes plugin has one.
    """
    from sandboxcore_kubernetes.errors import sandbox_error

    found = sandbox_error(error, doing)
    if isinstance(found, ProvisionError):
        if "exceeded quota" in error.message:
            return ProvisionError(f"quota: {doing}: {error.message}", hint="destroy environments, or have the quota raised")
        return found
    raise found
