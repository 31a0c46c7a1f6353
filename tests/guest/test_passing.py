"""A large piece of a file goes on to its command while it comes: cut anywhere, with a command that has ended, or held up."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from keepers import Keeper, until

from sandboxcore.guest import Guest, protocol
from sandboxcore.guest.protocol import FileOp, FrameType
from sandboxcore.values import ExecRequest

DATA = os.urandom(1 << 20)


class Raw:
    """Frames to a guest, and its own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def until(self, wanted: FrameType) -> bytes:
        async with asyncio.timeout(30):
            while True:
                length, kind, _ = struct.unpack("<IBI", await self.reader.readexactly(9))
                payload = await self.reader.readexactly(length - 5)
                if kind == wanted:
                    return payload


@contextlib.asynccontextmanager
async def raw(keeper: Keeper, generation: int = 1, *, knows: int | None = None) -> AsyncIterator[tuple[Raw, protocol.Welcome]]:
    reader, writer = await asyncio.open_unix_connection(str(keeper.socket))
    try:
        writer.write(protocol.hello(b"p" * 16, generation, 60000, [] if knows is None else [(knows, 0, 0)]))
        guest = Raw(reader, writer)
        yield guest, protocol.parse_welcome(await guest.until(FrameType.WELCOME))
    finally:
        writer.close()


async def test_what_came_of_a_piece_is_kept_when_the_link_is_cut_in_it(keeper: Keeper, tmp_path: Path) -> None:
    """Byte for byte: the guest tells how far it has come, in the middle of a frame."""
    path = tmp_path / "file"
    sent = 700_001
    async with raw(keeper) as (guest, _):
        guest.writer.write(protocol.file(1, FileOp.WRITE, str(path)))
        await guest.until(FrameType.STARTED)
        guest.writer.write(protocol.stdin(1, 0, DATA)[: 17 + sent])
        await guest.writer.drain()
        assert int.from_bytes(await guest.until(FrameType.STDIN_ACK), "little") <= sent
    known = 0
    for generation in range(2, 1000):  # what is on its way when the cut is seen is still taken
        async with raw(keeper, generation, knows=1) as (guest, welcome):
            known, before = welcome.commands[1], known
            if known == before:
                guest.writer.write(protocol.stdin(1, known, DATA[known:]) + protocol.stdin_eof(1, len(DATA)))
                await guest.until(FrameType.EXIT)
                break
    assert 0 < known <= sent
    assert path.read_bytes() == DATA


async def test_the_rest_of_a_piece_for_a_command_that_has_ended_goes_nowhere(keeper: Keeper) -> None:
    async with raw(keeper) as (guest, _):
        frame = protocol.stdin(1, 0, DATA)
        guest.writer.write(protocol.file(1, FileOp.WRITE, "/dev/full") + frame[:100_000])
        assert protocol.parse_failed(await guest.until(FrameType.FAILED)).errno == 28
        guest.writer.write(frame[100_000:500_000])
        await guest.writer.drain()
        guest.writer.write(frame[500_000:] + protocol.exit_ack(1) + protocol.ping(7))
        assert int.from_bytes(await guest.until(FrameType.PONG), "little") == 7


@pytest.mark.parametrize("told", [True, False])
async def test_a_piece_may_be_forgotten_with_its_command(keeper: Keeper, tmp_path: Path, told: bool) -> None:
    """Aborted before the frame has ended on another connection, or with no word."""
    async with raw(keeper) as (guest, _):
        guest.writer.write(protocol.file(1, FileOp.WRITE, str(tmp_path / "file")))
        await guest.until(FrameType.STARTED)
        guest.writer.write(protocol.stdin(1, 0, DATA)[:600_000])
        await guest.until(FrameType.STDIN_ACK)
    async with raw(keeper, 2, knows=1 if told else None) as (guest, _):
        if told:
            guest.writer.write(protocol.signal(1, 9, tree=True))
            await guest.until(FrameType.FAILED)
        guest.writer.write(protocol.ping(3))
        await guest.until(FrameType.PONG)
    assert await until(lambda: [path.name for path in tmp_path.iterdir()] == ["k0"], 30)


async def test_a_file_that_nobody_takes_holds_up_no_command(guest: Guest, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    end = os.open(fifo, os.O_RDWR)
    try:
        writing = asyncio.create_task(guest.files.write_file(str(fifo), DATA * 12))
        for _ in range(20):
            assert (await asyncio.wait_for(guest.executor.exec(ExecRequest(argv=["echo", "x"])), 30)).stdout == b"x\n"
        assert not writing.done()
        taken = await asyncio.to_thread(lambda: b"".join(iter_exactly(end, 12 * len(DATA))))
        await asyncio.wait_for(writing, 30)
    finally:
        os.close(end)
    assert taken == DATA * 12


def iter_exactly(end: int, left: int) -> list[bytes]:
    pieces = []
    while left:
        pieces.append(os.read(end, min(left, 1 << 16)))
        left -= len(pieces[-1])
    return pieces
