"""Merges one Compose document over another, and takes repetitions out of lists.

The rules are docker compose's (observed with 2.40.3): mappings merge key by key, lists are appended, the last scalar wins, a null
changes nothing; and the exceptions that stand here.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from typing import Any

from ._marks import NOWHERE, Map, Mark, Path, Problems, Seq
from ._patterns import Rules
from ._scalars import go_text
from ._short import ShortFormError, parse_volume

__all__ = ("drop_repetitions", "merge", "merge_service")

_Merger = Callable[["_Merge", Any, Any, Path, "Rules[_Merger] | None"], Any]


def merge(base: Map, over: Map, problems: Problems) -> Map:
    """Merge a document over another; both are used up."""
    result = _Merge(problems, over).mappings(base, over, (), _MERGERS)
    assert isinstance(result, Map)
    return result


def merge_service(base: Map, over: Map, name: str, problems: Problems) -> Map:
    """Merge a service over the one that it extends; both are used up."""
    step = _MERGERS.step("services")
    result = _Merge(problems, None).mappings(base, over, ("services", name), step.step("x") if step else None)
    assert isinstance(result, Map)
    return result


class _Merge:
    def __init__(self, problems: Problems, tree: Any) -> None:
        self.problems = problems
        self.tree = tree

    def values(self, base: Any, over: Any, path: Path, rules: Rules[_Merger] | None, mark: Mark) -> Any:
        if rules is not None and rules.rule is not None:
            return rules.rule(self, base, over, path, rules)
        if over is None:
            return base
        if base is None:
            return over
        if isinstance(base, Map):
            if not isinstance(over, Map):
                self.problems.add(mark, path, "a mapping can't be overridden by something else")
                return base
            return self.mappings(base, over, path, rules)
        if isinstance(base, Seq):
            if not isinstance(over, Seq):
                self.problems.add(mark, path, "a list can't be overridden by something else")
                return base
            return _appended(base, over)
        return over

    def mappings(self, base: Map, over: Map, path: Path, rules: Rules[_Merger] | None) -> Map:
        for key, value in over.items():
            mark = over.mark_of(key)
            if key not in base:
                base.put(key, value, mark)
            else:
                below = rules.step(key) if rules is not None else None
                merged = self.values(base[key], value, (*path, key), below, mark)
                base.put(key, merged, mark if value is not None else base.mark_of(key))
        return base


def _appended(base: Seq, over: Seq) -> Seq:
    return Seq([*base, *over], base.mark, [*base.marks, *over.marks])


def _replace(merge: _Merge, base: Any, over: Any, path: Path, rules: Any) -> Any:
    return over


def as_sequence(value: Any) -> Seq:
    """Write a mapping as a list of ``key=value``; a scalar becomes a list of one."""
    if isinstance(value, Seq):
        return value
    if not isinstance(value, Map):
        return Seq(() if value is None else (value,))
    result = Seq((), value.mark)
    entries: list[tuple[str, Mark]] = []
    for key, item in value.items():
        several = item if isinstance(item, Seq) else (item,)
        entries += [(key if one is None else f"{key}={go_text(one)}", value.mark_of(key)) for one in several]
    for text, mark in sorted(entries, key=lambda entry: entry[0]):
        result.add(text, mark)
    return result


def _as_list(merge: _Merge, base: Any, over: Any, path: Path, rules: Any) -> Any:
    return _appended(as_sequence(base), as_sequence(over))


def _hosts(merge: _Merge, base: Any, over: Any, path: Path, rules: Any) -> Any:
    first, second = as_sequence(base), as_sequence(over)
    known = {item for item in first if isinstance(item, str)}
    result = _appended(first, Seq((), NOWHERE))
    for item, mark in second.pairs():
        if item not in known:
            result.add(item, mark)
    return result


def _keyed(default: Callable[[], Any]) -> _Merger:
    """Merge as mappings what may be written as a list of keys."""

    def as_map(value: Any) -> Map:
        if isinstance(value, Map):
            return value
        result = Map({}, getattr(value, "mark", NOWHERE))
        for item, mark in value.pairs() if isinstance(value, Seq) else ():
            result.put(str(item), default(), mark)
        return result

    def merger(merge: _Merge, base: Any, over: Any, path: Path, rules: Any) -> Any:
        return merge.mappings(as_map(base), as_map(over), path, rules)

    return merger


def _build(merge: _Merge, base: Any, over: Any, path: Path, rules: Any) -> Any:
    def as_map(value: Any) -> Map:
        if isinstance(value, Map):
            return value
        return Map({} if value is None else {"context": value})

    return merge.mappings(as_map(base), as_map(over), path, rules)


def _logging(merge: _Merge, base: Any, over: Any, path: Path, rules: Any) -> Any:
    if not isinstance(base, Map) or not isinstance(over, Map):
        return over if over is not None else base
    same = base.get("driver") == over.get("driver") or "driver" not in base or "driver" not in over
    return merge.mappings(base, over, path, None) if same else over


def _ulimit(merge: _Merge, base: Any, over: Any, path: Path, rules: Any) -> Any:
    if isinstance(base, Map) and isinstance(over, Map):
        return merge.mappings(base, over, path, None)
    return over


def _ipam(merge: _Merge, base: Any, over: Any, path: Path, rules: Any) -> Any:
    if not isinstance(base, Seq) or not isinstance(over, Seq):
        return over
    result = Seq((), base.mark)
    place: dict[Any, int] = {}
    for item, mark in [*base.pairs(), *over.pairs()]:
        subnet = item.get("subnet") if isinstance(item, Map) else None
        if subnet in place and isinstance(item, Map):
            merge.mappings(result[place[subnet]], item, path, None)
        else:
            place[subnet] = len(result)
            result.add(item, mark)
    return result


_MERGERS: Rules[_Merger] = Rules(
    {
        "networks.*.ipam.config": _ipam,
        "networks.*.labels": _as_list,
        "volumes.*.labels": _as_list,
        "services.*.annotations": _as_list,
        "services.*.build": _build,
        "services.*.build.args": _as_list,
        "services.*.build.additional_contexts": _as_list,
        "services.*.build.extra_hosts": _hosts,
        "services.*.build.labels": _as_list,
        "services.*.command": _replace,
        "services.*.depends_on": _keyed(lambda: Map({"condition": "service_started", "required": True})),
        "services.*.deploy.labels": _as_list,
        "services.*.dns": _as_list,
        "services.*.dns_opt": _as_list,
        "services.*.dns_search": _as_list,
        "services.*.entrypoint": _replace,
        "services.*.env_file": _as_list,
        "services.*.label_file": _as_list,
        "services.*.environment": _as_list,
        "services.*.extra_hosts": _hosts,
        "services.*.healthcheck.test": _replace,
        "services.*.labels": _as_list,
        "services.*.volumes.*.volume.labels": _as_list,
        "services.*.logging": _logging,
        "services.*.models": _keyed(lambda: None),
        "services.*.networks": _keyed(lambda: None),
        "services.*.sysctls": _as_list,
        "services.*.tmpfs": _as_list,
        "services.*.ulimits.*": _ulimit,
    }
)


def drop_repetitions(tree: Map, problems: Problems) -> Map:
    """Keep only the last of list items that mean the same thing, in the place of the first."""
    _dropped(tree, (), _INDEXERS, problems)
    return tree


def _dropped(value: Any, path: Path, rules: Rules[_Indexer], problems: Problems) -> Any:
    if isinstance(value, Map):
        for key, item in value.items():
            below = rules.step(key)
            if below is not None:
                value[key] = _dropped(item, (*path, key), below, problems)
    elif isinstance(value, Seq) and rules.rule is not None:
        return _last_of_each(value, path, rules.rule, problems)
    return value


def _last_of_each(value: Seq, path: Path, index: _Indexer, problems: Problems) -> Seq:
    result = Seq((), value.mark)
    places: dict[str, int] = {}
    for number, (item, mark) in enumerate(value.pairs()):
        try:
            key = index(item)
        except ShortFormError as error:
            problems.add(mark, (*path, number), str(error))
            key = f"#{number}"
        if key in places:
            result[places[key]], result.marks[places[key]] = item, mark
        else:
            places[key] = len(result)
            result.add(item, mark)
    return result


_Indexer = Callable[[Any], str]


def _by_name(item: Any) -> str:
    return item.partition("=")[0] if isinstance(item, str) else f"#{id(item)}" if isinstance(item, (Map, Seq)) else go_text(item)


def _by_text(item: Any) -> str:
    if isinstance(item, float):
        raise ShortFormError(f"{go_text(item)} is not a port")
    return go_text(item)


def _by_target(item: Any) -> str:
    if isinstance(item, Map):
        target = item.get("target")
        if not isinstance(target, str):
            raise ShortFormError("lacks 'target'")
        return posixpath.normpath(target)
    return posixpath.normpath(parse_volume(item)["target"]) if isinstance(item, str) else go_text(item)


def _by_device(item: Any) -> str:
    if isinstance(item, Map):
        return str(item.get("target", item.get("source", "")))
    parts = str(item).split(":")
    return parts[0] if len(parts) == 1 else parts[1]


def _by_mount(folder: str) -> _Indexer:
    def index(item: Any) -> str:
        if isinstance(item, Map):
            return str(item["target"]) if "target" in item else f"{folder}/{item.get('source')}"
        return f"{folder}/{item}"

    return index


def _by_path(item: Any) -> str:
    return str(item.get("path", "")) if isinstance(item, Map) else str(item)


def _by_port(item: Any) -> str:
    if not isinstance(item, Map):
        return go_text(item)
    if "target" not in item:
        raise ShortFormError("lacks 'target'")
    protocol, address = item.get("protocol", "tcp"), item.get("host_ip", "0.0.0.0")
    return f"{address}:{item.get('published', '')}:{item['target']}/{protocol}"


_INDEXERS: Rules[_Indexer] = Rules(
    {
        **dict.fromkeys(
            (
                "networks.*.labels",
                "networks.*.ipam.options",
                *(
                    f"services.*.{key}"
                    for key in (
                        "annotations",
                        "build.args",
                        "build.additional_contexts",
                        "build.platform",
                        "build.tags",
                        "build.labels",
                        "cap_add",
                        "cap_drop",
                        "deploy.labels",
                        "dns",
                        "dns_opt",
                        "dns_search",
                        "environment",
                        "labels",
                        "links",
                        "networks.*.aliases",
                        "networks.*.link_local_ips",
                        "profiles",
                        "sysctls",
                        "tmpfs",
                    )
                ),
            ),
            _by_name,
        ),
        "services.*.expose": _by_text,
        "services.*.env_file": _by_path,
        "services.*.configs": _by_mount(""),
        "services.*.secrets": _by_mount("/run/secrets"),
        "services.*.volumes": _by_target,
        "services.*.devices": _by_device,
        "services.*.ports": _by_port,
    }
)
