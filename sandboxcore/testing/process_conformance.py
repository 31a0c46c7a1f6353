"""Commands that are talked to while they run (EXEC-2 to 5, 9, 14 and 20 to 22)."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING

import pytest

from sandboxcore.errors import ExecTimeoutError, OutputLimitExceededError, SandboxFileNotFoundError

from ._conformance import Conformance, needs, sh
from .hearts import FAMILY, beating, family, started_hearts
from .target import Target

if TYPE_CHECKING:
    from sandboxcore.environment import Sandbox
    from sandboxcore.process import Process

__all__ = ("ProcessConformance",)


async def read_until(process: Process, end: bytes) -> bytes:
    """Read output until it ends with these bytes."""
    data = b""
    async for chunk in process.output():
        data += chunk.data
        if data.endswith(end):
            break
    return data


class ProcessConformance(Conformance):
    """Output as it comes, input while it runs, signals, terminals."""

    async def test_output_comes_while_it_runs(self, sandbox: Sandbox) -> None:
        """EXEC-20."""
        async with sandbox.start(sh('echo first; read -r line; echo "got $line"')) as process:
            assert await read_until(process, b"\n") == b"first\n"
            await process.stdin.write(b"hello\n")
            assert await read_until(process, b"hello\n") == b"got hello\n"
            result = await process.wait()
        assert (result.exit_code, result.stdout) == (0, b"")

    async def test_input_ends_when_it_is_closed(self, sandbox: Sandbox) -> None:
        """EXEC-2, EXEC-20: not before, and all bytes are there."""
        async with sandbox.start(["cat"], stdin=b"first ") as process:
            for piece in (b"\x00\xff", b"", b"\r\n" * 100_000):
                await process.stdin.write(piece)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(waiting := asyncio.ensure_future(_collect(process))), 0.3)
            await process.stdin.close()
            await process.stdin.close()
            assert await waiting == b"first \x00\xff" + b"\r\n" * 100_000
            assert (await process.wait()).exit_code == 0

    async def test_its_streams_come_apart(self, sandbox: Sandbox) -> None:
        """EXEC-3, EXEC-4."""
        async with sandbox.start(sh(r"printf 'o\377\000'; printf 'e\r\n' >&2; exit 3")) as process:
            result = await process.communicate()
        assert (result.exit_code, result.stdout, result.stderr) == (3, b"o\xff\x00", b"e\r\n")

    async def test_a_command_whose_input_ended_can_not_be_written_to(self, sandbox: Sandbox) -> None:
        """EXEC-20: that is a ``BrokenPipeError``, sooner or later, and not a hang."""
        async with sandbox.start(sh("exec <&-; echo closed; sleep 300")) as process:
            await read_until(process, b"closed\n")
            with pytest.raises(BrokenPipeError):
                await _write_on(process)

    async def test_a_slow_reader_holds_the_command_up(self, sandbox: Sandbox, scratch: str) -> None:
        """EXEC-20: what is not read waits in the sandbox, and nothing of it is lost; other commands are not held up."""
        script = 'i=0; while echo $i > "$1/written"; [ $i -lt 64 ]; do head -c 1048576 /dev/zero; i=$((i+1)); done'
        async with sandbox.start(sh(script, scratch), output_limit_bytes=None) as process:
            written = [""]
            while not written[-1] or written[-3:] != written[-1:] * 3:  # a machine that is busy may hold it up for a second
                await asyncio.sleep(1.0)
                written.append((await sandbox.exec(["cat", f"{scratch}/written"], timeout=20)).text())
            assert int(written[-1]) < 8
            size = 0
            async for chunk in process.output():
                size += len(chunk.data)
            assert size == 64 << 20
            assert (await process.wait()).exit_code == 0

    async def test_a_signal_reaches_the_program(self, sandbox: Sandbox) -> None:
        """EXEC-21: and only asks, where the program has an answer of its own."""
        script = "trap 'echo caught; exit 12' USR1; echo ready; while :; do sleep 0.05; done"
        async with sandbox.start(sh(script)) as process:
            await read_until(process, b"ready\n")
            await process.signal(signal.SIGUSR1)
            assert await read_until(process, b"caught\n") == b"caught\n"
            assert (await process.wait()).exit_code == 12
            await process.signal(signal.SIGUSR1)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
    async def test_a_signal_that_ends_it_shows(self, sandbox: Sandbox, number: signal.Signals) -> None:
        """EXEC-5, EXEC-21."""
        async with sandbox.start(sh("echo ready; exec sleep 300")) as process:
            await read_until(process, b"ready\n")
            await asyncio.sleep(0.1)
            await process.signal(number)
            result = await process.wait()
        assert (result.exit_code, result.signal) == (128 + number, number)

    async def test_kill_takes_the_whole_family(self, sandbox: Sandbox, scratch: str, target: Target) -> None:
        """EXEC-21."""
        async with sandbox.start(family(scratch)) as process:
            await read_until(process, b"up\n")
            begin = time.monotonic()
            await process.kill()
            await process.kill()
            result = await process.wait()
            assert time.monotonic() - begin <= 2.0 + target.slack
            assert (result.exit_code, result.signal) == (137, 9)
            assert await beating(sandbox, scratch) == []

    @pytest.mark.parametrize("how", ["leave", "raise"])
    async def test_leaving_the_block_takes_the_whole_family(self, sandbox: Sandbox, scratch: str, how: str) -> None:
        """EXEC-21: however it is left."""

        async def block() -> None:
            async with sandbox.start(family(scratch)) as process:
                await read_until(process, b"up\n")
                if how == "raise":
                    raise KeyError("mine")

        if how == "raise":
            with pytest.raises(KeyError, match="mine"):
                await block()
        else:
            await block()
        assert await started_hearts(sandbox, scratch) == set(FAMILY)
        assert await beating(sandbox, scratch) == []

    async def test_a_timeout_reaches_it_too(self, sandbox: Sandbox, scratch: str, target: Target) -> None:
        """EXEC-9, EXEC-10."""
        begin = time.monotonic()
        async with sandbox.start(family(scratch), timeout=2.0) as process:
            with pytest.raises(ExecTimeoutError):
                await process.wait()
            assert 2.0 <= time.monotonic() - begin <= 4.0 + target.slack
            assert await beating(sandbox, scratch) == []

    async def test_an_output_limit_reaches_it_too(self, sandbox: Sandbox) -> None:
        """EXEC-14."""
        async with sandbox.start(["head", "-c", "100000", "/dev/zero"], output_limit_bytes=1000) as process:
            with pytest.raises(OutputLimitExceededError):
                await process.communicate()

    async def test_what_can_not_start_raises(self, sandbox: Sandbox, scratch: str) -> None:
        """EXEC-7, EXEC-15."""
        with pytest.raises(SandboxFileNotFoundError):
            async with sandbox.start(["true"], cwd=f"{scratch}/missing"):
                pass
        async with sandbox.start(["/no/such/program"]) as process:
            assert (await process.wait()).exit_code == 127

    @needs("pty")
    async def test_a_terminal_has_the_size_that_was_asked_for(self, sandbox: Sandbox) -> None:
        """EXEC-3, EXEC-22."""
        script = "test -t 0 && test -t 1 && test -t 2 && stty size && read -r go && stty size >&2"
        async with sandbox.start(sh(script), pty=True, terminal_size=(101, 37)) as process:
            assert (await read_until(process, b"\n")).split() == [b"37", b"101"]
            await process.resize(132, 43)
            await process.stdin.write(b"go\n")
            chunks = [chunk async for chunk in process.output()]
            assert {chunk.stream for chunk in chunks} == {"stdout"}
            assert b"".join(chunk.data for chunk in chunks).split()[-2:] == [b"43", b"132"]
            assert (await process.wait()).exit_code == 0

    @needs("pty")
    async def test_a_terminal_delivers_interrupts_and_all_output(self, sandbox: Sandbox) -> None:
        """EXEC-22: Ctrl-C is a signal, and nothing of the last words is lost."""
        # Without a trap, some shells wait on for a child that they start just after the interrupt.
        script = "trap 'exit 33' INT; echo ready; while :; do sleep 0.05; done"
        async with sandbox.start(sh(script), pty=True) as process:
            await read_until(process, b"ready\r\n")
            await process.stdin.write(b"\x03")
            assert (await process.wait()).exit_code == 33
        for _ in range(5):
            async with sandbox.start(sh("head -c 20000 /dev/zero | tr '\\0' x; printf end"), pty=True) as process:
                result = await process.communicate()
            assert (len(result.stdout), result.stdout[-3:]) == (20003, b"end")


async def _write_on(process: Process) -> None:
    for _ in range(1000):
        await process.stdin.write(bytes(1 << 16))


async def _collect(process: Process) -> bytes:
    return b"".join([chunk.data async for chunk in process.output()])
