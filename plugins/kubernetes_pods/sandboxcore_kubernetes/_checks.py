"""What becomes of each field of a spec in pods. Nothing is passed over in silence."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from sandboxcore.errors import CapabilityError, SandboxUserUnsupportedError, SpecError
from sandboxcore.report import Loss, ReportEntry

from ._options import pod_options
from ._policies import leaves
from ._volumes import all_files
from .naming import dns_label

if TYPE_CHECKING:
    from sandboxcore.spec import EnvironmentSpec, ServiceSpec

__all__ = ("check", "numeric_user")

_ENTITIES = frozenset({"world", "cluster"})
_SECURITY = re.compile(r"no-new-privileges([:=](true|false))?|(seccomp|apparmor)[:=].+|label[:=].+")
_HOST = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def numeric_user(user: str) -> tuple[int, int | None]:
    """Read ``uid[:gid]``; ``root`` is 0 everywhere.

    Raises:
        ValueError: A name: only the image knows which number it has.
    """
    name, _, group = user.partition(":")
    numbers = [0 if part == "root" else int(part) for part in (name, group) if part]
    return numbers[0], numbers[1] if len(numbers) > 1 else None


def check(spec: EnvironmentSpec, *, cilium: bool = False) -> tuple[ReportEntry, ...]:
    """Tell what pods do otherwise than the spec says.

    Raises:
        CapabilityError: The spec asks for what pods can't do.
        SpecError: It can't be meant so.
    """
    found: list[ReportEntry] = []
    for name, service in spec.services.items():
        for part in (_options, _image, _user, _resources, _volumes, _network, _rights, _lifecycle):
            found += part(spec, name, service, cilium)
    return tuple(found)


def _entry(loss: Loss, name: str, key: str, reason: str, option: str = "") -> ReportEntry:
    return ReportEntry(loss=loss, key=f"services.{name}.{key}", reason=reason, service=name, option=option)


def _cannot(name: str, key: str, reason: str, hint: str | None = None) -> CapabilityError:
    return CapabilityError(f"services.{name}.{key}: {reason}", hint=hint)


def _options(spec: EnvironmentSpec, name: str, service: ServiceSpec, cilium: bool) -> Iterator[ReportEntry]:
    if pod_options(spec, name).service_account_create:
        reason = "no account is made: service_account has to be there already"
        yield _entry(Loss.APPROX, name, "options.kubernetes.service_account_create", reason)


def _image(spec: EnvironmentSpec, name: str, service: ServiceSpec, cilium: bool) -> Iterator[ReportEntry]:
    if service.image is None:
        what = "it has no image, and a cluster builds none" if service.build else "a service on Kubernetes needs an image"
        raise _cannot(name, "image", what, "name an image that the cluster's nodes can pull, or add an image resolver")
    if service.build is not None:
        yield _entry(Loss.APPROX, name, "build", "nothing is built: the image is taken as it is")
    if service.entrypoint == () and not service.command:
        raise SpecError(problems=[f"services.{name}.entrypoint: is cleared, and there is no command: nothing would run"])
    if service.command == () and not service.entrypoint:
        yield _entry(Loss.APPROX, name, "command", "an empty command can't be said: the image's own is used")


def _user(spec: EnvironmentSpec, name: str, service: ServiceSpec, cilium: bool) -> Iterator[ReportEntry]:
    try:
        if service.user:
            numeric_user(service.user)
    except ValueError:
        raise SandboxUserUnsupportedError(
            f"services.{name}.user: {service.user!r} is a name, and only the image knows its number",
            hint="write the number (`id -u` in the image tells); single commands may have any user that the image knows",
        ) from None
    for group in service.groups:
        if not group.isdigit():
            raise _cannot(name, "groups", f"{group!r}: groups are numbers on Kubernetes", "write the number")
    yield from ()


def _resources(spec: EnvironmentSpec, name: str, service: ServiceSpec, cilium: bool) -> Iterator[ReportEntry]:
    wanted = service.resources
    if wanted.pids is not None:
        yield _entry(Loss.APPROX, name, "resources.pids", "not enforced: only a node's kubelet limits the processes of pods")
    if wanted.ulimits:
        yield _entry(Loss.APPROX, name, "resources.ulimits", "not enforced: the container runtime's own limits hold")
    for key, given, other in (
        ("cpus", wanted.cpus_request, wanted.cpus),
        ("memory_bytes", wanted.memory_request_bytes, wanted.memory_bytes),
    ):
        if given is None and other is not None:
            yield _entry(Loss.APPROX, name, f"resources.{key}", "is kept for the pod, too: no request was given")


def _volumes(spec: EnvironmentSpec, name: str, service: ServiceSpec, cilium: bool) -> Iterator[ReportEntry]:
    try:
        all_files(service)
    except CapabilityError as error:
        raise CapabilityError(f"services.{name}.{error.message}", hint=error.hint) from None
    for index, mount in enumerate(service.volumes):
        key = f"volumes.{index}"
        if ".." in mount.subpath.split("/") or mount.subpath.startswith("/"):
            raise SpecError(problems=[f"services.{name}.{key}.subpath: must be a relative path without '..'"])
        if mount.type == "bind":
            yield _entry(Loss.APPROX, name, key, "a copy is mounted: later changes on this machine don't show")
            continue
        if mount.mode is not None:
            yield _entry(Loss.APPROX, name, f"{key}.mode", "an empty directory's mode can't be chosen: everybody may write to it")
        if mount.type == "volume" and not mount.no_copy:
            yield _entry(Loss.APPROX, name, key, "begins empty: it hides what the image has there")
    for path, file in service.files.items():
        if not path.startswith("/") or path.endswith("/"):
            raise SpecError(problems=[f"services.{name}.files: {path!r} must be the absolute path of a file"])
        if not file.read_only:
            yield _entry(Loss.APPROX, name, f"files.{path}", "is mounted read-only", "write it when the sandbox is ready")
        if file.uid or file.gid:
            yield _entry(Loss.APPROX, name, f"files.{path}", "belongs to root")


def _network(spec: EnvironmentSpec, name: str, service: ServiceSpec, cilium: bool) -> Iterator[ReportEntry]:
    policy = service.network_policy
    if policy.allow_domains and not cilium:
        hint = "use a cluster with Cilium, or allow address ranges"
        raise _cannot(name, "network_policy.allow_domains", "plain Kubernetes can't allow names, only addresses", hint)
    unknown = sorted(set(policy.allow_entities) - _ENTITIES)
    if unknown:
        raise _cannot(name, "network_policy.allow_entities", f"{', '.join(unknown)}: there are {', '.join(sorted(_ENTITIES))}")
    if (policy.internet or policy.allow_cidrs or policy.allow_domains) and not leaves(spec, service):
        yield _entry(Loss.EXACT, name, "network_policy", "has no effect: all of its networks are internal")
    for host, addresses in service.extra_hosts.items():
        if "host-gateway" in addresses:
            raise _cannot(name, f"extra_hosts.{host}", "there is no host-gateway on a cluster", "give an address")
    if service.hostname is not None and not _HOST.fullmatch(service.hostname):
        yield _entry(Loss.APPROX, name, "hostname", "is made a legal DNS label")
    for each in _names(name, service) if len(spec.services) > 1 else ():
        if not _HOST.fullmatch(each):
            reason = f"siblings do not find it as {each!r}, which is no DNS label, but as {dns_label(each)!r}"
            yield _entry(Loss.APPROX, name, "aliases", reason)
    for index, port in enumerate(service.ports):
        if port.host_port is not None:
            yield _entry(Loss.APPROX, name, f"ports.{index}", "reached by port forwarding")


def _names(name: str, service: ServiceSpec) -> Iterable[str]:
    """List the names that siblings look a service up by, besides its host name."""
    if not service.networks:
        return ()
    return dict.fromkeys((name, *service.aliases, *(alias for aliases in service.networks.values() for alias in aliases)))


def _rights(spec: EnvironmentSpec, name: str, service: ServiceSpec, cilium: bool) -> Iterator[ReportEntry]:
    for option in service.security_opt:
        if not _SECURITY.fullmatch(option):
            raise _cannot(name, "security_opt", f"{option!r} has no counterpart on Kubernetes")
        if option.startswith("label"):
            yield _entry(Loss.APPROX, name, "security_opt", f"{option!r}: SELinux labels are the node's own")
    if service.runtime:
        yield _entry(Loss.EXACT, name, "runtime", f"as runtime class {service.runtime!r}")
    if service.sysctls:
        yield _entry(Loss.APPROX, name, "sysctls", "nodes refuse pods with sysctls that they don't count as safe")


def _lifecycle(spec: EnvironmentSpec, name: str, service: ServiceSpec, cilium: bool) -> Iterator[ReportEntry]:
    if service.init:
        yield _entry(Loss.APPROX, name, "init", "no init is put before the command")
    if service.stop_signal:
        yield _entry(Loss.APPROX, name, "stop_signal", "pods are stopped by SIGTERM, or by what the image says")
    if service.restart.max_retries is not None:
        yield _entry(Loss.APPROX, name, "restart", "the number of restarts is not limited")
    test = service.healthcheck
    if test is None:
        return
    if test.test[0] == "CMD-SHELL":
        yield _entry(Loss.EXACT, name, "healthcheck", "run by /bin/sh")
    if any(value != math.ceil(value) for value in (test.interval, test.timeout, test.start_interval)):
        yield _entry(Loss.APPROX, name, "healthcheck", "times are rounded up to whole seconds")
