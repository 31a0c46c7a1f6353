"""Reads YAML into values that know their places.

The document is built from parser events rather than nodes, so that depth and the growth of aliases are bounded while reading.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from ._marks import ComposeError, Map, Mark, Path, Problem, Seq
from ._scalars import Timestamp, resolve

__all__ = ("Document", "read_documents")

#: Deeper than any Compose file, and shallow enough for the recursion in every later step.
MAX_DEPTH = 100
#: Values that a file may hold once its aliases are written out.
MAX_VALUES = 2_000_000
#: Values that aliases alone may add.
MAX_ALIASED = 100_000

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CORE = "tag:yaml.org,2002:"
_RESET = "!reset"
_OVERRIDE = "!override"


class Document:
    """One YAML document: its value, and the paths that ``!reset`` and ``!override`` clear in what came before."""

    __slots__ = ("cleared", "value")

    def __init__(self, value: Any, cleared: list[Path]) -> None:
        self.value = value
        self.cleared = cleared


class _Dropped:
    """What stands for a value that ``!reset`` takes away."""


_DROPPED = _Dropped()


class _Anchor:
    __slots__ = ("cleared", "size", "value")

    def __init__(self) -> None:
        self.value: Any = None
        self.size = -1
        self.cleared: list[Path] = []


def read_documents(text: str | bytes, file: str, *, plain: Callable[[str], Any] = resolve) -> list[Document]:
    """Read all documents of a file that are not empty.

    Args:
        plain: What a plain scalar means; programs differ in that.

    Raises:
        ComposeError: It is not YAML, uses a key twice, a key is no string, or it grows beyond bounds.
    """
    try:
        return list(_Reader(text, file, plain).documents())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Mark(file, mark.line + 1, mark.column + 1) if mark else Mark(file, 0, 0)
        raise ComposeError([Problem(place, (), f"not YAML: {error.problem or error.context}")]) from None
    except yaml.YAMLError as error:
        raise ComposeError([Problem(Mark(file, 0, 0), (), f"not YAML: {str(error).splitlines()[0]}")]) from None
    except UnicodeDecodeError:
        raise ComposeError([Problem(Mark(file, 0, 0), (), "not YAML: it is not UTF-8 text")]) from None


class _Reader:
    def __init__(self, text: str | bytes, file: str, plain: Callable[[str], Any]) -> None:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        self.plain = plain
        self.parser = _Base(text)
        self.file = file
        self.count = 0
        self.aliased = 0
        self.anchors: dict[str, _Anchor] = {}
        self.cleared: list[Path] = []

    def documents(self) -> Iterator[Document]:
        parser = self.parser
        while True:
            event = parser.get_event()
            if isinstance(event, yaml.StreamEndEvent):
                return
            if not isinstance(event, yaml.DocumentStartEvent):
                continue
            self.anchors, self.cleared = {}, []
            value = self.value(parser.get_event(), (), 0)
            if value is not None and value is not _DROPPED:
                yield Document(value, self.cleared)

    def mark(self, event: Any) -> Mark:
        start = event.start_mark
        return Mark(self.file, start.line + 1, start.column + 1)

    def fail(self, mark: Mark, path: Path, message: str) -> ComposeError:
        return ComposeError([Problem(mark, path, message)])

    def value(self, event: Any, path: Path, depth: int) -> Any:
        """Build the value that begins with this event."""
        self.count += 1
        if depth > MAX_DEPTH or self.count + self.aliased > MAX_VALUES:
            what = f"more than {MAX_DEPTH} levels deep" if depth > MAX_DEPTH else f"more than {MAX_VALUES} values"
            raise self.fail(self.mark(event), path[:4], f"the file is {what}")
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event, path)
        anchor = self.anchors.setdefault(event.anchor, _Anchor()) if event.anchor else None
        if anchor is not None:
            anchor = self.anchors[event.anchor] = _Anchor()
        before, cleared = self.count + self.aliased, len(self.cleared)
        tag = event.tag or ""
        if tag in (_RESET, _OVERRIDE):
            self.cleared.append(path)
        if isinstance(event, yaml.ScalarEvent):
            value = self.scalar(event, tag, path)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self.sequence(event, path, depth)
        else:
            value = self.mapping(event, path, depth)
        if anchor is not None:
            anchor.value, anchor.size = value, self.count + self.aliased - before + 1
            anchor.cleared = [found[len(path) :] for found in self.cleared[cleared:]]
        return _DROPPED if tag == _RESET else value

    def alias(self, event: Any, path: Path) -> Any:
        anchor = self.anchors.get(event.anchor)
        if anchor is None:
            raise self.fail(self.mark(event), path, f"unknown anchor {event.anchor!r}")
        if anchor.size < 0:
            raise self.fail(self.mark(event), path, f"anchor {event.anchor!r} contains itself")
        self.aliased += anchor.size
        if self.aliased > MAX_ALIASED:
            raise self.fail(self.mark(event), path[:4], f"aliases add more than {MAX_ALIASED} values to the file")
        self.cleared += [(*path, *tail) for tail in anchor.cleared]
        return anchor.value

    def scalar(self, event: Any, tag: str, path: Path) -> Any:
        text: str = event.value
        if tag.startswith("!"):
            return text
        if not tag:
            value = self.plain(text) if event.style in (None, "") else text
        else:
            value = self.tagged(event, tag.removeprefix(_CORE), text, path)
        if isinstance(value, float) and not math.isfinite(value):
            raise self.fail(self.mark(event), path, f"{text} is no number that a Compose file can hold")
        return value

    def tagged(self, event: Any, tag: str, text: str, path: Path) -> Any:
        if tag == "str":
            return text
        value = self.plain(text)
        if tag == "float" and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        kinds = {"int": int, "float": float, "bool": bool, "null": type(None), "timestamp": Timestamp}
        if tag in kinds and isinstance(value, kinds[tag]):
            return value
        raise self.fail(self.mark(event), path, f"{text!r} is no !!{tag}")

    def sequence(self, event: Any, path: Path, depth: int) -> Seq:
        result = Seq((), self.mark(event))
        parser = self.parser
        while not isinstance(item := parser.get_event(), yaml.SequenceEndEvent):
            mark = self.mark(item)
            value = self.value(item, (*path, len(result)), depth + 1)
            if value is not _DROPPED:
                result.add(value, mark)
        return result

    def mapping(self, event: Any, path: Path, depth: int) -> Map:
        result = Map((), self.mark(event))
        merged: list[tuple[Any, Mark]] = []
        parser = self.parser
        while not isinstance(item := parser.get_event(), yaml.MappingEndEvent):
            mark = self.mark(item)
            key = self.value(item, path, depth + 1)
            if key == "<<" and isinstance(item, yaml.ScalarEvent) and item.style in (None, ""):
                if merged:
                    raise self.fail(mark, (*path, key), f"is there twice, first in line {merged[0][1].line}")
                merged.append((self.value(parser.get_event(), path, depth + 1), mark))
                continue
            if not isinstance(key, str) or isinstance(key, Timestamp):
                raise self.fail(mark, path, f"the key {_shown(key)} is not a string; put it in quotes")
            if key in result:
                first = result.marks[key]
                raise self.fail(mark, (*path, key), f"is there twice, first in line {first.line}")
            result.marks[key] = mark
            result[key] = self.value(parser.get_event(), (*path, key), depth + 1)
        for value, mark in merged:
            self.merge(result, value, mark, path)
        for key in [key for key, value in result.items() if value is _DROPPED]:
            del result[key]
        return result

    def merge(self, result: Map, value: Any, mark: Mark, path: Path) -> None:
        sources = value if isinstance(value, Seq) else [value]
        for source in sources:
            if not isinstance(source, Map):
                raise self.fail(mark, path, "'<<' takes a mapping or a list of mappings")
            self.aliased += len(source)
            for key, item in source.items():
                if key not in result:
                    result.put(key, item, source.mark_of(key))


def _shown(key: Any) -> str:
    if key is None:
        return "null"
    return str(key).lower() if isinstance(key, bool) else str(key) if isinstance(key, (int, float)) else repr(key)[:40]
