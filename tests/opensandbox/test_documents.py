"""Compose documents on this backend: translated by the real translator, and checked before anything is created."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from sandboxcore_kubernetes.objects import Placement, pod_template
from sandboxcore_opensandbox._config import OpenSandboxConfig
from sandboxcore_opensandbox.plugin import sandboxcore_provisioner

from sandboxcore import Session
from sandboxcore.errors import CapabilityError, SpecError
from sandboxcore.spec import EnvironmentSpec

pytestmark = pytest.mark.tier("none")

PLACE = Placement(instance="env", namespace="n")
IN_PODS = """
services:
  a:
    image: x
    x-sandboxcore: {node_selector: {disk: fast}}
x-sandboxcore:
  node_selector: {zone: b}
  options: {kubernetes: {priority_class: low}}
x-k8s: {service_account_name: me, automount_service_account_token: true}
"""


def translated(tmp_path: Path, text: str) -> EnvironmentSpec:
    path = tmp_path / "compose.yaml"
    path.write_text(text)
    return Session("opensandbox").translate(path).spec


def checked(spec: EnvironmentSpec, **config: Any) -> dict[str, str]:
    """Ask the backend; gives keys and losses."""
    provisioner = sandboxcore_provisioner("opensandbox", OpenSandboxConfig(**config))
    assert provisioner is not None
    return {entry.key: entry.loss.value for entry in provisioner.check(spec)}


def test_words_for_pods_are_in_the_pods_that_are_made(tmp_path: Path) -> None:
    spec = translated(tmp_path, IN_PODS)
    assert checked(spec) == {}
    pod = pod_template(spec, "a", PLACE)["spec"]
    assert pod["nodeSelector"] == {"disk": "fast", "zone": "b"}
    assert (pod["priorityClassName"], pod["serviceAccountName"], pod["automountServiceAccountToken"]) == ("low", "me", True)


@pytest.mark.parametrize("config", [{}, {"pool": "p"}, {"mode": "server"}])
def test_an_account_that_nobody_makes_is_told(tmp_path: Path, config: dict[str, Any]) -> None:
    text = "services: {a: {image: x}}\nx-k8s: {service_account_name: me, service_account_create: true}"
    assert checked(translated(tmp_path, text), **config)["services.a.options.kubernetes.service_account_create"] == "APPROX"
    text = text.replace("true", "false")
    assert "services.a.options.kubernetes.service_account_create" not in checked(translated(tmp_path, text), **config)


@pytest.mark.parametrize("config", [{"pool": "p"}, {"mode": "server"}, {"mode": "server", "pool": "p"}])
def test_words_for_pods_that_others_make_are_told(tmp_path: Path, config: dict[str, Any]) -> None:
    found = checked(translated(tmp_path, IN_PODS), **config)
    words = {"node_selector", "priority_class", "service_account", "automount_service_account_token"}
    assert {key: loss for key, loss in found.items() if "options" in key} == {
        f"services.a.options.kubernetes.{word}": "APPROX" for word in words
    }
    with pytest.raises(SpecError, match="node_selektor"):
        checked(
            EnvironmentSpec.model_validate({"services": {"a": {}}, "options": {"kubernetes": {"node_selektor": {}}}}), pool="p"
        )


def test_what_the_server_does_with_a_plain_service_is_told() -> None:
    """It runs no command of the image's, and limits what nobody limited; a pool's pods have both from their template."""
    plain = EnvironmentSpec.model_validate({"services": {"a": {"image": "x"}}})
    network = {"services.a.network_policy": "APPROX"}
    assert checked(plain, mode="server") == {"services.a.command": "APPROX", "services.a.resources": "APPROX", **network}
    assert checked(EnvironmentSpec.model_validate({"services": {"a": {}}}), mode="server", pool="p") == network
    said = {"image": "x", "entrypoint": ["serve"], "resources": {"cpus": 2}}
    assert checked(EnvironmentSpec.model_validate({"services": {"a": said}}), mode="server") == network


@pytest.mark.parametrize("cilium", [False, True])
def test_the_word_for_policies_is_stated_where_names_can_be_allowed(cilium: bool) -> None:
    service = {"image": "x", "network_policy": {"allow_domains": ["example.org"]}}
    spec = EnvironmentSpec.model_validate({"services": {"a": service}})
    assert ("network_policy" in Session("opensandbox", config={"cilium": cilium}).info.capabilities) == cilium
    with contextlib.nullcontext() if cilium else pytest.raises(CapabilityError, match="allow_domains"):
        checked(spec, cilium=cilium)


@pytest.mark.parametrize("option", [{"task": True}, {"task": False}, {"task_timeout": 5}])
def test_words_about_tasks_are_refused_by_the_server(option: dict[str, Any]) -> None:
    service = {"command": ["serve"], "options": {"opensandbox": option}}
    with pytest.raises(CapabilityError, match=rf"services\.a\.options\.opensandbox\.{next(iter(option))}: "):
        checked(EnvironmentSpec.model_validate({"services": {"a": service}}), mode="server", pool="p")
