"""Rights on a cluster for a user whom the tests act as."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sandboxcore_kubernetes.rbac import missing, role

if TYPE_CHECKING:
    from sandboxcore_kubernetes import Cluster
    from sandboxcore_kubernetes.rbac import Rule

_GROUP = "rbac.authorization.k8s.io"


async def grant(cluster: Cluster, user: str, rules: Sequence[Rule]) -> None:
    """Give a user the Role that has these rules, in the cluster's namespace."""
    await cluster.create(role(rules, name=user, namespace=cluster.namespace))
    binding = {
        "apiVersion": f"{_GROUP}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": user},
        "roleRef": {"apiGroup": _GROUP, "kind": "Role", "name": user},
        "subjects": [{"kind": "User", "name": user, "apiGroup": _GROUP}],
    }
    await cluster.create(binding)


async def until_granted(theirs: Cluster, rules: Sequence[Rule]) -> None:
    """Wait until the API server has heard of rights that were given."""
    async with asyncio.timeout(30):  # the server's caches
        while await missing(theirs, rules):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
