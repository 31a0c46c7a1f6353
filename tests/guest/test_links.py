"""Exactly once over a broken link: cuts, resuming, fencing, leases, and the honest unknown when the guest itself dies."""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from keepers import Keeper, SocketChannel, until

from sandboxcore import errors
from sandboxcore.guest import Guest, protocol
from sandboxcore.guest.connection import Connection
from sandboxcore.values import ExecRequest


def sh(line: str, **options: object) -> ExecRequest:
    return ExecRequest(argv=["/bin/sh", "-c", line], **options)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def cutting(channel: SocketChannel, low: float, high: float) -> AsyncIterator[list[float]]:
    """Cut the newest stream again and again while the block runs."""
    cuts: list[float] = []

    async def cutter() -> None:
        while True:
            await asyncio.sleep(random.uniform(low, high))
            if channel.transports and not channel.transports[-1].is_closing():
                channel.cut()
                cuts.append(asyncio.get_running_loop().time())

    task = asyncio.create_task(cutter())
    try:
        yield cuts
    finally:
        task.cancel()


async def still(beat: Path, seconds: float) -> bool:
    """Wait until a file has not grown for half a second; tell whether it has come to that."""
    end = asyncio.get_running_loop().time() + seconds
    size = -1
    while size != beat.stat().st_size and asyncio.get_running_loop().time() < end:
        size = beat.stat().st_size
        await asyncio.sleep(0.5)
    return size == beat.stat().st_size


async def test_a_command_runs_once_though_its_link_is_cut(guest: Guest, channel: SocketChannel, keeper: Keeper) -> None:
    counter, go = keeper.socket.parent / "counter", keeper.socket.parent / "go"
    line = f"echo ran >> {counter}; until [ -e {go} ]; do sleep 0.02; done; echo done"
    task = asyncio.create_task(guest.executor.exec(sh(line)))
    assert await until(counter.exists, 30)
    channel.cut()
    go.touch()
    result = await task
    assert (result.exit_code, result.stdout) == (0, b"done\n")
    assert counter.read_text() == "ran\n"
    assert len(channel.transports) == 2


async def test_commands_start_once_each_under_constant_cuts(guest: Guest, channel: SocketChannel, keeper: Keeper) -> None:
    folder = keeper.socket.parent / "counters"
    folder.mkdir()

    async def one(number: int) -> None:
        result = await guest.executor.exec(sh(f"echo x >> {folder}/{number}; printf %s {number}; exit {number % 250}"))
        assert (result.exit_code, result.stdout) == (number % 250, b"%d" % number)

    await guest.connect()
    async with cutting(channel, 0.005, 0.03) as cuts:
        for start in range(0, 300, 20):
            await asyncio.gather(*(one(number) for number in range(start, start + 20)))
    assert len(cuts) >= 5
    assert {path.read_text() for path in folder.iterdir()} == {"x\n"}
    assert len(list(folder.iterdir())) == 300


async def test_no_byte_is_lost_or_doubled_under_cuts(guest: Guest, channel: SocketChannel) -> None:
    data = random.Random(1).randbytes(24 << 20)
    await guest.connect()
    async with cutting(channel, 0.01, 0.05) as cuts:
        result = await guest.executor.exec(ExecRequest(argv=["cat"], stdin=data, output_limit_bytes=None))
        await guest.files.write_file("copy", data)
        back = await guest.files.read_file("copy")
    assert cuts
    assert result.stdout == data
    assert back == data


async def test_streams_of_both_kinds_survive_cuts(guest: Guest, channel: SocketChannel) -> None:
    process = await guest.executor.start(sh("cat; echo end >&2", stdin_stream=True, output_limit_bytes=None))
    pieces = [bytes([n % 256]) * 5000 for n in range(800)]
    got: dict[str, list[bytes]] = {"stdout": [], "stderr": []}

    async def feed(cuts: list[float]) -> None:
        for piece in pieces[:400]:
            await process.write(piece)
        while not cuts:  # noqa: ASYNC110  however fast the machine is, one falls into the streams
            await asyncio.sleep(0.001)
        for piece in pieces[400:]:
            await process.write(piece)
        await process.write_eof()

    await guest.connect()
    async with cutting(channel, 0.005, 0.02) as cuts:
        feeding = asyncio.create_task(feed(cuts))
        async for chunk in process.output():
            got[chunk.stream].append(chunk.data)
        await feeding
    assert cuts
    assert b"".join(got["stdout"]) == b"".join(pieces)
    assert b"".join(got["stderr"]) == b"end\n"
    assert (await process.wait()).exit_code == 0


