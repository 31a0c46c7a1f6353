"""Much at once: memory and descriptors at their limits, and readers that stop, leave or never begin."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from keepers import Keeper, children, marked, until

from sandboxcore import errors
from sandboxcore.guest import Guest
from sandboxcore.values import ExecRequest, ExecResult

MIB = 1 << 20
SECONDS = 60


def sh(line: str, **more: object) -> ExecRequest:
    return ExecRequest(argv=["/bin/sh", "-c", line], **more)  # type: ignore[arg-type]


async def run(guest: Guest, request: ExecRequest) -> ExecResult:
    return await asyncio.wait_for(guest.executor.exec(request), SECONDS)


# --- memory ---


async def test_readers_that_stand_still_do_not_hold_up_others(guest: Guest, tmp_path: Path) -> None:
    """The guest keeps less for each command when all keep much, but never less than what a client acknowledges at once."""
    (tmp_path / "big").write_bytes(bytes(4 * MIB))
    readers = [await guest.files.open_read(str(tmp_path / "big")) for _ in range(40)]
    for size in (300_000, 100_000, 70_000):
        assert len((await run(guest, sh(f"head -c {size} /dev/zero"))).stdout) == size
    terminal = await run(guest, sh("head -c 60000 /dev/zero | tr '\\0' x", pty=True))
    assert len(terminal.stdout) == 60_000
    rest = await asyncio.wait_for(asyncio.gather(*(_all(reader) for reader in readers)), SECONDS)
    assert set(rest) == {4 * MIB}


async def _all(reader: object) -> int:
    total = 0
    while data := await reader.read():  # type: ignore[attr-defined]
        total += len(data)
    return total


async def test_many_large_files_at_once(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(data := os.urandom(8 * MIB))
    reading = (guest.files.read_file(str(tmp_path / "big")) for _ in range(40))
    found = await asyncio.wait_for(asyncio.gather(*reading), SECONDS)
    assert [one == data for one in found] == [True] * 40


# --- descriptors ---


async def test_at_the_limit_of_descriptors_commands_start_whole_or_not_at_all(
    start_keeper: Callable[..., Keeper], tmp_path: Path
) -> None:
    """Not with a descriptor of the guest's in the place of one of theirs, and without a link that is cut."""
    keeper = start_keeper()
    limit = 80
    resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE, (limit, limit))
    channel = keeper.channel()
    guest = Guest(channel)
    started, refused = [], []
    for _ in range(limit):
        try:
            started.append(await guest.executor.start(sh("read line; echo got $line", stdin_stream=True)))
        except errors.SandboxUnavailableError as error:
            refused.append(error)
    assert len(started) > limit // 8
    assert refused
    assert {error.started for error in refused} == {"no"}
    assert {error.hint for error in refused} == {"its limit of processes, open files or memory is reached"}
    others = [Guest(keeper.channel()) for _ in range(12)]
    spent = _processor_seconds(keeper.pid)
    outcomes = await asyncio.wait_for(asyncio.gather(*(other.connect() for other in others), return_exceptions=True), SECONDS)
    assert any(isinstance(outcome, errors.SandboxUnavailableError) for outcome in outcomes)
    assert _processor_seconds(keeper.pid) - spent < 0.3, "whoever could not be taken in was waited for in a loop"
    for other in others:
        await other.aclose()
    for number, process in enumerate(started):
        await process.write(f"{number}\n".encode())
        said = b"".join([chunk.data async for chunk in process.output()])
        assert said == f"got {number}\n".encode()
        assert (await process.wait()).exit_code == 0
    assert len(channel.transports) == 1
    assert (await run(guest, sh("echo again"))).stdout == b"again\n"
    await guest.aclose()


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- readers that leave ---


@pytest.mark.parametrize("pty", [False, True])
async def test_a_reader_that_stops_does_not_hold_up_the_kill(guest: Guest, pty: bool) -> None:
    process = await guest.executor.start(ExecRequest(argv=["yes"], pty=pty, output_limit_bytes=None))
    output = process.output()
    await anext(aiter(output))
    await asyncio.sleep(0.3)  # the guest's window fills
    await asyncio.wait_for(process.kill(), 10)
    del output


async def test_a_terminal_s_end_is_not_held_up_by_what_nobody_reads(guest: Guest) -> None:
    process = await guest.executor.start(sh("yes | head -c 2000000", pty=True, output_limit_bytes=None))
    output = process.output()
    await anext(aiter(output))
    await asyncio.sleep(0.3)
    await asyncio.wait_for(process.kill(), 10)
    del output


async def test_waiting_goes_on_when_a_reader_has_left(guest: Guest) -> None:
    process = await guest.executor.start(sh("head -c 2000000 /dev/zero; exit 3"))
    async for _ in process.output():
        await asyncio.sleep(0.3)
        break
    assert (await asyncio.wait_for(process.wait(), SECONDS)).exit_code == 3


