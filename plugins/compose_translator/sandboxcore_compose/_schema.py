"""Checks a document against the schema of the Compose Specification.

A check of our own answers yes or no in well under a millisecond; only for a document that fails it does ``jsonschema`` go to
work, to say what is wrong.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from importlib import resources
from typing import Any

from ._marks import Path, Problems, locate

__all__ = ("explain", "nearest", "schema", "validate")

#: Problems of one file that are looked for; a file with more is not worth the time.
MAX_PROBLEMS = 200

_Check = Callable[[Any], bool]


@functools.cache
def schema() -> dict[str, Any]:
    """Return the schema, read once."""
    text = resources.files(__package__).joinpath("schema", "compose-spec.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def validate(document: Any, problems: Problems) -> bool:
    """Note everything in the document that the schema does not allow; True when there is nothing."""
    if _compiled()(document):
        return True
    for path, message in itertools.islice(_messages(document), MAX_PROBLEMS):
        problems.add(locate(document, path), path, message)
    return False


def nearest(name: str, known: Iterable[str]) -> str:
    """Write ``(did you mean ...?)`` for the nearest known name, or nothing where none is near."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {found[0]!r}?)" if found else ""


@functools.cache
def _compiled() -> _Check:
    root = schema()
    references: dict[str, _Check] = {}

    def referenced(name: str) -> _Check:
        return lambda value: references[name](value)

    for name, definition in root["definitions"].items():
        references[f"#/definitions/{name}"] = _compile(definition, referenced)
    return _compile(root, referenced)


_TYPES: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "integer": lambda value: (
        (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())
    ),
}


def _compile(part: Mapping[str, Any], referenced: Callable[[str], _Check]) -> _Check:
    checks: list[_Check] = []
    for word, value in part.items():
        make = _WORDS.get(word)
        if make is not None:
            checks.append(make(value, part, referenced))
    if len(checks) == 1:
        return checks[0]
    return lambda value: all(check(value) for check in checks)


def _type(value: Any, part: Mapping[str, Any], referenced: Callable[[str], _Check]) -> _Check:
    kinds = tuple(_TYPES[kind] for kind in ([value] if isinstance(value, str) else value))
    if len(kinds) == 1:
        return kinds[0]
    return lambda item: any(kind(item) for kind in kinds)


def _properties(value: Any, part: Mapping[str, Any], referenced: Callable[[str], _Check]) -> _Check:
    named = {name: _compile(child, referenced) for name, child in part.get("properties", {}).items()}
    patterns = [
        (re.compile(text).search, _compile(child, referenced)) for text, child in part.get("patternProperties", {}).items()
    ]
    closed = part.get("additionalProperties") is False

    def check(item: Any) -> bool:
        if not isinstance(item, dict):
            return True
        for key, child in item.items():
            known = named.get(key)
            if known is not None and not known(child):
                return False
            matched = known is not None
            for search, below in patterns:
                if search(key):
                    matched = True
                    if not below(child):
                        return False
            if closed and not matched:
                return False
        return True

    return check


def _pattern_properties(value: Any, part: Mapping[str, Any], referenced: Callable[[str], _Check]) -> _Check:
    return (lambda item: True) if "properties" in part else _properties(value, part, referenced)


def _items(value: Any, part: Mapping[str, Any], referenced: Callable[[str], _Check]) -> _Check:
    each = _compile(value, referenced)
    return lambda item: not isinstance(item, list) or all(each(child) for child in item)


def _unique(value: Any, part: Mapping[str, Any], referenced: Callable[[str], _Check]) -> _Check:
    def check(item: Any) -> bool:
        if not value or not isinstance(item, list) or len(item) < 2:
            return True
        keys = {json.dumps(child, sort_keys=True, default=repr) for child in item}
        return len(keys) == len(item)

    return check


def _one_of(value: Any, part: Mapping[str, Any], referenced: Callable[[str], _Check]) -> _Check:
    choices = [_compile(child, referenced) for child in value]
    return lambda item: sum(1 for choice in choices if choice(item)) == 1


