"""Fills in what a document leaves out: defaults, the implicit network, implied dependencies and names."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any

from ._marks import Map, Path, Problems, Seq
from ._template import Lookup

__all__ = ("fill_defaults", "normalize", "resolve_environment")


def services_of(tree: Map) -> Iterator[tuple[str, Map]]:
    """Yield the services of a document that are mappings."""
    services = tree.get("services")
    for name, service in services.items() if isinstance(services, Map) else ():
        if isinstance(service, Map):
            yield name, service


def _items(service: Map, key: str) -> Iterator[Map]:
    value = service.get(key)
    for item in value if isinstance(value, Seq) else ():
        if isinstance(item, Map):
            yield item


def fill_defaults(tree: Map) -> None:
    """Set the values that go without saying."""
    for _, service in services_of(tree):
        build = service.get("build")
        if isinstance(build, Map) and "context" not in build:
            build["context"] = "."
        for secret in _items(service, "secrets"):
            if isinstance(secret.get("source"), str):
                secret.setdefault("target", f"/run/secrets/{secret['source']}")
        for port in _items(service, "ports"):
            port.setdefault("protocol", "tcp")
            port.setdefault("mode", "ingress")
        for device in (*_items(service, "gpus"), *_reserved_devices(service)):
            if "count" not in device and "device_ids" not in device:
                device["count"] = "all"


def _reserved_devices(service: Map) -> Iterator[Map]:
    place: Any = service
    for key in ("deploy", "resources", "reservations"):
        place = place.get(key) if isinstance(place, Map) else None
    return _items(place, "devices") if isinstance(place, Map) else iter(())


def resolve_environment(tree: Map, lookup: Lookup) -> None:
    """Give variables that are named without a value the value that the caller's variables have."""
    for _, service in services_of(tree):
        _resolve_mapping(service, "environment", lookup)


def _resolve_mapping(owner: Map, key: str, lookup: Lookup) -> None:
    value = owner.get(key)
    if isinstance(value, Map):
        for name, item in value.items():
            if item is None and (found := lookup(name)) is not None:
                value[name] = found
    elif isinstance(value, Seq):
        for index, item in enumerate(value):
            if isinstance(item, str) and "=" not in item and (found := lookup(item)) is not None:
                value[index] = f"{item}={found}"


def normalize(tree: Map, project_name: str, lookup: Lookup, problems: Problems) -> None:
    """Bring a whole project, after all files are merged, to the form that docker compose works with."""
    _networks(tree)
    for name, service in services_of(tree):
        if service.get("pull_policy") == "if_not_present":
            service["pull_policy"] = "missing"
        build = service.get("build")
        if isinstance(build, Map):
            if "dockerfile" not in build and "dockerfile_inline" not in build:
                build["dockerfile"] = "Dockerfile"
            _resolve_mapping(build, "args", lookup)
        for volume in _items(service, "volumes"):
            if isinstance(volume.get("target"), str):
                volume["target"] = _clean(volume["target"])
        _implied_dependencies(service, ("services", name))
        if isinstance(service.get("deploy"), Map) and isinstance(service.get("scale"), int):
            service["deploy"].setdefault("replicas", service["scale"])
    for section in ("networks", "volumes", "configs", "secrets"):
        _names(tree, section, project_name)


def _clean(path: str) -> str:
    cleaned = posixpath.normpath(path) if path else path
    return cleaned[1:] if cleaned.startswith("//") else cleaned


def _networks(tree: Map) -> None:
    uses_default = False
    for _, service in services_of(tree):
        networks = service.get("networks")
        if not networks and "network_mode" not in service and "provider" not in service:
            service["networks"] = networks = Map({"default": None}, service.mark)
        uses_default = uses_default or (isinstance(networks, Map) and "default" in networks)
    if uses_default:
        declared = tree.get("networks")
        if not isinstance(declared, Map):
            tree["networks"] = declared = Map({}, tree.mark)
        declared.setdefault("default", None)


def _implied_dependencies(service: Map, path: Path) -> None:
    for link in _strings(service, "links"):
        _depend(service, link.partition(":")[0], restart=True)
    for key in ("network_mode", "ipc", "pid", "uts", "cgroup"):
        value = service.get(key)
        if isinstance(value, str) and value.startswith("service:"):
            _depend(service, value.removeprefix("service:"), restart=True)
    for source in _strings(service, "volumes_from"):
        if not source.startswith("container:"):
            _depend(service, source.partition(":")[0], restart=False)


def _strings(service: Map, key: str) -> list[str]:
    value = service.get(key)
    return [item for item in value if isinstance(item, str)] if isinstance(value, Seq) else []


def _depend(service: Map, other: str, *, restart: bool) -> None:
    depends_on = service.get("depends_on")
    if not isinstance(depends_on, Map):
        service["depends_on"] = depends_on = Map({}, service.mark)
    if other not in depends_on:
        depends_on[other] = Map({"condition": "service_started", "restart": restart, "required": True}, service.mark)


def _names(tree: Map, section: str, project_name: str) -> None:
    declared = tree.get(section)
    if not isinstance(declared, Map):
        return
    for key, value in declared.items():
        if value is None:
            declared[key] = value = Map({}, declared.mark_of(key))
        if isinstance(value, Map) and not value.get("name"):
            value["name"] = key if value.get("external") else f"{project_name}_{key}"
