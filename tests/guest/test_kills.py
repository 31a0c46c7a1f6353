"""SIGKILL of every part at every point of a command's life: exactly once, or an honest unknown, and nothing left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from keepers import Keeper, children, descendants, marked, until

from sandboxcore import errors
from sandboxcore.guest import Guest, guest_binary
from sandboxcore.guest._process import ProcessChannel
from sandboxcore.values import ExecRequest, ExecResult

POINTS = [0.0, 0.001, 0.002, 0.004, 0.008, 0.02, 0.1, 0.25]


def sh(line: str, **options: object) -> ExecRequest:
    return ExecRequest(argv=["/bin/sh", "-c", line], **options)  # type: ignore[arg-type]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


async def outcome(running: Awaitable[ExecResult]) -> ExecResult | errors.SandboxUnavailableError:
    try:
        return await asyncio.wait_for(running, 15)
    except errors.SandboxUnavailableError as error:
        return error


@pytest.mark.parametrize("point", POINTS)
async def test_a_killed_minder_is_an_unknown_that_started(start_keeper: Callable[..., Keeper], point: float) -> None:
    keeper = start_keeper()
    counter = keeper.socket.parent / "counter"
    guest = Guest(keeper.channel())
    await guest.connect()
    task = asyncio.ensure_future(guest.executor.exec(sh(f"echo ran >> {counter}; sleep 0.2; echo end")))
    await asyncio.sleep(point)
    for minder in children(keeper.pid):
        os.kill(minder, signal.SIGKILL)
    got = await outcome(task)
    if isinstance(got, errors.SandboxUnavailableError):
        assert got.started in ("yes", "unknown")
        assert not counter.exists() or counter.read_text() in ("", "ran\n")  # it may die between opening and writing
    else:  # the minder was not there yet, or no longer
        assert (got.exit_code, got.stdout, counter.read_text()) == (0, b"end\n", "ran\n")
    assert await until(lambda: not [pid for pid in descendants(keeper.pid) if alive(pid)])
    assert (await guest.executor.exec(sh("echo on"))).stdout == b"on\n"
    await guest.aclose()


async def test_a_killed_minder_leaves_other_commands_alone(guest: Guest, keeper: Keeper) -> None:
    other = asyncio.ensure_future(guest.executor.exec(sh("sleep 1; echo fine")))
    await until(lambda: len(descendants(keeper.pid)) >= 3)
    before = set(children(keeper.pid))
    victim = asyncio.ensure_future(guest.executor.exec(sh("sleep 30 & setsid sleep 31 & sleep 32")))
    await until(lambda: len(descendants(keeper.pid)) >= 7)
    (minder,) = set(children(keeper.pid)) - before
    doomed = descendants(minder)
    os.kill(minder, signal.SIGKILL)
    got = await outcome(victim)
    assert isinstance(got, errors.SandboxUnavailableError)
    assert got.started == "yes"
    assert await until(lambda: not any(alive(pid) for pid in doomed))
    assert (await other).stdout == b"fine\n"


@pytest.mark.parametrize("point", POINTS)
async def test_a_killed_keeper_is_an_honest_unknown(start_keeper: Callable[..., Keeper], point: float) -> None:
    keeper = start_keeper()
    counter = keeper.socket.parent / "counter"
    guest = Guest(keeper.channel())
    guest.connection._patience = 0.3
    await guest.connect()
    task = asyncio.ensure_future(guest.executor.exec(sh(f"echo ran >> {counter}; echo end; sleep 0.1")))
    await asyncio.sleep(point)
    keeper.process.kill()
    got = await outcome(task)
    if isinstance(got, ExecResult):
        assert (got.exit_code, got.stdout) == (0, b"end\n")
    else:
        await asyncio.sleep(0.2)
        assert got.started != "no" or not counter.exists()
        assert got.started != "yes" or await until(counter.exists, 10)  # the program began; its first words take a moment
    await until(lambda: not counter.exists() or counter.read_text() != "", 10)
    assert not counter.exists() or counter.read_text() == "ran\n"
    await guest.aclose()


async def test_commands_outlive_a_killed_keeper_until_their_deadline(
    start_keeper: Callable[..., Keeper], tmp_path: Path, mark: str
) -> None:
    keeper, beat = start_keeper(), tmp_path / "beat"
    guest = Guest(keeper.channel())
    guest.connection._patience = 0.2
    process = await guest.executor.start(sh(f"while :; do echo x >> {beat}; sleep 0.05; done", timeout=4.0, env={"MARK": mark}))
    await until(beat.exists)
    keeper.process.kill()
    got = await outcome(asyncio.ensure_future(process.wait()))
    assert isinstance(got, errors.SandboxUnavailableError)
    assert got.started == "yes"
    size = beat.stat().st_size
    assert await until(lambda: beat.stat().st_size > size, 3.0), "it goes on without its keeper"
    assert await until(lambda: not marked(mark), 30.0), "its minder still keeps the deadline"
    await guest.aclose()


@pytest.mark.parametrize("point", POINTS)
async def test_a_killed_relay_costs_nothing(tmp_path: Path, point: float) -> None:
    home, counter = tmp_path / "home", tmp_path / "counter"
    home.mkdir(mode=0o700)
    relays: list[int] = []

    class Watched(ProcessChannel):
        guest_path = str(guest_binary())

        async def open(self, argv: object, protocol: asyncio.BaseProtocol) -> asyncio.Transport:
            words = (self.guest_path, "relay", "--dir", str(home / "g"))
            before = set(children(os.getpid()))
            transport = await super().open(words, protocol)
            relays.extend(set(children(os.getpid())) - before)
            return transport

    guest = Guest(Watched(()))
    await guest.connect()
    keeper = _keeper_of(home / "g")
    try:
        task = asyncio.ensure_future(guest.executor.exec(sh(f"echo ran >> {counter}; sleep 0.1; echo end")))
        await asyncio.sleep(point)
        os.kill(relays[0], signal.SIGKILL)
        result = await task
        assert (result.exit_code, result.stdout) == (0, b"end\n")
        assert counter.read_text() == "ran\n"
        await guest.aclose()
    finally:
        os.kill(keeper, signal.SIGKILL)


def _keeper_of(folder: Path) -> int:
    """Find the keeper that has its socket in a folder: the detached process that runs our relay's command line."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if os.fsencode(folder) in words and b"relay" in words and parent != str(os.getpid()):
            return int(entry.name)
    raise AssertionError("no keeper")


