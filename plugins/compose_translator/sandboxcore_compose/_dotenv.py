"""Reads ``.env`` and ``env_file`` files by docker compose's grammar (observed with 2.40.3)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ._template import InvalidTemplateError, Lookup, RequiredVariableError, substitute

__all__ = ("DotenvError", "parse_dotenv", "parse_raw")

_BLANK = " \t\v\f\r\x85\xa0"
_NAME_EXTRA = frozenset("_.-[]")
_ESCAPE = re.compile(r"\\([abcfnrtv$\"\\]|0[0-9]{0,3})")
_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", '"': '"', "\\": "\\", "c": ""}


class DotenvError(ValueError):
    """A line makes no sense; ``line`` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def parse_raw(text: str, lookup: Lookup) -> dict[str, str]:
    """Read a file of ``format: raw``: every line is a name and a value, taken as they stand."""
    result: dict[str, str] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        stripped = line.lstrip()
        if not stripped or stripped.startswith("#"):
            continue
        name, separator, value = stripped.partition("=")
        if not name or any(character.isspace() for character in name):
            raise DotenvError(number, "a variable's name can't be empty or hold blanks")
        if separator:
            result[name] = value
        elif (inherited := lookup(name)) is not None:
            result[name] = inherited
    return result


def parse_dotenv(text: str, lookup: Lookup) -> dict[str, str]:
    """Read a file.

    Args:
        lookup: Where values that the file refers to come from; the file's own earlier lines come second.

    Raises:
        DotenvError: With the line.
    """
    return _Parser(text.removeprefix("\ufeff").replace("\r\n", "\n"), lookup).parse()


class _Parser:
    def __init__(self, text: str, lookup: Lookup) -> None:
        self.text = text
        self.at = 0
        self.outer = lookup
        self.result: dict[str, str] = {}

    def parse(self) -> dict[str, str]:
        while self.skip_to_statement():
            name, inherits = self.name()
            if inherits:
                value = self.outer(name)
                if value is not None:
                    self.result[name] = value
            else:
                self.result[name] = self.value()
        return self.result

    def fail(self, message: str, at: int | None = None) -> DotenvError:
        return DotenvError(self.text.count("\n", 0, self.at if at is None else at) + 1, message)

    def lookup(self, name: str) -> str | None:
        value = self.outer(name)
        return self.result.get(name) if value is None else value

    def skip_to_statement(self) -> bool:
        text = self.text
        while self.at < len(text):
            if text[self.at].isspace():
                self.at += 1
            elif text[self.at] == "#":
                end = text.find("\n", self.at)
                self.at = len(text) if end < 0 else end
            else:
                return True
        return False

    def name(self) -> tuple[str, bool]:
        text = self.text
        if re.compile(r"export[ \t]").match(text, self.at):
            self.at += len("export")
        while self.at < len(text) and text[self.at] in _BLANK:
            self.at += 1
        start = self.at
        for index in range(start, len(text)):
            character = text[index]
            if character in "=:\n":
                return self.named(text[start:index], index, character == "\n")
            if character not in _BLANK and character not in _NAME_EXTRA and not character.isalnum():
                raise self.fail(f"unexpected character {character!r} in a variable's name", index)
        return self.named(text[start:], len(text), True)

    def named(self, name: str, end: int, inherits: bool) -> tuple[str, bool]:
        name = name.rstrip()
        if not name:
            raise self.fail("a variable has no name")
        if " " in name or "\t" in name:
            raise self.fail("a variable's name can't hold blanks")
        self.at = end if inherits else end + 1
        return name, inherits

    def value(self) -> str:
        text = self.text
        while self.at < len(text) and text[self.at] in _BLANK:
            self.at += 1
        if self.at < len(text) and text[self.at] in "\"'":
            return self.quoted(text[self.at])
        end = text.find("\n", self.at)
        end = len(text) if end < 0 else end
        line = text[self.at : end]
        self.at = end
        return self.expand(line.partition(" #")[0].rstrip())

    def quoted(self, quote: str) -> str:
        text, start = self.text, self.at
        index = start + 1
        parts: list[str] = []
        while index < len(text):
            character = text[index]
            if character == "\\" and index + 1 < len(text):
                following = text[index + 1]
                parts.append(following if following == quote else character + following)
                index += 2
                continue
            if character == quote:
                self.at = index + 1
                value = "".join(parts)
                return self.expand(_ESCAPE.sub(_unescape, value)) if quote == '"' else value
            parts.append(character)
            index += 1
        raise self.fail("a quoted value has no end", start)

    def expand(self, value: str) -> str:
        try:
            return substitute(value, self.lookup)
        except InvalidTemplateError:
            raise self.fail("not a valid variable in the value; write $$ for a dollar sign") from None
        except RequiredVariableError as error:
            raise self.fail(str(error)) from None


def _unescape(match: re.Match[str]) -> str:
    body = match[1]
    if body == "$":
        return "$$"
    if body.startswith("0"):
        return chr(int(body, 8) & 0xFF) if body.strip("01234567") == "" else match[0]
    return _SIMPLE[body]


def merged(base: Mapping[str, str], extra: Mapping[str, str]) -> dict[str, str]:
    """Fill what the base does not say; what it says stays."""
    return {**extra, **base}
