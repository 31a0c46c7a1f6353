"""The Helm backend beside inspect_k8s_sandbox, on one cluster, with one chart, in one run.

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

from sandboxcore import EnvironmentSpec, ServiceSpec, Session
from sandboxcore.environment import Sandbox
from sandboxcore.errors import SandboxError

from . import helm_page, machine, publishing
from .timing import percentile, run_load

__all__ = ("main",)

HERE = Path(__file__).parent
ENGINES = ("render-once", "helm")
CHART = {
    "Chart.yaml": "apiVersion: v2\nname: bench\nversion: 0.1.0\n",
    "values.yaml": "annotations: {}\nimage: IMAGE\n",
    "templates/set.yaml": """\
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: "set-{{ .Release.Name }}"}
spec:
  serviceName: "set-{{ .Release.Name }}"
  selector: {matchLabels: {app.kubernetes.io/instance: "{{ .Release.Name }}", inspect/service: default}}
  template:
    metadata:
      labels: {app.kubernetes.io/instance: "{{ .Release.Name }}", inspect/service: default}
      annotations: {{ .Values.annotations | toJson }}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - {name: main, image: "{{ .Values.image }}", imagePullPolicy: IfNotPresent, command: [sleep, infinity]}
""",
    "templates/service.yaml": """\
apiVersion: v1
kind: Service
metadata: {name: "set-{{ .Release.Name }}"}
spec: {clusterIP: None, selector: {app.kubernetes.io/instance: "{{ .Release.Name }}"}}
""",
    "templates/map.yaml": """\
apiVersion: v1
kind: ConfigMap
metadata: {name: "{{ .Release.Name }}-map"}
data: {of: "{{ .Release.Name }}"}
""",
}


def write_chart(folder: Path, image: str) -> Path:
    """Write the chart that both contenders install: a StatefulSet, a Service and a ConfigMap."""
    for name, text in CHART.items():
        path = folder / "bench" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("IMAGE", image))
    return folder / "bench"


def spec_of(chart: Path, **values: Any) -> EnvironmentSpec:
    """Describe a release of the chart."""
    return EnvironmentSpec(services={"default": ServiceSpec()}, options={"helm": {"chart": str(chart), "values": values}})


async def ours(config: Mapping[str, Any], chart: Path, order: Mapping[str, Any]) -> dict[str, Any]:
    """Take our own figures."""
    found: dict[str, Any] = {}
    async with Session("helm", config=config) as session, session.environment(spec_of(chart)) as environment:
        sandbox = environment.default
        await sandbox.exec(["/bin/true"])
        found["commands"] = [await _commands(sandbox, count, order["seconds"]) for count in order["in_flight"]]
        found["files"] = [await _files(sandbox, size, order["file_times"]) for size in order["sizes"]]
    found["engines"] = {engine: await _many(config, chart, engine, order["releases"]) for engine in ENGINES}
    found["scales"] = [await _many(config, chart, engine, count) for count in order["scales"] for engine in ENGINES]
    found["bad_image_s"] = await _bad_image(config, chart)
    return found


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
    for _ in range(1 if size > 10 << 20 else times):
        start = time.perf_counter()
        await sandbox.write_file("/tmp/benchmark", data)
        middle = time.perf_counter()
        read = await sandbox.read_file("/tmp/benchmark")
        down.append(time.perf_counter() - middle)
        up.append(middle - start)
        assert len(read) == size
    return {"size_bytes": size, "up_ms": 1e3 * percentile(up, 0.5), "down_ms": 1e3 * percentile(down, 0.5)}


async def _many(config: Mapping[str, Any], chart: Path, engine: str, count: int) -> dict[str, Any]:
    """Provision so many releases at once, and take them away."""
    async with Session("helm", config={**config, "engine": engine}) as session:
        provisioner: Any = session._open().provisioner
        began = time.perf_counter()
        outcomes = [outcome async for outcome in session.provision_many([spec_of(chart)] * count)]
        provisioned = time.perf_counter() - began
        made = [outcome.environment for outcome in outcomes if outcome.environment]
        await asyncio.gather(*(one.default.exec(["/bin/true"]) for one in made))
        began = time.perf_counter()
        await asyncio.gather(*(one.destroy() for one in made))
        requests = (await provisioner.cluster()).requests
        return {
            "engine": engine,
            "releases": count,
            "failures": count - len(made),
            "provision_s": provisioned,
            "destroy_s": time.perf_counter() - began,
            "requests_each": requests / count,
        }


async def _bad_image(config: Mapping[str, Any], chart: Path) -> float:
    began = time.perf_counter()
    async with Session("helm", config=config) as session:
        try:
            await session.provision(spec_of(chart, image="registry.invalid/no/such:image"))
        except SandboxError:
            return time.perf_counter() - began
    raise RuntimeError("an image that can't be pulled was")


def peer(python: str, config: Mapping[str, Any], chart: Path, order: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Take the peer's figures, in its own process; helm and a kubeconfig with the namespace are put where it looks."""
    (folder / "bin").mkdir()
    (folder / "bin" / "helm").symlink_to(config["helm"])
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_bytes(Path(config["kubeconfig"]).read_bytes())
    base = ["kubectl", "--kubeconfig", str(kubeconfig), "config", "set-context", "--current", "--namespace", config["namespace"]]
    subprocess.run(base, check=True, capture_output=True)
    (folder / "order.json").write_text(json.dumps({**order, "chart": str(chart)}))
    environ = os.environ | {
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
        "KUBECONFIG": str(kubeconfig),
        "INSPECT_MAX_POD_OPS": "100",
    }
    out = folder / "found.json"
    subprocess.run([python, str(HERE / "helm_peer.py"), str(folder / "order.json"), str(out)], check=True, env=environ)
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
        "releases": asked.releases,
        "scales": asked.scales,
    }
    report: dict[str, Any] = {
        "machine": machine.facts(),
        "kubernetes": json.loads(kubectl("get", "--raw", "/version"))["gitVersion"].removeprefix("v"),
        "helm": _printed(str(config["helm"]), "version", "--template", "{{.Version}}").removeprefix("v"),
    }
    kubectl("create", "namespace", namespace)
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            chart = write_chart(folder, reference("debian"))
            report[helm_page.OURS] = asyncio.run(ours(config, chart, order))
            if asked.peer:
                find = "import importlib.metadata as m; print('inspect-k8s-sandbox==' + m.version('inspect-k8s-sandbox'))"
                report["peer"] = _printed(asked.peer, "-c", find)
                report[helm_page.PEER] = peer(asked.peer, config, chart, order, folder)
    finally:
        kubectl("delete", "namespace", namespace, "--wait=false")
    report["machine"]["load_after"] = machine.load()
    return report


def _printed(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