CLIENT = textwrap.dedent("""
    import asyncio, sys
    sys.path.insert(0, {tests!r})
    from pathlib import Path
    from keepers import SocketChannel
    from sandboxcore.guest import Guest
    from sandboxcore.values import ExecRequest

    async def main():
        guest = Guest(SocketChannel(Path({socket!r})), lease=1.0)
        await guest.connect()
        print("up", flush=True)
        await guest.executor.exec(ExecRequest(argv=["/bin/sh", "-c", {line!r}]))
        print("end", flush=True)
        await asyncio.sleep(60)

    asyncio.run(main())
""")


@pytest.mark.parametrize("point", [0.0, 0.05, 0.3])
async def test_a_killed_client_leaves_nothing_after_its_lease(keeper: Keeper, tmp_path: Path, point: float) -> None:
    beat = tmp_path / "beat"
    line = f"(setsid sh -c 'while :; do echo x >> {beat}; sleep 0.05; done' &) ; while :; do sleep 1; done"
    source = CLIENT.format(tests=str(Path(__file__).parent), socket=str(keeper.socket), line=line)
    client = await asyncio.create_subprocess_exec(sys.executable, "-c", source, stdout=subprocess.PIPE)
    assert client.stdout is not None
    assert await client.stdout.readline() == b"up\n"
    await asyncio.sleep(point)
    client.kill()
    await client.wait()
    await asyncio.sleep(1.2)
    assert await until(lambda: not [pid for pid in descendants(keeper.pid) if alive(pid)])
    other = Guest(keeper.channel())
    assert (await other.executor.exec(sh("echo alive"))).stdout == b"alive\n"
    await other.aclose()


async def test_a_killed_file_worker_is_said_and_leaves_no_draft(guest: Guest, keeper: Keeper) -> None:
    writer = await guest.files.open_write("big")
    await writer.write(b"x" * 100_000)
    (worker,) = children(keeper.pid)
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(errors.SandboxUnavailableError) as caught:
        await writer.commit()
    assert caught.value.started == "yes"
    assert not [info.name for info in await guest.files.list_dir(".") if "sandboxcore" in info.name or info.name == "big"]
