"""What the backend needs of a cluster: definitions, controller, rights, pools; each finding with its fix."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from sandboxcore.errors import SandboxError
from sandboxcore.values import DoctorFinding
from sandboxcore_kubernetes import ApiError
from sandboxcore_kubernetes.rbac import POD_RULES, Rule, missing, role

from ._names import GROUP
from ._pool_template import GUEST_HINT
from .pools import Pools

if TYPE_CHECKING:
    from sandboxcore_kubernetes import Cluster

    from ._connection import Connection

__all__ = ("CRD_FIELDS", "RULES", "crd_findings", "diagnose_cluster")

#: Definition to fields (below ``spec`` or ``status``) that are of use, and what is lost where the definition prunes them.
CRD_FIELDS: Mapping[str, Mapping[str, str]] = {
    "pools": {
        "spec.scaleStrategy": "a cold pool grows by a quarter at a time, whatever the Pool says",
        "spec.updateStrategy": "a changed template is rolled out by a quarter at a time",
        "spec.recycleStrategy": "pods that come back are always deleted, whatever the Pool says",
        "status.updated": "how far a changed template is rolled out is not shown",
    },
    "batchsandboxes": {
        "spec.shardPatches": "environments of several services can't be made from images",
        "spec.expireTime": "the controller does not delete what nobody holds any more",
        "spec.taskTemplate": "services from pools can't run commands of their own",
        "spec.poolRef": "nothing can come from a pool",
    },
    "sandboxsnapshots": {},
}

_BATCHES = ("get", "list", "watch", "create", "patch", "delete")
RULES: tuple[Rule, ...] = (
    Rule(GROUP, "batchsandboxes", _BATCHES, "to make environments"),
    Rule(GROUP, "pools", ("get", "list"), "to see what a pool has"),
    Rule(GROUP, "pools", ("create", "patch", "delete"), "to manage pools", optional=True),
    Rule("", "configmaps", ("get", "patch", "delete"), "to manage the guests of pools", optional=True),
    Rule("networking.k8s.io", "networkpolicies", ("get", "patch", "delete"), "to manage the policies of pools", optional=True),
    Rule("", "pods", ("delete", "deletecollection", "patch"), "to take pods away at once, and to mark those of pools"),
    Rule("", "configmaps", ("create", "deletecollection"), "to bring the guest into pods"),
    Rule("", "secrets", ("create", "get", "deletecollection"), "to bring files and environments into pods"),
    Rule("", "services", ("create", "deletecollection"), "to let services find each other"),
    Rule("discovery.k8s.io", "endpointslices", ("create", "deletecollection"), "to give services further names"),
    Rule("networking.k8s.io", "networkpolicies", ("create", "deletecollection"), "to close the network of sandboxes"),
    Rule("", "persistentvolumeclaims", ("create", "deletecollection"), "to let services share volumes", optional=True),
    *POD_RULES,
)


async def diagnose_cluster(connection: Connection) -> list[DoctorFinding]:
    """Check everything that can be checked; what can't be reached is a finding, too."""
    try:
        cluster = await connection.cluster()
    except SandboxError as error:
        return [DoctorFinding(check="cluster", status="error", detail=str(error), fix=error.hint or "check the kubeconfig")]
    version = ".".join(map(str, cluster.version))
    detail = f"Kubernetes {version}, context {cluster.context!r}, namespace {cluster.namespace!r}"
    found = [DoctorFinding(check="cluster", status="ok", detail=detail)]
    parts = await asyncio.gather(_definitions(cluster), _controller(cluster), _rights(cluster), _pools(cluster))
    return [*found, *(finding for findings in parts for finding in findings)]


async def _definitions(cluster: Cluster) -> list[DoctorFinding]:
    found: list[DoctorFinding] = []
    for plural in CRD_FIELDS:
        name = f"{plural}.{GROUP}"
        try:
            crd = await cluster.get("CustomResourceDefinition", name)
        except ApiError as error:
            if error.status == 404:
                fix = "sandboxcore opensandbox install --chart PATH --crds PATH"
                found.append(DoctorFinding(check=f"definition {name}", status="error", detail="is not there", fix=fix))
            else:
                detail = f"can't be read: {error.message}"
                fix = "ask for the right to get customresourcedefinitions, or look with kubectl get crd"
                found.append(DoctorFinding(check=f"definition {name}", status="warning", detail=detail, fix=fix))
            continue
        found += crd_findings(plural, crd)
    return found


