"""Timeouts and cancelling: whatever a command has started is gone when the guest says so, and nobody else is touched."""

from __future__ import annotations

import asyncio
import sys
import textwrap
from collections.abc import Callable

import pytest
from keepers import Keeper, descendants, in_time, marked, timed_out, until

from sandboxcore import errors
from sandboxcore.guest import Guest
from sandboxcore.values import ExecRequest

#: Whatever forks here stops by itself after so many, so that a guest that fails to kill costs no machine.
FORKS = 3000


def sh(line: str, **options: object) -> ExecRequest:
    return ExecRequest(argv=["/bin/sh", "-c", line], **options)  # type: ignore[arg-type]


def py(code: str, *arguments: str, **options: object) -> ExecRequest:
    argv = [sys.executable, "-S", "-c", textwrap.dedent(code), *arguments]
    return ExecRequest(argv=argv, **options)  # type: ignore[arg-type]


DAEMONS = """
    import os, time
    for _ in range(10):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.setsid()
                time.sleep(60)
            os._exit(0)
    time.sleep(60)
"""

#: Each link of the chain forks the next and ends: at every moment another process is the one to kill.
CHAIN = f"""
    import os, time
    if os.fork():
        time.sleep(60)
    for _ in range({FORKS}):
        if os.fork():
            os._exit(0)
        os.setsid()
    time.sleep(60)
"""

CHAINS = f"""
    import os, time
    for _ in range(4):
        if os.fork() == 0:
            for _ in range({FORKS // 4}):
                if os.fork():
                    os._exit(0)
            time.sleep(60)
    time.sleep(60)
"""

STUBBORN = """
    import os, signal, time
    for number in range(1, 65):
        try: signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError): pass
    if os.fork() == 0: os.setpgid(0, 0)
    time.sleep(60)
"""


@pytest.mark.parametrize("code", [DAEMONS, CHAIN, CHAINS, STUBBORN], ids=["daemons", "chain", "chains", "stubborn"])
async def test_a_timeout_kills_the_whole_tree_and_no_sibling(guest: Guest, keeper: Keeper, mark: str, code: str) -> None:
    sibling = asyncio.create_task(guest.executor.exec(sh("echo a; sleep 1.5; echo b; exit 4")))
    await asyncio.sleep(0.1)

    def nothing_is_left() -> None:
        assert marked(mark) == []

    await in_time(guest, py(code, env={"MARK": mark}, timeout=0.4), nothing_is_left)
    result = await sibling
    assert (result.exit_code, result.stdout) == (4, b"a\nb\n")
    assert await alone(keeper)


async def test_a_chain_that_runs_on_while_it_is_killed_is_caught_each_time(guest: Guest, mark: str) -> None:
    for attempt in range(8):
        with pytest.raises(errors.ExecTimeoutError):
            await guest.executor.exec(py(CHAIN, env={"MARK": mark}, timeout=0.05 + attempt * 0.02))
        assert marked(mark) == []


async def test_the_output_so_far_comes_with_the_timeout(guest: Guest) -> None:
    await guest.connect()
    result = await timed_out(
        guest, lambda seconds: sh("echo out; echo err >&2; sleep 60", timeout=seconds), lambda result: result.stderr
    )
    assert (result.stdout, result.stderr, result.exit_code) == (b"out\n", b"err\n", 137)


async def test_a_child_that_outlives_its_program_dies_at_the_deadline(guest: Guest, mark: str) -> None:
    result = await guest.executor.exec(sh("sleep 60 & echo started", env={"MARK": mark}, timeout=4))
    assert (result.exit_code, result.stdout) == (0, b"started\n")
    assert len(marked(mark)) == 1, "until then it lives, as under a shell"
    await asyncio.sleep(4)
    assert await gone(mark)


async def test_a_child_of_a_command_without_deadline_lives_on(guest: Guest, mark: str) -> None:
    await guest.executor.exec(sh("setsid sleep 60 & :", env={"MARK": mark}))
    await asyncio.sleep(0.3)
    assert len(marked(mark)) == 1


async def test_a_programs_own_124_and_137_under_a_timeout_are_results(guest: Guest) -> None:
    for code in (124, 137):
        assert (await guest.executor.exec(sh(f"exit {code}", timeout=30))).exit_code == code


@pytest.mark.parametrize("code", [DAEMONS, CHAIN], ids=["daemons", "chain"])
async def test_cancelling_kills_the_whole_tree(guest: Guest, keeper: Keeper, mark: str, code: str) -> None:
    task = asyncio.create_task(guest.executor.exec(py(code, env={"MARK": mark})))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await gone(mark)
    assert await alone(keeper)


@pytest.mark.parametrize("pause", [0, 0.001, 0.003, 0.01])
async def test_cancelling_at_any_moment_leaves_nothing(
    guest: Guest, start_keeper: Callable[..., Keeper], mark: str, pause: float
) -> None:
    tasks = [asyncio.create_task(guest.executor.exec(sh("sleep 60", env={"MARK": mark}))) for _ in range(20)]
    await asyncio.sleep(pause)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (await guest.executor.exec(sh("echo on"))).stdout == b"on\n"
    assert await gone(mark)


async def test_closing_the_client_kills_what_runs(keeper: Keeper, mark: str) -> None:
    guest = Guest(keeper.channel())
    task = asyncio.create_task(guest.executor.exec(py(DAEMONS, env={"MARK": mark})))
    assert await until(lambda: bool(marked(mark)), 30)
    await guest.aclose()
    assert (await task).signal == 9
    assert marked(mark) == []


async def gone(mark: str) -> bool:
    for _ in range(100):
        if not marked(mark):
            return True
        await asyncio.sleep(0.02)
    return False


async def alone(keeper: Keeper) -> bool:
    """Wait until not even a minder is left: it tells of the end before its own."""
    for _ in range(50):
        if not descendants(keeper.pid):
            return True
        await asyncio.sleep(0.02)
    return False
