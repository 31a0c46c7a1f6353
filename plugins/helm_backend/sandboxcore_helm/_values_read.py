"""Reads values files so that every problem can name its line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sandboxcore.errors import SpecError
from sandboxcore_compose.documents import ComposeError, Map, Mark, Problem, Seq, read_documents, spec_error

from ._goyaml import plain_scalar

__all__ = ("HiddenValues", "plain_values", "read_values_files")


def read_values_files(paths: Sequence[Path]) -> Map:
    """Read values files, each further one laid over those before as Helm does it.

    Raises:
        SpecError: With file, line and column.
    """
    merged = Map((), Mark(str(paths[0]) if paths else "", 1, 1))
    for path in paths:
        _lay_over(merged, _read(path))
    return merged


def _read(path: Path) -> Map:
    name = str(path)
    try:
        documents = read_documents(path.read_bytes(), name, plain=plain_scalar)
    except OSError as error:
        raise SpecError(f"{name}: can't be read: {error.strerror}") from None
    except ComposeError as error:
        raise spec_error(error.problems) from None
    if not documents:
        return Map((), Mark(name, 1, 1))
    value = documents[0].value
    problem = ""
    if len(documents) > 1:
        problem = "there is more than one document; values are one mapping"
    elif not isinstance(value, Map):
        problem = "values are a mapping"
    if problem:
        raise spec_error([Problem(Mark(name, 1, 1), (), problem)])
    assert isinstance(value, Map)
    return value


def _lay_over(under: Map, over: Map) -> None:
    """Merge mappings key by key; whatever else there is takes the place of what was there, null as well."""
    for key, value in over.items():
        below = under.get(key)
        if isinstance(below, Map) and isinstance(value, Map):
            _lay_over(below, value)
        else:
            under.put(key, value, over.mark_of(key))


class HiddenValues(dict[str, Any]):
    """Values that don't show what they hold: there are variables and files among them."""

    def __repr__(self) -> str:
        return f"{{{', '.join(map(repr, self))}}}"


def plain_values(value: Any) -> Any:
    """Copy values into plain dicts and lists."""
    if isinstance(value, dict):
        return {key: plain_values(inner) for key, inner in value.items()}
    if isinstance(value, (list, Seq)):
        return [plain_values(inner) for inner in value]
    return value
