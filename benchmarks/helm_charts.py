"""What ``benchmarks.helm`` installs: a chart of three objects for both contenders, and each contender's own chart."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from sandboxcore import EnvironmentSpec, ServiceSpec

__all__ = ("CILIUM_POLICIES", "built_in_spec", "chart_spec", "peer_chart", "peer_values", "write_chart")

_COMMAND = ["sleep", "infinity"]
_CHART = {
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
#: The kind that the peer's chart always creates, for clusters that lack it; nothing enforces it there, at no cost for the peer.
CILIUM_POLICIES: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "ciliumnetworkpolicies.cilium.io"},
    "spec": {
        "group": "cilium.io",
        "scope": "Namespaced",
        "names": {"kind": "CiliumNetworkPolicy", "plural": "ciliumnetworkpolicies", "shortNames": ["cnp"]},
        "versions": [
            {
                "name": "v2",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


def write_chart(folder: Path, image: str) -> Path:
    """Write the chart that both contenders install: a StatefulSet, a Service and a ConfigMap."""
    for name, text in _CHART.items():
        path = folder / "bench" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("IMAGE", image))
    return folder / "bench"


def chart_spec(chart: Path, **values: Any) -> EnvironmentSpec:
    """Describe a release of that chart."""
    return EnvironmentSpec(services={"default": ServiceSpec()}, options={"helm": {"chart": str(chart), "values": values}})


def built_in_spec(image: str) -> EnvironmentSpec:
    """Describe the same sandbox for our own chart."""
    return EnvironmentSpec(services={"default": ServiceSpec(image=image, command=_COMMAND)})


def peer_chart(python: str, folder: Path) -> Path:
    """Copy the peer's own chart, with the CPU that its resolvers ask for cut from 100m to 10m a pod.

    As it is delivered, some 16 of its releases fit on a node of 2 cores, and the others fail after 600 s.
    """
    find = "import k8s_sandbox; print(k8s_sandbox.__path__[0])"
    package = subprocess.run([python, "-c", find], check=True, capture_output=True, text=True).stdout.strip()
    copy = folder / "agent-env"
    shutil.copytree(Path(package) / "resources" / "helm" / "agent-env", copy)
    services = copy / "templates" / "services.yaml"
    asked = 'requests:\n            memory: "128Mi"\n            cpu: "100m"'
    text = services.read_text()
    if text.count(asked) != 1:
        raise RuntimeError("the peer's chart has changed: its resolver asks for other resources")
    services.write_text(text.replace(asked, asked.replace("100m", "10m")))
    return copy


def peer_values(folder: Path, image: str) -> Path:
    """Write the values of the same sandbox for the peer's own chart; JSON is YAML."""
    asked = {"cpu": "10m", "memory": "16Mi"}
    service = {"image": image, "command": _COMMAND, "runtimeClassName": "CLUSTER_DEFAULT", "resources": {"requests": asked}}
    values = {
        "services": {"default": service},
        # Nothing can be pulled: the resolver's image is the test cluster's own.
        "corednsImage": "sandboxcore.test/coredns:1",
        "corednsCommand": ["/app", "-conf", "/etc/coredns/Corefile"],
    }
    path = folder / "peer-values.yaml"
    path.write_text(json.dumps(values))
    return path
