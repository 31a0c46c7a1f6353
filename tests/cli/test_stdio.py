"""Bytes through descriptors, without threads."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxcore.cli._stdio import ByteOutput, read_bytes


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue


async def test_bytes_arrive_untouched_though_the_reader_is_slow(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    data = os.urandom(1_000_001)

    async def write() -> None:
        await ByteOutput(writer).write(data)
        os.close(writer)

    async def read() -> bytes:
        await asyncio.sleep(0.1)
        return b"".join([block async for block in read_bytes(reader)])

    _, received = await asyncio.gather(write(), read())
    assert received == data


async def test_a_full_pipe_holds_up_the_writer_only(pipe: tuple[int, int]) -> None:
    task = asyncio.create_task(ByteOutput(pipe[1]).write(bytes(1_000_000)))
    await asyncio.sleep(0.05)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not fcntl.fcntl(pipe[1], fcntl.F_GETFL) & os.O_NONBLOCK


async def test_a_pipe_that_nobody_reads_is_broken(pipe: tuple[int, int]) -> None:
    task = asyncio.create_task(ByteOutput(pipe[1]).write(bytes(1_000_000)))
    await asyncio.sleep(0.05)
    os.close(pipe[0])
    with pytest.raises(BrokenPipeError):
        await asyncio.wait_for(task, 30)


async def test_regular_files_and_dev_null_work_as_well(tmp_path: Path) -> None:
    path = tmp_path / "file"
    data = os.urandom(300_000)
    with path.open("wb") as file:
        await ByteOutput(file.fileno()).write(data)
    with path.open("rb") as file:
        assert b"".join([block async for block in read_bytes(file.fileno())]) == data
    null = os.open(os.devnull, os.O_RDONLY)
    assert [block async for block in read_bytes(null)] == []
    os.close(null)


async def test_reading_can_be_given_up(pipe: tuple[int, int]) -> None:
    async def read() -> list[bytes]:
        return [block async for block in read_bytes(pipe[0])]

    task = asyncio.create_task(read())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    os.write(pipe[1], b"later")
    assert os.read(pipe[0], 10) == b"later"
