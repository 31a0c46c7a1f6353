"""Values that remember where they stood in a file, and the problems that are found with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = ("NOWHERE", "ComposeError", "Map", "Mark", "Path", "Problem", "Problems", "Seq", "clone", "dotted", "locate")

#: Nobody reads more than this at once.
MAX_PROBLEMS = 500
#: Keys and list positions from the top of the document.
Path = tuple[str | int, ...]


class Mark(NamedTuple):
    """A place in a file; line and column count from 1, and are 0 where there is none."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


NOWHERE = Mark("", 0, 0)


class Map(dict[str, Any]):
    """A mapping that knows its own place, and that of each of its keys."""

    __slots__ = ("mark", "marks")

    def __init__(self, items: Any = (), mark: Mark = NOWHERE, marks: dict[str, Mark] | None = None) -> None:
        super().__init__(items)
        self.mark = mark
        self.marks: dict[str, Mark] = {} if marks is None else marks

    def put(self, key: str, value: Any, mark: Mark) -> None:
        """Set a key together with its place."""
        self[key] = value
        self.marks[key] = mark

    def mark_of(self, key: str) -> Mark:
        """Tell where a key stands; the mapping's own place for one that was added."""
        return self.marks.get(key, self.mark)


class Seq(list[Any]):
    """A list that knows its own place, and that of each of its items."""

    __slots__ = ("mark", "marks")

    def __init__(self, items: Iterable[Any] = (), mark: Mark = NOWHERE, marks: list[Mark] | None = None) -> None:
        super().__init__(items)
        self.mark = mark
        self.marks: list[Mark] = [mark] * len(self) if marks is None else marks

    def add(self, value: Any, mark: Mark) -> None:
        """Append an item together with its place."""
        self.append(value)
        self.marks.append(mark)

    def pairs(self) -> Iterable[tuple[Any, Mark]]:
        """Yield every item with its place."""
        return zip(self, self.marks, strict=True)


def clone(value: Any) -> Any:
    """Copy a tree so that nothing of it is shared; scalars and places are."""
    if isinstance(value, Map):
        return Map({key: clone(item) for key, item in value.items()}, value.mark, dict(value.marks))
    if isinstance(value, Seq):
        return Seq([clone(item) for item in value], value.mark, list(value.marks))
    return value


def locate(tree: Any, path: Sequence[str | int]) -> Mark:
    """Tell where a path stands: the deepest part of it that has a place."""
    mark: Mark = getattr(tree, "mark", NOWHERE)
    for part in path:
        if isinstance(tree, Map):
            found = tree.mark_of(str(part))
            if part not in tree:
                return mark if found is tree.mark and mark.line else found
            tree = tree[str(part)]
        elif isinstance(tree, Seq) and isinstance(part, int) and part < len(tree):
            found, tree = tree.marks[part], tree[part]
        else:
            return mark
        if found.line:
            mark = found
    return mark


def dotted(path: Sequence[str | int]) -> str:
    """Write a path the way that error messages show it: ``services.web.ports[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a document."""

    mark: Mark
    path: Path
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (str(self.mark), dotted(self.path), self.message) if part)


@dataclass
class Problems:
    """Everything that is wrong so far; nothing stops at the first."""

    found: list[Problem] = field(default_factory=list)

    def add(self, mark: Mark, path: Sequence[str | int], message: str) -> None:
        """Note a problem; one that was noted already is not noted again."""
        if len(self.found) >= MAX_PROBLEMS:
            return
        problem = Problem(mark, tuple(path), message)
        if problem not in self.found[-50:]:
            self.found.append(problem)

    def at(self, tree: Any, path: Sequence[str | int], message: str) -> None:
        """Note a problem with what stands at a path of the tree."""
        self.add(locate(tree, path), path, message)

    def check(self) -> None:
        """Raise what was found, all of it.

        Raises:
            ComposeError: There was something.
        """
        if self.found:
            raise ComposeError(self.found)


class ComposeError(Exception):
    """The documents can't be loaded; ``problems`` says why. Never leaves this package: it becomes a SpecError."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)
