"""What a service has of its own, for sandboxes that were made before anybody knew of it: environment, directory, user."""

from __future__ import annotations

import asyncio
import dataclasses
import posixpath
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sandboxcore.abc import Executor, FileStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sandboxcore.abc import FileReader, FileWriter, ProcessHandle, Provisioner
    from sandboxcore.values import ExecRequest, ExecResult, FileInfo, SandboxRef

    from ._config import OpenSandboxConfig

__all__ = ("ServiceExecutor", "ServiceFiles", "files_with_settings", "with_settings")


def with_settings(executor: Executor, sandbox: SandboxRef, config: OpenSandboxConfig, provisioner: Provisioner) -> Executor:
    """Wrap the executor where the service has anything of its own that its pod has not."""
    data = sandbox.data
    load = None
    if data.get("secret"):
        from functools import partial

        from ._secrets import service_environment

        load = partial(service_environment, config, provisioner, data["namespace"], data["secret"], sandbox.service)
    path = data.get("path")
    if load is None and not data.get("user") and not data.get("working_dir") and path is None:
        return executor
    env = {} if path is None else {"PATH": path}
    return ServiceExecutor(executor, load=load, env=env, cwd=data.get("working_dir"), user=data.get("user"))


def files_with_settings(files: FileStore, sandbox: SandboxRef) -> FileStore:
    """Likewise for files."""
    cwd, user = sandbox.data.get("working_dir"), sandbox.data.get("user")
    return ServiceFiles(files, cwd=cwd, user=user) if cwd or user else files


class ServiceExecutor(Executor):
    """Adds to each request what the service has.

    Args:
        load: Reads the service's environment, once; None: it is ``env``.
        cwd: The service's working directory.
        user: The service's user.
    """

    def __init__(
        self,
        inner: Executor,
        *,
        load: Callable[[], Awaitable[Mapping[str, str]]] | None,
        env: Mapping[str, str],
        cwd: str | None,
        user: str | None,
    ) -> None:
        self._inner = inner
        self._load = load
        self._cwd = cwd
        self._user = user
        self._env: Mapping[str, str] | None = None if load is not None else env
        self._gate = asyncio.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def exec(self, request: ExecRequest) -> ExecResult:
        """Run a command as the service would."""
        return await self._inner.exec(await self._completed(request))

    async def start(self, request: ExecRequest) -> ProcessHandle:
        """Start a command as the service would."""
        return await self._inner.start(await self._completed(request))

    async def aclose(self) -> None:
        """Close what is within."""
        await self._inner.aclose()

    async def _completed(self, request: ExecRequest) -> ExecRequest:
        if self._env is None and self._load is not None:
            async with self._gate:
                if self._env is None:
                    self._env = await self._load()
        cwd = posixpath.join(self._cwd, request.cwd or "") if self._cwd else request.cwd
        env = {**(self._env or {}), **request.env}
        return dataclasses.replace(request, env=env, cwd=cwd, user=request.user or self._user)


class ServiceFiles(FileStore):
    """Takes paths and files as the service would."""

    def __init__(self, inner: FileStore, *, cwd: str | None, user: str | None) -> None:
        self._inner = inner
        self._cwd = cwd or "/"
        self._relative = cwd is not None
        self._user = user

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def _path(self, path: str) -> str:
        return posixpath.join(self._cwd, path) if self._relative else path

    async def open_read(self, path: str, *, user: str | None = None) -> FileReader:
        """Open a file for reading."""
        return await self._inner.open_read(self._path(path), user=user or self._user)

    async def open_write(self, path: str, *, mode: int | None = None, user: str | None = None) -> FileWriter:
        """Begin a file."""
        return await self._inner.open_write(self._path(path), mode=mode, user=user or self._user)

    async def read_file(self, path: str, *, user: str | None = None) -> bytes:
        """Read a whole file, in as few round trips as the inner one does it."""
        return await self._inner.read_file(self._path(path), user=user or self._user)

    async def write_file(self, path: str, data: bytes, *, mode: int | None = None, user: str | None = None) -> None:
        """Write a whole file, likewise."""
        await self._inner.write_file(self._path(path), data, mode=mode, user=user or self._user)

    async def list_dir(self, path: str, *, user: str | None = None) -> Sequence[FileInfo]:
        """List a directory."""
        return await self._inner.list_dir(self._path(path), user=user or self._user)

    async def stat(self, path: str, *, follow: bool = True, user: str | None = None) -> FileInfo:
        """Describe a file."""
        return await self._inner.stat(self._path(path), follow=follow, user=user or self._user)

    async def remove(self, path: str, *, recursive: bool = False, user: str | None = None) -> None:
        """Remove a file or a tree."""
        await self._inner.remove(self._path(path), recursive=recursive, user=user or self._user)

    async def make_dir(self, path: str, *, mode: int = 0o755, parents: bool = True, user: str | None = None) -> None:
        """Make a directory."""
        await self._inner.make_dir(self._path(path), mode=mode, parents=parents, user=user or self._user)

    async def aclose(self) -> None:
        """Close what is within."""
        await self._inner.aclose()
