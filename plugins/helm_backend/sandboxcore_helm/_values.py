"""The built-in chart's values: what a spec becomes, whether given ones are right, and what they need of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ._values_check import CHART, check_values
from ._values_needs import Requirements, requirements
from ._values_read import plain_values, read_values_files
from ._values_translate import ValuesTranslator

if TYPE_CHECKING:
    from sandboxcore.report import ReportEntry
    from sandboxcore.spec import EnvironmentSpec

__all__ = (
    "CHART",
    "Requirements",
    "ValuesTranslator",
    "built_in_values",
    "check_values",
    "plain_values",
    "read_values_files",
    "requirements",
    "service_names",
)


def built_in_values(spec: EnvironmentSpec) -> tuple[dict[str, Any], tuple[ReportEntry, ...]]:
    """Return the built-in chart's values for a spec: those that a values file brought, else written from the spec.

    Raises:
        SpecError: They are wrong, or a service can't be run on Kubernetes; with all that is.
    """
    from sandboxcore_compose.values import helm_values

    values, entries = helm_values(spec)
    check_values(values)
    return values, entries


def service_names(values: Mapping[str, Any]) -> dict[str, str]:
    """Map the keys of the services to their exact names, in the order of the values."""
    return {key: service.get("logicalName", key) for key, service in (values.get("services") or {}).items()}
