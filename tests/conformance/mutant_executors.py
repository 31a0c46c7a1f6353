"""Executors that are broken in one way each."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace

from sandboxcore.abc import Executor, ProcessHandle
from sandboxcore.errors import (
    ExecTimeoutError,
    OutputLimitExceededError,
    SandboxFileNotFoundError,
    SandboxUnavailableError,
)
from sandboxcore.values import ExecRequest, ExecResult


class Decorated(Executor):
    """Does as the real one; a mutant overrides what it breaks."""

    def __init__(self, inner: Executor) -> None:
        self.inner = inner

    def asked(self, request: ExecRequest) -> ExecRequest:
        return request

    def told(self, result: ExecResult, request: ExecRequest) -> ExecResult:
        return result

    async def exec(self, request: ExecRequest) -> ExecResult:
        return self.told(await self.inner.exec(self.asked(request)), request)

    async def start(self, request: ExecRequest) -> ProcessHandle:
        return await self.inner.start(request)

    async def aclose(self) -> None:
        await self.inner.aclose()


async def collect(handle: ProcessHandle) -> ExecResult:
    """Gather a running command's output and its end."""
    chunks = [chunk async for chunk in handle.output()]
    stdout, stderr = (b"".join(chunk.data for chunk in chunks if chunk.stream == stream) for stream in ("stdout", "stderr"))
    return replace(await handle.wait(), stdout=stdout, stderr=stderr)


class OneWordIsALine(Decorated):
    def asked(self, request: ExecRequest) -> ExecRequest:
        return request if len(request.argv) > 1 else replace(request, argv=["/bin/sh", "-c", request.argv[0]])


class NoEmptyArguments(Decorated):
    def asked(self, request: ExecRequest) -> ExecRequest:
        return replace(request, argv=[word for word in request.argv if word])


class NoEndOfInput(Decorated):
    async def exec(self, request: ExecRequest) -> ExecResult:
        if request.stdin is not None:
            return await self.inner.exec(request)
        return await collect(await self.inner.start(replace(request, stdin_stream=True)))


class ShortInput(Decorated):
    def asked(self, request: ExecRequest) -> ExecRequest:
        return replace(request, stdin=request.stdin[:65536]) if request.stdin else request


class SwappedStreams(Decorated):
    def told(self, result: ExecResult, request: ExecRequest) -> ExecResult:
        both = result.stdout and result.stderr
        return replace(result, stdout=result.stderr, stderr=result.stdout) if both else result


class MergedStreams(Decorated):
    def told(self, result: ExecResult, request: ExecRequest) -> ExecResult:
        return replace(result, stdout=result.stdout + result.stderr, stderr=b"")


class DecodedOutput(Decorated):
    def told(self, result: ExecResult, request: ExecRequest) -> ExecResult:
        return replace(result, stdout=result.text().encode(), stderr=result.error_text().encode())


class TranslatedNewlines(Decorated):
    def told(self, result: ExecResult, request: ExecRequest) -> ExecResult:
        return replace(result, stdout=result.stdout.replace(b"\r\n", b"\n"))


class StrippedOutput(Decorated):
    def told(self, result: ExecResult, request: ExecRequest) -> ExecResult:
        return replace(result, stdout=result.stdout.rstrip(b"\n"))


class OneForSignal(Decorated):
    def told(self, result: ExecResult, request: ExecRequest) -> ExecResult:
        return replace(result, exit_code=1) if result.signal else result


class ForgedStatus(Decorated):
    def told(self, result: ExecResult, request: ExecRequest) -> ExecResult:
        said = re.search(rb'"exit_code":(\d+)', result.stdout)
        return replace(result, exit_code=int(said[1])) if said else result


class OneForMissing(Decorated):
    def told(self, result: ExecResult, request: ExecRequest) -> ExecResult:
        missing = result.exit_code == 127 and not result.stdout
        return replace(result, exit_code=1) if missing else result


class MissingForBoth(Decorated):
    def told(self, result: ExecResult, request: ExecRequest) -> ExecResult:
        return replace(result, exit_code=127) if result.exit_code == 126 and not result.stdout else result


