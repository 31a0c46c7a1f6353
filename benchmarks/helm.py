"""The Helm backend beside inspect_k8s_sandbox, on one cluster, in one run, each with its own chart and both with one.

    python -m benchmarks.helm --peer VENV/bin/python --docs

``--peer`` is the Python of a venv with ``inspect-k8s-sandbox``; without it only our own figures are taken, and printed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sandboxcore import EnvironmentSpec, Session
from sandboxcore.environment import Sandbox
from sandboxcore.errors import SandboxError

from . import helm_page, machine, publishing
from .helm_charts import CILIUM_POLICIES, built_in_spec, chart_spec, peer_chart, peer_values, write_chart
from .settling import processor_seconds, settle
from .simulated_node import room
from .timing import percentile, run_load

__all__ = ("main",)

HERE = Path(__file__).parent
ENGINES = ("render-once", "helm")


async def ours(config: Mapping[str, Any], chart: Path, order: Mapping[str, Any]) -> dict[str, Any]:
    """Take our own figures."""
    found: dict[str, Any] = {}
    async with Session("helm", config=config) as session, session.environment(chart_spec(chart)) as environment:
        sandbox = environment.default
        await sandbox.exec(["/bin/true"])
        found["commands"] = [await _commands(sandbox, count, order["seconds"]) for count in order["in_flight"]]
        found["files"] = [await _files(sandbox, size, order["file_times"]) for size in order["sizes"]]
    found["releases"] = await _releases(config, chart, order)
    found["scales"] = [await _many(config, chart_spec(chart), engine, count) for count in order["scales"] for engine in ENGINES]
    found["bad_image_s"] = await _bad_image(config, chart)
    return found


async def _releases(config: Mapping[str, Any], chart: Path, order: Mapping[str, Any], *, probe: bool = True) -> dict[str, Any]:
    specs = {"own_chart": built_in_spec(order["image"]), "same_chart": chart_spec(chart)}
    return {
        name: {engine: await _many(config, spec, engine, order["releases"], probe=probe) for engine in ENGINES}
        for name, spec in specs.items()
    }


async def _commands(sandbox: Sandbox, in_flight: int, seconds: float) -> dict[str, Any]:
    failures = 0

    async def once() -> None:
        nonlocal failures
        try:
            await sandbox.exec(["/bin/true"])
        except SandboxError:
            failures += 1

    sample = await run_load(once, in_flight=in_flight, seconds=seconds)
    return {
        "in_flight": in_flight,
        "p50_ms": 1e3 * percentile(sample.latencies, 0.5),
        "per_second": len(sample.latencies) / sample.elapsed,
        "client_cpu_us": 1e6 * sample.cpu / len(sample.latencies),
        "failures": failures,
    }


async def _files(sandbox: Sandbox, size: int, times: int) -> dict[str, Any]:
    data = b"x" * size
    up, down = [], []
    settle()
    for _ in range(times):
        start = time.perf_counter()
        await sandbox.write_file("/tmp/benchmark", data)
        middle = time.perf_counter()
        read = await sandbox.read_file("/tmp/benchmark")
        down.append(time.perf_counter() - middle)
        up.append(middle - start)
        assert len(read) == size
    return {"size_bytes": size, "up_ms": 1e3 * percentile(up, 0.5), "down_ms": 1e3 * percentile(down, 0.5)}


async def _many(
    config: Mapping[str, Any], spec: EnvironmentSpec, engine: str, count: int, *, probe: bool = True
) -> dict[str, Any]:
    """Provision so many releases at once, run a command in each unless nothing can run there, and take them away."""
    async with Session("helm", config={**config, "engine": engine}) as session:
        provisioner: Any = session._open().provisioner
        settle()
        began, cpu = time.perf_counter(), processor_seconds()
        outcomes = [outcome async for outcome in session.provision_many([spec] * count)]
        provisioned, used = time.perf_counter() - began, processor_seconds() - cpu
        made = [outcome.environment for outcome in outcomes if outcome.environment]
        if probe:
            await asyncio.gather(*(one.default.exec(["/bin/true"]) for one in made))
        began = time.perf_counter()
        await asyncio.gather(*(one.destroy() for one in made))
        requests = (await provisioner.cluster()).requests
        return {
            "engine": engine,
            "releases": count,
            "failures": count - len(made),
            "provision_s": provisioned,
            "client_cpu_s": used,
            "destroy_s": time.perf_counter() - began,
            "requests_each": requests / count,
        }


async def _bad_image(config: Mapping[str, Any], chart: Path) -> float:
    began = time.perf_counter()
    async with Session("helm", config=config) as session:
        try:
            await session.provision(chart_spec(chart, image="registry.invalid/no/such:image"))
        except SandboxError:
            return time.perf_counter() - began
    raise RuntimeError("an image that can't be pulled was")


class Peer:
    """The peer, in processes of its own; helm and a kubeconfig with the namespace are put where it looks.

    Args:
        folder: For what it is given; empty, and the caller's to remove.
    """

    def __init__(self, python: str, config: Mapping[str, Any], chart: Path, order: Mapping[str, Any], folder: Path) -> None:
        (folder / "bin").mkdir()
        (folder / "bin" / "helm").symlink_to(config["helm"])
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_bytes(Path(config["kubeconfig"]).read_bytes())
        base = ["kubectl", "--kubeconfig", str(kubeconfig), "config", "set-context", "--current"]
        subprocess.run([*base, "--namespace", config["namespace"]], check=True, capture_output=True)
        self._python = python
        self._folder = folder
        self._environ = os.environ | {
            "PATH": f"{folder}/bin:{os.environ['PATH']}",
            "KUBECONFIG": str(kubeconfig),
            "INSPECT_MAX_POD_OPS": "100",
        }
        charts = {"chart": str(chart), "own_chart": str(peer_chart(python, folder))}
        self._order = {**order, **charts, "own_values": str(peer_values(folder, order["image"]))}

    def take(self, *, releases_only: bool) -> dict[str, Any]:
        """Take its figures."""
        order, out = self._folder / "order.json", self._folder / "found.json"
        order.write_text(json.dumps({**self._order, "releases_only": releases_only}))
        command = [self._python, str(HERE / "helm_peer.py"), str(order), str(out)]
        subprocess.run(command, check=True, env=self._environ)
        found: dict[str, Any] = json.loads(out.read_text())
        return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure on the cluster of the tests, print the figures, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="Python of a venv with inspect-k8s-sandbox")
    parser.add_argument("--releases", type=int, default=50, help="how many at once, beside the peer")
    parser.add_argument("--scales", type=int, nargs="*", default=(10, 200), help="how many at once, for the number of requests")
    parser.add_argument("--seconds", type=float, default=3.0)
    publishing.add_arguments(parser)
    asked = parser.parse_args(arguments)
    if asked.docs and not (asked.peer or asked.given):
        parser.error("the page compares: it needs --peer")
    report = publishing.given(asked) or measure(asked)
    publishing.publish(asked, report, "helm", helm_page if helm_page.PEER in report else None)
    return 0


async def floor(config: Mapping[str, Any], image: str, count: int) -> float:
    """Return the seconds that a node takes for so many pods of the image, and nothing else, created in one go."""
    from sandboxcore_kubernetes import Cluster, ClusterConfig

    container = {"name": "main", "image": image, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "infinity"]}
    bare = {"terminationGracePeriodSeconds": 0, "automountServiceAccountToken": False, "enableServiceLinks": False}
    spec = {**bare, "containers": [container]}
    settings = ClusterConfig(kubeconfig=config["kubeconfig"], namespace=config["namespace"])
    async with await Cluster.connect(settings) as cluster, cluster.pods(label_selector="bench=floor") as watch:
        settle()
        began = time.perf_counter()
        for number in range(count):
            metadata = {"name": f"floor-{number}", "labels": {"bench": "floor"}}
            await cluster.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        await watch.wait_for(lambda now: True if sum(pod.ready for pod in now.pods.values()) == count else None)
        taken = time.perf_counter() - began
        await cluster.delete_collection("v1/Pod", label_selector="bench=floor")
        await watch.wait_for(lambda now: None if now.pods else True)
    return taken


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """Take the figures of both."""
    from tests.cluster import helm, kubeconfig, kubectl
    from tests.images import reference

    namespace = f"bench-helm-{uuid.uuid4().hex[:6]}"
    config = {"kubeconfig": str(kubeconfig()), "namespace": namespace, "helm": str(helm(3)), "audit": 0}
    order = {
        "in_flight": (1, 10, 100),
        "seconds": asked.seconds,
        "sizes": (1 << 10, 1 << 20, 99 << 20),
        "file_times": 5,
        "image": reference("debian"),
        "releases": asked.releases,
        "scales": asked.scales,
    }
    report: dict[str, Any] = {
        "machine": machine.facts(),
        "kubernetes": json.loads(kubectl("get", "--raw", "/version"))["gitVersion"].removeprefix("v"),
        "helm": _printed(str(config["helm"]), "version", "--template", "{{.Version}}").removeprefix("v"),
    }
    policies = ["crd", CILIUM_POLICIES["metadata"]["name"]]
    lacking = not kubectl("get", *policies, check=False)
    kubectl("create", "namespace", namespace)
    try:
        if lacking:
            kubectl("create", "-f", "-", text=json.dumps(CILIUM_POLICIES))
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            chart = write_chart(folder, order["image"])
            report[helm_page.OURS] = asyncio.run(ours(config, chart, order))
            report["floor_s"] = asyncio.run(floor(config, order["image"], asked.releases))
            other = None
            if asked.peer:
                find = "import importlib.metadata as m; print('inspect-k8s-sandbox==' + m.version('inspect-k8s-sandbox'))"
                report["peer"] = _printed(asked.peer, "-c", find)
                other = Peer(asked.peer, config, chart, order, folder)
                report[helm_page.PEER] = other.take(releases_only=False)
            with room(kubeconfig()):
                found = {helm_page.OURS: asyncio.run(_releases(config, chart, order, probe=False))}
                if other:
                    found[helm_page.PEER] = other.take(releases_only=True)["releases"]
                report["simulated"] = {"floor_s": asyncio.run(floor(config, order["image"], asked.releases)), **found}
    finally:
        kubectl("delete", "namespace", namespace, "--wait=false")
        if lacking:
            kubectl("delete", *policies, "--wait=false", check=False)
    report["machine"]["load_after"] = machine.load()
    return report


def _printed(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
