"""Environments of the built-in chart on a cluster, installed by hand, and who in them reaches whom."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sandboxcore_helm._values import CHART

from tests.cluster import helm, kubeconfig, kubectl
from tests.images import reference

__all__ = ("SECONDS", "Town", "box", "node_address", "server", "settled")

SECONDS = 180
SLEEP = ["sleep", "1000000"]
SERVE = ["sh", "-c", "echo here > /tmp/index.html; httpd -p 81 -h /tmp; exec httpd -f -p 80 -h /tmp"]


def box(image: str = "busybox", **values: Any) -> dict[str, Any]:
    return {"image": reference(image), "imagePullPolicy": "Never", "command": SLEEP, "dnsRecord": True, **values}


def server(**values: Any) -> dict[str, Any]:
    return box(command=SERVE, **values)


def settled(look: Callable[[], Any], wanted: Any) -> None:
    """Wait until something is as it should be."""
    deadline = time.monotonic() + SECONDS
    while (found := look()) != wanted and time.monotonic() < deadline:
        time.sleep(0.5)
    assert found == wanted


class Town:
    """Environments in one namespace, side by side."""

    def __init__(self, place: Any) -> None:
        self.place = place
        self.majors: dict[str, int] = {}

    def install(self, environments: Mapping[str, Mapping[str, Any]]) -> None:
        self.majors = {name: 3 + index % 2 for index, name in enumerate(environments)}
        with ThreadPoolExecutor(len(environments)) as pool:
            list(pool.map(self._install, environments, environments.values()))

    def _install(self, name: str, values: Mapping[str, Any]) -> None:
        command = [str(helm(self.majors[name])), "install", name, str(CHART), "-n", self.place.namespace, "-f", "-"]
        command += ["--kubeconfig", str(kubeconfig())]
        done = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{name}: {done.stderr}"

    def wait(self, *names: str) -> None:
        selector = f"app.kubernetes.io/instance in ({','.join(names)})"
        self.place.kubectl("wait", "pod", "-l", selector, "--for=condition=Ready", f"--timeout={SECONDS}s")

    def uninstall(self) -> None:
        with ThreadPoolExecutor(len(self.majors)) as pool:
            list(pool.map(lambda name: self.place.helm(self.majors[name], "uninstall", name, "--ignore-not-found"), self.majors))

    def run(self, pod: str, script: str) -> str:
        found: str = self.place.kubectl("exec", f"sandboxcore-{pod}", "-c", pod.partition("-")[2], "--", "sh", "-c", script)
        return found

    def reach(self, pod: str, targets: Mapping[str, tuple[str, int]]) -> set[str]:
        """Tell which of the targets a pod can connect to; all are tried at once."""
        tries = [f"nc -w 2 {host} {port} </dev/null >/dev/null 2>&1 && echo {name} &" for name, (host, port) in targets.items()]
        return set(self.run(pod, "\n".join([*tries, "wait"])).split())

    def reach_all(self, targets: Mapping[str, Mapping[str, tuple[str, int]]]) -> dict[str, set[str]]:
        """Do that for several pods at once."""
        with ThreadPoolExecutor(len(targets)) as pool:
            return dict(zip(targets, pool.map(self.reach, targets, targets.values()), strict=True))

    def address(self, pod: str) -> str:
        found: str = self.place.get(f"pod/sandboxcore-{pod}")["status"]["podIP"]
        return found


def node_address() -> str:
    addresses = json.loads(kubectl("get", "nodes", "-o", "json"))["items"][0]["status"]["addresses"]
    return next(str(one["address"]) for one in addresses if one["type"] == "InternalIP")
