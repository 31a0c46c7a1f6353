"""Commands that are spoken with while they run."""

from __future__ import annotations

import asyncio
import sys
import textwrap
from pathlib import Path

import pytest
from keepers import Keeper, descendants

from sandboxcore import errors
from sandboxcore.abc import ProcessHandle
from sandboxcore.guest import Guest
from sandboxcore.values import ExecRequest

MIB = 1 << 20


def sh(line: str, **options: object) -> ExecRequest:
    return ExecRequest(argv=["/bin/sh", "-c", line], **{"output_limit_bytes": None, **options})  # type: ignore[arg-type]


def py(code: str, **options: object) -> ExecRequest:
    return ExecRequest(argv=[sys.executable, "-S", "-c", textwrap.dedent(code)], **options)  # type: ignore[arg-type]


def resident(pid: int | str) -> int:
    """Bytes of memory that a process holds."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) * 1024


async def everything(process: ProcessHandle) -> tuple[bytes, bytes]:
    said = {"stdout": bytearray(), "stderr": bytearray()}
    async for chunk in process.output():
        said[chunk.stream] += chunk.data
    return bytes(said["stdout"]), bytes(said["stderr"])


async def test_a_conversation(guest: Guest) -> None:
    process = await guest.executor.start(sh("while read line; do echo got $line; done; echo err >&2; exit 6", stdin_stream=True))
    assert process.pid
    output = process.output()
    for word in ("one", "two"):
        await process.write(word.encode() + b"\n")
        chunk = await asyncio.wait_for(anext(output), 30)
        assert (chunk.stream, chunk.data) == ("stdout", f"got {word}\n".encode())
    await process.write_eof()
    await process.write_eof()
    rest = [chunk async for chunk in output]
    assert b"".join(chunk.data for chunk in rest if chunk.stream == "stderr") == b"err\n"
    result = await process.wait()
    assert (result.exit_code, result.stdout) == (6, b"")
    assert await process.wait() is not None, "waiting twice is no error"


async def test_the_pid_is_the_programs(guest: Guest) -> None:
    process = await guest.executor.start(sh("echo $$"))
    out, _ = await everything(process)
    assert int(out) == process.pid


async def test_stdin_of_the_request_goes_first(guest: Guest) -> None:
    process = await guest.executor.start(ExecRequest(argv=["cat"], stdin=b"first ", stdin_stream=True))
    await process.write(b"second")
    await process.write_eof()
    assert (await everything(process))[0] == b"first second"


async def test_five_mebibytes_echo_through_both_ways(guest: Guest) -> None:
    process = await guest.executor.start(ExecRequest(argv=["cat"], stdin_stream=True, output_limit_bytes=None))
    data = bytes(range(256)) * (5 * MIB // 256)

    async def feed() -> None:
        await process.write(data)
        await process.write_eof()

    (out, _), _ = await asyncio.gather(everything(process), feed())
    assert out == data


async def test_writing_waits_while_nobody_reads(guest: Guest) -> None:
    process = await guest.executor.start(sh("sleep 0.5; cat >/dev/null", stdin_stream=True))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(process.write(bytes(8 * MIB)), 0.2)
    await process.kill()


async def test_writing_to_a_program_that_stopped_reading_is_a_broken_pipe(guest: Guest) -> None:
    process = await guest.executor.start(sh("exec 0<&-; sleep 60", stdin_stream=True))
    with pytest.raises(BrokenPipeError):
        for _ in range(200):
            await asyncio.wait_for(process.write(bytes(65536)), 30)
    await process.kill()


async def test_writing_to_a_program_that_ended_is_a_broken_pipe(guest: Guest) -> None:
    process = await guest.executor.start(sh("exit 0", stdin_stream=True))
    await process.wait()
    with pytest.raises(BrokenPipeError):
        await process.write(b"x")


async def test_a_slow_reader_holds_up_its_own_command_only(guest: Guest, tmp_path: Path) -> None:
    held = await guest.executor.start(sh(f"head -c 3000000 /dev/zero; echo > {tmp_path}/through"))
    for _ in range(20):
        result = await asyncio.wait_for(guest.executor.exec(sh("head -c 600000 /dev/zero")), 30)
        assert len(result.stdout) == 600_000
    assert not (tmp_path / "through").exists(), "what nobody reads waits in the sandbox"
    out, _ = await everything(held)
    assert len(out) == 3_000_000
    assert (await held.wait()).exit_code == 0


async def test_fifty_endless_writers_that_nobody_reads_cost_bounded_memory(guest: Guest, keeper: Keeper) -> None:
    processes = [await guest.executor.start(sh("yes | tee /dev/stderr")) for _ in range(50)]
    here = resident("self")
    for _ in range(10):
        await asyncio.sleep(0.1)
        assert resident(keeper.pid) < 40 * MIB
    assert resident("self") - here < 40 * MIB
    await asyncio.gather(*(process.kill() for process in processes))
    assert await alone(keeper)
    assert (await guest.executor.exec(sh("echo fine"))).stdout == b"fine\n"


async def test_waiting_without_reading_does_not_deadlock(guest: Guest) -> None:
    process = await guest.executor.start(sh("head -c 30000000 /dev/zero; head -c 3000000 /dev/zero >&2; exit 8"))
    assert (await asyncio.wait_for(process.wait(), 20)).exit_code == 8


async def test_a_signal_reaches_the_program_alone(guest: Guest) -> None:
    code = """
        import os, signal, time
        signal.signal(signal.SIGUSR1, lambda *_: (os.write(1, b'usr1 '), None))
        os.write(1, b'ready ')
        while True: time.sleep(0.05)
    """
    process = await guest.executor.start(py(code))
    output = process.output()
    said = (await asyncio.wait_for(anext(output), 30)).data
    assert said == b"ready "
    await process.signal(10)
    assert (await asyncio.wait_for(anext(output), 30)).data == b"usr1 "
    await process.signal(15)
    result = await process.wait()
    assert (result.exit_code, result.signal) == (143, 15)
    await process.signal(15)


async def test_a_signal_without_meaning_is_no_harm(guest: Guest) -> None:
    process = await guest.executor.start(sh("sleep 0.3; exit 2"))
    for number in (0, -1, 65, 1000):
        await process.signal(number)
    assert (await process.wait()).exit_code == 2


async def test_kill_takes_all_that_the_program_started(guest: Guest, keeper: Keeper) -> None:
    process = await guest.executor.start(sh("setsid sleep 60 & (setsid sleep 60 &) ; trap '' TERM; sleep 60"))
    await asyncio.sleep(0.1)
    await process.kill()
    assert await alone(keeper)
    await process.kill()
    assert (await process.wait()).exit_code == 137


async def test_a_timeout_of_a_started_command_comes_with_wait(guest: Guest) -> None:
    process = await guest.executor.start(sh("echo begun; sleep 60", timeout=0.3))
    with pytest.raises(errors.ExecTimeoutError):
        await asyncio.wait_for(process.wait(), 30)


async def test_starting_what_cannot_be_run_is_127_with_a_word(guest: Guest) -> None:
    process = await guest.executor.start(ExecRequest(argv=["/no/such/program"]))
    _, err = await everything(process)
    assert b"/no/such/program" in err
    assert (await process.wait()).exit_code == 127


async def test_starting_in_a_missing_folder_raises(guest: Guest) -> None:
    with pytest.raises(errors.SandboxFileNotFoundError):
        await guest.executor.start(sh("true", cwd="/no/such/folder"))


async def alone(keeper: Keeper) -> bool:
    """Wait until not even a minder is left: it tells of the end before its own."""
    for _ in range(50):
        if not descendants(keeper.pid):
            return True
        await asyncio.sleep(0.02)
    return False
