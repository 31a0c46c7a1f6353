"""What the schema can't say: references that lead nowhere, keys that exclude each other, circles."""

from __future__ import annotations

import ipaddress
import posixpath
from collections.abc import Callable, Iterable
from graphlib import CycleError, TopologicalSorter
from typing import Any

from ._decode import read_mapping
from ._marks import Map, Path, Problems, Seq
from ._scalars import go_text
from ._schema import nearest
from ._units import parse_bytes, parse_number, single_precision

__all__ = ("check_project", "check_resources")


def check_resources(tree: Map, problems: Problems) -> None:
    """Check the parts of one model that hold whether or not a service uses them."""
    for name, value in _section(tree, "volumes"):
        _external_alone(tree, ("volumes", name), value, ("name", "external"), problems)
    for section, keys in (("configs", ("file", "environment", "content")), ("secrets", ("file", "environment"))):
        for name, value in _section(tree, section):
            _one_content(tree, (section, name), value, keys, problems)


def _section(tree: Map, section: str) -> list[tuple[str, Any]]:
    value = tree.get(section)
    return list(value.items()) if isinstance(value, Map) else []


def _external_alone(tree: Map, path: Path, value: Any, allowed: tuple[str, ...], problems: Problems) -> None:
    if not isinstance(value, Map) or value.get("external") is not True:
        return
    for key in value:
        if key not in allowed and not key.startswith("x-"):
            problems.at(tree, (*path, key), "can't be set for something external")


def _one_content(tree: Map, path: Path, value: Any, keys: tuple[str, ...], problems: Problems) -> None:
    if not isinstance(value, Map):
        return
    given = [key for key in keys if key in value]
    if len(given) > 1:
        problems.at(tree, (*path, given[1]), f"only one of {', '.join(keys)} can be set")
    elif not given and "external" not in value and ("driver" not in value or path[0] == "secrets"):
        problems.at(tree, path, f"needs one of {', '.join(keys)}, or external: true")


class _Checks:
    def __init__(self, tree: Map, disabled: Iterable[str], problems: Problems) -> None:
        self.tree = tree
        self.disabled = frozenset(disabled)
        self.problems = problems
        self.services: Map = tree.get("services") or Map()
        self.names: dict[str, str] = {}

    def fail(self, path: Path, message: str) -> None:
        self.problems.at(self.tree, path, message)

    def defined(self, section: str) -> Map:
        value = self.tree.get(section)
        return value if isinstance(value, Map) else Map()

    def refers(self, path: Path, name: str, section: str, what: str) -> None:
        if name not in self.defined(section):
            self.fail(path, f"no {what} is called {name!r}{nearest(name, self.defined(section))}")


def check_project(tree: Map, disabled: Iterable[str], problems: Problems) -> None:
    """Check every service that is enabled against the rest of the project.

    Args:
        disabled: Services that no active profile enables.
    """
    checks = _Checks(tree, disabled, problems)
    broken = {problem.path[1] for problem in problems.found if problem.path[:1] == ("services",) and len(problem.path) > 1}
    for name, service in checks.services.items():
        if name not in broken and isinstance(service, Map):
            for check in _SERVICE_CHECKS:
                check(checks, service, ("services", name))
        elif service is None:
            checks.fail(("services", name), "is empty")
    _circles(checks)


def _image(checks: _Checks, service: Map, path: Path) -> None:
    if not service.get("image") and "build" not in service and "provider" not in service:
        checks.fail(path, "has neither 'image' nor 'build'")
    build = service.get("build")
    if not isinstance(build, Map):
        return
    if build.get("dockerfile") and build.get("dockerfile_inline"):
        checks.fail((*path, "build", "dockerfile"), "can't be set together with 'dockerfile_inline'")
    for key, target in read_mapping(build.get("additional_contexts")).items():
        if target and target.startswith("service:"):
            checks.refers((*path, "build", "additional_contexts", key), target.removeprefix("service:"), "services", "service")
    platforms = build.get("platforms")
    if isinstance(platforms, Seq) and platforms and service.get("platform") and service["platform"] not in platforms:
        checks.fail((*path, "build", "platforms"), f"must include the service's platform {service['platform']!r}")
    for index, secret in enumerate(build.get("secrets") or ()):
        if isinstance(secret, Map):
            checks.refers((*path, "build", "secrets", index), str(secret.get("source")), "secrets", "secret")


def _network(checks: _Checks, service: Map, path: Path) -> None:
    mode, networks = service.get("network_mode"), service.get("networks")
    if mode and networks:
        checks.fail((*path, "network_mode"), "can't be set together with 'networks'")
    for name in networks if isinstance(networks, Map) else ():
        checks.refers((*path, "networks", name), name, "networks", "network")
    if isinstance(mode, str) and mode.startswith("service:"):
        checks.refers((*path, "network_mode"), mode.removeprefix("service:"), "services", "service")
    if service.get("mac_address") and isinstance(networks, Map) and len(networks) == 1:
        (endpoint,) = networks.values()
        if isinstance(endpoint, Map) and endpoint.get("mac_address") not in (None, service["mac_address"]):
            checks.fail((*path, "mac_address"), "differs from the 'mac_address' of the service's network")


def _healthcheck(checks: _Checks, service: Map, path: Path) -> None:
    healthcheck = service.get("healthcheck")
    test = healthcheck.get("test") if isinstance(healthcheck, Map) else None
    if isinstance(test, Seq) and test and test[0] not in ("CMD", "CMD-SHELL", "NONE"):
        checks.fail((*path, "healthcheck", "test"), "must begin with CMD, CMD-SHELL or NONE")


