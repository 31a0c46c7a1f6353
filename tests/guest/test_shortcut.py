"""A shorter way to the guest: taken where it leads to the same guest, else as if there were none."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
from keepers import Keeper, SocketChannel, until

from sandboxcore.guest import Guest, connection
from sandboxcore.values import ExecRequest

HERE = "here"


class TwoWays(SocketChannel):
    """Opens to one socket, with a shorter way to what may be another guest."""

    def __init__(self, path: Path, short: Path | None) -> None:
        super().__init__(path)
        self.short = short
        self.asked: list[tuple[str, ...]] = []
        self.shortcuts: list[asyncio.Transport] = []

    async def shortcut(self, sockets: Sequence[str], protocol: asyncio.BaseProtocol) -> asyncio.Transport | None:
        self.asked.append(tuple(sockets))
        if self.short is None:
            return None
        transport, _ = await asyncio.get_running_loop().create_unix_connection(lambda: protocol, str(self.short))
        self.shortcuts.append(transport)
        return transport


@contextlib.asynccontextmanager
async def guest_by(channel: TwoWays) -> AsyncIterator[Guest]:
    guest = Guest(channel)
    try:
        assert (await asyncio.wait_for(guest.executor.exec(ExecRequest(argv=["echo", HERE])), 30)).text().strip() == HERE
        yield guest
    finally:
        await guest.aclose()


async def closed(transport: asyncio.Transport) -> None:
    assert await until(transport.is_closing, 30)


async def test_it_is_taken_and_the_long_way_is_given_up(keeper: Keeper) -> None:
    channel = TwoWays(keeper.socket, keeper.socket)
    async with guest_by(channel):
        assert len(channel.transports) == len(channel.shortcuts) == 1
        await closed(channel.transports[0])
        assert not channel.shortcuts[0].is_closing()
        assert channel.asked[0][0] == "/dev/shm/.sandboxcore/v1.sock"


async def test_a_link_that_broke_is_made_again_by_it_and_commands_go_on(keeper: Keeper) -> None:
    channel = TwoWays(keeper.socket, keeper.socket)
    counter = keeper.socket.parent / "counter"
    async with guest_by(channel) as guest:
        line = f"echo ran >> {counter}; until [ -e {counter}.end ]; do sleep 0.02; done; echo done"
        running = asyncio.create_task(guest.executor.exec(ExecRequest(argv=["/bin/sh", "-c", line])))
        assert await until(counter.exists, 30)
        channel.shortcuts[0].abort()
        await guest.files.write_file(f"{counter}.end", b"")
        assert (await asyncio.wait_for(running, 30)).stdout == b"done\n"
        assert counter.read_text() == "ran\n"
        assert (len(channel.transports), len(channel.shortcuts)) == (1, 2)


async def test_the_long_way_goes_on_where_there_is_none(keeper: Keeper) -> None:
    for short in (None, keeper.socket.parent / "nobody"):
        channel = TwoWays(keeper.socket, short)
        async with guest_by(channel) as guest:
            channel.cut()
            assert (await guest.executor.exec(ExecRequest(argv=["true"]))).ok
            assert (len(channel.transports), len(channel.shortcuts), len(channel.asked)) == (2, 0, 2)


async def test_another_guest_gets_no_command(start_keeper: Callable[..., Keeper]) -> None:
    """Wherever the shorter way leads: what answers there has to be the guest that was reached before."""
    right, wrong = start_keeper(), start_keeper()
    channel = TwoWays(right.socket, wrong.socket)
    async with guest_by(channel) as guest:
        assert (await guest.files.stat(".")).path == "."
        await guest.files.write_file("mark", b"x")
        await closed(channel.shortcuts[0])
        channel.cut()
        assert await guest.files.read_file("mark") == b"x"
        assert (len(channel.transports), len(channel.shortcuts)) == (2, 1)
    assert (right.socket.parent / "mark").exists()
    assert not (wrong.socket.parent / "mark").exists()


@pytest.mark.parametrize("said", [b"nonsense, and more of it", None])
async def test_who_answers_nonsense_or_nothing_is_not_asked_again(
    keeper: Keeper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes | None
) -> None:
    monkeypatch.setattr(connection, "_SHORT_HANDSHAKE", 0.2)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if said is not None:
            writer.write(said)
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(answer, str(tmp_path / "liar"))
    channel = TwoWays(keeper.socket, tmp_path / "liar")
    async with guest_by(channel) as guest:
        channel.cut()
        assert (await guest.executor.exec(ExecRequest(argv=["true"]))).ok
        assert (len(channel.transports), len(channel.shortcuts)) == (2, 1)
    server.close()
    await server.wait_closed()
