"""The other contender of ``benchmarks.helm``: inspect_k8s_sandbox, in a venv of its own. Order and figures are JSON files.

It imports nothing of ours but what both measure by, and goes the way that Inspect goes: ``sample_init``, ``exec``,
``write_file``, ``read_file``, ``sample_cleanup``.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from settling import processor_seconds, settle  # type: ignore[import-not-found]  # it lies beside this script


async def main(order: dict[str, Any]) -> dict[str, Any]:
    from k8s_sandbox import K8sSandboxEnvironment, K8sSandboxEnvironmentConfig

    config = K8sSandboxEnvironmentConfig(chart=order["chart"], context=None)
    found: dict[str, Any] = {}
    if not order["releases_only"]:
        await K8sSandboxEnvironment.task_init("benchmark", config)
        made = await K8sSandboxEnvironment.sample_init("benchmark", config, {})
        sandbox = next(iter(made.values()))
        await sandbox.exec(["/bin/true"])
        found["commands"] = [
            await load(lambda: sandbox.exec(["/bin/true"]), count, order["seconds"]) for count in order["in_flight"]
        ]
        found["files"] = [await files(sandbox, size, order["file_times"]) for size in order["sizes"]]
        await K8sSandboxEnvironment.sample_cleanup("benchmark", config, made, False)
    own = K8sSandboxEnvironmentConfig(chart=order["own_chart"], values=Path(order["own_values"]), context=None)
    charts = {"own_chart": own, "same_chart": config}
    found["releases"] = {name: await many(K8sSandboxEnvironment, one, order["releases"]) for name, one in charts.items()}
    return found


async def many(environment: Any, config: Any, count: int) -> dict[str, Any]:
    """Install so many releases at once, and take them away."""
    await environment.task_init("benchmark", config)
    settle()
    began, cpu = time.perf_counter(), processor_seconds()
    made = await asyncio.gather(*(environment.sample_init("benchmark", config, {}) for _ in range(count)), return_exceptions=True)
    provisioned, used = time.perf_counter() - began, processor_seconds() - cpu
    errors = [one for one in made if isinstance(one, BaseException)]
    for error in errors[:1]:
        print(f"a release failed: {error}", file=sys.stderr)
    began = time.perf_counter()
    await environment.task_cleanup("benchmark", config, True)
    return {
        "releases": count,
        "failures": len(errors),
        "provision_s": provisioned,
        "client_cpu_s": used,
        "destroy_s": time.perf_counter() - began,
    }


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
    up, down = [], []
    settle()
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
