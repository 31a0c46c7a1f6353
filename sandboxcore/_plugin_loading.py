"""Find installed plugins and import each by itself, so that a broken one stops nobody else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._identity import installed_version
from ._markers import PROJECT

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

__all__ = ("Candidate", "Imported", "embedded", "given", "import_plugin", "installed")

#: Modules inside the core that are plugins like any other.
EMBEDDED = {"local": f"{PROJECT}.local"}


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A plugin before it is imported.

    Args:
        name: Of its entry point.
        distribution: Which brought it; empty for one that the program passed in.
        entry_point: What to import; None where ``plugin`` is there already.
        fault: Why it can't even be tried.
    """

    name: str
    distribution: str = ""
    version: str = ""
    module: str = ""
    entry_point: EntryPoint | None = None
    plugin: object = None
    fault: str = ""

    @property
    def label(self) -> str:
        """Name and origin, for messages."""
        origin = " ".join(part for part in (self.distribution, self.version) if part) or self.module
        return f"{self.name!r} ({origin})" if origin else repr(self.name)


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What importing a candidate came to. ``seconds`` is how long it took."""

    plugin: Any
    seconds: float
    error: BaseException | None = None


def embedded() -> tuple[Candidate, ...]:
    """List the plugins that are part of the core."""
    version = installed_version(PROJECT)
    return tuple(Candidate(name=name, distribution=PROJECT, version=version, module=module) for name, module in EMBEDDED.items())


def given(plugin: object) -> Candidate:
    """Describe a plugin that the program passed in: a module, or an object with hook methods."""
    module = getattr(plugin, "__name__", None) or type(plugin).__qualname__
    return Candidate(name=str(module).rpartition(".")[2], module=str(module), plugin=plugin)


def installed(group: str = PROJECT) -> tuple[Candidate, ...]:
    """List the entry points of all installed distributions, in an order that is the same each time."""
    return tuple(sorted(_installed(group), key=lambda candidate: (candidate.name, candidate.distribution)))


def _installed(group: str) -> Iterator[Candidate]:
    from importlib.metadata import distributions

    seen: set[str] = set()
    for distribution in distributions():
        try:
            text = distribution.read_text("entry_points.txt") or ""
        except (OSError, UnicodeDecodeError):
            continue
        # Almost none has the group, and parsing metadata is what would take the time.
        if f"[{group}]" not in text:
            continue
        name, version = _origin(distribution)
        if name.casefold() not in seen:
            seen.add(name.casefold())
            yield from _entry_points(distribution, group, name, version)


def _origin(distribution: Distribution) -> tuple[str, str]:
    try:
        return str(distribution.metadata["Name"] or "unknown distribution"), str(distribution.metadata["Version"] or "")
    except Exception:
        return str(getattr(distribution, "_path", "unknown distribution")), ""


def _entry_points(distribution: Distribution, group: str, name: str, version: str) -> Iterator[Candidate]:
    try:
        points = [point for point in distribution.entry_points if point.group == group]
    except Exception as error:
        fault = f"its entry_points.txt can't be read: {type(error).__name__}"
        yield Candidate(name=name, distribution=name, version=version, fault=fault)
        return
    for point in points:
        yield Candidate(name=point.name, distribution=name, version=version, module=point.value, entry_point=point)


def import_plugin(candidate: Candidate) -> Imported:
    """Import a plugin and take the time. Whatever it raises comes back in the result."""
    began = time.perf_counter()
    try:
        if candidate.entry_point is not None:
            plugin = candidate.entry_point.load()
        else:
            plugin = import_module(candidate.module) if candidate.plugin is None else candidate.plugin
    except (Exception, SystemExit) as error:
        return Imported(plugin=None, seconds=time.perf_counter() - began, error=error)
    return Imported(plugin=plugin, seconds=time.perf_counter() - began)
