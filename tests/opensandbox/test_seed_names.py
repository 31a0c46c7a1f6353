"""Manifests and chart values of the README that came before the release."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
import yaml
from sandboxcore_opensandbox._seed_names import CHART_VALUES, translate_manifest, translate_values

pytestmark = pytest.mark.tier("none")

NOW = datetime.datetime(2026, 3, 1, 12, 0, tzinfo=datetime.UTC)

POOL = """
apiVersion: sandbox.opensandbox.io/v1alpha1
kind: Pool
metadata: {name: agents}
spec:
  minBufferSize: 2
  maxBufferSize: 5
  capacity: 20
  sandboxTemplate:
    spec:
      image: python:3.12
      resources: {limits: {cpu: "1"}}
      nodeSelector: {kind: sandbox}
"""


def translated(text: str) -> tuple[dict[str, Any], list[str]]:
    return translate_manifest(yaml.safe_load(text), now=NOW)


def test_a_pool_is_rewritten_and_each_name_is_said() -> None:
    made, lines = translated(POOL)
    assert made["spec"] == {
        "capacitySpec": {"bufferMin": 2, "bufferMax": 5, "poolMax": 20, "poolMin": 0},
        "template": {
            "spec": {
                "containers": [{"name": "sandbox", "image": "python:3.12", "resources": {"limits": {"cpu": "1"}}}],
                "nodeSelector": {"kind": "sandbox"},
            }
        },
    }
    for old, new in (
        ("minBufferSize", "capacitySpec.bufferMin"),
        ("capacity", "capacitySpec.poolMax"),
        ("sandboxTemplate", "template"),
    ):
        assert any(f"spec.{old}:" in line and f"spec.{new}" in line for line in lines), lines
    assert all(line.startswith("Pool/agents: ") for line in lines)


def test_a_capacity_that_is_a_mapping() -> None:
    made, _ = translated("{kind: Pool, metadata: {name: a}, spec: {capacity: {min: 1, max: 9, minBufferSize: 2}}}")
    assert made["spec"]["capacitySpec"] == {"poolMin": 1, "poolMax": 9, "bufferMin": 2, "bufferMax": 2}


def test_a_real_template_stays_one() -> None:
    pod = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    made, _ = translate_manifest({"kind": "Pool", "metadata": {"name": "a"}, "spec": {"sandboxTemplate": pod}})
    assert made["spec"]["template"] == pod


def test_a_batch_sandbox_gets_an_absolute_end() -> None:
    made, lines = translated("{kind: BatchSandbox, metadata: {name: b}, spec: {pool: agents, ttlSecondsAfterFinished: 600}}")
    assert made["spec"] == {"poolRef": "agents", "expireTime": "2026-03-01T12:10:00Z", "replicas": 1}
    assert len(lines) == 3


def test_todays_names_stay_as_they_are() -> None:
    spec = "{capacitySpec: {bufferMin: 1, bufferMax: 1, poolMin: 1, poolMax: 2}, template: {}}"
    text = f"{{kind: Pool, metadata: {{name: a}}, spec: {spec}}}"
    assert translated(text) == (yaml.safe_load(text), [])


def test_the_given_manifest_is_not_changed() -> None:
    document = yaml.safe_load(POOL)
    translate_manifest(document)
    assert document == yaml.safe_load(POOL)


@pytest.mark.parametrize("document", [{}, {"kind": "Pool"}, {"kind": "ConfigMap", "spec": {"capacity": 1}}])
def test_what_is_none_of_ours_is_left_alone(document: dict[str, Any]) -> None:
    assert translate_manifest(document) == (document, [])


def test_chart_values_get_todays_names() -> None:
    values = {
        "controllerManager": {"image": {"repository": "mine", "tag": "1"}, "replicas": 2, "logLevel": 3, "leaderElect": True},
        "server": {"enabled": True, "replicas": 1, "service": {"type": "NodePort"}, "ingress": {"host": "h"}},
        "rbac": {"create": False, "serviceAccount": {"name": "me"}},
        "taskExecutor": {"image": "x"},
        "fullnameOverride": "kept",
    }
    made, lines = translate_values(values)
    assert made == {
        "controller": {
            "image": {"repository": "mine", "tag": "1"},
            "replicaCount": 2,
            "logLevel": "info",
            "leaderElection": {"enabled": True},
        },
        "server": {"replicaCount": 1, "service": {"type": "NodePort"}},
        "rbac": {"create": False},
        "serviceAccount": {"name": "me"},
        "fullnameOverride": "kept",
    }
    left_out = [line for line in lines if "is no value" in line]
    assert sorted(line.partition(":")[0] for line in left_out) == ["server.enabled", "server.ingress", "taskExecutor"]
    assert any(line.startswith("controllerManager.replicas: is called controller.replicaCount") for line in lines)


def test_every_value_without_a_name_says_what_to_do() -> None:
    assert [old for old, (new, note) in CHART_VALUES.items() if new is None and not note] == []