async def test_a_timeout_is_kept_while_the_link_is_down(keeper: Keeper, tmp_path: Path) -> None:
    """The guest kills on time though nobody could tell it to."""
    beat = tmp_path / "beat"
    down = asyncio.Event()

    class Gated(SocketChannel):
        async def open(self, argv: object, protocol: asyncio.BaseProtocol) -> asyncio.Transport:
            if down.is_set():
                raise errors.SandboxUnavailableError("down", started="no")
            return await super().open((), protocol)

    channel = Gated(keeper.socket)
    guest = Guest(channel)
    task = asyncio.create_task(guest.executor.exec(sh(f"while :; do echo x >> {beat}; sleep 0.05; done", timeout=3)))
    assert await until(beat.exists, 30)
    down.set()
    channel.cut()
    assert await still(beat, 30)
    down.clear()
    with pytest.raises(errors.ExecTimeoutError):
        await task
    await guest.aclose()


async def test_cancelling_while_the_link_is_down_kills_on_the_next_link(keeper: Keeper, tmp_path: Path) -> None:
    beat = tmp_path / "beat"
    channel = keeper.channel()
    guest = Guest(channel)
    task = asyncio.create_task(guest.executor.exec(sh(f"while :; do echo x >> {beat}; sleep 0.05; done")))
    await until(beat.exists)
    channel.cut()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await guest.aclose()
    size = beat.stat().st_size
    await asyncio.sleep(0.3)
    assert beat.stat().st_size == size


async def test_a_restarted_guest_is_an_honest_unknown(start_keeper: Callable[..., Keeper]) -> None:
    first, second = start_keeper(), start_keeper()
    channel = first.channel()
    guest = Guest(channel)
    process = await guest.executor.start(sh("sleep 5"))
    channel.path = second.socket
    first.process.kill()
    with pytest.raises(errors.SandboxUnavailableError) as caught:
        await process.wait()
    assert caught.value.started == "yes"
    assert (await guest.executor.exec(sh("echo on"))).stdout == b"on\n"
    await guest.aclose()


async def test_a_command_that_was_never_sent_says_so(tmp_path: Path) -> None:
    guest = Guest(SocketChannel(tmp_path / "nobody"))
    with pytest.raises((errors.SandboxUnavailableError, FileNotFoundError)) as caught:
        await guest.executor.exec(sh("true"))
    assert isinstance(caught.value, errors.SandboxUnavailableError)
    assert caught.value.started == "no"
    await guest.aclose()


async def test_a_command_waits_for_the_next_link_when_a_handshake_is_cut(keeper: Keeper) -> None:
    """Nothing has been sent of it, so that it is safe to try again, and worth it: the sandbox was there a moment ago."""
    cuts = 5

    class Cutting(SocketChannel):
        async def open(self, argv: object, protocol: asyncio.BaseProtocol) -> asyncio.Transport:
            transport = await super().open((), protocol)
            if 1 < len(self.transports) <= cuts:
                transport.abort()
            return transport

    channel = Cutting(keeper.socket)
    guest = Guest(channel)
    await guest.connect()
    channel.cut()
    await asyncio.sleep(0.1)
    assert (await guest.executor.exec(sh("echo on"))).stdout == b"on\n"
    assert len(channel.transports) == cuts + 1
    await guest.aclose()


async def test_patience_ends_with_what_is_known(keeper: Keeper) -> None:
    channel = keeper.channel()
    connection = Connection(channel, patience=0.5)
    started = connection.submit(lambda n: protocol.spawn(n, sh("sleep 5"), stdin=False))
    while not started.started:
        await started.changed()
    keeper.process.kill()
    with pytest.raises(errors.SandboxUnavailableError) as caught:
        await started.done
    assert caught.value.started == "yes"
    await connection.aclose()