async def test_a_second_reader_gets_all_that_the_first_has_left(guest: Guest) -> None:
    process = await guest.executor.start(sh("head -c 2000000 /dev/zero"))
    got = 0

    async def rest() -> int:
        return sum([len(chunk.data) async for chunk in process.output()])

    async for chunk in process.output():
        got += len(chunk.data)
        break
    reading = asyncio.create_task(rest())
    await asyncio.wait_for(process.wait(), SECONDS)
    assert got + await reading == 2_000_000


async def test_a_signal_waits_for_the_next_link(guest: Guest, keeper: Keeper) -> None:
    process = await guest.executor.start(sh("trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done"))
    assert (await anext(aiter(process.output()))).data == b"ready\n"
    guest.connection.cut()
    while guest.connection.connected:  # noqa: ASYNC110  a turn of the loop later it opens again
        await asyncio.sleep(0)
    await process.signal(signal.SIGTERM)
    assert (await asyncio.wait_for(process.wait(), SECONDS)).exit_code == 5


# --- who started it, and what it finds ---


async def test_a_guest_whose_parent_ignored_its_children_still_hears_of_its_own(
    start_keeper: Callable[..., Keeper],
) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        keeper = start_keeper()
    finally:
        signal.signal(signal.SIGCHLD, before)
    guest = Guest(keeper.channel())
    assert (await run(guest, sh("exit 4"))).exit_code == 4
    await guest.aclose()


@contextlib.contextmanager
def may_have_come_again() -> Iterator[None]:
    """Let one error through: somebody else has put something there again."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise


async def test_a_service_ends_with_its_command_however_much_is_written_on(start_keeper: Callable[..., Keeper]) -> None:
    keeper = start_keeper("--", "/bin/sh", "-c", "yes & exit 3")
    assert await asyncio.wait_for(asyncio.to_thread(keeper.process.wait), SECONDS) == 3
    assert keeper.status.read_text().splitlines()[-1] == "exit 3 0 0"


async def test_a_tree_that_somebody_else_removes_from_is_never_taken_for_gone(guest: Guest, tmp_path: Path) -> None:
    tree, done = tmp_path / "tree", threading.Event()

    def churn() -> None:
        number = 0
        while not done.is_set():
            number += 1
            with contextlib.suppress(FileNotFoundError):
                (tree / f"f{number % 50}").write_bytes(b"")
                (tree / f"f{(number + 25) % 50}").unlink()

    churning = threading.Thread(target=churn)
    churning.start()
    try:
        for _ in range(10):
            tree.mkdir(exist_ok=True)
            for number in range(200):
                (tree / f"g{number}").write_bytes(b"")
            with may_have_come_again():
                await guest.files.remove(str(tree), recursive=True)
    finally:
        done.set()
        churning.join()


async def test_a_folder_s_mode_is_given_to_nothing_else(guest: Guest, tmp_path: Path) -> None:
    """Whoever owns the parent may put a link in its place between the making and the giving."""
    victim, place, done = tmp_path / "victim", tmp_path / "place", threading.Event()
    victim.mkdir(mode=0o700)

    def replace() -> None:
        while not done.is_set():
            with contextlib.suppress(OSError):
                place.rmdir()
                place.symlink_to(victim)

    replacing = threading.Thread(target=replace)
    replacing.start()
    try:
        for _ in range(300):
            with contextlib.suppress(OSError):
                await guest.files.make_dir(str(place), mode=0o777)
            with contextlib.suppress(OSError):
                place.unlink()
            assert victim.stat().st_mode & 0o777 == 0o700
    finally:
        done.set()
        replacing.join()


async def test_a_killed_minder_s_tree_goes_however_busy_the_guest_is(
    guest: Guest, keeper: Keeper, tmp_path: Path, mark: str
) -> None:
    """Rounds of killing are paced by time, not by how often the guest wakes up."""
    beats = tmp_path / "beats"
    busy = [await guest.executor.start(sh("yes", output_limit_bytes=None)) for _ in range(20)]
    draining = [asyncio.create_task(_drain(process)) for process in busy]
    before = set(children(keeper.pid))
    chain = "while :; do echo x >> beats; sleep 0.05; done"
    for _ in range(6):
        chain = f"setsid sh -c '{chain}' & wait" if "'" not in chain else f"({chain}) & wait"
    doomed = asyncio.create_task(run(guest, sh(chain, cwd=str(tmp_path), env={"MARK": mark})))
    assert await until(beats.exists, SECONDS)
    (minder,) = set(children(keeper.pid)) - before
    os.kill(minder, signal.SIGKILL)
    with pytest.raises(errors.SandboxUnavailableError):
        await doomed
    assert await until(lambda: not marked(mark), SECONDS)
    for process in busy:
        await process.kill()
    await asyncio.gather(*draining)


async def _drain(process: object) -> None:
    async for _ in process.output():  # type: ignore[attr-defined]
        pass
