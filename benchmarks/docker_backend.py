"""The docker backend beside the engine's API (commands, files) and beside a shell loop of ``docker run`` (environments)."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import sandboxcore
from sandboxcore.environment import Sandbox
from sandboxcore.spec import EnvironmentSpec, ServiceSpec

from . import machine
from .docker_rival import EngineApi
from .timing import Sample, in_turns, run_load, summary

__all__ = ("API", "NO_NETWORK", "OURS", "RUN", "measure")

OURS, API = "sandboxcore", "engine's API"
RUN, NO_NETWORK = "docker run -d", "docker run -d --network none"
ARGV = ("/bin/true",)
IMAGE = "debian"
LABEL = "sandboxcore.benchmark"
MIB = 1 << 20

Once = Callable[[], Awaitable[object]]


async def measure(
    *,
    in_flight: Sequence[int],
    seconds: float,
    passes: int,
    sizes: Sequence[int],
    file_seconds: float,
    environments: int,
    at_once: int,
    inspect_samples: int,
) -> dict[str, Any]:
    """Measure all of it on the engine that the tests use, too.

    Raises:
        RuntimeError: There is no engine; the message says what was tried.
    """
    from tests.engine import docker_host, probe
    from tests.images import reference

    if problem := probe():
        raise RuntimeError(problem)
    host, image = docker_host(), reference(IMAGE)
    service = ServiceSpec(image=image, command=("sleep", "infinity"), init=True)
    spec = EnvironmentSpec(services={"default": service})
    api = EngineApi(host.removeprefix("unix://"))
    report: dict[str, Any] = {"machine": machine.facts()}
    report["engine"] = await _engine(host)
    try:
        async with sandboxcore.Session("docker") as session, session.environment(spec) as environment:
            container = await _container(environment.id)
            report["commands"] = await _commands(environment.default, api, container, in_flight, seconds, passes)
            report["files"] = [await _files(environment.default, api, container, size, file_seconds, passes) for size in sizes]
    finally:
        await api.aclose()
    report["environments"] = await _environments(spec, image, environments, at_once)
    if inspect_samples:
        from .docker_inspect import measure as measure_inspect

        report["inspect"] = await measure_inspect(image, samples=inspect_samples, seconds=seconds)
    report["machine"]["load_after"] = machine.load()
    return report


async def _commands(
    sandbox: Sandbox, api: EngineApi, container: str, in_flight: Sequence[int], seconds: float, passes: int
) -> list[dict[str, Any]]:
    async def ours() -> None:
        _expect((await sandbox.exec(ARGV)).exit_code)

    async def theirs() -> None:
        _expect((await api.exec(container, ARGV))[0])

    contenders: Mapping[str, Once] = {OURS: ours, API: theirs}
    rows = []
    for once in contenders.values():
        await once()
    for level in in_flight:
        samples: dict[str, list[Sample]] = {name: [] for name in contenders}
        for name in in_turns(list(contenders), passes):
            samples[name].append(await run_load(contenders[name], in_flight=level, seconds=seconds))
        rows.append({"in_flight": level, "contenders": {name: summary(samples[name]) for name in contenders}})
    return rows


async def _files(sandbox: Sandbox, api: EngineApi, container: str, size: int, seconds: float, passes: int) -> dict[str, Any]:
    data, path = os.urandom(min(size, MIB)) * (size // min(size, MIB)), "/tmp/benchmark"

    async def read() -> None:
        _expect(len(await sandbox.read_file(path)) - size)

    async def get() -> None:
        _expect(len(await api.get(container, path)) - size)

    ways: Mapping[str, Mapping[str, Once]] = {
        "up": {OURS: lambda: sandbox.write_file(path, data), API: lambda: api.put(container, "/tmp", "benchmark", data)},
        "down": {OURS: read, API: get},
    }
    row: dict[str, Any] = {"size_bytes": size}
    for way, contenders in ways.items():
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for once in contenders.values():
            await once()
        if await sandbox.read_file(path) != data:
            raise RuntimeError(f"a file of {size} bytes came back different")
        for name in in_turns(list(contenders), passes):
            sample = await run_load(contenders[name], in_flight=1, seconds=seconds)
            times[name].append(statistics.median(sample.latencies))
        medians = {name: statistics.median(values) for name, values in times.items()}
        row[way] = {name: {"ms": 1e3 * value, "mib_per_second": size / MIB / value} for name, value in medians.items()}
    return row


async def _environments(spec: EnvironmentSpec, image: str, count: int, at_once: int) -> dict[str, Any]:
    """Make so many environments of one container, ours and by a shell loop, so many at a time."""
    loops = {RUN: (), NO_NETWORK: ("--network", "none")}
    contenders: dict[str, Callable[[], Awaitable[tuple[float, float]]]] = {OURS: lambda: _provision(spec, count, at_once)}
    for name, options in loops.items():
        contenders[name] = lambda options=options: _shell_loop(image, count, at_once, options)  # type: ignore[misc]
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for name in in_turns(list(contenders), 1):
        times[name].append(await contenders[name]())
    return {
        "count": count,
        "at_once": at_once,
        "seconds": {name: statistics.median(made for made, _ in values) for name, values in times.items()},
        "removal_seconds": {name: statistics.median(gone for _, gone in values) for name, values in times.items()},
    }


async def _provision(spec: EnvironmentSpec, count: int, at_once: int) -> tuple[float, float]:
    async with sandboxcore.Session("docker", config={"at_once": at_once, "max_in_flight": at_once}) as session:
        began = time.perf_counter()
        async for outcome in session.provision_many([spec] * count):
            if outcome.error is not None:
                raise outcome.error
        made = time.perf_counter()
    return made - began, time.perf_counter() - made


async def _shell_loop(image: str, count: int, at_once: int, options: Sequence[str]) -> tuple[float, float]:
    run = f"docker run -d --init --label {LABEL} {' '.join(options)} {image} sleep infinity"
    began = time.perf_counter()
    await _shell(f"seq {count} | xargs -P {at_once} -I{{}} {run}")
    made = time.perf_counter()
    await _shell(f"docker ps -aq --filter label={LABEL} | xargs -r -P {at_once} -n 1 docker rm -f")
    return made - began, time.perf_counter() - made


async def _container(environment_id: str) -> str:
    return await _shell(f"docker ps -q --no-trunc --filter label=sandboxcore.dev/environment-id={environment_id}")


async def _engine(host: str) -> str:
    return "Docker " + await _shell(f"docker --host {host} version --format '{{{{.Server.Version}}}}'")


async def _shell(script: str) -> str:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_shell(script, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe)
    stdout, stderr = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{script}: {stderr.decode(errors='replace')[-300:]}")
    return stdout.decode().strip()


def _expect(exit_code: int) -> None:
    if exit_code != 0:
        raise RuntimeError(f"/bin/true ended with {exit_code}")
