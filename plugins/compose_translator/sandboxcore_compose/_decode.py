"""The kinds of value that a Compose file holds: each reads one, and gives what docker compose prints for it.

``OMIT`` stands for a value that is not printed because it says nothing (an empty string or list, a zero).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ._marks import Map, Path, Problems, Seq, locate
from ._scalars import go_text
from ._units import format_duration, parse_bytes, parse_duration, parse_number, single_precision, split_command

__all__ = (
    "OMIT",
    "Decoder",
    "Kind",
    "Struct",
    "always",
    "boolean",
    "duration",
    "integer",
    "mapping",
    "mapping_or_null",
    "maps_of",
    "number",
    "optional",
    "sequence",
    "size",
    "string",
    "strings",
)


class _Omit:
    def __repr__(self) -> str:
        return "OMIT"


OMIT = _Omit()


class Decoder:
    """Collects what can't be read while a tree is read."""

    def __init__(self, tree: Any, problems: Problems) -> None:
        self.tree = tree
        self.problems = problems

    def fail(self, path: Path, message: str) -> Any:
        self.problems.add(locate(self.tree, path), path, message)
        return OMIT


Kind = Callable[[Decoder, Any, Path], Any]


def string(decoder: Decoder, value: Any, path: Path) -> Any:
    if isinstance(value, (Map, Seq, float)):
        return decoder.fail(path, "must be a string; put it in quotes")
    return go_text(value) or OMIT


def boolean(decoder: Decoder, value: Any, path: Path) -> Any:
    if isinstance(value, str):
        if value in ("true", "1", "t", "T", "TRUE", "True"):
            return True
        if value not in ("false", "0", "f", "F", "FALSE", "False", ""):
            return decoder.fail(path, f"{value!r} is neither true nor false")
        return OMIT
    return True if value else OMIT


def integer(decoder: Decoder, value: Any, path: Path) -> Any:
    if isinstance(value, str):
        try:
            value = int(value or "0", 0)
        except ValueError:
            return decoder.fail(path, f"{value!r} is not a whole number")
    return int(value or 0) or OMIT


def strict_integer(decoder: Decoder, value: Any, path: Path) -> Any:
    if isinstance(value, str):
        return decoder.fail(path, "must be a number without quotes")
    return integer(decoder, value, path)


def number(decoder: Decoder, value: Any, path: Path) -> Any:
    try:
        found = single_precision(parse_number(value) if isinstance(value, str) else float(value or 0))
    except ValueError as error:
        return decoder.fail(path, str(error))
    return OMIT if found == 0 else int(found) if found.is_integer() else found


def size(decoder: Decoder, value: Any, path: Path) -> Any:
    # docker compose takes a number with a fraction, or one written like 1e9, for no size at all.
    found = value if isinstance(value, int) else 0
    if isinstance(value, str):
        try:
            found = parse_bytes(value)
        except ValueError as error:
            return decoder.fail(path, str(error))
    return str(int(found)) if found else OMIT


def duration(decoder: Decoder, value: Any, path: Path) -> Any:
    try:
        return format_duration(parse_duration(go_text(value)))
    except ValueError as error:
        return decoder.fail(path, str(error))


def nonzero_duration(decoder: Decoder, value: Any, path: Path) -> Any:
    text = duration(decoder, value, path)
    return OMIT if text == "0s" else text


def optional(kind: Kind, zero: Any) -> Kind:
    """A value that is printed also when it is zero, once the file gives it; null still is none."""

    def read(decoder: Decoder, value: Any, path: Path) -> Any:
        found = kind(decoder, value, path) if value is not None else OMIT
        return zero if found is OMIT and value is not None else found

    return read


def command(decoder: Decoder, value: Any, path: Path) -> Any:
    if isinstance(value, str):
        try:
            return split_command(value)[0]
        except ValueError as error:
            return decoder.fail(path, str(error))
    return None if value is None else [go_text(item) for item in value]


def strings(decoder: Decoder, value: Any, path: Path) -> Any:
    items = value if isinstance(value, (list, tuple)) else [value] if value is not None else []
    for index, item in enumerate(items):
        if isinstance(item, float):
            return decoder.fail((*path, index), "must be a string; put it in quotes")
    return [go_text(item) for item in items] or OMIT


def sequence(kind: Kind) -> Kind:
    def read(decoder: Decoder, value: Any, path: Path) -> Any:
        items = value if isinstance(value, list) else []
        found = [kind(decoder, item, (*path, index)) for index, item in enumerate(items)]
        return [{} if item is OMIT else item for item in found] or OMIT

    return read


def mapping(decoder: Decoder, value: Any, path: Path) -> Any:
    return {key: item or "" for key, item in read_mapping(value).items()} or OMIT


def mapping_or_null(decoder: Decoder, value: Any, path: Path) -> Any:
    for index, item in enumerate(value if isinstance(value, list) else ()):
        name = go_text(item).partition("=")[0]
        if name != name.rstrip():
            return decoder.fail((*path, index), f"the variable's name {name!r} ends with a blank")
    return read_mapping(value) or OMIT


def read_mapping(value: Any) -> dict[str, str | None]:
    """Read a mapping, or a list of ``key=value``; a key without a value is None."""
    if isinstance(value, dict):
        return {key: None if item is None else go_text(item) for key, item in value.items()}
    result: dict[str, str | None] = {}
    for item in value if isinstance(value, list) else ():
        name, separator, rest = go_text(item).partition("=")
        result[name] = rest if separator else None
    return result


def maps_of(kind: Kind) -> Kind:
    """A mapping from any name to one kind of value; a value that says nothing is kept as null."""

    def read(decoder: Decoder, value: Any, path: Path) -> Any:
        items = value if isinstance(value, dict) else {}
        found = {key: kind(decoder, item, (*path, key)) for key, item in items.items()}
        return {key: {} if item is OMIT else item for key, item in found.items()} or OMIT

    return read


def always(kind: Kind, empty: Any) -> Kind:
    """A value that is printed also where the file does not give it."""

    def read(decoder: Decoder, value: Any, path: Path) -> Any:
        found = kind(decoder, value, path) if value is not None else OMIT
        return empty() if found is OMIT else found

    read.printed_always = True  # type: ignore[attr-defined]
    return read


class Struct:
    """A mapping with known keys; others (extensions) are not printed."""

    def __init__(self, fields: Mapping[str, Kind], *, nullable: bool = False) -> None:
        self.fields = dict(fields)
        self.printed_always = tuple(name for name, kind in fields.items() if getattr(kind, "printed_always", None) is True)
        self.nullable = nullable

    def __call__(self, decoder: Decoder, value: Any, path: Path) -> Any:
        if value is None:
            return None if self.nullable else OMIT
        if not isinstance(value, dict):
            return decoder.fail(path, "must be a mapping")
        result: dict[str, Any] = {}
        for key, item in value.items():
            kind = self.fields.get(key)
            found = OMIT if kind is None else kind(decoder, item, (*path, key))
            if found is not OMIT:
                result[key] = found
        for key in self.printed_always:
            if key not in result:
                result[key] = self.fields[key](decoder, None, (*path, key))
        return result
