"""Says everything that is wrong with values for the built-in chart, before Helm sees them."""

from __future__ import annotations

import functools
import ipaddress
import json
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sandboxcore_compose.documents import Map, Problem, Problems, explain, locate, nearest, spec_error

__all__ = ("CHART", "check_values", "problems_of", "schema")

#: The folder of the built-in chart.
CHART = Path(__file__).parent / "chart"

_Places = tuple[str | int, ...]
_QUALIFIED = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?\Z")
#: Who selects by these would no longer find the environment's own pods.
_RESERVED = ("app.kubernetes.io/", "helm.sh/", "inspect/", "meta.helm.sh/", "sandboxcore.dev/")
_ONLY_ENFORCED = ("allowDomains", "allowDomainsPorts", "allowEntities", "allowCIDR", "networks")
_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
_PROBE_KEYS = frozenset(
    [
        *_HANDLERS,
        "initialDelaySeconds",
        "periodSeconds",
        "timeoutSeconds",
        "successThreshold",
        "failureThreshold",
        "terminationGracePeriodSeconds",
    ]
)


@functools.cache
def schema() -> dict[str, Any]:
    """Return the chart's schema, read once."""
    loaded: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    return loaded


@functools.cache
def _validator() -> Any:
    from jsonschema import Draft7Validator

    return Draft7Validator(schema())


def check_values(values: Mapping[str, Any]) -> None:
    """Check values, also ones that come from no file.

    Raises:
        SpecError: With every problem, each with file, line and column where it has them.
    """
    found = problems_of(values)
    if found:
        raise spec_error(found)


def problems_of(values: Mapping[str, Any]) -> tuple[Problem, ...]:
    """List what is wrong with values."""
    problems = Problems()
    broken: set[_Places] = set()
    for error in _validator().iter_errors(values):
        broken |= _broken(error)
        for path, message in _explain(error, ()):
            problems.add(_place(values, path), path, message)
    if () not in broken:
        for path, message in _meanings(values, broken):
            problems.add(_place(values, path), path, message)
    return tuple(problems.found)


def _broken(error: Any) -> set[_Places]:
    """Tell of which value, or of which service, nothing more can be said: one that has a key too many is none."""
    path = tuple(error.path)
    if error.validator == "additionalProperties" or (
        error.validator == "required" and path[:1] == ("services",) and len(path) == 2
    ):
        return set()
    return {path[:2] if path[:1] == ("services",) else path[:1]}


def _sound(values: Mapping[str, Any], broken: Container[_Places]) -> dict[str, Any]:
    """Leave out what is broken, and what is judged by it."""
    found = {key: value for key, value in values.items() if (key,) not in broken}
    if ("allowDomains",) in broken:
        found.pop("allowDomainsPorts", None)
    services = found.get("services") or {}
    found["services"] = {name: service for name, service in services.items() if ("services", name) not in broken}
    return found


def _place(values: Mapping[str, Any], path: _Places) -> Any:
    return locate(values if isinstance(values, Map) else Map(), path)


def _explain(error: Any, above: _Places) -> Iterator[tuple[_Places, str]]:
    """Prefer the description that the schema gives of a pattern to the pattern itself."""
    if error.validator == "propertyNames" or (error.validator == "pattern" and error.parent is not None and _names(error)):
        name = str(error.instance) if error.validator == "pattern" else ""
        yield above, f"{name!r}: must be {error.schema.get('description', 'another name')}"
    elif error.validator == "pattern" and "description" in error.schema:
        yield (*above, *error.path), f"must be {error.schema['description']}"
    elif error.validator == "oneOf" and error.context:
        yield from _explain_choice(error, above)
    else:
        yield from explain(error, above)


def _names(error: Any) -> bool:
    return bool(error.parent is not None and error.parent.validator == "propertyNames")


def _explain_choice(error: Any, above: _Places) -> Iterator[tuple[_Places, str]]:
    path = (*above, *error.path)
    branches: dict[int, list[Any]] = {}
    for child in error.context:
        branches.setdefault(child.schema_path[0], []).append(child)
    fitting = [found for found in branches.values() if not any(child.validator == "type" and not child.path for child in found)]
    if not fitting:
        yield from explain(error, above)
        return
    for child in min(fitting, key=len):
        yield from _explain(child, path)


_Check = Callable[[Mapping[str, Any]], Iterable[tuple[_Places, str]]]


def _meanings(given: Mapping[str, Any], broken: Container[_Places]) -> Iterator[tuple[_Places, str]]:
    """Find what a schema can't say; the chart's own ``checks.yaml`` has the same for those who install by hand.

    Args:
        broken: What is not as the schema has it; nothing is said of it.
    """
    names = _Names({key: given.get(key) or {} for key in ("networks", "services", "volumes") if (key,) not in broken})
    values = _sound(given, broken)
    services = values["services"]
    if "services" in names and not names["services"]:
        yield ("services",), "there is no service; at least one is needed"
        return
    default = values.get("default")
    if default is not None and names.lack("services", default):
        yield ("default",), f"no service is called {default!r}{nearest(default, names['services'])}"
    if values.get("serviceAccountCreate") and not given.get("serviceAccountName"):
        yield ("serviceAccountCreate",), "serviceAccountName says which; it is not set"
    yield from _unenforced(values)
    yield from _metadata(values, ())
    yield from _outside(values, ())
    yield from _same_names(services)
    for name, service in services.items():
        path = ("services", name)
        yield from _service(names, service, path)
        yield from _metadata(service, path)
        yield from _outside(service.get("egress") or {}, (*path, "egress"))