async def test_an_older_connection_of_the_same_client_is_fenced(keeper: Keeper) -> None:
    """A late relay can't speak for a client that has a newer one."""

    async def say_hello(generation: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, int]:
        reader, writer = await asyncio.open_unix_connection(str(keeper.socket))
        writer.write(protocol.hello(b"c" * 16, generation, 60000, []))
        head = await reader.readexactly(9)
        length, kind, _ = struct.unpack("<IBI", head)
        await reader.readexactly(length - 5)
        return reader, writer, kind

    old, old_writer, kind = await say_hello(1)
    assert kind == protocol.FrameType.WELCOME
    _, new_writer, kind = await say_hello(2)
    assert kind == protocol.FrameType.WELCOME
    assert await old.read() == b""
    _, stale_writer, kind = await say_hello(1)
    assert kind == protocol.FrameType.REFUSED
    for writer in (old_writer, new_writer, stale_writer):
        writer.close()


async def test_a_late_spawn_of_a_forgotten_id_does_not_run(keeper: Keeper, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    reader, writer = await asyncio.open_unix_connection(str(keeper.socket))
    writer.write(protocol.hello(b"d" * 16, 1, 60000, []))
    frame = protocol.spawn(7, sh(f"echo x >> {mark}"), stdin=False)

    async def until(*kinds: int) -> tuple[int, bytes]:
        while True:
            length, kind, _ = struct.unpack("<IBI", await reader.readexactly(9))
            payload = await reader.readexactly(length - 5)
            if kind in kinds:
                return kind, payload

    writer.write(frame + frame)
    await until(protocol.FrameType.EXIT)
    writer.write(protocol.exit_ack(7) + frame)
    kind, payload = await until(protocol.FrameType.FAILED, protocol.FrameType.EXIT)
    assert kind == protocol.FrameType.FAILED
    assert protocol.parse_failed(payload).phase == protocol.Phase.FORGOTTEN
    assert mark.read_text() == "x\n"
    writer.close()


async def test_commands_of_a_client_that_stays_away_are_killed(keeper: Keeper, tmp_path: Path) -> None:
    beat = tmp_path / "beat"
    channel = keeper.channel()
    connection = Connection(channel, lease=0.5)
    command = connection.submit(lambda n: protocol.spawn(n, sh(f"while :; do echo x >> {beat}; sleep 0.05; done"), stdin=False))
    await until(beat.exists)
    channel.path = tmp_path / "nowhere"
    channel.cut()
    with pytest.raises(errors.SandboxUnavailableError):
        await command.done
    await asyncio.sleep(1.0)
    size = beat.stat().st_size
    await asyncio.sleep(0.3)
    assert beat.stat().st_size == size
    other = Guest(keeper.channel())
    assert (await other.executor.exec(sh("echo alive"))).stdout == b"alive\n"
    await other.aclose()
    await connection.aclose()


async def test_two_clients_do_not_see_each_other(keeper: Keeper) -> None:
    one, two = Guest(keeper.channel()), Guest(keeper.channel())
    results = await asyncio.gather(*(g.executor.exec(sh(f"sleep 0.1; echo {n}")) for n, g in enumerate((one, two))))
    assert [result.stdout for result in results] == [b"0\n", b"1\n"]
    await one.aclose()
    assert (await two.executor.exec(sh("echo still"))).stdout == b"still\n"
    await two.aclose()


async def test_closing_kills_what_runs(keeper: Keeper, tmp_path: Path) -> None:
    beat = tmp_path / "beat"
    guest = Guest(keeper.channel())
    task = asyncio.create_task(guest.executor.exec(sh(f"while :; do echo x >> {beat}; sleep 0.05; done")))
    await until(beat.exists)
    await guest.aclose()
    await asyncio.wait([task])
    size = beat.stat().st_size
    await asyncio.sleep(0.3)
    assert beat.stat().st_size == size
    with pytest.raises(errors.SandboxUnavailableError) as caught:
        await guest.executor.exec(sh("true"))
    assert caught.value.started == "no"


async def test_an_idle_link_is_closed_and_opened_on_use(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandboxcore.guest.connection._IDLE", 0.2)
    channel = keeper.channel()
    guest = Guest(channel)
    await guest.executor.exec(sh("true"))
    await asyncio.sleep(0.7)
    assert channel.transports[0].is_closing()
    assert (await guest.executor.exec(sh("echo again"))).stdout == b"again\n"
    assert len(channel.transports) == 2
    await guest.aclose()
