"""A tree in a sandbox."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from ..errors import SandboxError
from ._trees import BLOCK_BYTES, OWNER_ALL, Entry, Tree

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    from ..environment import Sandbox
    from ..values import FileInfo

__all__ = ("SandboxTree",)


class SandboxTree(Tree):
    """A tree in a sandbox. What it says of itself may be a lie, so no name that it lists may lead out of its directory."""

    def __init__(self, sandbox: Sandbox, root: str) -> None:
        super().__init__(root)
        self._sandbox = sandbox

    async def look(self, path: str = "", *, follow: bool = False) -> Entry | None:
        try:
            return _entry(path, await self._sandbox.stat(self.at(path), follow=follow))
        except (FileNotFoundError, NotADirectoryError):
            return None

    async def names(self, path: str) -> Sequence[Entry]:
        seen: set[str] = set()
        for info in (listed := await self._sandbox.list_dir(self.at(path))):
            if info.name in ("", ".", "..") or "/" in info.name or "\0" in info.name or info.name in seen:
                raise SandboxError(f"{self.at(path)}: the sandbox listed a name that no file there can have: {info.name!r}")
            seen.add(info.name)
        return [_entry(posixpath.join(path, info.name), info) for info in listed]

    async def read(self, path: str) -> AsyncGenerator[bytes, None]:
        async with await self._sandbox.open_read(self.at(path)) as reader:
            while data := await reader.read(BLOCK_BYTES):
                yield data

    async def write(self, path: str, blocks: AsyncIterator[bytes], mode: int | None) -> None:
        async with await self._sandbox.open_write(self.at(path), mode=mode) as writer:
            async for data in blocks:
                await writer.write(data)

    async def make_directory(self, path: str, mode: int) -> None:
        await self._sandbox.make_dir(self.at(path), mode=mode | OWNER_ALL)

    async def make_link(self, path: str, target: str) -> None:
        await self._run(path, "ln", "-sfn", "--", target, self.at(path))

    async def set_mode(self, path: str, mode: int) -> None:
        await self._run(path, "chmod", f"{mode:o}", "--", self.at(path))

    async def _run(self, path: str, *argv: str) -> None:
        # The file store makes no links and sets no modes of directories that exist: the sandbox's own programs have to.
        result = await self._sandbox.exec(argv)
        if not result.ok:
            reason = result.error_text().strip() or f"{argv[0]} ended with exit code {result.exit_code}"
            raise SandboxError(
                f"{self.at(path)}: {reason}", hint=f"links and read-only directories need {argv[0]!r} in the sandbox"
            )


def _entry(path: str, info: FileInfo) -> Entry:
    return Entry(path=path, kind=info.type, mode=info.mode & 0o7777, size_bytes=info.size_bytes, target=info.target)
