"""What is asked of the server for a service, and what it can't be asked for. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sandboxcore._validation import validated
from sandboxcore.errors import CapabilityError
from sandboxcore.report import Loss, ReportEntry
from sandboxcore.spec import EnvironmentSpec, ServiceSpec

from ._config import EnvironmentOptions, ServiceOptions, pod_words
from ._pool_fit import service_argv

if TYPE_CHECKING:
    from ._config import OpenSandboxConfig

__all__ = ("check", "create_arguments", "pool_of")

#: What a sandbox of the server that nobody gave a command runs.
IDLE = ["tail", "-f", "/dev/null"]
#: What one without limits gets: the SDK's own, a processor and 2 GiB, would fill a node that the spec did not mean to fill.
_CPUS, _MEMORY_BYTES = 1.0, 1 << 30
#: Machine of a platform to the server's word for it; of others there is no guest.
_MACHINES = {"": "amd64", "amd64": "amd64", "x86_64": "amd64", "arm64": "arm64", "aarch64": "arm64"}
#: Field of a service to why the server can't have it.
_NOT_HAD = {
    "restart": (Loss.APPROX, "what ends stays ended: the sandbox goes on without it"),
    "hostname": (Loss.APPROX, "the sandbox is called as its pod is"),
    "extra_hosts": (Loss.APPROX, "the server has no field for it"),
    "groups": (Loss.APPROX, "the server has no field for it; name a group in user as 'user:group'"),
    "init": (Loss.NOOP, "execd's bootstrap is the first process"),
    "tty": (Loss.APPROX, "the server has no field for it"),
    "stdin_open": (Loss.APPROX, "the server has no field for it"),
    "cap_drop": (Loss.APPROX, "the server has no field for it; what it drops itself is dropped"),
    "labels": (Loss.NOOP, "there is no object of the service that could carry them"),
    "ports": (Loss.NOOP, "the server reaches every port of a sandbox; none is published"),
    "pull_policy": (Loss.APPROX, "the server's own image_pull_policy holds"),
    "stop_signal": (Loss.APPROX, "a sandbox is killed at once"),
    "stop_grace_period": (Loss.APPROX, "a sandbox is killed at once"),
    "build": (Loss.APPROX, "nothing is built: the image is taken as it is"),
    "healthcheck": (Loss.APPROX, "the server waits for the pod and for execd; this check is not run"),
}
_REFUSED = {
    "volumes": "volumes of the server are claims and paths of the cluster, which the spec has no names for",
    "read_only": "the server has no field for it",
    "privileged": "the server has no field for it",
    "cap_add": "the server has no field for it",
    "security_opt": "the server has no field for it",
    "sysctls": "the server has no field for it",
    "runtime": "the server's secure_runtime holds for all its sandboxes",
}


def pool_of(spec: EnvironmentSpec, service: str, config: OpenSandboxConfig) -> str:
    """Name the pool that the sandbox comes from; empty: from none."""
    own = validated(ServiceOptions, spec.services[service].options.get("opensandbox", {}), what=f"services.{service}.options")
    whole = validated(EnvironmentOptions, spec.options.get("opensandbox", {}), what="options.opensandbox")
    return next((said for said in (own.pool, whole.pool, config.pool) if said is not None), "")


def check(spec: EnvironmentSpec, config: OpenSandboxConfig) -> tuple[ReportEntry, ...]:
    """Go through all fields.

    Raises:
        CapabilityError: It can't be had.
    """
    if len(spec.services) > 1:
        names = ", ".join(spec.services)
        what = f"services: a sandbox of opensandbox-server is one container, and there are {len(spec.services)}: {names}"
        raise CapabilityError(what, hint="use mode crd, which has several services in an environment")
    [(name, service)] = spec.services.items()
    return tuple(_entries(name, service, pool_of(spec, name, config), pod_words(spec, name)))


def _entries(name: str, service: ServiceSpec, pool: str, words: Sequence[str]) -> Iterator[ReportEntry]:
    def entry(loss: Loss, key: str, reason: str) -> ReportEntry:
        return ReportEntry(loss=loss, key=f"services.{name}.{key}", reason=reason, service=name)

    def cannot(key: str, reason: str) -> CapabilityError:
        return CapabilityError(f"services.{name}.{key}: {reason}", hint="use mode crd")

    default = ServiceSpec()
    for key, reason in _REFUSED.items():
        if getattr(service, key) != getattr(default, key):
            raise cannot(key, reason)
    options = service.options.get("opensandbox", {})
    for key in ("task", "task_timeout"):
        if options.get(key) is not None:
            raise cannot(f"options.opensandbox.{key}", "the server makes its tasks by itself, and has no field for it")
    if not pool and service.image is None:
        raise cannot("image", "a sandbox needs an image, or a pool to come from")
    if service.platform is not None:
        system, _, machine = service.platform.partition("/")
        if system != "linux" or machine.partition("/")[0] not in _MACHINES:
            what = f"services.{name}.platform: there is no guest for {service.platform!r}"
            raise CapabilityError(what, hint="linux/amd64 and linux/arm64 are supported")
    if pool and service.image is not None:
        yield entry(Loss.APPROX, "image", f"the pods of pool {pool!r} have their own")
    if service.networks is None:
        raise cannot("networks", "a sandbox of the server has a network")
    policy = service.network_policy
    if policy.allow_cidrs or policy.allow_entities or policy.allow_domains:
        raise cannot("network_policy", "the server keeps a sandbox to some hosts with an egress sidecar only, if it has one")
    if policy.internet:
        yield entry(Loss.APPROX, "network_policy.internet", "whether there is a way out is the cluster's to say")
    else:
        yield entry(Loss.APPROX, "network_policy", "the way out is as the cluster has it: the server closes none by itself")
    if pool and service.resources != default.resources:
        yield entry(Loss.APPROX, "resources", "the pool's template says what its pods may use")
    for key in ("pids", "shm_bytes", "storage_bytes", "gpus"):
        if getattr(service.resources, key):
            yield entry(Loss.APPROX, f"resources.{key}", "the server has no field for it")
    if service.resources.ulimits:
        yield entry(Loss.APPROX, "resources.ulimits", "the server has no field for it")
    if not pool and not service_argv(service):
        yield entry(Loss.APPROX, "command", f"the image's own is not run: {' '.join(IDLE)!r} keeps the sandbox")
    if not pool and not _limits(service):
        amounts = ", ".join(f"{what} {amount}" for what, amount in _default_limits(service).items())
        yield entry(Loss.APPROX, "resources", f"no limit is given, and the server's sandboxes have one: {amounts}")
    if service.command and not service.entrypoint:
        yield entry(Loss.APPROX, "command", "runs without the image's own entrypoint, which the server replaces")
    for key, (loss, reason) in _NOT_HAD.items():
        if getattr(service, key) != getattr(default, key):
            yield entry(loss, key, reason)
    for word in words:
        yield entry(Loss.APPROX, f"options.kubernetes.{word}", "the server makes the pod, and has no field for it")


def create_arguments(service: ServiceSpec, pool: str, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Build what the SDK's ``Sandbox.create`` is given, but for the connection and the timeout."""
    arguments: dict[str, Any] = {
        # Also for a pool, which has its own: the SDK does not go without.
        "image": service.image or "of-the-pool",
        "env": {key: value for key, value in service.env.items() if key != "PATH"},
        "metadata": dict(metadata),
        "entrypoint": _entrypoint(service),
    }
    if pool:
        arguments["extensions"] = {"poolRef": pool}
    limits = _limits(service)
    requests = _amounts(service.resources.cpus_request, service.resources.memory_request_bytes)
    arguments["resource"] = limits or _default_limits(service)
    arguments["resource_requests"] = requests or ({} if limits else {"cpu": "10m", "memory": "32Mi"})
    if not arguments["resource_requests"]:
        del arguments["resource_requests"]
    if service.platform is not None:
        from opensandbox.models.sandboxes import PlatformSpec

        system, _, machine = service.platform.partition("/")
        arguments["platform"] = PlatformSpec(os=system, arch=_MACHINES[machine.partition("/")[0]])
    return arguments


def _entrypoint(service: ServiceSpec) -> list[str]:
    """Give the command its own PATH, if it has one: execd's bootstrap, which starts it, needs the image's."""
    argv, path = list(service_argv(service)), service.env.get("PATH")
    return ["env", f"PATH={path}", *argv] if argv and path is not None else argv or IDLE


def _limits(service: ServiceSpec) -> dict[str, str]:
    return _amounts(service.resources.cpus, service.resources.memory_bytes)


def _default_limits(service: ServiceSpec) -> dict[str, str]:
    """Give the limits of a service that has none: the server wants some, and no cluster takes less than what is requested."""
    wanted = service.resources
    return _amounts(max(_CPUS, wanted.cpus_request or 0.0), max(_MEMORY_BYTES, wanted.memory_request_bytes or 0))


def _amounts(cpus: float | None, memory_bytes: int | None) -> dict[str, str]:
    from sandboxcore_kubernetes.quantities import format_bytes, format_cpus

    found = {}
    if cpus is not None:
        found["cpu"] = format_cpus(cpus)
    if memory_bytes is not None:
        found["memory"] = format_bytes(memory_bytes)
    return found
