"""Checks the helm program, the cluster, the rights in it, and what charts may need of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from sandboxcore.errors import SandboxError
from sandboxcore.values import DoctorFinding
from sandboxcore_kubernetes.errors import ApiError
from sandboxcore_kubernetes.rbac import missing, role

from ._rights import RULES

if TYPE_CHECKING:
    from ._provisioner import HelmProvisioner, Tools

__all__ = ("diagnose_setup",)

_TAINTED = ("NoSchedule", "NoExecute")


async def diagnose_setup(provisioner: HelmProvisioner) -> Sequence[DoctorFinding]:
    """Check all that the backend needs, each by asking or using it."""
    try:
        tools = await provisioner.tools()
    except SandboxError as error:
        return [DoctorFinding(check="cluster", status="error", detail=error.message, fix=error.hint or "")]
    major, minor = tools.cluster.version
    detail = f"Kubernetes {major}.{minor}, context {tools.cluster.context!r}, namespace {tools.namespace!r}"
    findings = [DoctorFinding(check="cluster", status="ok", detail=detail)]
    checks: Sequence[tuple[str, Callable[[Tools], Awaitable[DoctorFinding]]]] = (
        ("helm", _helm),
        ("namespace", _namespace),
        ("rights", _rights),
        ("quota", _quota),
        ("nodes", _nodes),
        ("network policies", _policies),
        ("cilium", _cilium),
        ("runtime classes", _runtime_classes),
        ("storage", _storage),
    )
    findings += [await _checked(tools, name, check) for name, check in checks]
    return findings


async def _checked(tools: Tools, name: str, check: Callable[[Tools], Awaitable[DoctorFinding]]) -> DoctorFinding:
    try:
        return await check(tools)
    except ApiError as error:
        # That this user may not look is no fault of the cluster.
        return DoctorFinding(check=name, status="warning", detail=f"can't be looked at: {error.message}")
    except SandboxError as error:
        return DoctorFinding(check=name, status="error", detail=error.message, fix=error.hint or "")


async def _helm(tools: Tools) -> DoctorFinding:
    version = ".".join(str(part) for part in await tools.helm.version())
    return DoctorFinding(check="helm", status="ok", detail=f"helm {version}")


async def _namespace(tools: Tools) -> DoctorFinding:
    try:
        await tools.cluster.get("Namespace", tools.namespace)
    except ApiError as error:
        if error.status != 404:
            raise
        if tools.config.create_namespace:
            return DoctorFinding(check="namespace", status="ok", detail=f"{tools.namespace!r} is made with the first environment")
        fix = f"kubectl create namespace {tools.namespace}, or set create_namespace"
        return DoctorFinding(check="namespace", status="error", detail=f"there is no namespace {tools.namespace!r}", fix=fix)
    return DoctorFinding(check="namespace", status="ok", detail=tools.namespace)


async def _rights(tools: Tools) -> DoctorFinding:
    import json

    lacking = await missing(tools.cluster, RULES, namespace=tools.namespace)
    if not lacking:
        return DoctorFinding(check="rights", status="ok", detail=f"all that is needed in {tools.namespace!r}")
    listed = "; ".join(f"{', '.join(rule.verbs)} {rule.resource} ({rule.purpose})" for rule in lacking)
    fix = "kubectl apply -f - with " + json.dumps(role(RULES, namespace=tools.namespace))
    serious = any(not rule.optional for rule in lacking)
    return DoctorFinding(check="rights", status="error" if serious else "warning", detail=f"missing: {listed}", fix=fix)


async def _quota(tools: Tools) -> DoctorFinding:
    found = await tools.cluster.list("ResourceQuota", namespace=tools.namespace)
    full, rows = [], []
    for item in found["items"]:
        status = item.get("status") or {}
        used = status.get("used") or {}
        rows += [f"{name} {used.get(name, '0')} of {hard}" for name, hard in (status.get("hard") or {}).items()]
        full += [name for name, hard in (status.get("hard") or {}).items() if used.get(name) == hard]
    if full:
        fix = "sandboxcore cleanup --expired, or have the quota raised"
        return DoctorFinding(check="quota", status="warning", detail=f"used up: {', '.join(full)}", fix=fix)
    return DoctorFinding(check="quota", status="ok", detail=", ".join(rows) or "the namespace has none")


async def _nodes(tools: Tools) -> DoctorFinding:
    found = await tools.cluster.list("Node")
    usable = [node for node in found["items"] if _takes_pods(node)]
    if not usable:
        return DoctorFinding(check="nodes", status="error", detail=f"none of {len(found['items'])} nodes takes pods")
    machines = sorted({node["status"]["nodeInfo"]["architecture"] for node in usable})
    return DoctorFinding(check="nodes", status="ok", detail=f"{len(usable)} take pods ({', '.join(machines)})")


def _takes_pods(node: dict[str, object]) -> bool:
    spec, status = node.get("spec"), node.get("status")
    assert isinstance(spec, dict)
    assert isinstance(status, dict)
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions") or ())
    taints = spec.get("taints") or ()
    return ready and not spec.get("unschedulable") and not any(one["effect"] in _TAINTED for one in taints)


async def _policies(tools: Tools) -> DoctorFinding:
    """Tell what can be told: the API takes policies whether anybody enforces them or not."""
    if await tools.has_cilium():
        return DoctorFinding(check="network policies", status="ok", detail="Cilium enforces them")
    known = ("calico", "cilium", "antrea", "kube-router", "weave", "netpol", "ovn", "canal", "aws-node", "azure-npm")
    found = await tools.cluster.list("Pod", namespace="kube-system")
    names = " ".join(pod["metadata"]["name"] for pod in found["items"])
    seen = [word for word in known if word in names]
    if seen:
        return DoctorFinding(check="network policies", status="ok", detail=f"{seen[0]} runs in kube-system")
    detail = "nothing that is known to enforce them runs in kube-system: sandboxes may reach more than they should"
    fix = "make sure that the cluster's network plugin enforces NetworkPolicy"
    return DoctorFinding(check="network policies", status="warning", detail=detail, fix=fix)


async def _cilium(tools: Tools) -> DoctorFinding:
    if await tools.has_cilium():
        return DoctorFinding(check="cilium", status="ok", detail="rules with domain names can be had")
    return DoctorFinding(check="cilium", status="ok", detail="not there: values with allowDomains are refused")


async def _runtime_classes(tools: Tools) -> DoctorFinding:
    found = await tools.cluster.list("RuntimeClass")
    names = [item["metadata"]["name"] for item in found["items"]]
    return DoctorFinding(
        check="runtime classes", status="ok", detail=", ".join(names) or "none: the node's default runtime is used"
    )


async def _storage(tools: Tools) -> DoctorFinding:
    found = await tools.cluster.list("StorageClass")
    names = [item["metadata"]["name"] for item in found["items"]]
    marked = [item for item in found["items"] if (item["metadata"].get("annotations") or {}).get(_DEFAULT_CLASS) == "true"]
    if not marked:
        detail = "no StorageClass is the default: volumes that services share need one named in the values"
        return DoctorFinding(check="storage", status="warning", detail=detail, fix="volumeDefaults.storageClassName")
    return DoctorFinding(check="storage", status="ok", detail=f"{', '.join(names)}; default {marked[0]['metadata']['name']}")


_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
