"""Commands on a terminal of their own."""

from __future__ import annotations

import asyncio
import sys
import textwrap

import pytest
from keepers import timed_out

from sandboxcore import errors
from sandboxcore.abc import ProcessHandle
from sandboxcore.guest import Guest
from sandboxcore.values import ExecRequest


def on_terminal(line: str, **options: object) -> ExecRequest:
    return ExecRequest(argv=["/bin/sh", "-c", line], pty=True, **options)  # type: ignore[arg-type]


def py(code: str, **options: object) -> ExecRequest:
    return ExecRequest(argv=[sys.executable, "-S", "-c", textwrap.dedent(code)], pty=True, **options)  # type: ignore[arg-type]


async def seen(process: ProcessHandle, wanted: bytes) -> bytes:
    """Read on until it was said."""
    said = b""
    async with asyncio.timeout(10):
        async for chunk in process.output():
            said += chunk.data
            if wanted in said:
                return said
    raise AssertionError(f"{wanted!r} is not in {said!r}")


async def test_a_terminal_is_controlling_and_of_the_size_asked_for(guest: Guest) -> None:
    result = await guest.executor.exec(
        on_terminal("tty; stty size; echo x > /dev/tty; test -t 0 && test -t 1 && test -t 2", terminal_size=(132, 50))
    )
    tty, rest = result.stdout.split(b"\r\n", 1)
    assert tty.startswith(b"/dev/pts/")
    assert (rest, result.exit_code) == (b"50 132\r\nx\r\n", 0)


async def test_both_streams_are_one(guest: Guest) -> None:
    result = await guest.executor.exec(on_terminal("echo out; echo err >&2"))
    assert (result.stdout, result.stderr) == (b"out\r\nerr\r\n", b"")


async def test_a_terminals_output_is_complete_every_time(guest: Guest) -> None:
    code = "import os\nos.write(1, b'begin' + b'.' * 3000 + b'end')\nos._exit(3)"

    async def one() -> None:
        result = await guest.executor.exec(py(code))
        assert (result.exit_code, result.stdout) == (3, b"begin" + b"." * 3000 + b"end")

    for _ in range(10):
        await asyncio.gather(*(one() for _ in range(10)))


async def test_much_output_of_a_terminal_is_complete(guest: Guest) -> None:
    result = await guest.executor.exec(on_terminal("stty raw -echo; head -c 3000000 /dev/zero; echo end"))
    assert len(result.stdout) == 3_000_004
    assert result.stdout.endswith(b"end\n")


async def test_resizing_is_seen_by_the_program(guest: Guest) -> None:
    code = """
        import os, signal, sys
        signal.signal(signal.SIGWINCH, lambda *_: (os.write(1, repr(tuple(os.get_terminal_size())).encode()), os._exit(0)))
        os.write(1, b'ready')
        while True: signal.pause()
    """
    process = await guest.executor.start(py(code, stdin_stream=True))
    await seen(process, b"ready")
    await process.resize(101, 33)
    await seen(process, b"(101, 33)")
    assert (await process.wait()).exit_code == 0


async def test_control_c_interrupts_what_is_in_the_foreground(guest: Guest) -> None:
    process = await guest.executor.start(
        on_terminal("trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.1; done", stdin_stream=True)
    )
    await seen(process, b"ready")
    await process.write(b"\x03")
    await seen(process, b"caught")
    assert (await process.wait()).exit_code == 9


async def test_control_c_kills_by_the_signal(guest: Guest) -> None:
    process = await guest.executor.start(on_terminal("echo ready; exec sleep 60", stdin_stream=True))
    await seen(process, b"ready")
    await process.write(b"\x03")
    result = await asyncio.wait_for(process.wait(), 30)
    assert (result.exit_code, result.signal) == (130, 2)


async def test_input_ends_on_a_terminal_too(guest: Guest) -> None:
    result = await asyncio.wait_for(guest.executor.exec(on_terminal("stty -echo; cat; echo over", stdin=b"a line\n")), 30)
    assert result.stdout.endswith(b"a line\r\nover\r\n")


async def test_input_without_a_last_newline_ends_on_a_terminal_too(guest: Guest) -> None:
    result = await asyncio.wait_for(guest.executor.exec(on_terminal("stty -echo; cat; echo over", stdin=b"half")), 30)
    assert result.stdout.endswith(b"halfover\r\n")


async def test_no_input_is_the_end_at_once(guest: Guest) -> None:
    result = await asyncio.wait_for(guest.executor.exec(on_terminal("cat; echo over")), 30)
    assert result.stdout.endswith(b"over\r\n")


async def test_the_end_of_a_live_input_reaches_the_program(guest: Guest) -> None:
    process = await guest.executor.start(on_terminal("cat; echo over", stdin_stream=True))
    await process.write(b"one\n")
    await seen(process, b"one\r\none\r\n")
    await process.write_eof()
    await seen(process, b"over\r\n")
    assert (await process.wait()).exit_code == 0


async def test_a_child_that_holds_the_terminal_does_not_delay(guest: Guest) -> None:
    result = await asyncio.wait_for(guest.executor.exec(on_terminal("trap '' HUP; sleep 60 & echo early")), 30)
    assert result.stdout == b"early\r\n"


async def test_a_hang_up_reaches_what_is_left_when_the_leader_ends(guest: Guest) -> None:
    """As under any terminal: the session's leader ends, its foreground group is hung up."""
    result = await asyncio.wait_for(guest.executor.exec(on_terminal("sleep 60 & echo early")), 30)
    assert result.exit_code == 0


async def test_a_timeout_comes_with_the_terminals_output(guest: Guest) -> None:
    result = await timed_out(
        guest, lambda seconds: on_terminal("echo so far; sleep 60", timeout=seconds), lambda result: result.stdout
    )
    assert result.stdout == b"so far\r\n"


async def test_a_terminal_has_a_limit_of_output_too(guest: Guest) -> None:
    with pytest.raises(errors.OutputLimitExceededError) as caught:
        await guest.executor.exec(on_terminal("yes", output_limit_bytes=4000))
    assert caught.value.result is not None
    assert caught.value.result.stdout == (b"y\r\n" * 1400)[:4000]
