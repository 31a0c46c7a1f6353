"""Durations, sizes, numbers and command lines, read and written as docker compose does it."""

from __future__ import annotations

import math
import re
import struct

__all__ = ("format_duration", "parse_bytes", "parse_duration", "parse_number", "single_precision", "split_command")

_DURATION = re.compile(r"([-+]?)((?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|μs|ms|[smhdw]))+\Z")
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|[smhdw])")
_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
    "w": 604_800_000_000_000,
}
_POWERS = {letter: 1024**power for power, letter in enumerate("bkmgtp")}


def parse_duration(text: str) -> int:
    """Read a duration such as ``1m30s`` as nanoseconds.

    Raises:
        ValueError: It is none.
    """
    match = _DURATION.match(text)
    if text == "0":
        return 0
    if match is None:
        raise ValueError(f"{text!r} is not a duration; write a number with ns, us, ms, s, m, h, d or w, such as '1m30s'")
    total = 0
    for number, unit in _PART.findall(text):
        whole, _, fraction = number.partition(".")
        scale = _NANOSECONDS[unit]
        total += int(whole or 0) * scale + int(int(fraction or 0) * scale // 10 ** len(fraction))
    if total >= 1 << 63:
        raise ValueError(f"{text!r} is longer than a duration can be")
    return -total if match[1] == "-" else total


def format_duration(nanoseconds: int) -> str:
    """Write a duration the way Go does: ``1m30s``, ``1.5s``, ``500ms``, ``0s``."""
    if nanoseconds == 0:
        return "0s"
    sign, value = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if value < 1_000_000_000:
        for unit, scale in (("ms", 1_000_000), ("µs", 1_000), ("ns", 1)):
            if value >= scale:
                return f"{sign}{_decimal(value, scale)}{unit}"
    minutes, rest = divmod(value, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(rest, 1_000_000_000)}s"
    if hours:
        text = f"{hours}h{minutes}m{text}"
    elif minutes:
        text = f"{minutes}m{text}"
    return sign + text


def _decimal(value: int, scale: int) -> str:
    whole, rest = divmod(value, scale)
    if not rest:
        return str(whole)
    return f"{whole}.{str(rest).zfill(len(str(scale)) - 1).rstrip('0')}"


def parse_number(text: str) -> float:
    """Read a number by Go's rules: decimal or hexadecimal, underscores between digits, no blanks.

    Raises:
        ValueError: It is none.
    """
    if text != text.strip() or not text.isascii():
        raise ValueError(f"{text!r} is not a number")
    try:
        hexadecimal = text.lstrip("+-")[:2].lower() == "0x"
        return float.fromhex(text) if hexadecimal and "p" in text.lower() else float(text)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is not a number") from None


def parse_bytes(text: str) -> int:
    """Read a size such as ``1.5g`` as bytes; a unit is a power of 1024, with or without ``i`` and ``b``, in any case.

    Raises:
        ValueError: It is none.
    """
    last = max((text.rfind(character) for character in "0123456789. "), default=-1)
    number, unit = (text[:last], text[last + 1 :]) if text[last : last + 1] == " " else (text[: last + 1], text[last + 1 :])
    unit = unit.lower()
    known = unit in ("", "b") or (unit[0] in "kmgtp" and unit[1:] in ("", "b", "ib"))
    try:
        value = parse_number(number)
    except ValueError:
        known = False
    if last < 0 or not known or not 0 <= value < math.inf:
        raise ValueError(f"{text!r} is not a size; write a number with b, k, m, g, t or p, such as '512m'")
    return int(value * _POWERS[unit[:1] or "b"])


def single_precision(value: float) -> float:
    """Round to what 32 bits hold, and pick the shortest number that means the same: docker compose keeps CPU counts so."""
    try:
        packed: float = struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError as error:
        raise ValueError(f"{value!r} is too large a number") from error
    for digits in range(1, 10):
        shorter = float(f"{packed:.{digits}g}")
        if struct.unpack("f", struct.pack("f", shorter))[0] == packed:
            return shorter
    return packed


def split_command(text: str) -> tuple[list[str], str]:
    """Split a command line into words, with quotes and backslashes.

    docker compose drops everything from an unquoted ``;``, ``&``, ``|``, ``<`` or ``>`` on.

    Returns:
        The words, and the rest that is dropped.

    Raises:
        ValueError: A quote or bracket has no end, or a bracket stands where only a shell could read it.
    """
    words = _Words(text)
    for index, character in enumerate(text):
        if words.take(index, character):
            break
    return words.finish()


class _Words:
    """A command line that is read character by character."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.words: list[str] = []
        self.word: list[str] = []
        self.started = False
        self.escaped = False
        self.quote = ""
        self.cut = -1

    def take(self, index: int, character: str) -> bool:
        """Read on; True where the rest is dropped."""
        if self.escaped:
            self.keep(character)
            self.escaped = False
        elif character == "\\" and self.quote != "'":
            self.escaped = True
        elif self.quote:
            self.quoted(character)
        elif character in " \t\r\n":
            self.end_word()
        elif character in "\"'":
            self.quote, self.started = character, True
        elif character == "`" or (character == "(" and self.word and self.word[-1] == "$"):
            self.quote = "`" if character == "`" else ")"
            self.keep(character)
        elif character in "()":
            raise ValueError(f"a shell would read the {character!r} in the command; write it as ['sh', '-c', '...']")
        elif character in ";&|<>":
            if character == ">" and self.word and self.word[0].isdigit():
                self.word, self.started = [], False
            self.cut = index
            return True
        else:
            self.keep(character)
        return False

    def quoted(self, character: str) -> None:
        if character != self.quote:
            self.word.append(character)
            return
        if character in "`)":
            self.word.append(character)
        self.quote = ""

    def keep(self, character: str) -> None:
        self.word.append(character)
        self.started = True

    def end_word(self) -> None:
        if self.started:
            self.words.append("".join(self.word))
            self.word, self.started = [], False

    def finish(self) -> tuple[list[str], str]:
        if self.quote or self.escaped:
            what = (
                "a backslash at its end"
                if self.escaped
                else "a bracket without end"
                if self.quote == ")"
                else "a quote without end"
            )
            raise ValueError(f"the command has {what}")
        self.end_word()
        return self.words, self.text[self.cut :] if self.cut >= 0 else ""
