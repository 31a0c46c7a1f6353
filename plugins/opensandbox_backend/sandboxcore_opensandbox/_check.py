"""What becomes of a spec in mode ``crd``, before anything is created: of services from images, and of those from pools."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sandboxcore._validation import validated
from sandboxcore.errors import CapabilityError
from sandboxcore.report import Loss, ReportEntry
from sandboxcore.spec import EnvironmentSpec, ServiceSpec

from ._config import EnvironmentOptions, ServiceOptions, pod_words
from ._parts import pool_of
from ._pool_fit import is_idle, service_argv

if TYPE_CHECKING:
    from ._config import OpenSandboxConfig

__all__ = ("check",)

#: Field of a service to why it means something else, or nothing, in a pod that runs already.
_OF_THE_TEMPLATE = {
    "resources": "the pool's template says what its pods may use",
    "healthcheck": "a pool hands pods out when they are ready by its template's own probe; this check is not run",
    "restart": "the pool's template decides, and what it does with pods that come back",
    "hostname": "a pod that runs has its name; siblings find the service by the given one, it does not itself",
    "extra_hosts": "a pod that runs has its hosts file; name the hosts in the pool's template",
    "groups": "the pool's template decides; name a group in user as 'user:group'",
    "platform": "the pool's template decides",
    "init": "the pool's template decides",
    "tty": "the pool's template decides",
    "stdin_open": "the pool's template decides",
    "read_only": "the pool's template decides",
    "privileged": "the pool's template decides",
    "cap_add": "the pool's template decides",
    "cap_drop": "the pool's template decides",
    "security_opt": "the pool's template decides",
    "sysctls": "the pool's template decides",
    "runtime": "the pool's template decides",
    "pull_policy": "nothing is pulled for a pod that runs",
    "stop_signal": "the pool's template decides",
    "stop_grace_period": "the pool's template decides",
    "labels": "a pool's pods belong to the pool; labels are on the BatchSandbox's environment only",
    "ports": "every port of a pod can be reached; none is published",
    "build": "nothing is built for a pod that runs",
}
_FROM_IMAGE = "make that service from its image"
_NOTHING_LOST = ("pull_policy", "ports", "labels")


def check(spec: EnvironmentSpec, config: OpenSandboxConfig) -> tuple[ReportEntry, ...]:
    """Go through all fields.

    Raises:
        CapabilityError: It can't be had.
        SpecError: Options are wrong.
    """
    from sandboxcore_kubernetes import objects

    validated(EnvironmentOptions, spec.options.get("opensandbox", {}), what="options.opensandbox")
    pooled = {name for name in spec.services if pool_of(spec, name, config)}
    _refuse_tasks(spec, pooled)
    entries: list[ReportEntry] = []
    made = _without(spec, pooled)
    if made is not None:
        entries += objects.check(made, cilium=config.cilium)
        entries += _on_pooled(made, pooled)
    for name in spec.services:
        if name in pooled:
            entries += _Pooled(name, spec.services[name], pod_words(spec, name)).entries()
    if made is not None and pooled:
        reason = f"services from pools ({', '.join(sorted(pooled))}) and those from images do not find each other by name"
        entries.append(ReportEntry(loss=Loss.APPROX, key="services", reason=reason))
    return tuple(entries)


def _without(spec: EnvironmentSpec, pooled: set[str]) -> EnvironmentSpec | None:
    """Leave out the services that come from pools; None where none is left."""
    if not pooled:
        return spec
    left = {name: service for name, service in spec.services.items() if name not in pooled}
    if not left:
        return None
    default = spec.default if spec.default in left else None
    return spec.model_copy(update={"services": left, "default": default})


def _on_pooled(made: EnvironmentSpec, pooled: set[str]) -> Iterator[ReportEntry]:
    """Say what becomes of services from images that depend on services from pools."""
    for name, service in made.services.items():
        key = f"services.{name}.depends_on"
        for other, dependency in service.depends_on.items():
            if other in pooled and dependency.condition == "completed":
                raise CapabilityError(f"{key}.{other}: nothing waits for the end of a service from a pool", hint=_FROM_IMAGE)
            if other in pooled:
                reason = f"it may start before {other!r} is {dependency.condition}, which is had from a pool at the same time"
                yield ReportEntry(loss=Loss.APPROX, key=f"{key}.{other}", reason=reason, service=name)


def _refuse_tasks(spec: EnvironmentSpec, pooled: set[str]) -> None:
    """Refuse what is for services from pools only."""
    for name, service in spec.services.items():
        options = validated(ServiceOptions, service.options.get("opensandbox", {}), what=f"services.{name}.options.opensandbox")
        if name not in pooled and (options.task or options.task_timeout):
            raise CapabilityError(
                f"services.{name}.options.opensandbox.task: tasks are for services from a pool",
                hint="one that is made from its image runs its command by itself",
            )


class _Pooled:
    """One service from a pool, and what there is to say about it."""

    def __init__(self, name: str, service: ServiceSpec, pod_words: tuple[str, ...]) -> None:
        self._name = name
        self._service = service
        self._pod_words = pod_words
        self._options = validated(
            ServiceOptions, service.options.get("opensandbox", {}), what=f"services.{name}.options.opensandbox"
        )

    def entries(self) -> Iterator[ReportEntry]:
        self._refuse()
        yield from self._of_the_template()
        yield from self._network()
        yield from self._command()
        yield from self._dependencies()

    def _entry(self, loss: Loss, key: str, reason: str) -> ReportEntry:
        return ReportEntry(loss=loss, key=f"services.{self._name}.{key}", reason=reason, service=self._name)

    def _cannot(self, key: str, reason: str) -> CapabilityError:
        return CapabilityError(f"services.{self._name}.{key}: {reason}", hint="put it into the pool's template, or use no pool")

    def _refuse(self) -> None:
        service, policy = self._service, self._service.network_policy
        if service.volumes:
            raise self._cannot("volumes", "a pod that runs already can't be given volumes")
        if policy.allow_domains or policy.allow_cidrs or policy.allow_entities:
            raise self._cannot("network_policy", "the pool's own network policy holds for its pods")
        if service.networks is None:
            raise self._cannot("networks", "a pod that runs already keeps its network")
        if any(dependency.condition == "completed" for dependency in service.depends_on.values()):
            raise self._cannot("depends_on", "nothing waits for another service's end in pods that run already")

    def _of_the_template(self) -> Iterator[ReportEntry]:
        default = ServiceSpec()
        for key, reason in _OF_THE_TEMPLATE.items():
            if getattr(self._service, key) != getattr(default, key):
                loss = Loss.NOOP if key in _NOTHING_LOST else Loss.APPROX
                yield self._entry(loss, key, reason)
        for word in self._pod_words:
            yield self._entry(Loss.APPROX, f"options.kubernetes.{word}", "the pool's template decides")

    def _network(self) -> Iterator[ReportEntry]:
        if self._service.network_policy.internet:
            reason = "whether there is a way out is the pool's network policy's to say"
            yield self._entry(Loss.APPROX, "network_policy.internet", reason)

    def _command(self) -> Iterator[ReportEntry]:
        if not service_argv(self._service):
            return
        if is_idle(self._service):
            yield self._entry(Loss.NOOP, "command", "the pool's own command keeps the pod running")
        elif self._options.task is False:
            raise self._cannot("command", "it could only run as a task, and options.opensandbox.task is false")
        else:
            reason = "runs as a task beside the pod's own command, without the image's entrypoint, and is not started again"
            yield self._entry(Loss.APPROX, "command", reason)

    def _dependencies(self) -> Iterator[ReportEntry]:
        if not self._service.depends_on:
            return
        if is_idle(self._service):
            yield self._entry(Loss.NOOP, "depends_on", "its pod runs already, and nothing is started in it")
        else:
            others = ", ".join(f"{other!r} is {need.condition}" for other, need in self._service.depends_on.items())
            yield self._entry(Loss.APPROX, "depends_on", f"its pod runs already, and its command may start before {others}")
