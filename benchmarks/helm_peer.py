"""The other contender of ``benchmarks.helm``: inspect_k8s_sandbox, in a venv of its own. Order and figures are JSON files.

It imports nothing of ours, and goes the way that Inspect goes: ``sample_init``, ``exec``, ``write_file``, ``read_file``,
``sample_cleanup``.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any


async def main(order: dict[str, Any]) -> dict[str, Any]:
    from k8s_sandbox import K8sSandboxEnvironment, K8sSandboxEnvironmentConfig

    config = K8sSandboxEnvironmentConfig(chart=order["chart"], context=None)
    await K8sSandboxEnvironment.task_init("benchmark", config)
    found: dict[str, Any] = {}
    made = await K8sSandboxEnvironment.sample_init("benchmark", config, {})
    sandbox = next(iter(made.values()))
    await sandbox.exec(["/bin/true"])
    found["commands"] = [await load(lambda: sandbox.exec(["/bin/true"]), count, order["seconds"]) for count in order["in_flight"]]
    found["files"] = [await files(sandbox, size, order["file_times"]) for size in order["sizes"]]
    await K8sSandboxEnvironment.sample_cleanup("benchmark", config, made, False)
    began = time.perf_counter()
    many = await asyncio.gather(
        *(K8sSandboxEnvironment.sample_init("benchmark", config, {}) for _ in range(order["releases"])), return_exceptions=True
    )
    found["provision_s"] = time.perf_counter() - began
    found["failures"] = sum(isinstance(one, BaseException) for one in many)
    began = time.perf_counter()
    await K8sSandboxEnvironment.task_cleanup("benchmark", config, True)
    found["destroy_s"] = time.perf_counter() - began
    return found


async def load(once: Any, in_flight: int, seconds: float) -> dict[str, Any]:
    """Keep so many commands in flight for so long."""
    latencies: list[float] = []
    failures = 0
    began, cpu = time.perf_counter(), time.process_time()

    async def worker() -> None:
        nonlocal failures
        while True:
            start = time.perf_counter()
            try:
                await once()
            except Exception:
                failures += 1
            latencies.append(time.perf_counter() - start)
            if time.perf_counter() - began >= seconds:
                return

    await asyncio.gather(*(worker() for _ in range(in_flight)))
    elapsed = time.perf_counter() - began
    return {
        "in_flight": in_flight,
        "p50_ms": 1e3 * statistics.median(latencies),
        "per_second": len(latencies) / elapsed,
        "client_cpu_us": 1e6 * (time.process_time() - cpu) / len(latencies),
        "failures": failures,
    }


async def files(sandbox: Any, size: int, times: int) -> dict[str, Any]:
    """Write and read a file of this size a few times."""
    data = b"x" * size
    times = 1 if size > 10 << 20 else times
    up, down = [], []
    for _ in range(times):
        start = time.perf_counter()
        await sandbox.write_file("/tmp/benchmark", data)
        middle = time.perf_counter()
        await sandbox.read_file("/tmp/benchmark", text=False)
        up.append(middle - start)
        down.append(time.perf_counter() - middle)
    return {"size_bytes": size, "up_ms": 1e3 * statistics.median(up), "down_ms": 1e3 * statistics.median(down)}


if __name__ == "__main__":
    order = json.loads(Path(sys.argv[1]).read_text())
    Path(sys.argv[2]).write_text(json.dumps(asyncio.run(main(order))))
