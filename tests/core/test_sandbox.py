"""Commands, processes and files through the facade."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sandboxcore import (
    Environment,
    ExecTimeoutError,
    OutputLimitExceededError,
    Sandbox,
    SandboxFileNotFoundError,
    SandboxIsADirectoryError,
    Session,
    UsageError,
)

SLEEP = ["sleep", "3600"]


@pytest.fixture
async def env(session: Session) -> AsyncIterator[Environment]:
    async with session.environment() as env:
        yield env


@pytest.fixture
def sandbox(env: Environment) -> Sandbox:
    return env.default


def alive(pid: int | None) -> bool:
    assert pid is not None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_what_a_command_says_comes_back(sandbox: Sandbox) -> None:
    result = await sandbox.exec(["sh", "-c", r"printf '\377\r\n'; echo e >&2; exit 7"])
    assert (result.exit_code, result.stdout, result.stderr, result.ok) == (7, b"\xff\r\n", b"e\n", False)


async def test_all_of_a_request_gets_there(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    executor = sandbox._bind().executor

    async def record(request: Any) -> None:
        seen.append(request)

    monkeypatch.setattr(executor, "exec", record)
    await sandbox.exec(("a", "b"), stdin="é", env={"A": "1"}, cwd="/w", user="u:g", timeout=3, output_limit_bytes=None)
    await sandbox.exec(["a"])
    full, plain = seen
    assert (full.argv, full.stdin, full.env, full.cwd) == (("a", "b"), "é".encode(), {"A": "1"}, "/w")
    assert (full.user, full.timeout, full.output_limit_bytes, full.stdin_stream) == ("u:g", 3, None, False)
    assert (plain.stdin, plain.env, plain.cwd, plain.user, plain.timeout) == (None, {}, None, None, None)
    assert plain.output_limit_bytes == 10 * 1024 * 1024


async def test_a_timeout_and_an_output_limit(sandbox: Sandbox) -> None:
    with pytest.raises(ExecTimeoutError) as timeout:
        await sandbox.exec(SLEEP, timeout=0.1)
    assert timeout.value.result is not None
    with pytest.raises(OutputLimitExceededError) as limit:
        await sandbox.exec(["echo", "123456"], output_limit_bytes=3)
    assert limit.value.result is not None
    assert limit.value.result.stdout == b"123"


@pytest.mark.parametrize("argv", ["ls -l", [], [1]])
async def test_a_command_that_is_none_does_not_start(sandbox: Sandbox, argv: Any) -> None:
    with pytest.raises(TypeError, match="argv is a sequence of strings"):
        await sandbox.exec(argv)
    with pytest.raises(TypeError, match="argv is a sequence of strings"):
        sandbox.start(argv)


async def test_talking_with_a_process(sandbox: Sandbox) -> None:
    async with sandbox.start(["cat"], stdin="first ") as process:
        assert process.pid
        output = process.output()
        await process.stdin.write(b"second ")
        received = b""
        while received != b"first second ":
            received += (await anext(output)).data
        await process.stdin.write("third")
        await process.stdin.close()
        assert [chunk.data async for chunk in output] == [b"third"]
        assert (await process.wait()).exit_code == 0
        assert (await process.wait()).exit_code == 0


async def test_leaving_the_block_kills_what_still_runs(sandbox: Sandbox) -> None:
    async with sandbox.start(SLEEP) as process:
        assert alive(process.pid)
    assert not alive(process.pid)


async def test_an_error_or_a_cancellation_in_the_block_kills_too(sandbox: Sandbox) -> None:
    pids: list[int | None] = []

    async def fails() -> None:
        async with sandbox.start(SLEEP) as process:
            pids.append(process.pid)
            raise ZeroDivisionError

    async def waits() -> None:
        async with sandbox.start(SLEEP) as process:
            pids.append(process.pid)
            await process.wait()

    with pytest.raises(ZeroDivisionError):
        await fails()
    task = asyncio.create_task(waits())
    while len(pids) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not any(alive(pid) for pid in pids)


async def test_signals_and_kill(sandbox: Sandbox) -> None:
    async with sandbox.start(SLEEP) as process:
        await process.signal(signal.SIGTERM)
        assert (await process.wait()).exit_code == 128 + 15
    async with sandbox.start(SLEEP) as process:
        await process.kill()
        await process.kill()
        assert (await process.wait()).exit_code == 128 + 9
        await process.resize(100, 30)


async def test_communicate(sandbox: Sandbox) -> None:
    async with sandbox.start(["cat"]) as process:
        # More than any pipe holds, so that writing and reading have to go on at once.
        assert (await process.communicate(b"x" * 3_000_000)).stdout == b"x" * 3_000_000
    async with sandbox.start(["sh", "-c", "exec <&-; echo hi; exit 4"]) as process:
        result = await process.communicate(b"y" * 3_000_000)
        assert (result.exit_code, result.stdout) == (4, b"hi\n")
    async with sandbox.start(["sh", "-c", "echo before; exec sleep 60 >/dev/null"], timeout=3) as process:
        with pytest.raises(ExecTimeoutError) as caught:
            await process.communicate()
        assert caught.value.result is not None
        assert caught.value.result.stdout == b"before\n"


async def test_a_command_is_started_once(sandbox: Sandbox) -> None:
    starting = sandbox.start(["true"])
    async with starting:
        pass
    with pytest.raises(UsageError, match="started before"):
        await starting.__aenter__()


async def test_a_command_that_can_not_start(sandbox: Sandbox) -> None:
    with pytest.raises(FileNotFoundError):
        async with sandbox.start(["true"], cwd="nowhere"):
            pass


async def test_files(sandbox: Sandbox) -> None:
    await sandbox.write_file("a.txt", "é", mode=0o600)
    assert await sandbox.read_file("a.txt") == "é".encode()
    assert (await sandbox.stat("a.txt")).mode == 0o600
    assert await sandbox.exists("a.txt")
    assert not await sandbox.exists("b.txt")
    assert not await sandbox.exists("a.txt/b")
    await sandbox.make_dir("d/e")
    await sandbox.make_dir("d/e")
    assert [info.name for info in await sandbox.list_dir()] == ["a.txt", "d"]
    await sandbox.remove("d", recursive=True)
    await sandbox.remove("a.txt")
    assert await sandbox.list_dir(".") == []
    with pytest.raises(SandboxFileNotFoundError):
        await sandbox.read_file("a.txt")
    with pytest.raises(SandboxIsADirectoryError):
        await sandbox.read_file(".")


async def test_files_in_pieces(sandbox: Sandbox) -> None:
    async with await sandbox.open_write("big") as writer:
        for _ in range(3):
            await writer.write(b"x" * 1_000_000)
        assert not await sandbox.exists("big")
    async with await sandbox.open_read("big") as reader:
        assert sum([len(data) async for data in reader]) == 3_000_000

    async def breaks() -> None:
        async with await sandbox.open_write("half") as writer:
            await writer.write(b"x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await breaks()
    assert [info.name for info in await sandbox.list_dir()] == ["big"]


async def test_the_facade_adds_only_microseconds(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """No validation model, no event and no lookup on the way of a command; the bound is many times what is measured."""
    executor = sandbox._bind().executor

    async def nothing(request: Any) -> Any:
        return None

    monkeypatch.setattr(executor, "exec", nothing)
    best = 1.0
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(200):
            await sandbox.exec(["true"])
        best = min(best, (time.perf_counter() - began) / 200)
    assert best < 50e-6
