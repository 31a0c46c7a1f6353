"""Makes the relative paths of a document absolute."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ._marks import Map, Seq
from ._patterns import Rules

__all__ = ("absolute", "is_remote", "is_windows_absolute", "resolve_paths")

_Resolve = Callable[[Any, str, str], Any]

_REMOTE = ("https://", "http://", "git://", "ssh://", "github.com/", "git@")


def is_remote(text: str) -> bool:
    """Tell whether a build context or file lies elsewhere than on this machine."""
    return text.startswith((*_REMOTE, "oci://"))


def is_windows_absolute(text: str) -> bool:
    """Tell whether this is a path of a Windows machine, from its root."""
    return text.startswith("\\\\") or (text[1:2] == ":" and text[:1].isalpha() and text[2:3] in ("/", "\\"))


def absolute(text: str, folder: str, home: str) -> str:
    """Resolve a path against a folder, and ``~`` against the home folder; an absolute one stays as it is."""
    if text.startswith("~"):
        return os.path.normpath(os.path.join(home, text[1:].lstrip("/"))) if home else text
    return text if text.startswith("/") else os.path.normpath(os.path.join(folder, text))


def _path(value: Any, folder: str, home: str) -> Any:
    if isinstance(value, Seq):
        return Seq([_path(item, folder, home) for item in value], value.mark, value.marks)
    return absolute(value, folder, home) if isinstance(value, str) else value


def _context(value: Any, folder: str, home: str) -> Any:
    if not isinstance(value, str) or not value or is_remote(value) or "://" in value or value.startswith("service:"):
        return value
    return absolute(value, folder, home)


def _mount(value: Any, folder: str, home: str) -> Any:
    if isinstance(value, Map) and value.get("type") == "bind" and isinstance(source := value.get("source"), str) and source:
        value["source"] = source if is_windows_absolute(source) else absolute(source, folder, home)
    return value


def _volume(value: Any, folder: str, home: str) -> Any:
    options = value.get("driver_opts") if isinstance(value, Map) else None
    if isinstance(options, Map) and options.get("o") == "bind" and isinstance(device := options.get("device"), str):
        options["device"] = absolute(device, folder, home)
    return value


_RULES: Rules[_Resolve] = Rules(
    {
        "services.*.build.context": _context,
        "services.*.build.additional_contexts.*": _context,
        "services.*.env_file.*.path": _path,
        "services.*.label_file": _path,
        "services.*.develop.watch.*.path": _path,
        "services.*.volumes.*": _mount,
        "configs.*.file": _path,
        "secrets.*.file": _path,
        "volumes.*": _volume,
    }
)


def resolve_paths(tree: Map, folder: str, home: str) -> Map:
    """Make the paths of a document absolute, in place.

    Args:
        folder: What they are relative to.
        home: What ``~`` means; empty leaves it.
    """
    _walk(tree, folder, home, _RULES)
    return tree


def _walk(value: Any, folder: str, home: str, rules: Rules[_Resolve]) -> Any:
    if rules.rule is not None:
        return rules.rule(value, folder, home)
    if isinstance(value, Map):
        for key, item in value.items():
            if (below := rules.step(key)) is not None:
                value[key] = _walk(item, folder, home, below)
    elif isinstance(value, Seq) and (below := rules.below.get("*")) is not None:
        for index, item in enumerate(value):
            value[index] = _walk(item, folder, home, below)
    return value
