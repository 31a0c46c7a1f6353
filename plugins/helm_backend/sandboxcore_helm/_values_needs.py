"""What values for the built-in chart need of a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ("Requirements", "cilium_said", "requirements")

#: Groups of peers that plain policies can say something for.
_PLAIN_ENTITIES = frozenset(("all", "cluster", "none", "world", "world-ipv4", "world-ipv6"))
CLUSTER_DEFAULT = "CLUSTER_DEFAULT"


@dataclass(frozen=True, kw_only=True, slots=True)
class Requirements:
    """What has to be there before a release of the built-in chart can become ready.

    Args:
        cilium: Values that only Cilium can enforce, as the paths of their keys.
        enforced: Whether connections are limited at all, so that the network has to enforce policies.
        runtime_classes: Names of RuntimeClasses.
        storage_classes: Names of StorageClasses; an empty one is the cluster's default.
        claims: Names of PersistentVolumeClaims of the namespace.
        service_account: Name of a ServiceAccount of the namespace; empty: none in particular.
        pull_secrets: Names of Secrets of the namespace.
        priority_classes: Names of PriorityClasses.
        resolver: Image of the resolver that runs beside the services; empty: names need none.
        scheduling_gates: Pods wait for others by scheduling gates (Kubernetes 1.27 and later).
    """

    cilium: tuple[str, ...] = ()
    enforced: bool = True
    runtime_classes: frozenset[str] = frozenset()
    storage_classes: frozenset[str] = frozenset()
    claims: frozenset[str] = frozenset()
    service_account: str = ""
    pull_secrets: frozenset[str] = frozenset()
    priority_classes: frozenset[str] = frozenset()
    resolver: str = ""
    scheduling_gates: bool = False


def requirements(values: Mapping[str, Any]) -> Requirements:
    """Tell what values that were checked need of the cluster. Pure: nothing is asked."""
    services: Mapping[str, Any] = values.get("services") or {}
    volumes: Mapping[str, Any] = values.get("volumes") or {}
    account = values.get("serviceAccountName") or ""
    return Requirements(
        cilium=tuple(_only_cilium(values)),
        enforced=bool((values.get("networkPolicy") or {}).get("enabled", True)),
        runtime_classes=frozenset(_runtime_classes(values)),
        storage_classes=frozenset(_storage_classes(values, volumes)),
        claims=frozenset(one["existingClaim"] for one in volumes.values() if one and one.get("existingClaim")),
        service_account="" if values.get("serviceAccountCreate") else account,
        pull_secrets=frozenset(one["name"] for one in values.get("imagePullSecrets") or ()),
        priority_classes=frozenset(one["priorityClassName"] for one in services.values() if one.get("priorityClassName")),
        resolver=_resolver(values),
        scheduling_gates=bool(values.get("schedulingGates")) and any(one.get("dependsOn") for one in services.values()),
    )


def cilium_said(values: Mapping[str, Any]) -> bool | None:
    """Tell whether Cilium's policies are to be used, where the values say so whatever the cluster has; None: they don't."""
    said = (values.get("networkPolicy") or {}).get("cilium")
    return said if isinstance(said, bool) else None


def _only_cilium(values: Mapping[str, Any]) -> Iterator[str]:
    yield from _only_cilium_rules(values, "")
    for name, service in (values.get("services") or {}).items():
        yield from _only_cilium_rules(service.get("egress") or {}, f"services.{name}.egress.")


def _only_cilium_rules(rules: Mapping[str, Any], path: str) -> Iterator[str]:
    for key in ("allowDomains", "allowDomainsPorts"):
        if rules.get(key):
            yield f"{path}{key}"
    for entity in rules.get("allowEntities") or ():
        if entity not in _PLAIN_ENTITIES:
            yield f"{path}allowEntities: {entity}"


def _runtime_classes(values: Mapping[str, Any]) -> Iterator[str]:
    for service in (values.get("services") or {}).values():
        name = service.get("runtimeClassName") or values.get("runtimeClassName") or CLUSTER_DEFAULT
        if name != CLUSTER_DEFAULT:
            yield name


def _storage_classes(values: Mapping[str, Any], volumes: Mapping[str, Any]) -> Iterator[str]:
    chosen = (values.get("volumeDefaults") or {}).get("storageClassName") or ""
    for volume in volumes.values():
        if not volume or not (volume.get("spec") or volume.get("existingClaim")):
            yield chosen
        elif volume.get("spec") and volume["spec"].get("storageClassName") != "":
            yield volume["spec"].get("storageClassName") or ""


def _resolver(values: Mapping[str, Any]) -> str:
    """Name the resolver's image where a service has a name that is not its host name."""
    for key, service in (values.get("services") or {}).items():
        named = service.get("dnsRecord") or service.get("additionalDnsRecords") or service.get("ports")
        if service.get("networkIsolated") or not named:
            continue
        names = {key.lower(), *(name.lower() for name in service.get("additionalDnsRecords") or ())}
        if names != {service.get("hostname") or key}:
            return str(values.get("corednsImage") or "coredns/coredns")
    return ""
