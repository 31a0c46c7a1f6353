"""What an environment asks for: which chart, with which values, under which name."""

from __future__ import annotations

import copy
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from sandboxcore.errors import SpecError, UsageError
from sandboxcore.spec import ServiceSpec

from ._config import EnvironmentOptions, HelmConfig, ServiceOptions
from ._goyaml import load
from ._pattern import NAME_SIGN
from ._pod_words import unsaid_words

if TYPE_CHECKING:
    from sandboxcore.report import ReportEntry
    from sandboxcore.spec import EnvironmentSpec

__all__ = ("Path_", "Plan", "placed", "plan_release")

Path_ = tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A release to be.

    Args:
        chart: Reference; None: the built-in chart.
        values: All but those that differ from release to release; ``NAME_SIGN`` in them stands for the release's name.
        varying: Places of those that differ, and their texts.
        release: Name, where one was asked for.
        entries: What becomes of the spec's fields.
    """

    chart: str | None
    version: str | None
    repo: str | None
    values: Mapping[str, Any] = field(repr=False)
    varying: tuple[tuple[Path_, str], ...] = field(repr=False)
    release: str | None
    entries: Sequence[ReportEntry] = ()

    @property
    def built_in(self) -> bool:
        """Whether it is the chart that comes with sandboxcore."""
        return self.chart is None

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts of the values that differ."""
        return tuple(text for _, text in self.varying)

    def fixed(self, paths: Container[Path_] | None = None) -> Plan:
        """Take the values that differ for ones that don't: those at the paths, or all."""
        import dataclasses

        taken = [one for one in self.varying if paths is None or one[0] in paths]
        left = tuple(one for one in self.varying if one not in taken)
        return dataclasses.replace(self, values=placed(self.values, taken), varying=left)

    def values_for(self, name: str, texts: Sequence[str] | None = None) -> dict[str, Any]:
        """Write the values of a release, with these texts in place of its own."""
        varying = self.varying
        if texts is not None:
            varying = tuple((path, text) for (path, _), text in zip(self.varying, texts, strict=True))
        named = _named(placed(self.values, varying), name)
        assert isinstance(named, dict)
        return named


def placed(values: Mapping[str, Any], varying: Sequence[tuple[Path_, str]]) -> dict[str, Any]:
    """Copy values with texts put in their places."""
    found: dict[str, Any] = copy.deepcopy(dict(values))
    for path, text in varying:
        inner = found
        for key in path[:-1]:
            below = inner.get(key)
            if not isinstance(below, dict):
                below = inner[key] = {}
            inner = below
        inner[path[-1]] = text
    return found


def _named(value: Any, name: str) -> Any:
    if isinstance(value, str):
        return value.replace(NAME_SIGN, name)
    if isinstance(value, Mapping):
        return {key: _named(inner, name) for key, inner in value.items()}
    if isinstance(value, list):
        return [_named(inner, name) for inner in value]
    return value


def plan_release(spec: EnvironmentSpec, config: HelmConfig) -> Plan:
    """Decide what an environment's release consists of. Nothing is asked of the cluster.

    Raises:
        SpecError: Options or values are wrong.
    """
    from sandboxcore._validation import validated

    options = validated(EnvironmentOptions, spec.options.get("helm", {}), what="options.helm")
    for name, service in spec.services.items():
        validated(ServiceOptions, service.options.get("helm", {}), what=f"services.{name}.options.helm")
    chart = options.chart or config.chart
    own = chart is not None and chart != "builtin"
    entries: Sequence[ReportEntry] = ()
    if not own and not isinstance(options.values, Path):
        from ._values import built_in_values

        values, entries = built_in_values(spec)
    else:
        if options.values is None:
            _refuse_services(spec)
        values = read_values(options.values)
    merged = merge(read_values(config.values), values)
    if not own and (config.values is not None or isinstance(options.values, Path)):
        from ._values import check_values

        check_values(merged)
    for key, given in (("labels", config.labels), ("annotations", config.annotations)):
        if given:
            merged[key] = {**given, **(merged.get(key) or {})}
    varying = tuple(_leaves(options.per_release, ()))
    told = unsaid_words(spec, merged, written=not own and options.values is None)
    return Plan(
        chart=chart if own else None,
        version=options.version or config.chart_version,
        repo=options.repo or config.chart_repo,
        values=merged,
        varying=varying,
        release=options.release,
        entries=(*entries, *told),
    )


def _refuse_services(spec: EnvironmentSpec) -> None:
    for name, service in spec.services.items():
        if service != ServiceSpec(exec_target=service.exec_target):
            raise SpecError(
                f"services.{name}: a chart of one's own takes values, not services",
                hint="give the values as options.helm.values, or leave the chart out for the built-in one",
            )


def read_values(values: Path | Mapping[str, Any] | None) -> dict[str, Any]:
    """Read values from a file, or copy those that are given.

    Raises:
        SpecError: The file can't be read, or has no values; with file and line.
    """
    if values is None:
        return {}
    if not isinstance(values, Path):
        return copy.deepcopy(dict(values))
    try:
        found = load(values.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"{values}: can't be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise SpecError(f"{values}{place}: is no YAML: {getattr(error, 'problem', None) or error}") from None
    if found is not None and not isinstance(found, dict):
        raise SpecError(f"{values}:1: values are a mapping, not a {type(found).__name__}")
    return found or {}


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge mappings key by key, as Helm does with several values files; None takes a key away."""
    found = dict(under)
    for key, value in over.items():
        below = found.get(key)
        found[key] = merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return found


def _leaves(value: Mapping[str, Any], path: Path_) -> Iterator[tuple[Path_, str]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _leaves(inner, (*path, str(key)))
        elif isinstance(inner, str):
            yield (*path, str(key)), inner
        else:
            raise UsageError(f"options.helm.per_release.{'.'.join((*path, str(key)))}: must be text")
