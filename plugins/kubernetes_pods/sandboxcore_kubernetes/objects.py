"""From an ``EnvironmentSpec`` to Kubernetes objects. Nothing is asked and nothing created.

Services become bare pods, as containers are in Compose: what ends stays ended (``restart: no``), and a pod that its node
loses is not replaced by an empty one without anybody noticing. A pod can't wait for another by itself: what depends on others
is held back by the client (``gates``).

Names: every pod has its service's name as host name, below one headless Service a whole environment, and looks names up there
first; so ``victim`` is found without a DNS server of one's own. Aliases are entries of an EndpointSlice (``alias_slice``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ._checks import check, numeric_user
from ._options import PodOptions, pod_options
from ._policies import DNS, network_label, network_policies
from ._volumes import claims, file_secret, shared_volumes, volume_label, volumes_and_mounts
from .guest_mount import guest_mount
from .naming import INSTANCE, MANAGED_BY, SERVICE, SERVICE_NAME, dns_label, label_value, object_name
from .quantities import format_bytes, format_cpus

if TYPE_CHECKING:
    from sandboxcore.spec import EnvironmentSpec, Healthcheck, ServiceSpec

__all__ = (
    "DNS",
    "Placement",
    "alias_slice",
    "check",
    "environment_objects",
    "escape",
    "pod_name",
    "pod_options",
    "pod_template",
    "service_objects",
    "shared_objects",
)

_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where an environment goes and what its objects carry.

    Args:
        instance: Name of the environment or release; begins every object's name.
        namespace: Of every object.
        labels: On every object, besides those that select pods.
        annotations: On every object.
        guest: Whether the guest is mounted in every sandbox.
        guest_config_map: A ConfigMap (see ``guest_mount``) that is there already; empty: one is among the shared objects.
        cilium: Whether the cluster has Cilium, so that domains can be allowed.
        cluster_ranges: Address ranges of the cluster that ``internet`` does not cover, besides the private ones.
        storage_class: For volumes that several services share; None: the cluster's default.
        cluster_domain: Under which the cluster's Services have their names.
    """

    instance: str
    namespace: str
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    guest: bool = True
    guest_config_map: str = ""
    cilium: bool = False
    cluster_ranges: tuple[str, ...] = ()
    storage_class: str | None = None
    cluster_domain: str = "cluster.local"

    def metadata(
        self, name: str, labels: Mapping[str, str] | None = None, annotations: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Build an object's metadata."""
        own = {INSTANCE: self.instance, MANAGED_BY: "sandboxcore", **self.labels, **(labels or {})}
        found: dict[str, Any] = {"name": name, "namespace": self.namespace, "labels": own}
        notes = {**self.annotations, **(annotations or {})}
        return found | {"annotations": notes} if notes else found


def escape(text: str) -> str:
    """Keep the kubelet from taking ``$(NAME)`` for a variable, and ``$$`` for one dollar sign.

    Source: https://github.com/kubernetes/kubernetes/blob/v1.34.4/third_party/forked/golang/expansion/expand.go
    """
    return re.sub(r"\$+(?=\()|\${2,}", lambda found: found[0] * 2, text)


def pod_name(placement: Placement, service: str) -> str:
    """Name a service's pod."""
    return object_name(placement.instance, service)


def _headless(placement: Placement) -> str:
    return object_name(placement.instance, "net")


# --- the pod ---


def pod_template(spec: EnvironmentSpec, service: str, placement: Placement) -> dict[str, Any]:
    """Build ``metadata`` (labels, annotations) and ``spec`` of a service's pod; its first container is the service."""
    body, options = spec.services[service], pod_options(spec, service)
    metadata = placement.metadata("", _pod_labels(spec, service, options), _pod_annotations(service, body, options))
    del metadata["name"], metadata["namespace"]
    volumes, mounts = volumes_and_mounts(spec, service, placement)
    if placement.guest and body.exec_target:
        guest = guest_mount(placement.guest_config_map or _guest_name(placement))
        volumes.append(guest.volume)
        mounts.append(guest.mount)
    container = _container(body, mounts)
    pod: dict[str, Any] = {
        "containers": [container],
        "volumes": volumes,
        "restartPolicy": {"no": "Never", "on-failure": "OnFailure"}.get(body.restart.name, "Always"),
        "terminationGracePeriodSeconds": math.ceil(body.stop_grace_period) if body.stop_grace_period is not None else 1,
        "automountServiceAccountToken": options.automount_service_account_token,
        "enableServiceLinks": False,
        "securityContext": _pod_security(body),
        "runtimeClassName": body.runtime,
        "hostAliases": _host_aliases(body),
        "nodeSelector": _node_selector(body, options),
        "tolerations": list(options.tolerations),
        "affinity": _affinity(spec, body, options),
        "imagePullSecrets": [{"name": name} for name in options.image_pull_secrets],
        "serviceAccountName": options.service_account,
        "priorityClassName": options.priority_class,
        "schedulerName": options.scheduler,
        **_names(service, body, placement),
    }
    keep_false = ("automountServiceAccountToken", "enableServiceLinks", "terminationGracePeriodSeconds")
    return {"metadata": metadata, "spec": {key: value for key, value in pod.items() if value or key in keep_false}}


def _pod_labels(spec: EnvironmentSpec, service: str, options: PodOptions) -> dict[str, str]:
    body = spec.services[service]
    # The second is on sandboxes only; policies choose by the first.
    labels = {**options.labels, SERVICE_NAME: label_value(service)}
    if body.exec_target:
        labels[SERVICE] = label_value(service)
    labels |= {network_label(name): "true" for name in body.networks or ()}
    shared = set(shared_volumes(spec))
    labels |= {volume_label(mount.source): "true" for mount in body.volumes if mount.type == "volume" and mount.source in shared}
    return labels


def _pod_annotations(service: str, body: ServiceSpec, options: PodOptions) -> dict[str, str]:
    told = {key: value for key, value in body.labels.items() if _LABEL_KEY.fullmatch(key)}
    return {**told, **options.annotations, SERVICE_NAME: service}


def _names(service: str, body: ServiceSpec, placement: Placement) -> dict[str, Any]:
    domain = f"{_headless(placement)}.{placement.namespace}.svc.{placement.cluster_domain}"
    found: dict[str, Any] = {"hostname": dns_label(body.hostname or service)}
    if body.networks is not None:
        found |= {"subdomain": _headless(placement), "dnsConfig": {"searches": [domain]}}
    return found


def _container(body: ServiceSpec, mounts: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": "main",
        "image": body.image,
        "imagePullPolicy": {"always": "Always", "missing": "IfNotPresent", "never": "Never"}.get(body.pull_policy or ""),
        **_command(body),
        "workingDir": body.working_dir,
        "env": [{"name": name, "value": escape(value)} for name, value in body.env.items()],
        "ports": [{"containerPort": port.container_port, "protocol": port.protocol.upper()} for port in body.ports],
        "volumeMounts": mounts,
        "resources": _resources(body),
        "securityContext": _security(body),
        "stdin": body.stdin_open,
        "tty": body.tty,
        **_probes(body.healthcheck),
    }
    return {key: value for key, value in found.items() if value}


def _command(body: ServiceSpec) -> dict[str, Any]:
    """Apply the rules of OCI images: a given entrypoint drops the image's command, an empty one leaves the command alone."""
    entrypoint, command = body.entrypoint, body.command
    if entrypoint == ():
        entrypoint, command = command, None
    found: dict[str, Any] = {}
    if entrypoint:
        found["command"] = [escape(word) for word in entrypoint]
    if command:
        found["args"] = [escape(word) for word in command]
    return found


def _resources(body: ServiceSpec) -> dict[str, Any]:
    wanted = body.resources
    limits = {
        "cpu": None if wanted.cpus is None else format_cpus(wanted.cpus),
        "memory": None if wanted.memory_bytes is None else format_bytes(wanted.memory_bytes),
        "ephemeral-storage": None if wanted.storage_bytes is None else format_bytes(wanted.storage_bytes),
        "nvidia.com/gpu": str(wanted.gpus) if wanted.gpus else None,
    }
    requests = {
        "cpu": None if wanted.cpus_request is None else format_cpus(wanted.cpus_request),
        "memory": None if wanted.memory_request_bytes is None else format_bytes(wanted.memory_request_bytes),
    }
    both = {"limits": limits, "requests": requests}
    given = {name: {key: value for key, value in amounts.items() if value is not None} for name, amounts in both.items()}
    return {name: amounts for name, amounts in given.items() if amounts}


def _security(body: ServiceSpec) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if body.user:
        uid, gid = numeric_user(body.user)
        found["runAsUser"] = uid
        if gid is not None:
            found["runAsGroup"] = gid
    if body.privileged:
        found["privileged"] = True
    if body.read_only:
        found["readOnlyRootFilesystem"] = True
    capabilities = {"add": body.cap_add, "drop": body.cap_drop}
    named = {key: [name.upper().removeprefix("CAP_") for name in names] for key, names in capabilities.items() if names}
    if named:
        found["capabilities"] = named
    for option in body.security_opt:
        found |= _security_option(option)
    return found


def _security_option(option: str) -> dict[str, Any]:
    kind, _, value = option.replace(":", "=", 1).partition("=")
    if kind == "no-new-privileges":
        return {"allowPrivilegeEscalation": value == "false"}
    profiles = {
        "unconfined": {"type": "Unconfined"},
        "builtin": {"type": "RuntimeDefault"},
        "docker-default": {"type": "RuntimeDefault"},
        "runtime/default": {"type": "RuntimeDefault"},
    }
    profile = profiles.get(value, {"type": "Localhost", "localhostProfile": value})
    return {f"{kind}Profile" if kind == "seccomp" else "appArmorProfile": profile} if kind in ("seccomp", "apparmor") else {}


def _pod_security(body: ServiceSpec) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if body.groups:
        found["supplementalGroups"] = [int(group) for group in body.groups]
    if body.sysctls:
        found["sysctls"] = [{"name": name, "value": value} for name, value in body.sysctls.items()]
    return found


def _probes(health: Healthcheck | None) -> dict[str, Any]:
    """Build probes: until the first success the start interval counts, within the start period failures don't."""
    if health is None or health.test[0] == "NONE":
        return {}
    kind, *rest = health.test
    argv = ["/bin/sh", "-c", " ".join(rest)] if kind == "CMD-SHELL" else rest if kind == "CMD" else list(health.test)
    probe = {"exec": {"command": argv}, "timeoutSeconds": max(1, math.ceil(health.timeout))}
    interval, tries = max(1, math.ceil(health.interval)), max(1, health.retries)
    found: dict[str, Any] = {"readinessProbe": {**probe, "periodSeconds": interval, "failureThreshold": tries}}
    if health.start_period:
        step = max(1, math.ceil(health.start_interval))
        found["startupProbe"] = {
            **probe,
            "periodSeconds": step,
            "failureThreshold": math.ceil(health.start_period / step) + tries,
        }
    return found


def _host_aliases(body: ServiceSpec) -> list[dict[str, Any]]:
    found: dict[str, list[str]] = {}
    for host, addresses in body.extra_hosts.items():
        for address in addresses:
            found.setdefault(address, []).append(host)
    return [{"ip": address, "hostnames": hosts} for address, hosts in found.items()]


def _node_selector(body: ServiceSpec, options: PodOptions) -> dict[str, str]:
    found = dict(options.node_selector)
    if body.platform:
        system, _, machine = body.platform.partition("/")
        machine = machine.partition("/")[0]
        found["kubernetes.io/os"] = system
        if machine:
            found["kubernetes.io/arch"] = _MACHINES.get(machine, machine)
    return found


def _affinity(spec: EnvironmentSpec, body: ServiceSpec, options: PodOptions) -> dict[str, Any] | None:
    """Keep pods that share a volume on one node: most volumes can only be on one."""
    if options.affinity is not None:
        return options.affinity
    shared = set(shared_volumes(spec))
    mounted = sorted({mount.source for mount in body.volumes if mount.type == "volume" and mount.source in shared})
    if not mounted:
        return None
    terms = [
        {"labelSelector": {"matchLabels": {volume_label(name): "true"}}, "topologyKey": "kubernetes.io/hostname"}
        for name in mounted
    ]
    return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


# --- what else there is ---


def service_objects(spec: EnvironmentSpec, service: str, placement: Placement) -> list[dict[str, Any]]:
    """Build what one service needs besides its pod: a Secret with its files."""
    secret = file_secret(spec, service, placement)
    return [] if secret is None else [secret]


def shared_objects(spec: EnvironmentSpec, placement: Placement) -> list[dict[str, Any]]:
    """Build what the services share: network policies, names, volumes, the guest. Policies first: no pod is without them."""
    found = network_policies(spec, placement)
    found.append(_names_service(placement))
    found += claims(spec, placement)
    if placement.guest and not placement.guest_config_map:
        guest = guest_mount(_guest_name(placement), namespace=placement.namespace)
        guest.config_map["metadata"] = placement.metadata(_guest_name(placement))
        found.append(guest.config_map)
    return found


def _guest_name(placement: Placement) -> str:
    return object_name(placement.instance, "guest")


def _names_service(placement: Placement) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": placement.metadata(_headless(placement)),
        "spec": {
            "clusterIP": "None",
            "selector": {INSTANCE: placement.instance},
            "publishNotReadyAddresses": True,
        },
    }


