"""Reads YAML as Helm does, whose parser (Go's yaml.v2) differs from Python's in what a plain word means.

``y`` and ``on`` are booleans as keys and values, ``08`` and ``1e3`` are numbers, ``12:30:45`` and dates are text, ``0o17``
is 15, and ``=`` is a character like any other. Keys come out as the text that JSON would have.

Source: https://github.com/go-yaml/yaml/blob/v2.4.0/resolve.go
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import yaml

__all__ = ("load", "load_all", "plain_scalar")

_TRUE = frozenset(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"))
_FALSE = frozenset(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"))
_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_SPECIAL = {
    ".nan": "nan",
    ".NaN": "nan",
    ".NAN": "nan",
    **{sign + word: sign + "inf" for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")},
}
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_BASES = {"0x": 16, "0b": 2, "0o": 8}
_TAG = "tag:yaml.org,2002:"


def _integer(text: str) -> int | None:
    """Read an integer as ``strconv.ParseInt`` with base 0 does, underscores dropped; None where it is none."""
    sign = -1 if text.startswith("-") else 1
    digits = text[1:] if text[:1] in ("-", "+") else text
    base = _BASES.get(digits[:2].lower(), 8 if len(digits) > 1 and digits.startswith("0") else 10)
    body = digits[2:] if digits[:2].lower() in _BASES else digits
    if not body or not body.isascii() or not body.isalnum():
        return None
    try:
        return sign * int(body, base)
    except ValueError:
        return None


def plain_scalar(text: str) -> Any:
    """Return what a plain scalar stands for: None, a bool, an int, a float or the text itself."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if text in _SPECIAL:
        return float(_SPECIAL[text])
    if text[0] not in "+-.0123456789":
        return text
    plain = text.replace("_", "")
    number = _integer(plain) if text[0] != "." else None
    if number is not None and -(1 << 63) <= number < 1 << 64:
        return number
    return _real(plain) if _FLOAT.fullmatch(plain) else text


def _real(text: str) -> float | int:
    """Read a real number; on its way through JSON a whole one loses its point."""
    number = float(text)
    return int(number) if number.is_integer() and abs(number) < 1e21 else number


def _tag(value: object) -> str:
    kinds: tuple[tuple[type, str], ...] = ((bool, "bool"), (int, "int"), (float, "float"), (str, "str"))
    return _TAG + next((name for kind, name in kinds if isinstance(value, kind)), "null")


class _Loader(yaml.CSafeLoader):
    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is not yaml.ScalarNode or not implicit[0]:
            return super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]
        return f"{_TAG}merge" if value == "<<" else _tag(plain_scalar(value))

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        # Python takes True and 1 for one key, so they become text before they meet.
        self.flatten_mapping(node)
        pairs = ((self.construct_object(key, deep=True), value) for key, value in node.value)
        return {_key(key): self.construct_object(value, deep=deep) for key, value in pairs}


def _key(key: object) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, bool):
        return "true" if key else "false"
    if key is None:
        return "null"
    return str(key)


def _construct(read: Callable[[str], Any]) -> Callable[[Any, Any], Any]:
    return lambda loader, node: read(loader.construct_scalar(node))


for _name in ("bool", "int", "float", "null"):
    _Loader.add_constructor(_TAG + _name, _construct(plain_scalar))
_Loader.add_constructor(f"{_TAG}timestamp", _construct(str))
_Loader.add_constructor(f"{_TAG}value", _construct(str))


def load(text: str) -> Any:
    """Read one document.

    Raises:
        yaml.YAMLError: It is no YAML.
    """
    return yaml.load(text, Loader=_Loader)


def load_all(text: str) -> Iterator[Any]:
    """Read the documents of a stream; empty ones are None.

    Raises:
        yaml.YAMLError: It is no YAML.
    """
    return iter(yaml.load_all(text, Loader=_Loader))