def crd_findings(plural: str, crd: Mapping[str, Any]) -> list[DoctorFinding]:
    """Compare a definition with what is of use: a field that it does not have is dropped by the API server in silence."""
    name = f"{plural}.{GROUP}"
    served = [version for version in crd["spec"]["versions"] if version.get("served") and version["name"] == "v1alpha1"]
    if not served:
        return [
            DoctorFinding(check=f"definition {name}", status="error", detail="does not serve v1alpha1", fix="install another")
        ]
    schema = (served[0].get("schema") or {}).get("openAPIV3Schema") or {}
    lost = {path: what for path, what in CRD_FIELDS[plural].items() if not _has(schema, path.split("."))}
    if not lost:
        return [DoctorFinding(check=f"definition {name}", status="ok", detail="has all fields")]
    fix = "apply config/crd/bases of OpenSandbox's source over those of its Helm chart, which prune these fields"
    detail = "; ".join(f"{path} is missing: {what}" for path, what in lost.items())
    return [DoctorFinding(check=f"definition {name}", status="warning", detail=detail, fix=fix)]


def _has(schema: Mapping[str, Any], path: Sequence[str]) -> bool:
    for name in path:
        if schema.get("x-kubernetes-preserve-unknown-fields"):
            return True
        properties = schema.get("properties") or {}
        if name not in properties:
            return False
        schema = properties[name]
    return True


async def _controller(cluster: Cluster) -> list[DoctorFinding]:
    """Look for the controller's Deployment, wherever it is."""
    check, fix = "controller", "sandboxcore opensandbox install --chart PATH"
    try:
        found = (await cluster.list("apps/v1/Deployment", all_namespaces=True))["items"]
    except ApiError as error:
        hint = "ask somebody with the right to list deployments whether opensandbox-controller-manager runs"
        return [DoctorFinding(check=check, status="warning", detail=f"can't be looked for: {error.message}", fix=hint)]
    for deployment in found:
        metadata, body = deployment["metadata"], deployment["spec"]["template"]["spec"]
        images = [container["image"] for container in body["containers"] if "controller" in container["image"]]
        if "opensandbox" not in metadata["name"] or "controller" not in metadata["name"] or not images:
            continue
        where, ready = f"{metadata['namespace']}/{metadata['name']}", (deployment.get("status") or {}).get("readyReplicas") or 0
        detail = f"{where}: {ready} ready, image {images[0]}"
        if ready:
            return [DoctorFinding(check=check, status="ok", detail=detail)]
        look = f"kubectl -n {metadata['namespace']} describe deployment {metadata['name']}"
        return [DoctorFinding(check=check, status="error", detail=detail, fix=look)]
    return [DoctorFinding(check=check, status="error", detail="no controller of OpenSandbox is deployed", fix=fix)]


async def _rights(cluster: Cluster) -> list[DoctorFinding]:
    import yaml

    try:
        lacking = await missing(cluster, RULES)
    except ApiError as error:
        return [
            DoctorFinding(check="rights", status="warning", detail=f"can't be asked for: {error.message}", fix="look yourself")
        ]
    if not lacking:
        return [DoctorFinding(check="rights", status="ok", detail=f"all that is needed in namespace {cluster.namespace!r}")]
    detail = "; ".join(f"{', '.join(rule.verbs)} {rule.resource}: {rule.purpose}" for rule in lacking)
    needed = any(not rule.optional for rule in lacking)
    text = yaml.safe_dump(role(lacking, namespace=cluster.namespace), sort_keys=False)
    return [
        DoctorFinding(check="rights", status="error" if needed else "warning", detail=detail, fix=f"apply this Role:\n{text}")
    ]


async def _pools(cluster: Cluster) -> list[DoctorFinding]:
    try:
        pools = await Pools(cluster).all()
    except SandboxError as error:
        return [DoctorFinding(check="pools", status="warning", detail=str(error), fix=error.hint or "install OpenSandbox")]
    found = []
    for pool in pools:
        check = f"pool {pool.name}"
        detail = f"{pool.available} free of {pool.total}, {pool.allocated} allocated, at most {pool.maximum}"
        if pool.problem:
            found.append(DoctorFinding(check=check, status="error", detail=pool.problem, fix="give it a template"))
        elif pool.buffer[0] < pool.buffer[1]:
            fix = "make bufferMin and bufferMax the same: sandboxcore opensandbox pool scale"
            detail += "; bufferMin below bufferMax can make the controller create and delete pods without end"
            found.append(DoctorFinding(check=check, status="warning", detail=detail, fix=fix))
        elif pool.fit is not None and not pool.fit.guest_path:
            detail += "; its template mounts no guest" + ("" if pool.fit.writable else ", and has no place to put it")
            status: Literal["ok", "error"] = "ok" if pool.fit.writable else "error"
            found.append(DoctorFinding(check=check, status=status, detail=detail, fix=GUEST_HINT))
        else:
            found.append(DoctorFinding(check=check, status="ok", detail=detail))
    return found or [DoctorFinding(check="pools", status="ok", detail=f"there are none in namespace {cluster.namespace!r}")]
