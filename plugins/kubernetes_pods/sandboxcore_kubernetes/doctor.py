"""What the Kubernetes backends' ``doctor`` has in common: the configuration, the server, the rights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sandboxcore.errors import SandboxError
from sandboxcore.values import DoctorFinding

from .errors import ApiError
from .rbac import POD_RULES, Rule, missing, role

if TYPE_CHECKING:
    from .cluster import Cluster
    from .config import ClusterConfig

__all__ = ("check_cluster", "check_rights")

#: The oldest server that was tried; older ones may work.
_OLDEST = (1, 28)


async def check_cluster(config: ClusterConfig, rules: Sequence[Rule] = POD_RULES) -> tuple[DoctorFinding, ...]:
    """Connect, and look at everything that needs no pod: the server, its version, the namespace, and the rights in it."""
    from .cluster import Cluster

    try:
        cluster = await Cluster.connect(config)
    except SandboxError as error:
        return (DoctorFinding(check="cluster", status="error", detail=str(error), fix=error.hint or ""),)
    async with cluster:
        where = f"context {cluster.context}, {cluster.server}, Kubernetes {cluster.version[0]}.{cluster.version[1]}"
        old = cluster.version < _OLDEST
        fix = f"Kubernetes {_OLDEST[0]}.{_OLDEST[1]} and later were tried" if old else ""
        found = [DoctorFinding(check="cluster", status="warning" if old else "ok", detail=where, fix=fix)]
        found.append(await _namespace(cluster))
        found += await check_rights(cluster, rules)
        return tuple(found)


async def _namespace(cluster: Cluster) -> DoctorFinding:
    try:
        await cluster.get("Namespace", cluster.namespace)
    except ApiError as error:
        if error.status == 404:
            fix = f"kubectl create namespace {cluster.namespace}"
            return DoctorFinding(check="namespace", status="error", detail=f"there is no namespace {cluster.namespace}", fix=fix)
        if error.status != 403:  # who may not look may use it nevertheless
            return DoctorFinding(check="namespace", status="error", detail=str(error))
    return DoctorFinding(check="namespace", status="ok", detail=cluster.namespace)


async def check_rights(cluster: Cluster, rules: Sequence[Rule] = POD_RULES) -> tuple[DoctorFinding, ...]:
    """Say which rights are missing; the fix is the Role that gives them."""
    try:
        lacking = await missing(cluster, rules)
    except ApiError as error:
        return (DoctorFinding(check="rights", status="warning", detail=f"the server does not tell: {error}"),)
    if not lacking:
        return (DoctorFinding(check="rights", status="ok", detail=f"all that is needed in namespace {cluster.namespace}"),)
    words = "; ".join(f"{'/'.join(rule.verbs)} {rule.resource} ({rule.purpose})" for rule in lacking)
    needed = any(not rule.optional for rule in lacking)
    manifest = json.dumps(role(lacking, namespace=cluster.namespace))
    fix = f"kubectl apply -f - <<< '{manifest}', and bind it with `kubectl create rolebinding`"
    return (DoctorFinding(check="rights", status="error" if needed else "warning", detail=f"missing: {words}", fix=fix),)