def _dependencies(checks: _Checks, service: Map, path: Path) -> None:
    depends_on = service.get("depends_on")
    for name, condition in depends_on.items() if isinstance(depends_on, Map) else ():
        optional = isinstance(condition, Map) and condition.get("required") is False
        if name in checks.services or (optional and name in checks.disabled):
            continue
        where = (*path, "depends_on", name)
        if name in checks.disabled:
            checks.fail(where, f"service {name!r} is in none of the active profiles; enable one, or set required: false")
        else:
            checks.fail(where, f"no service is called {name!r}{nearest(name, checks.services)}")


def _mounts(checks: _Checks, service: Map, path: Path) -> None:
    targets: dict[str, Path] = {}
    for index, volume in enumerate(service.get("volumes") or ()):
        if not isinstance(volume, Map):
            continue
        where = (*path, "volumes", index)
        source = volume.get("source")
        if volume.get("type") == "volume" and source:
            checks.refers(where, str(source), "volumes", "volume")
        if volume.get("type") == "bind" and not source:
            checks.fail(where, "a bind needs a 'source'")
        target = str(volume.get("target", ""))
        _mounted_once(checks, targets, posixpath.normpath(target) if target else target, where)
    for index, text in enumerate(service.get("tmpfs") or ()):
        _mounted_once(checks, targets, go_text(text).partition(":")[0], (*path, "tmpfs", index))
    for section, what in (("configs", "config"), ("secrets", "secret")):
        for index, mount in enumerate(service.get(section) or ()):
            if isinstance(mount, Map):
                where = (*path, section, index)
                checks.refers(where, str(mount.get("source", "")), section, what)


def _mounted_once(checks: _Checks, targets: dict[str, Path], target: str, where: Path) -> None:
    if target in targets:
        other = ".".join(str(part) for part in targets[target][2:])
        checks.fail(where, f"{target} is mounted already, by {other}")
    targets.setdefault(target, where)


def _scale(checks: _Checks, service: Map, path: Path) -> None:
    deploy = service.get("deploy")
    replicas = deploy.get("replicas") if isinstance(deploy, Map) else None
    scale = service.get("scale")
    if scale is not None and replicas is not None and scale != replicas:
        checks.fail((*path, "scale"), "says something else than deploy.replicas")
    count = scale if scale is not None else replicas
    if service.get("container_name"):
        if isinstance(count, int) and count > 1:
            checks.fail((*path, "container_name"), "can't be set for a service with more than one container")
        other = checks.names.setdefault(str(service["container_name"]), str(path[1]))
        if other != path[1]:
            checks.fail((*path, "container_name"), f"is used by the service {other!r} too")


def _ports(checks: _Checks, service: Map, path: Path) -> None:
    ports = service.get("ports")
    for index, port in enumerate(ports if isinstance(ports, Seq) else ()):
        address = port.get("host_ip") if isinstance(port, Map) else None
        try:
            ipaddress.ip_address(address or "0.0.0.0")
        except ValueError:
            checks.fail((*path, "ports", index, "host_ip"), f"{address!r} is not an IP address")


_Reader = Callable[[Any], float]


def _bytes(value: Any) -> float:
    return parse_bytes(value) if isinstance(value, str) else value if isinstance(value, int) else 0


def _cpus(value: Any) -> float:
    return single_precision(parse_number(value) if isinstance(value, str) else float(value or 0))


def _count(value: Any) -> float:
    return int(value or 0)


def _resources(checks: _Checks, service: Map, path: Path) -> None:
    deploy = service.get("deploy")
    resources = deploy.get("resources") if isinstance(deploy, Map) else None
    if not isinstance(resources, Map):
        return
    pairs: tuple[tuple[str, str, str, _Reader], ...] = (
        ("cpus", "limits", "cpus", _cpus),
        ("mem_limit", "limits", "memory", _bytes),
        ("mem_reservation", "reservations", "memory", _bytes),
        ("pids_limit", "limits", "pids", _count),
    )
    for key, section, other, read in pairs:
        if not isinstance(part := resources.get(section), Map) or key not in service:
            continue
        try:
            mine, theirs = read(service[key]), read(part.get(other) or 0)
        except (ValueError, TypeError):
            continue
        if mine and mine != theirs:
            checks.fail((*path, key), f"says something else than deploy.resources.{section}.{other}")


def _watch(checks: _Checks, service: Map, path: Path) -> None:
    develop = service.get("develop")
    for index, watch in enumerate((develop.get("watch") if isinstance(develop, Map) else None) or ()):
        if isinstance(watch, Map) and not watch.get("target") and watch.get("action") in ("sync", "sync+restart", "sync+exec"):
            checks.fail((*path, "develop", "watch", index), f"action {watch['action']} needs a 'target'")


def _references(checks: _Checks, service: Map, path: Path) -> None:
    for name in service.get("models") or ():
        checks.refers((*path, "models", name), str(name), "models", "model")
    devices = service.get("gpus") if isinstance(service.get("gpus"), Seq) else ()
    for index, device in enumerate(devices or ()):
        if isinstance(device, Map) and "count" in device and "device_ids" in device:
            checks.fail((*path, "gpus", index), "'count' and 'device_ids' exclude each other")


_SERVICE_CHECKS = (_image, _network, _healthcheck, _dependencies, _mounts, _ports, _scale, _resources, _watch, _references)


def _circles(checks: _Checks) -> None:
    waiting: dict[str, set[str]] = {}
    for name, service in checks.services.items():
        depends_on = service.get("depends_on") if isinstance(service, Map) else None
        waiting[name] = {other for other in (depends_on or ()) if other in checks.services}
    try:
        TopologicalSorter(waiting).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        where: Path = ("services", circle[0], "depends_on")
        checks.fail(where, f"these services depend on each other in a circle: {', '.join(sorted(set(circle)))}")
