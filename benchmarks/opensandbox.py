"""The OpenSandbox backend on a cluster: out of a warm pool and from images, and through the server beside the SDK's own ways.

    python -m benchmarks.opensandbox --docs

It needs what the tests of the backend need (see tests/opensandbox/kit.py): the controller's binaries, the test cluster, and
PyPI for the server. Everything is in one run, one after the other, on one machine.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from sandboxcore import Session
from sandboxcore.environment import Environment, Sandbox

from . import machine, opensandbox_page, publishing
from .settling import settle
from .timing import percentile

__all__ = ("main",)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def _to_first_exec(config: Mapping[str, Any], spec: Mapping[str, Any], count: int) -> dict[str, float]:
    """Provision so many and run a command in each; seconds for all of it, and processor seconds of this client."""
    async with Session("opensandbox", config=dict(config), timeout=900.0) as session:
        settle()
        began, cpu = time.perf_counter(), _cpu()
        outcomes = [outcome async for outcome in session.provision_many([dict(spec)] * count)]
        ready = time.perf_counter() - began
        errors = [outcome.error for outcome in outcomes if outcome.error is not None]
        if errors:
            raise errors[0]
        made: list[Environment] = [outcome.environment for outcome in outcomes if outcome.environment is not None]
        results = await asyncio.gather(*(environment.default.exec(["true"]) for environment in made))
        assert all(result.ok for result in results)
        whole, used = time.perf_counter() - began, _cpu() - cpu
        began = time.perf_counter()
    return {"ready": ready, "first_exec": whole, "client_cpu": used, "gone": time.perf_counter() - began}


async def crd(where: Mapping[str, Any], count: int, image: str) -> dict[str, Any]:
    """Compare a warm pool with making the same number from an image."""
    from sandboxcore_kubernetes import Cluster
    from sandboxcore_opensandbox._config import OpenSandboxConfig
    from sandboxcore_opensandbox.pools import Pools, pool_objects

    made = await _to_first_exec(where, {"services": {"default": {"image": image, "command": ["sleep", "infinity"]}}}, count)
    async with await Cluster.connect(OpenSandboxConfig(**where)) as cluster:
        pools = Pools(cluster)
        await pools.apply(pool_objects("bench", image, buffer=count, maximum=count, namespace=cluster.namespace))
        try:
            await pools.warm("bench", count, timeout=600.0)
            pooled = await _to_first_exec({**where, "pool": "bench"}, {"services": {"default": {}}}, count)
        finally:
            await pools.delete("bench", holders=True, timeout=300.0)
    return {"count": count, "image": made, "pool": pooled, "ratio": made["first_exec"] / pooled["first_exec"]}


async def _timed(count: int, work: Callable[[], Awaitable[Any]]) -> dict[str, float]:
    seconds = []
    for _ in range(count):
        began = time.perf_counter()
        await work()
        seconds.append(time.perf_counter() - began)
    return {"p50": percentile(seconds, 0.5), "p95": percentile(seconds, 0.95)}


async def _files(box: Sandbox, sdk: Any, size_bytes: int, times: int) -> dict[str, Any]:
    data = bytes(range(256)) * (size_bytes // 256)
    found = {
        "ours_write": await _timed(times, lambda: box.write_file("/tmp/ours", data)),
        "sdk_write": await _timed(times, lambda: sdk.files.write_file("/tmp/theirs", data)),
        "ours_read": await _timed(times, lambda: box.read_file("/tmp/ours")),
        "sdk_read": await _timed(times, lambda: sdk.files.read_bytes("/tmp/theirs")),
    }
    ratios = {way: found[f"sdk_{way}"]["p50"] / found[f"ours_{way}"]["p50"] for way in ("write", "read")}
    return {"bytes": size_bytes, "ratios": ratios, **found}


async def server(config: Mapping[str, Any], image: str, commands: int, size_bytes: int) -> dict[str, Any]:
    """Compare commands and files through the guest with the SDK's, in one sandbox."""
    from opensandbox import Sandbox as SdkSandbox
    from opensandbox.config import ConnectionConfig

    connection = ConnectionConfig(
        domain=config["domain"], api_key=config["api_key"], disable_metrics=True, request_timeout=timedelta(seconds=120)
    )
    async with (
        Session("opensandbox", config=dict(config)) as session,
        session.environment({"services": {"default": {"image": image}}}) as environment,
    ):
        box = environment.default
        sdk = await SdkSandbox.connect(environment.ref.data["sandbox_id"], connection_config=connection)
        try:
            await box.exec(["true"])
            settle()
            ours = await _timed(commands, lambda: box.exec(["true"]))
            theirs = await _timed(max(3, commands // 20), lambda: sdk.commands.run("true"))
            files = [await _files(box, sdk, size, times) for size, times in ((1 << 10, 50), (1 << 20, 20), (size_bytes, 5))]
        finally:
            await sdk.close()
    return {"exec": {"ours": ours, "sdk": theirs, "ratio": theirs["p50"] / ours["p50"]}, "files": files}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print or write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sandboxes", type=int, default=50, help="how many at once; the node has to hold them")
    parser.add_argument("--commands", type=int, default=200)
    parser.add_argument("--file-mib", type=int, default=32)
    parser.add_argument("--image", default="sandboxcore.test/debian:1")
    parser.add_argument("--only", choices=("crd", "server"))
    publishing.add_arguments(parser)
    options = parser.parse_args(argv)
    if options.docs and options.only:
        parser.error("the page is written from a whole run, without --only")
    report = publishing.given(options) or measure(options, parser)
    publishing.publish(options, report, "opensandbox", opensandbox_page if {"crd", "server"} <= set(report) else None)
    return 0


def measure(options: argparse.Namespace, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Take the figures that were asked for."""
    from tests.opensandbox import kit, places

    problem = kit.probe()
    if problem:
        parser.error(problem)
    found: dict[str, Any] = {"machine": machine.facts()}
    if options.only != "server":
        found["crd"] = asyncio.run(crd(places.crd(), options.sandboxes, options.image))
    if options.only != "crd":
        found["server"] = asyncio.run(server(places.server(), options.image, options.commands, options.file_mib << 20))
    found["machine"]["load_after"] = machine.load()
    return found


if __name__ == "__main__":
    raise SystemExit(main())