class RaisesForMissing(Decorated):
    def told(self, result: ExecResult, request: ExecRequest) -> ExecResult:
        if result.exit_code == 127 and not result.stdout:
            raise SandboxFileNotFoundError("no such program")
        return result


class TimeoutKillsLeader(Decorated):
    async def exec(self, request: ExecRequest) -> ExecResult:
        if request.timeout is None:
            return await self.inner.exec(request)
        handle = await self.inner.start(replace(request, timeout=None))
        try:
            return await asyncio.wait_for(collect(handle), request.timeout)
        except TimeoutError:
            await handle.signal(9)
            raise ExecTimeoutError("time is up", result=await collect(handle)) from None


class LateTimeout(Decorated):
    def asked(self, request: ExecRequest) -> ExecRequest:
        return replace(request, timeout=request.timeout + 6) if request.timeout else request


class ForgetfulTimeout(Decorated):
    async def exec(self, request: ExecRequest) -> ExecResult:
        try:
            return await self.inner.exec(request)
        except ExecTimeoutError as error:
            raise ExecTimeoutError(str(error), result=ExecResult(exit_code=137)) from None


class StatusIsTimeout(Decorated):
    def told(self, result: ExecResult, request: ExecRequest) -> ExecResult:
        if result.exit_code in (124, 137) and not result.signal:
            raise ExecTimeoutError("the status says so", result=result)
        return result


class CancelKillsLeader(Decorated):
    async def exec(self, request: ExecRequest) -> ExecResult:
        handle = await self.inner.start(request)
        try:
            return await collect(handle)
        except asyncio.CancelledError:
            await handle.signal(9)
            raise


class WaitsForPipe(Decorated):
    def asked(self, request: ExecRequest) -> ExecRequest:
        script = 'r=$("$@"; echo ".$?"); printf %s "${r%.*}"; exit "${r##*.}"'
        return replace(request, argv=["/bin/sh", "-c", script, "sh", *request.argv])


class LosesTheEnd(Decorated):
    def told(self, result: ExecResult, request: ExecRequest) -> ExecResult:
        return replace(result, stdout=result.stdout[:262144])


class SilentLimit(Decorated):
    async def exec(self, request: ExecRequest) -> ExecResult:
        try:
            return await self.inner.exec(request)
        except OutputLimitExceededError as error:
            return error.result or ExecResult(exit_code=0)


class SharedLimit(Decorated):
    def told(self, result: ExecResult, request: ExecRequest) -> ExecResult:
        limit = request.output_limit_bytes
        if limit is not None and len(result.stdout) + len(result.stderr) > limit:
            raise OutputLimitExceededError("too much", result=result, limit_bytes=limit)
        return result


class NoCwd(Decorated):
    def asked(self, request: ExecRequest) -> ExecRequest:
        return replace(request, cwd=None)


class AnyCwd(Decorated):
    async def exec(self, request: ExecRequest) -> ExecResult:
        try:
            return await self.inner.exec(request)
        except SandboxFileNotFoundError:
            return await self.inner.exec(replace(request, cwd=None))


class NoEnv(Decorated):
    def asked(self, request: ExecRequest) -> ExecRequest:
        return replace(request, env={})


class OnlyEnv(Decorated):
    def asked(self, request: ExecRequest) -> ExecRequest:
        if not request.env:
            return request
        words = [f"{name}={value}" for name, value in request.env.items()]
        return replace(request, env={}, argv=["/usr/bin/env", "-i", *words, *request.argv])


class NoUser(Decorated):
    def asked(self, request: ExecRequest) -> ExecRequest:
        return replace(request, user=None)


class RunsAgain(Decorated):
    async def exec(self, request: ExecRequest) -> ExecResult:
        try:
            return await asyncio.wait_for(self.inner.exec(request), 0.5)
        except TimeoutError:
            return await self.inner.exec(request)


class NeverStarted(Decorated):
    async def start(self, request: ExecRequest) -> ProcessHandle:
        from mutant_processes import NothingStarted

        return NothingStarted(await self.inner.start(request))

    async def exec(self, request: ExecRequest) -> ExecResult:
        try:
            return await self.inner.exec(request)
        except SandboxUnavailableError as error:
            raise SandboxUnavailableError(str(error), started="no") from error
