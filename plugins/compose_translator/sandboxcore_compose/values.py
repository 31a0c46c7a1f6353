"""Writes a spec as values for the Helm backend's chart.

The vocabulary of a service is that of inspect_k8s_sandbox's agent-env chart, and what its schema lacks is our own chart's.
Nothing is merged into a service, and there is no service that the spec does not have.
"""

from __future__ import annotations

import copy
import hashlib
import math
import re
from collections.abc import Mapping
from typing import Any

from sandboxcore.errors import SpecError
from sandboxcore.report import Loss, ReportEntry
from sandboxcore.spec import EnvironmentSpec, Healthcheck, NetworkPolicy, ServiceSpec

from ._helm_mounts import Mounts, environment_volumes, fits_files
from ._helm_security import security

__all__ = ("escape", "helm_values", "legal_name")

_LEGAL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
_HOST = re.compile(r"[A-Za-z0-9_]([-A-Za-z0-9_.]*[A-Za-z0-9_])?\Z")
_ANNOTATION = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?\Z")
_RESERVED = ("app.kubernetes.io/", "helm.sh/", "inspect/", "meta.helm.sh/", "sandboxcore.dev/")
#: The chart's names of networks are parts of label names.
_LONGEST_NETWORK = 55
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def legal_name(name: str, taken: set[str], limit: int = 63) -> str:
    """Derive a DNS label from any name; one that is a label stays, others end with a hash when they would collide."""
    if len(name) <= limit and _LEGAL.match(name) and name not in taken:
        return name
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[: limit - 9].strip("-") or "service"
    if plain not in taken:
        return plain
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def escape(text: str) -> str:
    """Double the dollar signs that the kubelet would take for the start of a variable, or for an escaped dollar sign."""
    return re.sub(r"\${2,}|\$(?=\()", lambda found: found[0] * 2, text)


def helm_values(spec: EnvironmentSpec) -> tuple[dict[str, Any], tuple[ReportEntry, ...]]:
    """Write the values, and tell what of the spec they can't say.

    A spec that brings its values (``options.helm.values``: it was a values file) is not looked at further. A service's
    ``options.helm.values`` are laid over what is written for it: mappings key by key, all else as a whole; None takes a key away.
    Of what excludes each other, as the handlers of a probe do, what is laid over goes in place of what is there.

    Raises:
        SpecError: A service can't be run on Kubernetes; every such service is named.
    """
    given = spec.options.get("helm", {}).get("values")
    if isinstance(given, Mapping):
        return copy.deepcopy(dict(given)), ()
    work = _Values(spec)
    values = work.write()
    refused = [f"{entry.key}: {entry.reason}" for entry in work.entries if entry.loss is Loss.REJECT]
    if refused:
        raise SpecError(problems=refused)
    return values, tuple(work.entries)


def _laid_over(under: Mapping[str, Any], over: Mapping[str, Any], path: tuple[str, ...] = ()) -> dict[str, Any]:
    alternatives = _alternatives(path)
    given = [key for key in alternatives if over.get(key) is not None]
    found = {key: value for key, value in under.items() if not given or key in given or key not in alternatives}
    for key, value in over.items():
        if value is None:
            found.pop(key, None)
        elif isinstance(value, Mapping):
            below = found.get(key)
            found[key] = _laid_over(below if isinstance(below, Mapping) else {}, value, (*path, key))
        else:
            found[key] = value
    return found


def _alternatives(path: tuple[str, ...]) -> tuple[str, ...]:
    """Name the keys of which a mapping in this place of a service's values has only one."""
    if len(path) == 1 and path[0] in ("livenessProbe", "readinessProbe", "startupProbe"):
        return ("exec", "grpc", "httpGet", "tcpSocket")
    return ("content", "text") if len(path) == 2 and path[0] == "files" else ()


def _legal_names(names: list[str], limit: int = 63) -> dict[str, str]:
    found: dict[str, str] = {}
    # Names that are legal already keep theirs, so they choose first.
    for name in sorted(names, key=lambda name: not (len(name) <= limit and _LEGAL.match(name))):
        found[name] = legal_name(name, set(found.values()), limit)
    return {name: found[name] for name in names}


