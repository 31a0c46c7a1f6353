"""Weigh many open sandboxes in a process of their own: ``python -m benchmarks.memory_probe SOCKET COUNT rss|allocated``.

Prints JSON: bytes a sandbox in each state of its life, all above what the session itself takes. ``rss`` is what the kernel
counts, ``allocated`` what Python's allocators gave out (tracemalloc, which itself disturbs the former).
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sandboxcore import PluginHost, Session, hookimpl
from sandboxcore.abc import Channel, Discoverer, Emit, Provisioner
from sandboxcore.guest import connection
from sandboxcore.spec import EnvironmentSpec
from sandboxcore.values import BackendInfo, Claim, EnvironmentRef, SandboxRef, Selector

from .fake_guest import OUTPUT_BYTES
from .machine import raise_file_limit

NAME = "bench"


class _Channel(Channel):
    lands_in = "guest"

    def __init__(self, path: str) -> None:
        self._path = path

    async def open(self, argv: Sequence[str], protocol: asyncio.BaseProtocol) -> asyncio.Transport:
        transport, _ = await asyncio.get_running_loop().create_unix_connection(lambda: protocol, self._path)
        return transport


class _Provisioner(Provisioner):
    async def provision(self, spec: EnvironmentSpec, claim: Claim, emit: Emit) -> EnvironmentRef:
        where: dict[str, Any] = {"backend": NAME, "environment_id": claim.environment_id, "run_id": claim.run_id}
        sandboxes = tuple(SandboxRef(**where, service=service) for service in spec.services)
        now = time.time()
        return EnvironmentRef(
            **where,
            owner=claim.owner,
            created_at=now,
            expires_at=now + claim.lease,
            default=spec.default_service,
            sandboxes=sandboxes,
            labels=claim.labels,
        )

    async def destroy(self, environment: EnvironmentRef) -> None:
        """Nothing is there."""

    async def renew(self, environments: Sequence[EnvironmentRef], lease: float) -> None:
        """Nothing runs out."""


class _Discoverer(Discoverer):
    async def find(self, selector: Selector) -> Sequence[EnvironmentRef]:
        return ()


class Backend:
    """A backend whose sandboxes are connections to the fake guest."""

    def __init__(self, path: str) -> None:
        self._path = path

    @hookimpl
    def sandboxcore_backend_info(self) -> BackendInfo:
        return BackendInfo(name=NAME, summary="connections to a fake guest")

    @hookimpl
    def sandboxcore_provisioner(self, backend: str, config: Any) -> Provisioner | None:
        return _Provisioner() if backend == NAME else None

    @hookimpl
    def sandboxcore_discoverer(self, backend: str, config: Any, provisioner: Provisioner) -> Discoverer | None:
        return _Discoverer() if backend == NAME else None

    @hookimpl
    def sandboxcore_channel(self, sandbox: SandboxRef, config: Any, provisioner: Provisioner) -> Channel | None:
        return _Channel(self._path) if sandbox.backend == NAME else None


async def probe(path: str, count: int, weigh: Callable[[], int]) -> dict[str, float]:
    """Take so many sandboxes through their life, and weigh them on the way."""
    connection._IDLE = 1.0  # a minute, for those who have one
    host = PluginHost.load(entry_points=False, extra=[Backend(path)])
    async with Session(NAME, plugins=host) as session:
        warm = await session.provision()
        await warm.default.exec(["end"])
        weights = {"nothing": weigh()}
        environments = [await session.provision() for _ in range(count)]
        weights["never used"] = weigh()
        for environment in environments:
            await environment.default.exec(["end"])
        weights["idle, connected"] = weigh()
        await asyncio.sleep(2.5)
        weights["idle, link closed"] = weigh()
        running = [asyncio.create_task(environment.default.exec(["wait"])) for environment in environments]
        await asyncio.sleep(2 + count / 500)
        weights["active"] = weigh()
        for task in running:
            task.cancel()
    return {state: (weight - weights["nothing"]) / count for state, weight in weights.items() if state != "nothing"}


def _resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def _allocated() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def main() -> None:
    """Print what was weighed."""
    path, count, kind = sys.argv[1:]
    raise_file_limit()
    if kind == "allocated":
        tracemalloc.start()
    bytes_each = asyncio.run(probe(path, int(count), _allocated if kind == "allocated" else _resident))
    print(json.dumps({"bytes_each": bytes_each, "output_bytes_each": OUTPUT_BYTES}))


if __name__ == "__main__":
    main()
