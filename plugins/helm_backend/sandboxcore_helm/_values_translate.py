"""Reads values files as specs, so that they go where Compose files go."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sandboxcore.abc import Translator
from sandboxcore.errors import SpecError, UsageError
from sandboxcore.report import Loss, ReportEntry, TranslationReport
from sandboxcore.spec import EnvironmentSpec, ServiceSpec
from sandboxcore.values import BackendInfo, Translation
from sandboxcore_compose.documents import Map, locate, nearest

from ._values_check import check_values
from ._values_read import HiddenValues, plain_values, read_values_files
from ._values_spec import CARRIED, CARRIED_AT_TOP, service_spec

__all__ = ("ValuesTranslator",)

_OPTIONS = ("chart", "repo", "version")
_NAME = re.compile(r"(.*[-_.])?values\.ya?ml\Z")


class ValuesTranslator(Translator):
    """Reads values for the built-in chart, or for a chart of one's own that the option ``chart`` names."""

    name = "helm-values"

    def claims(self, path: Path) -> bool:
        """Tell whether it is ``values.yaml`` or ends like that, and is no Compose file."""
        name = path.name.lower()
        return bool(_NAME.match(name)) and "compose" not in re.split(r"[._-]", name)

    def translate(
        self,
        paths: Sequence[Path],
        *,
        variables: Mapping[str, str] | None = None,
        backend: BackendInfo | None = None,
        options: Mapping[str, object] | None = None,
    ) -> Translation:
        """Read values files, each further one laid over those before.

        The values themselves go to the Helm backend as they are; what of them other backends can have is in the spec as well.

        Args:
            variables: Nothing is interpolated in values.
            backend: One that is not ``helm`` gets an entry for each key that is lost on it.
            options: ``chart`` (with ``version`` and ``repo``): the values are for that one and are not looked into.

        Raises:
            SpecError: With every problem, each with file, line and column.
            UsageError: An option is unknown.
        """
        own = _own_chart(options or {})
        values = read_values_files(paths)
        if own:
            helm = {**own, "values": HiddenValues(plain_values(values))}
            spec = EnvironmentSpec(services={"default": ServiceSpec()}, options={"helm": helm})
            return Translation(spec=spec, report=TranslationReport())
        check_values(values)
        entries = tuple(_lost(values)) if backend is not None and backend.name != "helm" else ()
        return Translation(spec=_spec(values), report=TranslationReport(entries=entries))


def _own_chart(options: Mapping[str, object]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in options.items():
        if name not in _OPTIONS:
            raise UsageError(f"unknown option {name!r} of the translator of values{nearest(name, _OPTIONS)}")
        if not isinstance(value, str):
            raise UsageError(f"option {name}: must be text")
        found[name] = value
    if found and "chart" not in found:
        raise UsageError(f"option {next(iter(found))}: is for the option chart, which is not given")
    return found


def _spec(values: Map) -> EnvironmentSpec:
    services: Mapping[str, Any] = values["services"]
    names = {key: service.get("logicalName", key) for key, service in services.items()}
    default = values.get("default")
    try:
        return EnvironmentSpec(
            services={names[key]: service_spec(values, key, names) for key in services},
            default=names[default] if default is not None else None,
            networks=_networks(values),
            volumes={name: {} for name in values.get("volumes") or ()},
            options={"helm": {"values": HiddenValues(plain_values(values))}},
        )
    except ValidationError as error:
        raise SpecError(problems=[str(one["msg"]).removeprefix("Value error, ") for one in error.errors()]) from None


def _networks(values: Map) -> dict[str, Any]:
    return {name: {} for name in values.get("networks") or ("default",)}


def _lost(values: Map) -> Iterator[ReportEntry]:
    reason = "only the helm backend can do that"
    for key in values:
        if key not in CARRIED_AT_TOP and values[key]:
            yield _entry(values, (key,), reason)
    for name, service in values["services"].items():
        for key in service:
            if key not in CARRIED and service[key]:
                yield _entry(values, ("services", name, key), reason, name)


def _entry(values: Map, path: tuple[str, ...], reason: str, service: str = "") -> ReportEntry:
    mark = locate(values, path)
    return ReportEntry(
        loss=Loss.APPROX, key=".".join(path), reason=reason, service=service, file=mark.file, line=mark.line, column=mark.column
    )
