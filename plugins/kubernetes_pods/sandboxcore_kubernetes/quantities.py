"""Kubernetes' way of writing amounts.

Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

__all__ = ("format_bytes", "format_cpus", "parse_quantity")

_SUFFIXES = {"": 0, "n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}


def parse_quantity(text: str) -> Decimal:
    """Read an amount (``500m``, ``1Gi``, ``2e3``) as a number of its unit.

    Raises:
        ValueError: It is none.
    """
    text = text.strip()
    for suffix, power in _BINARY.items():
        if text.endswith(suffix):
            return _number(text[: -len(suffix)]) * Decimal(1024**power)
    suffix = text[-1:] if text[-1:] in _SUFFIXES and not text[-1:].isdigit() else ""
    return _number(text[: len(text) - len(suffix)]).scaleb(_SUFFIXES[suffix])


def _number(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text!r} is no amount") from None


def format_cpus(cpus: float) -> str:
    """Write a number of CPUs: whole ones plainly, else in thousandths."""
    thousandths = max(1, round(cpus * 1000)) if cpus else 0
    return str(thousandths // 1000) if thousandths % 1000 == 0 else f"{thousandths}m"


def format_bytes(size: int) -> str:
    """Write a number of bytes, with a binary suffix where it comes out even."""
    for suffix, power in reversed(_BINARY.items()):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power}{suffix}"
    return str(size)
