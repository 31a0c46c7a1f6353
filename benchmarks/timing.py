"""Closed-loop load, percentiles, and taking turns."""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ("Sample", "in_turns", "percentile", "run_load", "summary")


@dataclass(kw_only=True)
class Sample:
    """One run of one contender. Seconds throughout; ``cpu`` is this process's own, not that of its children."""

    latencies: list[float] = field(default_factory=list)
    elapsed: float = 0.0
    cpu: float = 0.0


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


async def run_load(once: Callable[[], Awaitable[object]], *, in_flight: int, seconds: float) -> Sample:
    """Keep so many calls in flight for so long; each of them runs once at least."""
    sample = Sample()
    began, cpu = time.perf_counter(), time.process_time()
    end = began + seconds

    async def worker() -> None:
        while True:
            start = time.perf_counter()
            await once()
            now = time.perf_counter()
            sample.latencies.append(now - start)
            if now >= end:
                return

    await asyncio.gather(*(worker() for _ in range(in_flight)))
    sample.elapsed = time.perf_counter() - began
    sample.cpu = time.process_time() - cpu
    return sample


def in_turns(names: Sequence[str], passes: int) -> Iterator[str]:
    """Name who is next: forth and back, so that what drifts on the machine drifts alike for all."""
    for _ in range(passes):
        yield from names
        yield from reversed(names)


def summary(samples: Sequence[Sample]) -> Mapping[str, float]:
    """Boil runs down: each figure is the median of the runs' own figures."""
    return {
        "runs": len(samples),
        "commands": sum(len(sample.latencies) for sample in samples),
        "p50_ms": 1e3 * statistics.median(percentile(sample.latencies, 0.5) for sample in samples),
        "p99_ms": 1e3 * statistics.median(percentile(sample.latencies, 0.99) for sample in samples),
        "per_second": statistics.median(len(sample.latencies) / sample.elapsed for sample in samples),
        "client_cpu_us": 1e6 * statistics.median(sample.cpu / len(sample.latencies) for sample in samples),
    }
