"""Large files of a sandbox of the server: execd hands them out faster than its sessions carry them.

A session's output goes through a pipe in pieces of 32 KiB and is copied six times on its way; a download is one ``sendfile``.
Source: components/execd/pkg/web/controller/filesystem_download.go of OpenSandbox.
"""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sandboxcore.abc import FileStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandboxcore.abc import FileReader, FileWriter, Provisioner
    from sandboxcore.guest.files import GuestFileStore
    from sandboxcore.values import FileInfo, SandboxRef

    from ._server_connection import ServerConnection

__all__ = ("ExecdFiles", "means_the_same", "over_execd")

_SILENCE = 60.0
_READ_BYTES = 1 << 20
#: What has no size of its own there, which execd goes by.
_SIZELESS = ("/proc/", "/sys/", "/dev/")


def means_the_same(path: str) -> bool:
    """Tell whether execd takes a path for what the kernel does: it puts in variables and homes, and takes ``..`` by name."""
    if not posixpath.isabs(path) or posixpath.normpath(path) != path:
        return False
    return not set(path) & set("$~\0") and not path.startswith(_SIZELESS)


def over_execd(files: FileStore, sandbox: SandboxRef, provisioner: Provisioner) -> FileStore:
    """Wrap the guest's files; those of another plugin are left alone, and so are ours where it has wrapped the provisioner."""
    from sandboxcore.guest.files import GuestFileStore

    from ._server_provisioner import ServerProvisioner

    if isinstance(files, GuestFileStore) and isinstance(provisioner, ServerProvisioner):
        return ExecdFiles(files, sandbox.data["sandbox_id"], provisioner.connection)
    return files


class ExecdFiles(FileStore):
    """The guest's files, but whole large ones are read from execd where it reads as the guest would.

    Args:
        inner: The guest's, which has the last word on everything that execd refuses, or breaks off.
        sandbox_id: The server's.
        connection: The session's.
    """

    def __init__(self, inner: GuestFileStore, sandbox_id: str, connection: ServerConnection) -> None:
        self._inner = inner
        self._id = sandbox_id
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def read_file(self, path: str, *, user: str | None = None) -> bytes:
        """Read a whole file; one round trip where it is small."""
        if user is not None or not means_the_same(path):
            return await self._inner.read_file(path, user=user)
        data = await self._inner.read_if_small(path)
        if data is None:
            data = await self._download(path)
        return await self._inner.read_file(path) if data is None else data

    async def _download(self, path: str) -> bytes | None:
        import aiohttp
        from yarl import URL

        try:
            base, headers = await self._connection.execd(self._id)
            session = await self._connection.http()
            url = URL(f"{base}/files/download?path={quote(os.fsencode(path))}", encoded=True)
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=15.0, sock_read=_SILENCE)
            options = {"timeout": timeout, "read_bufsize": _READ_BYTES, **self._connection.request_options}
            async with session.get(url, headers=headers, **options) as answer:
                return await answer.read() if answer.status == 200 else None
        except Exception:  # whatever it is, the guest's way works, or tells
            return None

    # -- as the guest does it

    async def open_read(self, path: str, *, user: str | None = None) -> FileReader:
        """Open a file for reading."""
        return await self._inner.open_read(path, user=user)

    async def open_write(self, path: str, *, mode: int | None = None, user: str | None = None) -> FileWriter:
        """Begin a file."""
        return await self._inner.open_write(path, mode=mode, user=user)

    async def write_file(self, path: str, data: bytes, *, mode: int | None = None, user: str | None = None) -> None:
        """Write a whole file, atomically."""
        await self._inner.write_file(path, data, mode=mode, user=user)

    async def list_dir(self, path: str, *, user: str | None = None) -> Sequence[FileInfo]:
        """List a directory."""
        return await self._inner.list_dir(path, user=user)

    async def stat(self, path: str, *, follow: bool = True, user: str | None = None) -> FileInfo:
        """Describe a file."""
        return await self._inner.stat(path, follow=follow, user=user)

    async def remove(self, path: str, *, recursive: bool = False, user: str | None = None) -> None:
        """Remove a file or a tree."""
        await self._inner.remove(path, recursive=recursive, user=user)

    async def make_dir(self, path: str, *, mode: int = 0o755, parents: bool = True, user: str | None = None) -> None:
        """Make a directory."""
        await self._inner.make_dir(path, mode=mode, parents=parents, user=user)

    async def aclose(self) -> None:
        """Close what is within."""
        await self._inner.aclose()
