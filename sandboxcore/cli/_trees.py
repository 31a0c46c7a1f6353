"""What a copy goes from and to: a root, and what is below it."""

from __future__ import annotations

import posixpath
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

__all__ = ("BLOCK_BYTES", "OWNER_ALL", "Entry", "Kind", "Tree")

Kind = Literal["file", "directory", "symlink", "other"]

BLOCK_BYTES = 1 << 20
#: What a directory's owner needs while things are put into it.
OWNER_ALL = 0o700


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file of a tree; ``path`` is relative to the root of the copy, empty for the root itself."""

    path: str
    kind: Kind
    mode: int
    size_bytes: int = 0
    target: str = ""


class Tree(ABC):
    """A root, and what is below it. Paths are relative to the root; the empty one is the root itself."""

    def __init__(self, root: str) -> None:
        self.root = root

    def at(self, path: str) -> str:
        """Tell the whole path."""
        return posixpath.join(self.root, path) if path else self.root

    @abstractmethod
    async def look(self, path: str = "", *, follow: bool = False) -> Entry | None:
        """Describe a file; None where there is none."""

    @abstractmethod
    async def names(self, path: str) -> Sequence[Entry]:
        """List a directory."""

    @abstractmethod
    def read(self, path: str) -> AsyncGenerator[bytes, None]:
        """Yield a file's bytes."""

    @abstractmethod
    async def write(self, path: str, blocks: AsyncIterator[bytes], mode: int | None) -> None:
        """Write a file: all of it or nothing. ``mode`` None is that of a new file, or of the one that is overwritten."""

    @abstractmethod
    async def make_directory(self, path: str, mode: int) -> None:
        """Make a directory that can be written into for now; one that exists is no error."""

    @abstractmethod
    async def make_link(self, path: str, target: str) -> None:
        """Make a symbolic link; it takes the place of a file or link."""

    @abstractmethod
    async def set_mode(self, path: str, mode: int) -> None:
        """Set the mode of a directory."""