_WORDS: dict[str, Callable[[Any, Mapping[str, Any], Callable[[str], _Check]], _Check]] = {
    "type": _type,
    "properties": _properties,
    "patternProperties": _pattern_properties,
    "items": _items,
    "uniqueItems": _unique,
    "oneOf": _one_of,
    "$ref": lambda value, part, referenced: referenced(value),
    "required": lambda value, part, referenced: lambda item: not isinstance(item, dict) or all(name in item for name in value),
    "enum": lambda value, part, referenced: lambda item: item in value,
    "pattern": lambda value, part, referenced: lambda item: not isinstance(item, str) or bool(re.search(value, item)),
    "minimum": lambda value, part, referenced: lambda item: not _TYPES["number"](item) or item >= value,
    "maximum": lambda value, part, referenced: lambda item: not _TYPES["number"](item) or item <= value,
}


@functools.cache
def _validator() -> Any:
    from jsonschema import Draft7Validator, ValidationError
    from jsonschema.validators import extend

    def unique(validator: Any, wanted: Any, instance: Any, part: Any) -> Iterable[Any]:
        # The library's own compares each item with each other one.
        if not _unique(wanted, part, lambda name: lambda value: True)(instance):
            yield ValidationError("not unique")

    checker: Any = extend(Draft7Validator, {"uniqueItems": unique})  # type: ignore[no-untyped-call]
    return checker(schema())


def _messages(document: Any) -> Iterable[tuple[Path, str]]:
    nothing = True
    for error in _validator().iter_errors(document):
        for message in explain(error, ()):
            nothing = False
            yield message
    if nothing:
        yield (), "the document does not follow the Compose Specification"


def explain(error: Any, above: Path) -> Iterable[tuple[Path, str]]:
    """Say what an error of ``jsonschema`` means, and where."""
    path = (*above, *error.path)
    if error.validator == "oneOf" and error.context:
        yield from _explain_choice(error, path)
    elif error.validator == "additionalProperties":
        known = tuple(error.schema.get("properties", ()))
        patterns = tuple(error.schema.get("patternProperties", ()))
        for name in error.instance:
            if name not in known and not any(re.search(pattern, name) for pattern in patterns):
                yield (*path, name), f"unknown key{nearest(name, known)}" if known else "not a valid name here"
    else:
        yield path, _say(error)


def _explain_choice(error: Any, path: Path) -> Iterable[tuple[Path, str]]:
    branches: dict[int, list[Any]] = {}
    for child in error.context:
        branches.setdefault(child.schema_path[0], []).append(child)
    fitting = [found for found in branches.values() if not any(child.validator == "type" and not child.path for child in found)]
    if fitting:
        for child in min(fitting, key=len):
            yield from explain(child, path)
        return
    kinds = sorted({kind for found in branches.values() for child in found if not child.path for kind in _kinds(child)})
    yield path, f"must be {_either(kinds)}, not {_shown(error.instance)}"


def _kinds(error: Any) -> list[str]:
    kinds = error.validator_value
    return [kinds] if isinstance(kinds, str) else list(kinds)


_NAMES = {"object": "a mapping", "array": "a list", "string": "a string", "number": "a number", "integer": "a whole number"}
_NAMES |= {"boolean": "true or false", "null": "nothing"}


def _either(kinds: Iterable[str]) -> str:
    return " or ".join(_NAMES.get(kind, kind) for kind in kinds)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return "a string"
    return str(value).lower() if isinstance(value, bool) else f"the number {value}"


def _say(error: Any) -> str:
    if error.validator == "type":
        return f"must be {_either(_kinds(error))}, not {_shown(error.instance)}"
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        return f"lacks {' and '.join(repr(name) for name in missing)}"
    if error.validator == "enum":
        near = nearest(str(error.instance), map(str, error.validator_value))
        return f"must be one of {', '.join(map(str, error.validator_value))}{near}"
    if error.validator == "uniqueItems":
        return "holds the same item twice"
    if error.validator == "pattern":
        return f"does not match {error.validator_value}"
    if error.validator in ("minimum", "maximum"):
        return f"must be {'at least' if error.validator == 'minimum' else 'at most'} {error.validator_value}"
    return "is not allowed here"