class _Values:
    def __init__(self, spec: EnvironmentSpec) -> None:
        self.spec = spec
        self.entries: list[ReportEntry] = []
        self.names = _legal_names(list(spec.services))
        self.networks = _legal_names(list(spec.networks), _LONGEST_NETWORK)
        self.volumes = _legal_names(list(spec.volumes), _LONGEST_NETWORK)
        self.mounts = Mounts(spec, self.volumes, self.note)

    def note(self, loss: Loss, service: str, key: str, reason: str, option: str = "") -> None:
        path = f"services.{service}.{key}" if service else key
        self.entries.append(ReportEntry(loss=loss, key=path, reason=reason, service=service, option=option))

    def write(self) -> dict[str, Any]:
        # Without networks at the top the chart lets all services of an environment connect to each other.
        values: dict[str, Any] = {
            "agentEnv": False,
            "networks": {legal: {} for legal in self.networks.values()} or {"default": {}},
        }
        volumes = environment_volumes(self.spec, self.volumes, self.mounts.shared)
        if volumes:
            values["volumes"] = volumes
        for key, name in _SERVICE_ACCOUNT.items():
            if key in self.spec.options.get("helm", {}):
                values[name] = self.spec.options["helm"][key]
        annotations = self.annotations("", self.spec.labels)
        if annotations:
            values["sandboxcore"] = {"annotations": annotations}
        values["default"] = self.names[self.spec.default_service]
        values["services"] = {self.names[name]: self.service(name, service) for name, service in self.spec.services.items()}
        self.same_names(values["services"])
        fits_files(self.spec, self.note)
        return values

    def service(self, name: str, service: ServiceSpec) -> dict[str, Any]:
        found: dict[str, Any] = {
            "logicalName": name,
            "image": self.image(name, service),
            "imagePullPolicy": {"always": "Always", "missing": "IfNotPresent", "never": "Never"}.get(service.pull_policy or ""),
            "runtimeClassName": service.runtime,
            **self.commands(name, service),
            "workingDir": service.working_dir,
            "env": [{"name": key, "value": escape(value)} for key, value in service.env.items()],
            "dnsRecord": True,
            "additionalDnsRecords": self.records(name, service),
            **self.network(name, service),
            **self.mounts.of(name, service),
            "resources": _resources(service),
            **self.probes(name, service.healthcheck),
            **security(name, service, self.note),
            "nodeSelector": self.node_selector(service),
            "declaredPorts": _ports(service),
            "dependsOn": self.dependencies(service),
            "hostname": self.hostname(name, service),
            "hostAliases": self.host_aliases(name, service),
            "restartPolicy": self.restart(name, service),
            "annotations": self.annotations(name, service.labels),
            "terminationGracePeriodSeconds": _whole(service.stop_grace_period),
            "stdin": service.stdin_open,
            "tty": service.tty,
            "execTarget": None if service.exec_target else False,
        }
        self.unsaid(name, service)
        kept = {key: value for key, value in found.items() if value or (key, value) == ("execTarget", False)}
        if service.stop_grace_period == 0:
            kept.pop("terminationGracePeriodSeconds", None)
        return _laid_over(kept, service.options.get("helm", {}).get("values", {}))

    def image(self, name: str, service: ServiceSpec) -> str | None:
        if service.image is None:
            self.note(Loss.REJECT, name, "image", "a service on Kubernetes needs an image", "images")
        return service.image

    def commands(self, name: str, service: ServiceSpec) -> dict[str, Any]:
        entrypoint, command = service.entrypoint, service.command
        if entrypoint == ():
            if not command:
                self.note(Loss.REJECT, name, "entrypoint", "is cleared, and there is no command: nothing would run")
            entrypoint, command = command, None
        found: dict[str, Any] = {}
        if entrypoint:
            found["command"] = [escape(word) for word in entrypoint]
        if command:
            found["args"] = [escape(word) for word in command]
        elif command == () and not entrypoint:
            self.note(Loss.APPROX, name, "command", "an empty command can't be said: the image's own is used")
        return found

    def records(self, name: str, service: ServiceSpec) -> list[str]:
        """List the names beside the key under which others look the service up; letters' case makes no difference."""
        given = [name, *service.aliases, *(alias for aliases in (service.networks or {}).values() for alias in aliases)]
        found: list[str] = []
        for alias in dict.fromkeys(given):
            if not _HOST.match(alias) or len(alias) > 253:
                self.note(Loss.APPROX, name, "networks", f"{alias!r} can't be looked up: it is no host name")
            elif alias != self.names[name]:
                found.append(alias)
        return found

    def same_names(self, services: dict[str, Any]) -> None:
        """Tell of names that mean two services, which Compose gives to both in turn."""
        owners: dict[str, str] = {}
        for key, values in services.items():
            for record in dict.fromkeys(text.lower() for text in (key, *values.get("additionalDnsRecords", ()))):
                other = owners.setdefault(record, values["logicalName"])
                if other != values["logicalName"]:
                    reason = f"{record} is a name of {other!r} as well; it leads to one of the two"
                    self.note(Loss.APPROX, values["logicalName"], "networks", reason)

    def hostname(self, name: str, service: ServiceSpec) -> str | None:
        wanted = service.hostname
        if not wanted or wanted == self.names[name]:
            return None
        legal = legal_name(wanted.partition(".")[0], set())
        if legal != wanted:
            self.note(Loss.APPROX, name, "hostname", f"is {legal}: host names are one lower-case label here")
        return legal

    def network(self, name: str, service: ServiceSpec) -> dict[str, Any]:
        policy = service.network_policy
        if service.networks and all(self.spec.networks[one].internal for one in service.networks):
            if policy != NetworkPolicy():
                self.note(Loss.EXACT, name, "network_policy", "has no effect: all of its networks are internal")
            policy = NetworkPolicy()
        egress = {
            "internet": policy.internet,
            "allowDomains": list(policy.allow_domains),
            "allowCIDR": list(policy.allow_cidrs),
            "allowEntities": list(policy.allow_entities),
        }
        outside = {key: value for key, value in egress.items() if value}
        if service.networks is None:
            return {"networkIsolated": not outside, "egress": outside}
        return {"networks": [self.networks[one] for one in service.networks], "egress": outside}

    def probes(self, name: str, check: Healthcheck | None) -> dict[str, Any]:
        if check is None or check.test[0] == "NONE":
            return {}
        kind, *rest = check.test
        argv = ["/bin/sh", "-c", " ".join(rest)] if kind == "CMD-SHELL" else rest if kind == "CMD" else list(check.test)
        for key in ("interval", "timeout", "start_period", "start_interval"):
            if getattr(check, key) % 1:
                self.note(Loss.APPROX, name, f"healthcheck.{key}", "whole seconds only: rounded up")
        interval, timeout = max(1, math.ceil(check.interval)), max(1, math.ceil(check.timeout))
        probe = {"exec": {"command": argv}, "timeoutSeconds": timeout}
        found: dict[str, Any] = {
            "readinessProbe": {**probe, "periodSeconds": interval, "failureThreshold": max(1, check.retries)},
        }
        if check.start_period:
            step = max(1, math.ceil(check.start_interval))
            tries = math.ceil(check.start_period / step) + max(1, check.retries)
            found["startupProbe"] = {**probe, "periodSeconds": step, "failureThreshold": tries}
        return found

    def node_selector(self, service: ServiceSpec) -> dict[str, str]:
        found = dict(
            service.options.get("helm", {}).get("node_selector", self.spec.options.get("helm", {}).get("node_selector", {}))
        )
        if service.platform:
            system, _, machine = service.platform.partition("/")
            found["kubernetes.io/os"] = system
            if machine:
                machine = machine.partition("/")[0]
                found["kubernetes.io/arch"] = _MACHINES.get(machine, machine)
        return found

    def dependencies(self, service: ServiceSpec) -> dict[str, Any]:
        return {
            self.names[other]: one.condition if one.required else {"condition": one.condition, "required": False}
            for other, one in service.depends_on.items()
            if other in self.names
        }

    def host_aliases(self, name: str, service: ServiceSpec) -> list[dict[str, Any]]:
        found: dict[str, list[str]] = {}
        for host, addresses in service.extra_hosts.items():
            for address in addresses:
                if address == "host-gateway":
                    self.note(Loss.REJECT, name, "extra_hosts", f"{host}: there is no host-gateway on a cluster; give an address")
                else:
                    found.setdefault(address, []).append(host)
        return [{"ip": address, "hostnames": hosts} for address, hosts in found.items()]

    def annotations(self, name: str, labels: dict[str, str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for key, value in labels.items():
            if _ANNOTATION.match(key) and not key.startswith(_RESERVED):
                found[key] = value
            else:
                self.note(Loss.APPROX, name, f"labels.{key}", "is no name that an annotation of a pod can have: left out")
        return found

    def restart(self, name: str, service: ServiceSpec) -> str:
        if service.restart.max_retries is not None:
            self.note(Loss.APPROX, name, "restart", "the number of restarts is not limited")
        return {"no": "Never", "on-failure": "OnFailure"}.get(service.restart.name, "Always")

    def unsaid(self, name: str, service: ServiceSpec) -> None:
        if service.resources.pids is not None:
            self.note(Loss.APPROX, name, "resources.pids", "Kubernetes has no limit of processes for one pod")
        if service.resources.ulimits:
            self.note(Loss.APPROX, name, "resources.ulimits", "Kubernetes has no ulimits: the container runtime's own hold")
        if service.stop_signal:
            self.note(Loss.NOOP, name, "stop_signal", "pods are stopped by SIGTERM")
        if service.init:
            self.note(Loss.APPROX, name, "init", "no init is put before the command")
        for index, port in enumerate(service.ports):
            if port.host_port is not None:
                self.note(Loss.APPROX, name, f"ports.{index}", "reached by port forwarding")


_SERVICE_ACCOUNT = {
    "automount_service_account_token": "automountServiceAccountToken",
    "service_account_create": "serviceAccountCreate",
    "service_account_name": "serviceAccountName",
}


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else math.ceil(seconds)


def _ports(service: ServiceSpec) -> list[dict[str, Any]]:
    ports = [{"containerPort": port.container_port, "protocol": port.protocol.upper()} for port in service.ports]
    return [port for index, port in enumerate(ports) if port not in ports[:index]]


def _resources(service: ServiceSpec) -> dict[str, Any]:
    wanted = service.resources
    limits = {"cpu": wanted.cpus, "memory": wanted.memory_bytes, "ephemeral-storage": wanted.storage_bytes}
    limits["nvidia.com/gpu"] = wanted.gpus or None
    requests = {"cpu": wanted.cpus_request, "memory": wanted.memory_request_bytes}
    found = {}
    for name, amounts in (("limits", limits), ("requests", requests)):
        given = {key: f"{amount:g}" if key == "cpu" else str(amount) for key, amount in amounts.items() if amount is not None}
        if given:
            found[name] = given
    return found
