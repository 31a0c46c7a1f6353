"""The extensions that mean something here: our own, those of inspect_k8s_sandbox, ``x-default`` and ``x-local``."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from ._marks import Map, Path, Seq
from ._notes import Notes
from ._schema import explain, nearest

__all__ = ("OWN", "Extensions", "Grant", "extension_schema", "read_quantity", "service_extensions", "top_extensions")

OWN = "x-sandboxcore"
_INSPECT = ("x-inspect_k8s_sandbox", "x-k8s")
_INSPECT_TOP: dict[str, type] = {
    "allow_domains": list,
    "allow_entities": list,
    "automount_service_account_token": bool,
    "service_account_create": bool,
    "service_account_name": str,
}
#: What of it is said of pods, to the word for it in ``options.kubernetes``.
_IN_PODS = {
    "automount_service_account_token": "automount_service_account_token",
    "service_account_create": "service_account_create",
    "service_account_name": "service_account",
}


@dataclass
class Grant:
    """What an extension asks for in the way of connections to outside."""

    key: str = OWN
    internet: bool | None = None
    allow_domains: tuple[str, ...] = ()
    allow_cidrs: tuple[str, ...] = ()
    allow_entities: tuple[str, ...] = ()


@dataclass
class Extensions:
    """What the extensions of the document, or of one service, say."""

    grant: Grant = field(default_factory=Grant)
    runtime: str | None = None
    default: str | None = None
    images: Any = None
    image: str | None = None
    exec_target: bool | None = None
    local: bool = False
    is_default: bool = False
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: Limits and requests by the names that Kubernetes gives them, as it writes them.
    resources: dict[str, dict[str, Any]] = field(default_factory=dict)


@functools.cache
def extension_schema() -> dict[str, Any]:
    """Return the JSON schemas of ``x-sandboxcore``: ``top`` and ``service``."""
    text = resources.files(__package__).joinpath("schema", "x-sandboxcore.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


@functools.cache
def _validator(part: str) -> Any:
    from jsonschema import Draft7Validator

    whole = extension_schema()
    return Draft7Validator({"definitions": whole["definitions"], **whole[part]})


def top_extensions(notes: Notes) -> Extensions:
    """Read the extensions at the top of the document."""
    found = Extensions()
    tree = notes.tree
    inspect = _inspect(tree, (), notes)
    if inspect is not None:
        _inspect_top(inspect, tree[inspect], found, notes)
    if OWN in tree:
        own = _checked("top", tree[OWN], (OWN,), notes)
        _own(own, found)
        found.default, found.images = own.get("default"), own.get("images")
    for key in tree:
        if key.startswith("x-") and key != OWN and key not in _INSPECT:
            notes.noop((key,), "an extension that is not known here")
    return found


def service_extensions(service: Map, path: Path, notes: Notes) -> Extensions:
    """Read the extensions of a service."""
    found = Extensions()
    inspect = _inspect(service, path, notes)
    if inspect is not None:
        _inspect_service(service[inspect], (*path, inspect), found, notes)
    if OWN in service:
        own = _checked("service", service[OWN], (*path, OWN), notes)
        _own(own, found)
        found.image, found.exec_target = own.get("image"), own.get("exec_target")
    found.is_default = service.get("x-default") in (True, "true")
    found.local = service.get("x-local") in (True, "true")
    for key in service:
        if key.startswith("x-") and key not in (OWN, "x-default", "x-local", *_INSPECT):
            notes.noop((*path, key), "an extension that is not known here")
    return found


def _checked(part: str, value: Any, path: Path, notes: Notes) -> dict[str, Any]:
    validator = _validator(part)
    wrong = False
    for error in validator.iter_errors(value):
        wrong = True
        for where, message in explain(error, path):
            notes.problems.at(notes.tree, where, message)
    return {} if wrong or not isinstance(value, dict) else value


def _own(own: dict[str, Any], found: Extensions) -> None:
    for key in ("allow_domains", "allow_cidrs", "allow_entities"):
        setattr(found.grant, key, (*getattr(found.grant, key), *own.get(key, ())))
    found.grant.internet = own.get("internet")
    found.runtime = own.get("runtime_class")
    for backend, options in own.get("options", {}).items():
        found.options.setdefault(backend, {}).update(options)
    if "node_selector" in own:
        for words in ("helm", "kubernetes"):
            found.options.setdefault(words, {})["node_selector"] = dict(own["node_selector"])


def _inspect(owner: Map, path: Path, notes: Notes) -> str | None:
    given = [key for key in _INSPECT if key in owner]
    if len(given) > 1:
        notes.problems.at(notes.tree, (*path, given[1]), f"only one of {' and '.join(_INSPECT)} can be set")
    return given[0] if given else None


def _inspect_top(key: str, value: Any, found: Extensions, notes: Notes) -> None:
    if not isinstance(value, Map):
        notes.problems.at(notes.tree, (key,), "must be a mapping")
        return
    for name, item in value.items():
        kind = _INSPECT_TOP.get(name)
        if kind is None:
            notes.problems.at(notes.tree, (key, name), f"unknown key{nearest(name, _INSPECT_TOP)}")
        elif kind is list:
            if isinstance(item, Seq) and all(isinstance(one, str) for one in item):
                setattr(found.grant, name, tuple(item))
            else:
                notes.problems.at(notes.tree, (key, name), "must be a list of strings")
        elif not isinstance(item, kind):
            notes.problems.at(notes.tree, (key, name), f"must be {'true or false' if kind is bool else 'a string'}")
        else:
            found.options.setdefault("helm", {})[name] = item
            if name in _IN_PODS:
                found.options.setdefault("kubernetes", {})[_IN_PODS[name]] = item


def _inspect_service(value: Any, path: Path, found: Extensions, notes: Notes) -> None:
    if not isinstance(value, Map):
        notes.problems.at(notes.tree, path, "must be a mapping")
        return
    for name, item in value.items():
        if name != "resources":
            notes.problems.at(notes.tree, (*path, name), f"unknown key{nearest(name, ('resources',))}")
        elif not isinstance(item, Map) or any(part not in ("limits", "requests") for part in item):
            notes.problems.at(notes.tree, (*path, name), "must be a mapping with limits and requests")
        else:
            found.resources = {part: dict(values) for part, values in item.items() if isinstance(values, Map)}


_SUFFIXES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}
_SUFFIXES |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}


def read_quantity(value: Any) -> float:
    """Read a Kubernetes quantity: ``500m``, ``1.5``, ``2Gi``.

    Raises:
        ValueError: It is none.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    text = str(value)
    number = text.rstrip("mkKMGTPEi")
    suffix = text[len(number) :]
    if suffix == "m":
        return float(number) / 1000
    if suffix not in _SUFFIXES:
        raise ValueError(f"{text!r} is not a quantity")
    return float(number) * _SUFFIXES[suffix]
