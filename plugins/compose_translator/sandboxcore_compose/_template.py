"""Variables in values: ``$NAME``, ``${NAME}`` and the operators ``-``, ``+`` and ``?``, each with and without a colon.

The grammar is docker compose's own (observed with 2.40.3), oddities included: a dollar that begins nothing is itself, an operand
ends at the brace that balances its own, and holds no line break.
"""

from __future__ import annotations

import re
from collections.abc import Callable

__all__ = ("InvalidTemplateError", "Lookup", "RequiredVariableError", "names", "substitute")

#: Name of a variable to its value, None where it is not set.
Lookup = Callable[[str], str | None]

#: Operands within operands; more is nobody's intention.
MAX_DEPTH = 50

_NAME = r"[_a-zA-Z][_a-zA-Z0-9]*"
_PLAIN = re.compile(rf"\$(?:(\$)|({_NAME}))")
_BRACED = re.compile(rf"\$\{{({_NAME})(?:(:?[-+?])(.*))?\}}")


class InvalidTemplateError(ValueError):
    """The text has a ``${`` that no variable follows."""


class RequiredVariableError(ValueError):
    """A variable that the text requires is not set, or empty."""


def substitute(text: str, lookup: Lookup, missing: Callable[[str], None] | None = None) -> str:
    """Replace the variables in a text.

    Args:
        missing: Is told of each variable without a value or default; it becomes an empty string.

    Raises:
        InvalidTemplateError: The text is no template.
        RequiredVariableError: A variable with ``?`` has no value; the message is the author's.
    """
    return _Substitution(lookup, missing).text(text, 0) if "$" in text else text


class _Substitution:
    def __init__(self, lookup: Lookup, missing: Callable[[str], None] | None) -> None:
        self.lookup = lookup
        self.missing = missing

    def text(self, text: str, depth: int) -> str:
        if depth > MAX_DEPTH:
            raise InvalidTemplateError(text)
        parts: list[str] = []
        at = 0
        while (dollar := text.find("$", at)) >= 0:
            parts.append(text[at:dollar])
            if text.startswith("${", dollar):
                value, at = self.braced(text, dollar, depth)
                parts.append(value)
            elif match := _PLAIN.match(text, dollar):
                at = match.end()
                parts.append("$" if match[1] else self.value(match[2]))
            else:
                parts.append("$")
                at = dollar + 1
        parts.append(text[at:])
        return "".join(parts)

    def value(self, name: str) -> str:
        value = self.lookup(name)
        if value is None and self.missing is not None:
            self.missing(name)
        return value or ""

    def braced(self, text: str, at: int, depth: int) -> tuple[str, int]:
        match = _BRACED.match(text, at)
        if match is None:
            raise InvalidTemplateError(text[at:])
        name, operator, operand = match[1], match[2], match[3]
        end = match.end()
        if operator is None:
            return self.value(name), end
        closing = _closing_brace(text, at)
        if 0 <= closing < end:
            end = closing + 1
            operand = text[match.start(3) : closing]
        return self.operate(name, operator, operand, depth), end

    def operate(self, name: str, operator: str, operand: str, depth: int) -> str:
        value = self.lookup(name)
        present = bool(value) if operator[0] == ":" else value is not None
        if operator[-1] == "-":
            return (value or "") if present else self.text(operand, depth + 1)
        if operator[-1] == "+":
            return self.text(operand, depth + 1) if present else ""
        if not present:
            reason = self.text(operand, depth + 1)
            raise RequiredVariableError(f"variable {name} is required" + (f": {reason}" if reason else ", and has no value"))
        return value or ""


def _closing_brace(text: str, at: int) -> int:
    depth = 0
    for index in range(at, len(text)):
        if text[index] == "{":
            depth += 1
        elif text[index] == "}":
            depth -= 1
            if depth == 0:
                return index
    return -1


def names(text: str) -> set[str]:
    """List the variables that a text could use, nested ones included."""
    return set(re.findall(rf"\$\{{?({_NAME})", text)) if "$" in text else set()
