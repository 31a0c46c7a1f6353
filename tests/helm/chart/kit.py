"""Renderings of the built-in chart, and what is asked of them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from typing import Any

from sandboxcore_helm._goyaml import load_all
from sandboxcore_helm._values import CHART

from tests.cluster import helm

__all__ = ("CILIUM", "Rendered", "allowed", "render", "selects", "template", "told")

CILIUM = "cilium.io/v2/CiliumNetworkPolicy"


class Rendered:
    """The objects of a release."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.objects: list[dict[str, Any]] = [one for one in load_all(text) if one]

    def of(self, kind: str) -> dict[str, dict[str, Any]]:
        """Return the objects of a kind by name, without what all names begin with."""
        return {_short(one): one for one in self.objects if one["kind"] == kind}

    def pod(self, service: str) -> dict[str, Any]:
        """Return the spec of a service's pod."""
        found: dict[str, Any] = self.of("Pod")[service]["spec"]
        return found

    def container(self, service: str) -> dict[str, Any]:
        """Return a service's container: the first of its pod."""
        found: dict[str, Any] = self.pod(service)["containers"][0]
        return found


def _short(body: Mapping[str, Any]) -> str:
    name: str = body["metadata"]["name"]
    release = body["metadata"]["labels"]["app.kubernetes.io/instance"]
    return name.removeprefix(f"sandboxcore-{release}").removeprefix("-")


def template(values: Any, *argv: str, major: int = 4, release: str = "abcdefgh") -> subprocess.CompletedProcess[str]:
    """Run ``helm template`` on values, or on the text of a values file."""
    command = [
        str(helm(major)),
        "template",
        release,
        str(CHART),
        "--namespace",
        "ns",
        "--kube-version",
        "1.34.0",
        "-f",
        "-",
        *argv,
    ]
    text = values if isinstance(values, str) else json.dumps(values)
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


def render(values: Any, *argv: str, major: int = 4, release: str = "abcdefgh") -> Rendered:
    """Render values that are right."""
    done = template(values, *argv, major=major, release=release)
    assert done.returncode == 0, done.stderr
    return Rendered(done.stdout)


def told(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a refusal says, without Helm's line breaks."""
    assert done.returncode != 0, "it was accepted"
    return " ".join(done.stderr.split())


def selects(policy: Mapping[str, Any], pod: Mapping[str, Any]) -> bool:
    """Tell whether a policy is about a pod."""
    return _matches(policy["spec"]["podSelector"], pod["metadata"]["labels"])


def _matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    tests = {
        "DoesNotExist": lambda one: one["key"] not in labels,
        "NotIn": lambda one: labels.get(one["key"]) not in one["values"],
    }
    expressions = selector.get("matchExpressions", ())
    return selector.get("matchLabels", {}).items() <= labels.items() and all(tests[one["operator"]](one) for one in expressions)


def allowed(objects: list[dict[str, Any]], source: str, target: str, port: int = 80) -> bool:
    """Tell whether policies, as Kubernetes reads them, let one service's pod connect to another's."""
    pods = {one["metadata"]["annotations"]["sandboxcore.dev/service"]: one for one in objects if one["kind"] == "Pod"}
    policies = [one for one in objects if one["kind"] == "NetworkPolicy"]
    one, other = pods[source], pods[target]
    return _lets(policies, one, other, "Egress", "to", port) and _lets(policies, other, one, "Ingress", "from", port)


def _lets(policies: list[dict[str, Any]], pod: dict[str, Any], peer: dict[str, Any], kind: str, word: str, port: int) -> bool:
    specs = [one["spec"] for one in policies if selects(one, pod) and kind in one["spec"]["policyTypes"]]
    assert specs, "a pod that no policy selects is open"
    for rule in (rule for spec in specs for rule in spec.get(kind.lower()) or ()):
        ports = [one["port"] for one in rule.get("ports") or ()]
        peers = [one["podSelector"] for one in rule[word] if set(one) == {"podSelector"}]
        if (not ports or port in ports) and any(_matches(one, peer["metadata"]["labels"]) for one in peers):
            return True
    return False
