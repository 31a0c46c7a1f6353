"""Tells which of the values that differ from release to release can be put into a rendering, and which have to be rendered."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ._config import LABEL_VALUE
from ._uses import more_than_written

if TYPE_CHECKING:
    from ._charts import Chart
    from ._plan import Path_
    from ._uses import Source

__all__ = ("of_place", "of_text", "sort_of_text")

#: Values of the built-in chart that it puts on objects, or asks nothing about at all.
_ONLY_WRITTEN = ("annotations", "labels", "sampleMetadata")
#: Keys of a schema that refuse no text.
_HARMLESS = frozenset(
    (
        *("$schema", "$id", "$comment", "$defs", "definitions", "title", "description", "default", "examples", "deprecated"),
        *("type", "properties", "additionalProperties", "required"),
    )
)


def sort_of_text(chart: Chart, path: Path_, text: str) -> str:
    """Name the markers that stand for a text: those of the built-in chart's labels, of several lines, or of all else."""
    if chart.built_in and path[0] == "labels":
        return "label"
    return "lines" if "\n" in text else "plain"


def of_text(chart: Chart, path: Path_, text: str) -> str:
    """Say why a text can't be put into a rendering; empty: it can."""
    if not text:
        return "a value that differs is empty"
    if sort_of_text(chart, path, text) == "label" and not re.fullmatch(LABEL_VALUE, text):
        return "a value that differs is no label's"
    if "{{" in text:
        return "a value that differs holds a template"
    if text != text.strip() or not re.sub(r"[\n\t]", "", text).isprintable():
        return "a value that differs begins or ends with blanks, or has characters that can't be printed"
    return ""


def of_place(path: Path_, chart: Chart, values: Sequence[Source]) -> str:
    """Say why texts of this place in the values can't be put into a rendering of the chart; empty: they can.

    Args:
        values: The templates in the values.
    """
    known = chart.built_in and path[0].startswith(_ONLY_WRITTEN)
    where = ".".join(path)
    if any(key.startswith("helm.sh/") for key in path):
        return f"Helm itself reads {where}"
    if chart.scan.imports:
        return f"{chart.scan.imports}: imports values, which can't be followed"
    for name, schema in chart.scan.schemas.items():
        if not known and any(not _takes_any(schema, path[start:]) for start in range(len(path))):
            return f"{name}: may refuse some texts for {where}"
    return more_than_written(path, (*_sources(chart, known), *values))


def _sources(chart: Chart, known: bool) -> list[Source]:
    return [replace(source, trusted=True) for source in chart.scan.sources] if known else list(chart.scan.sources)


def _takes_any(schema: Any, path: Path_) -> bool:
    """Tell whether a schema takes every text at a place, as far as that is plain to see."""
    if not isinstance(schema, Mapping):
        return True
    if not schema.keys() <= _HARMLESS:
        return False
    if not path:
        return True
    return _takes_any((schema.get("properties") or {}).get(path[0], schema.get("additionalProperties")), path[1:])
