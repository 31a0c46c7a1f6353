"""A tree of this machine, written so that nothing that a sandbox sent can lead out of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import posixpath
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SandboxError
from ._trees import BLOCK_BYTES, OWNER_ALL, Entry, Kind, Tree

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence

__all__ = ("LocalTree",)

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
#: Neither setuid nor setgid: the files come from where nobody is trusted.
_MODE_BITS = 0o777


class LocalTree(Tree):
    """A tree of this machine. From the root on no symbolic link is followed when something is written."""

    async def look(self, path: str = "", *, follow: bool = False) -> Entry | None:
        try:
            return _entry(path, self.at(path), os.stat(self.at(path), follow_symlinks=follow))  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _failure(error, self.at(path)) from None

    async def names(self, path: str) -> Sequence[Entry]:
        with self._reporting(path), os.scandir(self.at(path)) as found:
            entries = [_entry(posixpath.join(path, one.name), one.path, one.stat(follow_symlinks=False)) for one in found]
        return sorted(entries, key=lambda entry: entry.path)

    async def read(self, path: str) -> AsyncGenerator[bytes, None]:
        with self._reporting(path):
            descriptor = os.open(self.at(path), os.O_RDONLY | os.O_CLOEXEC)
        try:
            while data := self._block(path, descriptor):
                yield data
                await asyncio.sleep(0)
        finally:
            os.close(descriptor)

    def _block(self, path: str, descriptor: int) -> bytes:
        with self._reporting(path):
            return os.read(descriptor, BLOCK_BYTES)

    async def write(self, path: str, blocks: AsyncIterator[bytes], mode: int | None) -> None:
        with self._reporting(path), self._parent(path) as (folder, name), _replacing(folder, name) as temporary:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=folder)
            try:
                async for data in blocks:
                    _write_all(descriptor, data)
                bits = _mode(name, folder) if mode is None else mode
                if bits is not None:
                    os.fchmod(descriptor, bits & _MODE_BITS)
            finally:
                os.close(descriptor)

    async def make_directory(self, path: str, mode: int) -> None:
        with self._reporting(path), self._parent(path) as (folder, name):
            try:
                os.mkdir(name, dir_fd=folder)
            except FileExistsError:
                os.close(os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=folder))
            else:
                os.chmod(name, (mode & _MODE_BITS) | OWNER_ALL, dir_fd=folder)

    async def make_link(self, path: str, target: str) -> None:
        with self._reporting(path), self._parent(path) as (folder, name), _replacing(folder, name) as temporary:
            os.symlink(target, temporary, dir_fd=folder)

    async def set_mode(self, path: str, mode: int) -> None:
        with self._reporting(path), self._parent(path) as (folder, name):
            descriptor = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            try:
                os.fchmod(descriptor, mode & _MODE_BITS)
            finally:
                os.close(descriptor)

    @contextlib.contextmanager
    def _reporting(self, path: str) -> Iterator[None]:
        try:
            yield
        except SandboxError:
            raise
        except OSError as error:
            raise _failure(error, self.at(path)) from None

    @contextlib.contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        """Open the directory that the path is in, and yield it with the path's last part."""
        root = os.path.abspath(self.root)  # noqa: PTH100 (resolve() would follow a link that the copy may have made)
        top, *parts = (root, *path.split("/")) if path else os.path.split(root)
        folder = os.open(top, _DIRECTORY | (os.O_NOFOLLOW if path else 0))
        try:
            for part in parts[:-1]:
                inner = os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
                os.close(folder)
                folder = inner
            yield folder, parts[-1]
        finally:
            os.close(folder)


@contextlib.contextmanager
def _replacing(folder: int, name: str) -> Iterator[str]:
    """Yield a temporary name; what the block makes under it gets the real name at the end, or is removed."""
    temporary = f".{name[:100]}.{secrets.token_hex(4)}"
    try:
        yield temporary
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise


def _entry(path: str, whole: str, status: os.stat_result) -> Entry:
    kinds: dict[int, Kind] = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}
    kind = kinds.get(stat.S_IFMT(status.st_mode), "other")
    target = str(Path(whole).readlink()) if kind == "symlink" else ""
    return Entry(path=path, kind=kind, mode=stat.S_IMODE(status.st_mode), size_bytes=status.st_size, target=target)


def _mode(name: str, folder: int) -> int | None:
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return status.st_mode if stat.S_ISREG(status.st_mode) else None


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _failure(error: OSError, path: str) -> SandboxError:
    return SandboxError(f"{path}: {error.strerror or error}")