class _Names(dict[str, Mapping[str, Any]]):
    """What services refer to by name; of a kind that is not there nothing is known."""

    def lack(self, kind: str, name: str) -> bool:
        """Tell whether there is certainly nothing of this name."""
        return kind in self and name not in self[kind]


def _unenforced(values: Mapping[str, Any]) -> Iterator[tuple[_Places, str]]:
    if (values.get("networkPolicy") or {}).get("enabled", True):
        return
    places = [(key,) for key in _ONLY_ENFORCED if values.get(key)]
    for name, service in (values.get("services") or {}).items():
        places += [("services", name, key) for key in ("networks", "networkIsolated", "egress") if service.get(key)]  # type: ignore[misc]
    for path in places:
        yield path, "nothing would enforce this: networkPolicy.enabled is false"


def _metadata(owner: Mapping[str, Any], path: _Places) -> Iterator[tuple[_Places, str]]:
    for kind in ("labels", "annotations"):
        for key in owner.get(kind) or {}:
            if not _QUALIFIED.match(key):
                yield (*path, kind, key), f"is not a legal name for {'a label' if kind == 'labels' else 'an annotation'}"
            elif key.startswith(_RESERVED):
                yield (*path, kind, key), "is the chart's own"


def _outside(rules: Mapping[str, Any], path: _Places) -> Iterator[tuple[_Places, str]]:
    for index, text in enumerate(rules.get("allowCIDR") or ()):
        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError:
            yield (*path, "allowCIDR", index), "must be an address range such as 1.1.1.0/24"
    domains = rules.get("allowDomains") or ()
    for index, one in enumerate(rules.get("allowDomainsPorts") or ()):
        where = (*path, "allowDomainsPorts", index)
        if one["port"] in (80, 443) and str(one.get("protocol", "ANY")).upper() != "UDP":
            yield where, "would let connections past the check of the host's name; on ports 80 and 443 only UDP can be added"
        if one.get("domain") and one["domain"] not in domains:
            yield (*where, "domain"), f"is not among allowDomains{nearest(one['domain'], domains)}"


def _same_names(services: Mapping[str, Any]) -> Iterator[tuple[_Places, str]]:
    seen: dict[str, str] = {}
    for name, service in services.items():
        logical = service.get("logicalName", name)
        if logical in seen:
            yield ("services", name, "logicalName"), f"{logical!r} is the name of {seen[logical]!r} as well"
        seen.setdefault(logical, name)


def _service(names: _Names, service: Mapping[str, Any], path: _Places) -> Iterator[tuple[_Places, str]]:
    for index, name in enumerate(service.get("networks") or ()):
        if names.lack("networks", name):
            yield (*path, "networks", index), f"{name!r} is not among the networks at the top{nearest(name, names['networks'])}"
    for index, mount in enumerate(service.get("volumes") or ()):
        volume = mount.partition(":")[0] if isinstance(mount, str) else mount.get("volume")
        if volume is not None and names.lack("volumes", volume):
            yield (*path, "volumes", index), f"{volume!r} is not among the volumes at the top{nearest(volume, names['volumes'])}"
    for name in service.get("dependsOn") or ():
        if name == path[-1]:
            yield (*path, "dependsOn", name), "a service can't wait for itself"
        elif names.lack("services", name):
            yield (*path, "dependsOn", name), f"no service is called {name!r}{nearest(name, names['services'])}"
    for index, variable in enumerate(service.get("env") or ()):
        if variable.get("valueFrom") is not None and variable.get("value") is not None:
            yield (*path, "env", index), "has value and valueFrom; only one of them can be"
    for name, file in (service.get("files") or {}).items():
        if ("content" in file) == ("text" in file):
            yield (*path, "files", name), "needs content (base64) or text, and only one of them"
    if service.get("networkIsolated") and service.get("egress"):
        yield (*path, "egress"), "the service is isolated; take one of the two away"
    yield from _probes(service, path)
    yield from _mounted(service, path)


def _probes(service: Mapping[str, Any], path: _Places) -> Iterator[tuple[_Places, str]]:
    for kind in _PROBES:
        probe = service.get(kind) or {}
        for key in probe:
            if key not in _PROBE_KEYS:
                yield (*path, kind, key), f"unknown key{nearest(key, _PROBE_KEYS)}"
        handlers = [key for key in probe if key in _HANDLERS and probe[key] is not None]
        if len(handlers) > 1:
            yield (*path, kind), f"has {' and '.join(handlers)}; only one of them can be"


def _mounted(service: Mapping[str, Any], path: _Places) -> Iterator[tuple[_Places, str]]:
    given = [one.get("name") for one in service.get("volumes") or () if isinstance(one, Mapping)]
    names = [name for name in given if isinstance(name, str)]
    for index, mount in enumerate(service.get("volumeMounts") or ()):
        name = mount.get("name")
        if name not in names:
            yield (
                (*path, "volumeMounts", index, "name"),
                f"no volume of the service is called {name!r}{nearest(str(name), names)}",
            )
