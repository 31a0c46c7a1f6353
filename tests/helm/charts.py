"""Charts for tests, written small."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import yaml

from tests.images import reference

__all__ = ("BARE_POD", "DEPLOYMENT", "STATEFUL", "config_map", "hook_job", "pod", "write_chart")

LABELS = "{app.kubernetes.io/instance: {{ .Release.Name | quote }}, inspect/service: %s}"


def write_chart(
    folder: Path,
    templates: Mapping[str, str],
    *,
    name: str = "tiny",
    values: Mapping[str, object] | None = None,
    files: Mapping[str, str] | None = None,
) -> Path:
    """Write a chart and return its folder."""
    chart = folder / name
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text(f"apiVersion: v2\nname: {name}\nversion: 0.1.0\n")
    (chart / "values.yaml").write_text(yaml.safe_dump(dict(values or {})))
    for file, text in templates.items():
        (chart / "templates" / file).write_text(text)
    for file, text in (files or {}).items():
        path = chart / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return chart


def pod(service: str = "default", *, name: str = "{{ .Release.Name }}-" + "default", extra: str = "", image: str = "") -> str:
    """Write a template of a bare pod that is a sandbox."""
    return f"""\
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  labels: {LABELS % service}
  annotations: {{{{ toYaml (.Values.annotations | default dict) | nindent 4 }}}}
spec:
  terminationGracePeriodSeconds: 0
  {extra}
  containers:
    - name: main
      image: {image or reference("busybox")}
      imagePullPolicy: Never
      command: [sleep, infinity]
"""


def config_map(name: str, value: str = "x") -> str:
    """Write a template of a ConfigMap."""
    return f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  value: {value}\n"


def hook_job(
    name: str, event: str, script: str, *, policy: str = "hook-succeeded", weight: int = 0, mounted: str | None = None
) -> str:
    """Write a template of a Job that is a hook; ``mounted`` is a ConfigMap of the release that it has as ``/NAME``."""
    mounts = [{"name": mounted, "mountPath": f"/{mounted}"}] if mounted else []
    volumes = [{"name": mounted, "configMap": {"name": "{{ .Release.Name }}-" + mounted}}] if mounted else []
    return f"""\
apiVersion: batch/v1
kind: Job
metadata:
  name: {{{{ .Release.Name }}}}-{name}
  annotations: {{helm.sh/hook: {event}, helm.sh/hook-delete-policy: "{policy}", helm.sh/hook-weight: "{weight}"}}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 0
      volumes: {json.dumps(volumes)}
      containers:
        - name: main
          image: {reference("busybox")}
          imagePullPolicy: Never
          command: [sh, -c, {script!r}]
          volumeMounts: {json.dumps(mounts)}
"""


BARE_POD = {"pod.yaml": pod()}


def _controlled(kind: str, service: str, extra: str = "") -> str:
    return f"""\
apiVersion: apps/v1
kind: {kind}
metadata:
  name: {{{{ .Release.Name }}}}-{service}
spec:
  {extra}
  replicas: 1
  selector: {{matchLabels: {LABELS % service}}}
  template:
    metadata: {{labels: {LABELS % service}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - name: main
          image: {reference("busybox")}
          imagePullPolicy: Never
          command: [sleep, infinity]
          volumeMounts: {{{{ .Values.mounts | default list | toJson }}}}
"""


DEPLOYMENT = {"deployment.yaml": _controlled("Deployment", "deployed")}
_ASKED = "{accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}"
_CLAIM = f"volumeClaimTemplates: [{{metadata: {{name: data}}, spec: {_ASKED}}}]"
STATEFUL = {"stateful.yaml": _controlled("StatefulSet", "default", f"serviceName: {{{{ .Release.Name }}}}\n  {_CLAIM}")}
