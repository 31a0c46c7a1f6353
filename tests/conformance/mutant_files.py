"""File stores that are broken in one way each."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from sandboxcore.abc import FileReader, FileStore, FileWriter
from sandboxcore.errors import SandboxFileError, SandboxFileNotFoundError
from sandboxcore.values import FileInfo


class Decorated(FileStore):
    """Does as the real one; a mutant overrides what it breaks."""

    def __init__(self, inner: FileStore) -> None:
        self.inner = inner

    async def open_read(self, path: str, *, user: str | None = None) -> FileReader:
        return await self.inner.open_read(path, user=user)

    async def open_write(self, path: str, *, mode: int | None = None, user: str | None = None) -> FileWriter:
        return await self.inner.open_write(path, mode=mode, user=user)

    async def list_dir(self, path: str, *, user: str | None = None) -> Sequence[FileInfo]:
        return await self.inner.list_dir(path, user=user)

    async def stat(self, path: str, *, follow: bool = True, user: str | None = None) -> FileInfo:
        return await self.inner.stat(path, follow=follow, user=user)

    async def remove(self, path: str, *, recursive: bool = False, user: str | None = None) -> None:
        await self.inner.remove(path, recursive=recursive, user=user)

    async def make_dir(self, path: str, *, mode: int = 0o755, parents: bool = True, user: str | None = None) -> None:
        await self.inner.make_dir(path, mode=mode, parents=parents, user=user)

    async def aclose(self) -> None:
        await self.inner.aclose()


class Writer(FileWriter):
    """Does as the real one."""

    def __init__(self, inner: FileWriter) -> None:
        self.inner = inner

    async def write(self, data: bytes) -> None:
        await self.inner.write(data)

    async def commit(self) -> None:
        await self.inner.commit()

    async def abort(self) -> None:
        await self.inner.abort()


class _Text(Writer):
    async def write(self, data: bytes) -> None:
        await self.inner.write(data.decode(errors="replace").encode())


class TextWriter(Decorated):
    async def open_write(self, path: str, *, mode: int | None = None, user: str | None = None) -> FileWriter:
        return _Text(await self.inner.open_write(path, mode=mode, user=user))


class _Collects(Writer):
    def __init__(self, inner: FileWriter) -> None:
        super().__init__(inner)
        self.data = b""

    async def write(self, data: bytes) -> None:
        self.data += data

    async def commit(self) -> None:
        await self.inner.write(self.data)
        await self.inner.commit()


class WholeInMemory(Decorated):
    async def open_write(self, path: str, *, mode: int | None = None, user: str | None = None) -> FileWriter:
        return _Collects(await self.inner.open_write(path, mode=mode, user=user))


class _InPlace(FileWriter):
    """Puts every piece under the file's name as soon as it has it."""

    def __init__(self, files: FileStore, path: str, mode: int | None, user: str | None) -> None:
        self.files, self.path, self.mode, self.user = files, path, mode, user
        self.data = b""

    async def write(self, data: bytes) -> None:
        for at in range(0, len(data), 1 << 19):
            self.data += data[at : at + (1 << 19)]
            await self.commit()

    async def commit(self) -> None:
        await self.files.write_file(self.path, self.data, mode=self.mode, user=self.user)

    async def abort(self) -> None:
        pass


class WritesInPlace(Decorated):
    async def open_write(self, path: str, *, mode: int | None = None, user: str | None = None) -> FileWriter:
        return _InPlace(self.inner, path, mode, user)


class _Commits(Writer):
    async def abort(self) -> None:
        await self.inner.commit()


class AbortCommits(Decorated):
    async def open_write(self, path: str, *, mode: int | None = None, user: str | None = None) -> FileWriter:
        return _Commits(await self.inner.open_write(path, mode=mode, user=user))


class NoParents(Decorated):
    async def open_write(self, path: str, *, mode: int | None = None, user: str | None = None) -> FileWriter:
        await self.inner.stat(posixpath.dirname(path) or ".", user=user)
        return await self.inner.open_write(path, mode=mode, user=user)


class DropsMode(Decorated):
    async def open_write(self, path: str, *, mode: int | None = None, user: str | None = None) -> FileWriter:
        return await self.inner.open_write(path, mode=0o644 if mode is None else mode, user=user)


class IgnoresMode(Decorated):
    async def open_write(self, path: str, *, mode: int | None = None, user: str | None = None) -> FileWriter:
        return await self.inner.open_write(path, user=user)


class ReplacesLinks(Decorated):
    async def open_write(self, path: str, *, mode: int | None = None, user: str | None = None) -> FileWriter:
        try:
            if (await self.inner.stat(path, follow=False, user=user)).type == "symlink":
                await self.inner.remove(path, user=user)
        except SandboxFileError:
            pass
        return await self.inner.open_write(path, mode=mode, user=user)


class NoErrno(Decorated):
    async def open_read(self, path: str, *, user: str | None = None) -> FileReader:
        try:
            return await self.inner.open_read(path, user=user)
        except SandboxFileError as error:
            raise OSError(str(error)) from None


class OneClass(Decorated):
    async def stat(self, path: str, *, follow: bool = True, user: str | None = None) -> FileInfo:
        try:
            return await self.inner.stat(path, follow=follow, user=user)
        except SandboxFileError as error:
            raise SandboxFileError(str(error), errno=error.errno or 5, filename=path) from None


class FollowsLinks(Decorated):
    async def remove(self, path: str, *, recursive: bool = False, user: str | None = None) -> None:
        if recursive:
            await self._empty(path, user)
        await self.inner.remove(path, recursive=recursive, user=user)

    async def _empty(self, path: str, user: str | None) -> None:
        for entry in await self.inner.list_dir(path, user=user):
            try:
                inside = (await self.inner.stat(entry.path, user=user)).type == "directory"
            except SandboxFileNotFoundError:
                inside = False
            if inside:
                await self._empty(entry.path, user)
            await self.inner.remove(entry.path, recursive=inside, user=user)


class Unsorted(Decorated):
    async def list_dir(self, path: str, *, user: str | None = None) -> Sequence[FileInfo]:
        return list(await self.inner.list_dir(path, user=user))[::-1]


class AlwaysFollows(Decorated):
    async def stat(self, path: str, *, follow: bool = True, user: str | None = None) -> FileInfo:
        return await self.inner.stat(path, user=user)
