"""Which URL a kind of object has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ("KINDS", "Resource", "Resources", "split_kind")


@dataclass(frozen=True, slots=True)
class Resource:
    """Where objects of a kind are kept."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """Build the URL's path; without a namespace, that of all namespaces."""
        root = f"/api/{self.api_version}" if "/" not in self.api_version else f"/apis/{self.api_version}"
        parts = [root]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name:
            parts.append(name)
        return "/".join(parts)


def _known() -> dict[tuple[str, str], Resource]:
    groups = {
        "v1": "Pod Service Secret ConfigMap PersistentVolumeClaim ServiceAccount Event Endpoints ResourceQuota LimitRange",
        "apps/v1": "StatefulSet Deployment ReplicaSet DaemonSet ControllerRevision",
        "batch/v1": "Job CronJob",
        "networking.k8s.io/v1": "NetworkPolicy Ingress",
        "coordination.k8s.io/v1": "Lease",
        "rbac.authorization.k8s.io/v1": "Role RoleBinding",
        "policy/v1": "PodDisruptionBudget",
        "discovery.k8s.io/v1": "EndpointSlice",
        "autoscaling/v2": "HorizontalPodAutoscaler",
        "cilium.io/v2": "CiliumNetworkPolicy",
    }
    cluster_wide = {
        "v1": "Namespace Node PersistentVolume",
        "storage.k8s.io/v1": "StorageClass",
        "node.k8s.io/v1": "RuntimeClass",
        "rbac.authorization.k8s.io/v1": "ClusterRole ClusterRoleBinding",
        "apiextensions.k8s.io/v1": "CustomResourceDefinition",
        "scheduling.k8s.io/v1": "PriorityClass",
    }
    found = {}
    for names, namespaced in ((groups, True), (cluster_wide, False)):
        for version, kinds in names.items():
            for kind in kinds.split():
                found[version, kind] = Resource(version, kind, _plural(kind), namespaced)
    return found


def _plural(kind: str) -> str:
    word = kind.lower()
    if word.endswith("y") and not word.endswith("ay"):
        return word[:-1] + "ies"
    if word == "endpoints":
        return word
    return word + ("es" if word.endswith(("s", "ss")) else "s")


#: Kinds whose place never changes: nothing has to be asked for them.
KINDS: Mapping[tuple[str, str], Resource] = _known()


def split_kind(kind: str) -> tuple[str, str]:
    """Split ``apps/v1/StatefulSet`` into API version and kind; a kind alone is one of the well-known.

    Raises:
        LookupError: A kind alone that is not well known.
    """
    version, _, word = kind.rpartition("/")
    if version:
        return version, word
    for known_version, known in KINDS:
        if word in (known, KINDS[known_version, known].plural):
            return known_version, known
    raise LookupError(f"kind {kind!r} needs its API version before it, as in 'example.com/v1/{kind}'")


class Resources:
    """The well-known kinds and those that a server was asked for."""

    def __init__(self) -> None:
        self._found = dict(KINDS)

    def get(self, api_version: str, kind: str) -> Resource | None:
        """Find a kind, by its name or its plural; None: not asked for yet, or not there."""
        exact = self._found.get((api_version, kind))
        if exact is not None:
            return exact
        return next((each for each in self._found.values() if each.api_version == api_version and each.plural == kind), None)

    def learn(self, api_version: str, document: Mapping[str, Any]) -> None:
        """Take in an ``APIResourceList``."""
        for entry in document.get("resources") or ():
            if "/" not in entry["name"]:  # a subresource
                resource = Resource(api_version, entry["kind"], entry["name"], entry["namespaced"])
                self._found[api_version, entry["kind"]] = resource
