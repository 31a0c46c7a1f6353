"""The Helm backend beside inspect_k8s_sandbox, on one cluster, with one chart, in one run.

    python -m benchmarks.helm --peer VENV/bin/python --releases 50 --out docs/_static/performance-helm.json

``--peer`` is the Python of a venv with ``inspect-k8s-sandbox==0.14.0``; without it only our own figures are taken.
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

from . import machine
from .timing import percentile, run_load

__all__ = ("main",)

HERE = Path(__file__).parent
CHART = {
    "Chart.yaml": "apiVersion: v2\nname: bench\nversion: 0.1.0\n",
    "values.yaml": "annotations: {}\nimage: IMAGE\n",
    "templates/set.yaml": """\
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: "{{ .Release.Name }}-set"}
spec:
  serviceName: "{{ .Release.Name }}-set"
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
metadata: {name: "{{ .Release.Name }}-set"}
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
    found["engines"] = {engine: await _many(config, chart, engine, order["releases"]) for engine in ("render-once", "helm")}
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


def ratios(report: Mapping[str, Any]) -> dict[str, float]:
    """Tell how many times better ours are."""
    mine, other = report["sandboxcore"], report["inspect_k8s_sandbox"]
    found: dict[str, float] = {}
    for a, b in zip(mine["commands"], other["commands"], strict=True):
        found[f"exec p50 at {a['in_flight']}"] = b["p50_ms"] / a["p50_ms"]
        found[f"exec throughput at {a['in_flight']}"] = a["per_second"] / b["per_second"]
        found[f"exec client CPU at {a['in_flight']}"] = b["client_cpu_us"] / a["client_cpu_us"]
    for a, b in zip(mine["files"], other["files"], strict=True):
        found[f"write {a['size_bytes']} B"] = b["up_ms"] / a["up_ms"]
        found[f"read {a['size_bytes']} B"] = b["down_ms"] / a["down_ms"]
    for engine, row in mine["engines"].items():
        found[f"provision with {engine}"] = other["provision_s"] / row["provision_s"]
    return found


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Draw commands and provisioning of both."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "sandboxcore"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    for name, colour in (("sandboxcore", "#0b6e99"), ("inspect_k8s_sandbox", "#8a8a8a")):
        rows = report[name]["commands"]
        for axis, key in ((axes[0], "p50_ms"), (axes[1], "per_second")):
            axis.plot([row["in_flight"] for row in rows], [row[key] for row in rows], marker="o", label=name, color=colour)
    axes[0].set(title="median latency of /bin/true, ms", xlabel="in flight", xscale="log", yscale="log")
    axes[1].set(title="commands a second", xlabel="in flight", xscale="log", yscale="log")
    engines = report["sandboxcore"]["engines"]
    bars = {name: row["provision_s"] for name, row in engines.items()} | {"peer": report["inspect_k8s_sandbox"]["provision_s"]}
    axes[2].bar(list(bars), list(bars.values()), color=["#0b6e99", "#6fb3cf", "#8a8a8a"])
    axes[2].set(title=f"seconds until {engines['helm']['releases']} releases are ready")
    for axis in axes[:2]:
        axis.grid(visible=True, alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure on the cluster of the tests."""
    parser = argparse.ArgumentParser(description="Measure the Helm backend beside inspect_k8s_sandbox.")
    parser.add_argument("--peer", help="Python of a venv with inspect-k8s-sandbox")
    parser.add_argument("--releases", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--out", type=Path, help="JSON file; a picture is put beside it")
    asked = parser.parse_args(arguments)
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
    }
    report: dict[str, Any] = {"machine": {"date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), **machine.facts()}}
    kubectl("create", "namespace", namespace)
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            chart = write_chart(folder, reference("debian"))
            report["sandboxcore"] = asyncio.run(ours(config, chart, order))
            if asked.peer:
                report["inspect_k8s_sandbox"] = peer(asked.peer, config, chart, order, folder)
                report["ratios"] = ratios(report)
    finally:
        kubectl("delete", "namespace", namespace, "--wait=false")
    report["machine"]["load_after"] = machine.load()
    text = json.dumps(report, indent=1)
    sys.stdout.write(text + "\n")
    if asked.out:
        asked.out.write_text(text + "\n")
        if asked.peer:
            draw(report, asked.out.with_suffix(".svg"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
