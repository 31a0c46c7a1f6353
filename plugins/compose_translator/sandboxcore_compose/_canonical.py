"""Turns every short form into its long form, so that all later steps see one way of saying a thing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._marks import Map, Mark, Path, Problems, Seq
from ._patterns import Rules
from ._short import ShortFormError, parse_device, parse_ports, parse_volume

__all__ = ("canonical", "plain")

_Transform = Callable[["_Canonical", Any, Path, Mark], Any]


def plain(value: Any, mark: Mark) -> Any:
    """Turn plain dicts and lists into values that know their place."""
    if isinstance(value, dict):
        return Map({key: plain(item, mark) for key, item in value.items()}, mark)
    if isinstance(value, list):
        return Seq([plain(item, mark) for item in value], mark)
    return value


def canonical(tree: Map, problems: Problems) -> Map:
    """Write out the short forms of a document, in place."""
    work = _Canonical(problems)
    work.walk(tree, (), _TRANSFORMS)
    return tree


class _Canonical:
    def __init__(self, problems: Problems) -> None:
        self.problems = problems

    def parsed(self, parse: Callable[[str], Any], value: Any, path: Path, mark: Mark) -> Any:
        """Read a short form; what is no string stays as it is."""
        if not isinstance(value, str):
            return value
        try:
            return plain(parse(value), mark)
        except ShortFormError as error:
            self.problems.add(mark, path, str(error))
            return Map({}, mark)

    def walk(self, value: Any, path: Path, rules: Rules[_Transform]) -> None:
        if isinstance(value, Map):
            for key, item in value.items():
                below = rules.step(key)
                if below is not None:
                    value[key] = self.one(item, (*path, key), value.mark_of(key), below)
        elif isinstance(value, Seq) and (below := rules.below.get("*")) is not None:
            for index, (item, mark) in enumerate(value.pairs()):
                value[index] = self.one(item, (*path, index), mark, below)

    def one(self, value: Any, path: Path, mark: Mark, rules: Rules[_Transform]) -> Any:
        if rules.rule is not None:
            value = rules.rule(self, value, path, mark)
        if rules.below:
            self.walk(value, path, rules)
        return value


def _wrapped(key: str) -> _Transform:
    """Turn a string into a mapping with this one key."""

    def transform(work: _Canonical, value: Any, path: Path, mark: Mark) -> Any:
        return Map({key: value}, mark) if isinstance(value, str) else value

    return transform


def _list(work: _Canonical, value: Any, path: Path, mark: Mark) -> Any:
    return Seq([value], mark) if isinstance(value, str) else value


def _pairs(work: _Canonical, value: Any, path: Path, mark: Mark) -> Any:
    if not isinstance(value, Seq):
        return value
    result = Map({}, value.mark)
    for item, place in value.pairs():
        name, _, rest = str(item).partition("=")
        result.put(name, rest, place)
    return result


def _keys(work: _Canonical, value: Any, path: Path, mark: Mark) -> Any:
    if not isinstance(value, Seq):
        return value
    result = Map({}, value.mark)
    for item, place in value.pairs():
        result.put(str(item), None, place)
    return result


def _depends_on(work: _Canonical, value: Any, path: Path, mark: Mark) -> Any:
    if isinstance(value, Seq):
        result = Map({}, value.mark)
        for item, place in value.pairs():
            result.put(str(item), Map({"condition": "service_started", "required": True}, place), place)
        return result
    for item in value.values() if isinstance(value, Map) else ():
        if isinstance(item, Map):
            item.setdefault("required", True)
    return value


def _env_file(work: _Canonical, value: Any, path: Path, mark: Mark) -> Any:
    if isinstance(value, str):
        value = Seq([value], mark)
    if not isinstance(value, Seq):
        return value
    result = Seq((), value.mark)
    for item, place in value.pairs():
        entry = Map({"path": item}, place) if isinstance(item, str) else item
        if isinstance(entry, Map):
            entry.setdefault("required", True)
        result.add(entry, place)
    return result


def _gpus(work: _Canonical, value: Any, path: Path, mark: Mark) -> Any:
    return Seq([Map({"count": "all"}, mark)], mark) if isinstance(value, str) else value


def _volume(work: _Canonical, value: Any, path: Path, mark: Mark) -> Any:
    return work.parsed(parse_volume, value, path, mark)


def _device(work: _Canonical, value: Any, path: Path, mark: Mark) -> Any:
    return work.parsed(parse_device, value, path, mark)


def _ports(work: _Canonical, value: Any, path: Path, mark: Mark) -> Any:
    if not isinstance(value, Seq):
        return value
    result = Seq((), value.mark)
    for index, (item, place) in enumerate(value.pairs()):
        if isinstance(item, Map):
            result.add(item, place)
        elif isinstance(item, float):
            work.problems.add(place, (*path, index), f"{item} is not a port")
        else:
            text = str(item) if isinstance(item, int) else item
            found = work.parsed(parse_ports, text, (*path, index), place)
            for port in found if isinstance(found, Seq) else ():
                result.add(port, place)
    return result


def _external(work: _Canonical, value: Any, path: Path, mark: Mark) -> Any:
    """Read ``external: {name: ...}``, the old way of naming something that exists already."""
    if not isinstance(value, Map) or not isinstance(external := value.get("external"), Map):
        return value
    name = external.get("name")
    if name is not None and value.get("name") not in (None, name):
        work.problems.add(value.mark_of("name"), (*path, "name"), "'name' and 'external.name' say different things")
    if name is not None:
        value.put("name", name, external.mark_of("name"))
    value["external"] = True
    return value


_TRANSFORMS: Rules[_Transform] = Rules(
    {
        "services.*.build": _wrapped("context"),
        "services.*.build.secrets.*": _wrapped("source"),
        "services.*.build.additional_contexts": _pairs,
        "services.*.depends_on": _depends_on,
        "services.*.env_file": _env_file,
        "services.*.label_file": _list,
        "services.*.extends": _wrapped("service"),
        "services.*.gpus": _gpus,
        "services.*.networks": _keys,
        "services.*.models": _keys,
        "services.*.volumes.*": _volume,
        "services.*.dns": _list,
        "services.*.dns_search": _list,
        "services.*.tmpfs": _list,
        "services.*.devices.*": _device,
        "services.*.secrets.*": _wrapped("source"),
        "services.*.configs.*": _wrapped("source"),
        "services.*.ports": _ports,
        "volumes.*": _external,
        "networks.*": _external,
        "secrets.*": _external,
        "configs.*": _external,
    }
)
