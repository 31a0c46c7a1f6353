"""What still exists of a run, looked for with the backend's own tools and without the library's help."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

RUN_LABEL = "sandboxcore.dev/run-id"

Leftovers = Callable[[str], Iterable[str]]


class LocalLeftovers:
    """Looks for folders and processes."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._folder = Path(config["state_dir"]) / "envs"

    def __call__(self, run_id: str) -> list[str]:
        described = (path / "env.json" for path in self._folder.glob("*"))
        return [str(path) for path in described if path.exists() and run_id in path.read_text()] + self._orphans()

    def _orphans(self) -> list[str]:
        """Find processes that see the file tree of an environment that is gone."""
        of_environment = re.compile(re.escape(f"{self._folder}/") + r"(\w+)")
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                mounts = "".join((process / name).read_text(errors="replace") for name in ("mountinfo", "cmdline"))
                gone = {name for name in of_environment.findall(mounts) if not (self._folder / name).exists()}
                found += [f"process {process.name} of environment {name}" for name in gone]
        return found


class DockerLeftovers:
    """Looks for containers, networks and volumes in the engine of ``DOCKER_HOST``."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._host = config.get("host")

    def __call__(self, run_id: str) -> list[str]:
        import docker

        client = docker.DockerClient(base_url=self._host) if self._host else docker.from_env()
        try:
            chosen = {"label": f"{RUN_LABEL}={run_id}"}
            containers = client.api.containers(all=True, filters=chosen)
            networks = client.api.networks(filters=chosen)
            volumes = client.api.volumes(filters=chosen)["Volumes"] or []
        finally:
            client.close()
        return [f"container {one['Names']}" for one in containers] + [
            *(f"network {one['Name']}" for one in networks),
            *(f"volume {one['Name']}" for one in volumes),
        ]


class KubernetesLeftovers:
    """Looks for objects in the backend's namespace; what is being deleted, as a pod that still ends, does not count."""

    KINDS = "pods,services,secrets,configmaps,persistentvolumeclaims,networkpolicies,statefulsets,leases"

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config

    def __call__(self, run_id: str) -> list[str]:
        where = ["--kubeconfig", self._config["kubeconfig"], "--namespace", self._config["namespace"]]
        command = ["kubectl", *where, "get", self.KINDS, "--selector", f"{RUN_LABEL}={run_id}", "--output", "json"]
        found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["items"]
        live = [item for item in found if "deletionTimestamp" not in item["metadata"]]
        return [f"{item['kind']} {item['metadata']['name']}" for item in live]


def _of_kubernetes(config: Mapping[str, Any]) -> Leftovers:
    """Look where a namespace is named; opensandbox-server does not tell which is its own."""
    return KubernetesLeftovers(config) if "namespace" in config else lambda run_id: ()


#: Backend to what makes its looking, of the backend's configuration.
LEFTOVERS: Mapping[str, Callable[[Mapping[str, Any]], Leftovers]] = {
    "local": LocalLeftovers,
    "docker": DockerLeftovers,
    "helm": _of_kubernetes,
    "opensandbox": _of_kubernetes,
}
