"""What a plain YAML scalar means to docker compose.

Its YAML library follows neither YAML 1.1 nor 1.2 to the letter: ``yes`` and ``22:22`` are strings, ``017`` and ``0o17`` are
fifteen, ``1e3`` is a number, ``2001-01-02`` is a date (observed with docker compose 2.40.3).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

__all__ = ("Timestamp", "go_text", "resolve")

_CONSTANTS: dict[str, Any] = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
    ".nan": math.nan,
    ".NaN": math.nan,
    ".NAN": math.nan,
}
_CONSTANTS |= {sign + name: math.inf for sign in ("", "+") for name in (".inf", ".Inf", ".INF")}
_CONSTANTS |= {"-" + name: -math.inf for name in (".inf", ".Inf", ".INF")}

_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_INTEGER = re.compile(r"([-+]?)(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+|0[0-7]*|[1-9][0-9]*)\Z")
_TIMESTAMP = re.compile(
    r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}"
    r"(([Tt]|[ ]+)[0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(\.[0-9]*)?([ ]*(Z|[-+][0-9]{1,2}(:?[0-9]{2})?))?)?\Z"
)
_MAY_BE_NUMBER = frozenset("+-.0123456789")


@dataclass(frozen=True, slots=True)
class Timestamp:
    """A date, which no key of a Compose file takes: it is no string."""

    text: str


def resolve(text: str) -> Any:
    """Turn a plain scalar into null, a boolean, a number, a date or the string that it is."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text[0] not in _MAY_BE_NUMBER:
        return text
    if text[0].isdigit() and len(text) >= 8 and text[4:5] == "-" and _TIMESTAMP.match(text):
        return Timestamp(text)
    plain = text.replace("_", "")
    if match := _INTEGER.match(plain):
        number = int(match[1] + "0", 10) or _magnitude(match[2])
        return _within_64_bits(-number if match[1] == "-" else number)
    if _FLOAT.match(plain) and plain:
        return float(plain)
    return text


def _magnitude(digits: str) -> int:
    if digits[:1] == "0" and digits[1:].isdigit():
        return int(digits, 8)
    return int(digits, 0)


def _within_64_bits(number: int) -> int | float:
    return number if -(1 << 63) <= number < 1 << 64 else float(number)


def go_text(value: Any) -> str:
    """Write a scalar the way docker compose puts it into an environment variable or label: ``1e+06``, ``true``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _go_float(value)
    return value.text if isinstance(value, Timestamp) else "" if value is None else str(value)


def _go_float(value: float) -> str:
    for precision in range(17):
        text = f"{value:.{precision}e}"
        if float(text) == value:
            break
    mantissa, _, exponent = text.partition("e")
    power = int(exponent)
    # Go writes the shortest digits that mean the number, with an exponent from a million on.
    if -4 <= power < 6 or value == 0:
        return f"{value:.{max(precision - power, 0)}f}"
    return f"{mantissa}e{'-' if power < 0 else '+'}{abs(power):02d}"
