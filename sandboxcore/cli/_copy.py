"""Copies a tree into another one: directories, then files, several at once, then links, then the directories' modes."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._trees import OWNER_ALL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from ._trees import Entry, Tree

__all__ = ("Plan", "copy", "plan")

#: Files on their way at once.
_IN_FLIGHT = 8


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What will be copied, each directory before what is in it."""

    directories: tuple[Entry, ...]
    files: tuple[Entry, ...]
    links: tuple[Entry, ...]
    skipped: tuple[Entry, ...]

    @property
    def total_bytes(self) -> int:
        """Bytes of all files."""
        return sum(entry.size_bytes for entry in self.files)


async def plan(source: Tree, root: Entry) -> Plan:
    """Walk the source. Links are not followed; what is neither file, directory nor link is skipped."""
    kinds: dict[str, list[Entry]] = {"directory": [], "file": [], "symlink": [], "other": []}
    waiting = [root]
    while waiting:
        entry = waiting.pop()
        kinds[entry.kind].append(entry)
        if entry.kind == "directory":
            waiting += await source.names(entry.path)
    return Plan(
        directories=tuple(kinds["directory"]),
        files=tuple(kinds["file"]),
        links=tuple(kinds["symlink"]),
        skipped=tuple(kinds["other"]),
    )


async def copy(plan: Plan, source: Tree, target: Tree, advance: Callable[[int], None]) -> None:
    """Carry the plan out. Files that are complete stay if a later one fails; none is ever there by half."""
    for directory in plan.directories:
        await target.make_directory(directory.path, directory.mode)
    await _transfer(plan.files, source, target, advance)
    for link in plan.links:
        await target.make_link(link.path, link.target)
    for directory in reversed(plan.directories):
        if directory.mode & OWNER_ALL != OWNER_ALL:
            await target.set_mode(directory.path, directory.mode)


async def _transfer(files: Sequence[Entry], source: Tree, target: Tree, advance: Callable[[int], None]) -> None:
    waiting = iter(files)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(_IN_FLIGHT, len(files))):
                group.create_task(_carry(waiting, source, target, advance))
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def _carry(waiting: Iterator[Entry], source: Tree, target: Tree, advance: Callable[[int], None]) -> None:
    for entry in waiting:
        async with contextlib.aclosing(source.read(entry.path)) as blocks:
            await target.write(entry.path, _counted(blocks, advance), entry.mode)


async def _counted(blocks: AsyncIterator[bytes], advance: Callable[[int], None]) -> AsyncIterator[bytes]:
    async for data in blocks:
        yield data
        advance(len(data))
