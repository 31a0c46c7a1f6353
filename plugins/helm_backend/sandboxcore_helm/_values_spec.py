"""What of a service's values every backend can have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sandboxcore.spec import Dependency, Healthcheck, NetworkPolicy, PortSpec, Resources, RestartPolicy, ServiceSpec
from sandboxcore_compose.documents import read_quantity

__all__ = ("CARRIED", "CARRIED_AT_TOP", "service_spec")

#: Keys of a service that the spec says as well.
CARRIED = frozenset(
    [
        "image",
        "command",
        "args",
        "env",
        "workingDir",
        "resources",
        "readinessProbe",
        "dependsOn",
        "restartPolicy",
        "networks",
        "networkIsolated",
        "egress",
        "declaredPorts",
        "hostname",
        "dnsRecord",
        "additionalDnsRecords",
        "execTarget",
        "logicalName",
        "user",
        "stdin",
        "tty",
        "runtimeClassName",
    ]
)
CARRIED_AT_TOP = frozenset(
    ["services", "default", "networks", "allowDomains", "allowCIDR", "allowEntities", "volumes", "agentEnv", "schedulingGates"]
)
_RESTARTS = {"Always": "always", "OnFailure": "on-failure", "Never": "no"}


def service_spec(values: Mapping[str, Any], key: str, names: Mapping[str, str]) -> ServiceSpec:
    """Describe one service of values that were checked.

    Args:
        names: Keys of all services to their exact names.
    """
    service: Mapping[str, Any] = values["services"][key]
    working_dir = service.get("workingDir") or ""
    runtime = service.get("runtimeClassName") or values.get("runtimeClassName")
    return ServiceSpec(
        image=service["image"],
        entrypoint=_words(service.get("command")),
        command=_words(service.get("args")),
        env={one["name"]: _text(one.get("value")) for one in service.get("env") or () if not one.get("valueFrom")},
        working_dir=working_dir if working_dir.startswith("/") else None,
        user=service.get("user"),
        resources=_resources(service.get("resources") or {}),
        healthcheck=_healthcheck(service.get("readinessProbe") or {}),
        depends_on={names[other]: _dependency(need) for other, need in (service.get("dependsOn") or {}).items()},
        restart=RestartPolicy(name=_RESTARTS[service.get("restartPolicy") or "Always"]),
        networks=_networks(values, service),
        aliases=tuple(service.get("additionalDnsRecords") or ()),
        network_policy=_policy(values, service),
        ports=tuple(
            PortSpec(container_port=one["containerPort"], protocol=one.get("protocol", "TCP").lower())
            for one in service.get("declaredPorts") or ()
        ),
        hostname=service.get("hostname"),
        runtime=None if runtime == "CLUSTER_DEFAULT" else runtime,
        stdin_open=bool(service.get("stdin")),
        tty=bool(service.get("tty")),
        exec_target=service.get("execTarget") is not False,
    )


def _words(words: Any) -> tuple[str, ...] | None:
    return tuple(word.replace("$$", "$") for word in words) if words else None


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value.replace("$$", "$") if isinstance(value, str) else json.dumps(value)


def _dependency(need: Any) -> Dependency:
    if isinstance(need, str):
        return Dependency(condition=need)
    return Dependency(condition=need.get("condition", "started"), required=need.get("required", True))


def _networks(values: Mapping[str, Any], service: Mapping[str, Any]) -> dict[str, tuple[str, ...]] | None:
    if service.get("networkIsolated"):
        return None
    if not values.get("networks"):
        return {"default": ()}
    return dict.fromkeys(service.get("networks") or (), ())


def _policy(values: Mapping[str, Any], service: Mapping[str, Any]) -> NetworkPolicy:
    if service.get("networkIsolated"):
        return NetworkPolicy()
    own = service.get("egress") or {}
    both = {key: (*(values.get(key) or ()), *(own.get(key) or ())) for key in ("allowDomains", "allowCIDR", "allowEntities")}
    return NetworkPolicy(
        internet=bool(own.get("internet")),
        allow_domains=both["allowDomains"],
        allow_cidrs=both["allowCIDR"],
        allow_entities=both["allowEntities"],
    )


def _resources(given: Mapping[str, Any]) -> Resources:
    limits, requests = (given.get(part) or {} for part in ("limits", "requests"))

    def amount(part: Mapping[str, Any], name: str) -> float | None:
        try:
            return read_quantity(part[name]) if name in part else None
        except ValueError:
            return None

    def whole(part: Mapping[str, Any], name: str) -> int | None:
        found = amount(part, name)
        return None if found is None else int(found)

    return Resources(
        cpus=amount(limits, "cpu") or None,
        memory_bytes=whole(limits, "memory") or None,
        storage_bytes=whole(limits, "ephemeral-storage") or None,
        cpus_request=amount(requests, "cpu"),
        memory_request_bytes=whole(requests, "memory"),
        gpus=whole(limits, "nvidia.com/gpu") or 0,
    )


def _healthcheck(probe: Mapping[str, Any]) -> Healthcheck | None:
    command = (probe.get("exec") or {}).get("command")
    if not command:
        return None
    return Healthcheck(
        test=("CMD", *(str(word) for word in command)),
        interval=probe.get("periodSeconds", 10),
        timeout=probe.get("timeoutSeconds", 1),
        retries=probe.get("failureThreshold", 3),
        start_period=probe.get("initialDelaySeconds", 0),
    )