def alias_slice(spec: EnvironmentSpec, service: str, placement: Placement, address: str) -> dict[str, Any] | None:
    """Build the further names of a service, as soon as its pod has an address; None: it has none.

    Source: https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/ and the cluster DNS specification, where an
    endpoint's ``hostname`` is a name below its Service.
    """
    body = spec.services[service]
    given = [service, *body.aliases, *(alias for aliases in (body.networks or {}).values() for alias in aliases)]
    main = dns_label(body.hostname or service)
    names = [name for name in dict.fromkeys(dns_label(each) for each in given) if name != main]
    if not names or body.networks is None:
        return None
    labels = {"kubernetes.io/service-name": _headless(placement), "endpointslice.kubernetes.io/managed-by": "sandboxcore.dev"}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": placement.metadata(object_name(placement.instance, f"names-{service}"), labels),
        "addressType": "IPv6" if ":" in address else "IPv4",
        "endpoints": [{"addresses": [address], "hostname": name, "conditions": {"ready": True}} for name in names],
        "ports": [],
    }


def environment_objects(spec: EnvironmentSpec, placement: Placement) -> list[dict[str, Any]]:
    """Build everything, in the order in which it is created; services come as bare pods, in their waves."""
    check(spec, cilium=placement.cilium)
    found = shared_objects(spec, placement)
    for wave in spec.start_order():
        for service in wave:
            found += service_objects(spec, service, placement)
            template = pod_template(spec, service, placement)
            metadata = {"name": pod_name(placement, service), "namespace": placement.namespace, **template["metadata"]}
            found.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
    return found
