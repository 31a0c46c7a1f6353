"""Running commands that are broken in one way each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from mutant_executors import Decorated

from sandboxcore.abc import ProcessHandle
from sandboxcore.errors import SandboxUnavailableError
from sandboxcore.values import Chunk, ExecRequest, ExecResult


class Handle(ProcessHandle):
    """Does as the real one; a mutant overrides what it breaks."""

    def __init__(self, inner: ProcessHandle) -> None:
        self.inner = inner

    async def write(self, data: bytes) -> None:
        await self.inner.write(data)

    async def write_eof(self) -> None:
        await self.inner.write_eof()

    def output(self) -> AsyncIterator[Chunk]:
        return self.inner.output()

    async def wait(self) -> ExecResult:
        return await self.inner.wait()

    async def signal(self, number: int) -> None:
        await self.inner.signal(number)

    async def kill(self) -> None:
        await self.inner.kill()

    async def resize(self, columns: int, rows: int) -> None:
        await self.inner.resize(columns, rows)

    @property
    def pid(self) -> int | None:
        return self.inner.pid


class _Starts(Decorated):
    handle: type[Handle]

    async def start(self, request: ExecRequest) -> ProcessHandle:
        return self.handle(await self.inner.start(request))


class NothingStarted(Handle):
    async def wait(self) -> ExecResult:
        try:
            return await self.inner.wait()
        except SandboxUnavailableError as error:
            raise SandboxUnavailableError(str(error), started="no") from error


class _AtTheEnd(Handle):
    async def output(self) -> AsyncIterator[Chunk]:
        for chunk in [chunk async for chunk in self.inner.output()]:
            yield chunk


class _NoEof(Handle):
    async def write_eof(self) -> None:
        pass


class _NoSignals(Handle):
    async def signal(self, number: int) -> None:
        pass


class _OnlyLeader(Handle):
    async def kill(self) -> None:
        await self.inner.signal(9)


class _NoResize(Handle):
    async def resize(self, columns: int, rows: int) -> None:
        pass


class _Hoards(Handle):
    def __init__(self, inner: ProcessHandle) -> None:
        super().__init__(inner)
        self._chunks: asyncio.Queue[Chunk | None] = asyncio.Queue()
        self._reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        async for chunk in self.inner.output():
            self._chunks.put_nowait(chunk)
        self._chunks.put_nowait(None)

    async def output(self) -> AsyncIterator[Chunk]:
        while (chunk := await self._chunks.get()) is not None:
            yield chunk

    async def wait(self) -> ExecResult:
        await self._reading
        return await self.inner.wait()

    async def kill(self) -> None:
        await self.inner.kill()
        await self._reading


class LateOutput(_Starts):
    handle = _AtTheEnd


class NoEof(_Starts):
    handle = _NoEof


class NoSignals(_Starts):
    handle = _NoSignals


class KillsLeader(_Starts):
    handle = _OnlyLeader


class NoResize(_Starts):
    handle = _NoResize


class Hoarder(_Starts):
    handle = _Hoards
