"""Files of 1 KiB to 1 GiB in and out, whole and in pieces, beside ``cat`` through a pipe."""

from __future__ import annotations

import asyncio
import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sandboxcore.environment import Sandbox

from .timing import in_turns

__all__ = ("CAT", "STREAMED", "WHOLE", "measure")

CAT, WHOLE, STREAMED = "cat", "whole", "streamed"
MIB = 1 << 20
_FOLDER = "/dev/shm"  # memory on both sides: it is the way there that is measured, not a disk

Once = Callable[[], Awaitable[None]]


async def measure(sandbox: Sandbox, *, sizes: Sequence[int], seconds: float, passes: int) -> dict[str, Any]:
    """Move files of every size; the memory that a stream of the largest one takes comes first, on a fresh heap."""
    with tempfile.TemporaryDirectory(dir=_FOLDER, prefix="sandboxcore-bench-") as folder:
        ours = f"{_FOLDER}/{Path(folder).name}"
        largest = _Moves(sandbox, max(sizes), Path(folder), ours)
        memory = {
            "size_bytes": largest.size,
            "growth_bytes": {name: await _peak(once) for name, once in largest.streams().items()},
        }
        await largest.clean()
        rows = [await _measure_size(_Moves(sandbox, size, Path(folder), ours), seconds, passes) for size in sizes]
    return {"rows": rows, "memory": memory}


async def _measure_size(moves: _Moves, seconds: float, passes: int) -> dict[str, Any]:
    await moves.prepare()
    row: dict[str, Any] = {"size_bytes": moves.size}
    for way, contenders in (("up", moves.up()), ("down", moves.down())):
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for once in contenders.values():
            await once()
        for name in in_turns(list(contenders), passes):
            times[name].append(await _mean(contenders[name], seconds))
        medians = {name: statistics.median(values) for name, values in times.items()}
        row[way] = {name: {"ms": 1e3 * value, "mib_per_second": moves.size / MIB / value} for name, value in medians.items()}
    await moves.clean()
    return row


async def _mean(once: Once, seconds: float) -> float:
    """Return how long one takes, from as many as the time allows."""
    began, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - began < seconds:
        await once()
        count += 1
    return (time.perf_counter() - began) / count


class _Moves:
    """The ways of moving a file of one size."""

    def __init__(self, sandbox: Sandbox, size: int, folder: Path, ours: str) -> None:
        self.size = size
        self._sandbox = sandbox
        self._block = os.urandom(min(size, MIB))
        self._source, self._target = folder / "source", folder / "target"
        self._ours = f"{ours}/file"
        self._whole = b""

    async def prepare(self) -> None:
        """Put the files into place, and see that what comes back is what went in."""
        with self._source.open("wb") as file:
            for _ in range(self.size // len(self._block)):
                file.write(self._block)
        await self._write_stream()
        digest = hashlib.sha256()
        async with await self._sandbox.open_read(self._ours) as reader:
            async for data in reader:
                digest.update(data)
        with self._source.open("rb") as file:
            if digest.digest() != hashlib.file_digest(file, "sha256").digest():
                raise RuntimeError(f"a file of {self.size} bytes came back different")
        self._whole = self._source.read_bytes()

    async def clean(self) -> None:
        """Take the files away: they are in memory."""
        self._whole = b""
        for path in (self._source, self._target):
            path.unlink(missing_ok=True)
        await self._sandbox.remove(self._ours)

    def up(self) -> Mapping[str, Once]:
        return {CAT: lambda: _cat(self._source, self._target), WHOLE: self._write_whole, STREAMED: self._write_stream}

    def down(self) -> Mapping[str, Once]:
        return {CAT: lambda: _cat(self._source, Path(os.devnull)), WHOLE: self._read_whole, STREAMED: self._read_stream}

    def streams(self) -> Mapping[str, Once]:
        return {"up": self._write_stream, "down": self._read_stream}

    async def _write_whole(self) -> None:
        await self._sandbox.write_file(self._ours, self._whole)

    async def _read_whole(self) -> None:
        if len(await self._sandbox.read_file(self._ours)) != self.size:
            raise RuntimeError("a file came back short")

    async def _write_stream(self) -> None:
        async with await self._sandbox.open_write(self._ours) as writer:
            for _ in range(self.size // len(self._block)):
                await writer.write(self._block)

    async def _read_stream(self) -> None:
        total = 0
        async with await self._sandbox.open_read(self._ours) as reader:
            async for data in reader:
                total += len(data)
        if total != self.size:
            raise RuntimeError("a file came back short")


async def _cat(source: Path, target: Path) -> None:
    """Run ``cat SOURCE | cat > TARGET``: all that a pipe can do, without Python in between."""
    reading, writing = os.pipe()
    with source.open("rb") as first, target.open("wb") as last:
        one = await asyncio.create_subprocess_exec("cat", stdin=first, stdout=writing)
        os.close(writing)
        two = await asyncio.create_subprocess_exec("cat", stdin=reading, stdout=last)
        os.close(reading)
        if await one.wait() or await two.wait():
            raise RuntimeError("cat failed")


async def _peak(once: Once) -> int:
    """Return by how many bytes this process's resident memory rose above where it began, at its highest."""
    before = _resident("VmRSS")
    _forget_peak()
    await once()
    return max(0, _resident("VmHWM") - before)


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _resident(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"the kernel does not tell {name}")
