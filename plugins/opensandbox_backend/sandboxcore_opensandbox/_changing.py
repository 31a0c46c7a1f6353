"""Change a BatchSandbox by what is on it, whoever else does so at the same time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sandboxcore_kubernetes import ApiError

from ._batch_watch import KIND

if TYPE_CHECKING:
    from sandboxcore_kubernetes import Cluster

__all__ = ("change",)

Object = Mapping[str, Any]
_CONFLICTS = 20


async def change(cluster: Cluster, name: str, namespace: str, build: Callable[[Object], dict[str, Any] | None]) -> Object | None:
    """Patch an object with what ``build`` makes of it; again, when somebody else has changed it meanwhile.

    Args:
        build: From the object to a merge patch; None: it is good as it is.

    Returns:
        The object as it is then; None: it is gone.

    Raises:
        ApiError: The cluster refuses, or others change it all the time.
    """
    left = _CONFLICTS
    while True:
        try:
            obj: Object = await cluster.get(KIND, name, namespace=namespace)
            patch = build(obj)
            if patch is None:
                return obj
            patch["metadata"] = patch.get("metadata", {}) | {"resourceVersion": obj["metadata"]["resourceVersion"]}
            return await cluster.patch(KIND, name, patch, namespace=namespace)
        except ApiError as error:
            left -= 1
            if error.status == 404:
                return None
            if error.status != 409 or not left:
                raise
