"""What the packet filter gets for policies, without a cluster."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.cluster._enforce import Enforcer, key_of
from tests.cluster._layout import Layout
from tests.cluster._policy import Rules, Snapshot, matches, rules, subtract

NAMESPACES = {("", "here"): {"metadata": {"labels": {"team": "red"}}}, ("", "there"): {"metadata": {"labels": {"team": "blue"}}}}


def pod(address: str, labels: dict[str, str] | None = None, **status: Any) -> dict[str, Any]:
    ports = [{"name": "web", "containerPort": 8080}]
    spec = {"containers": [{"ports": ports}]}
    return {"metadata": {"labels": labels or {}}, "spec": spec, "status": {"podIP": address, "phase": "Running", **status}}


PODS = {
    ("here", "web"): pod("10.0.0.1", {"app": "web"}),
    ("here", "user"): pod("10.0.0.2", {"app": "user"}),
    ("there", "user"): pod("10.0.0.3", {"app": "user"}),
}


def verdicts(spec: dict[str, Any], pods: dict[tuple[str, str], Any] = PODS, **more: Any) -> list[str]:
    """Return the rules of the one pod that a policy of the namespace `here` selects, without their chain's name."""
    policies = {("here", "policy"): {"spec": {"podSelector": {"matchLabels": {"app": "web"}}, **spec}}}
    made = rules(Snapshot(pods=pods, namespaces=NAMESPACES, policies=policies, **more), "pods0")
    return [line.split(" ", 2)[2] for line in made.lines if line.startswith(("-A SBX-E-", "-A SBX-I-"))]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({}, ["-s 0.0.0.0/0 -j RETURN"]),
        ({"from": [{"podSelector": {}}]}, ["-s 10.0.0.1/32 -j RETURN", "-s 10.0.0.2/32 -j RETURN"]),
        ({"from": [{"namespaceSelector": {"matchLabels": {"team": "blue"}}}]}, ["-s 10.0.0.3/32 -j RETURN"]),
        (
            {"from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "user"}}}]},
            ["-s 10.0.0.2/32 -j RETURN", "-s 10.0.0.3/32 -j RETURN"],
        ),
        ({"from": [{"podSelector": {"matchLabels": {"app": "nobody"}}}]}, []),
        ({"ports": [{"port": 80}]}, ["-s 0.0.0.0/0 -p tcp -m tcp --dport 80 -j RETURN"]),
        ({"ports": [{"port": 53, "protocol": "UDP"}]}, ["-s 0.0.0.0/0 -p udp -m udp --dport 53 -j RETURN"]),
        ({"ports": [{"port": 80, "endPort": 90}]}, ["-s 0.0.0.0/0 -p tcp -m tcp --dport 80:90 -j RETURN"]),
        ({"ports": [{"port": "web"}]}, ["-s 0.0.0.0/0 -p tcp -m tcp --dport 8080 -j RETURN"]),
        ({"ports": [{"port": "unknown"}]}, []),
    ],
)
def test_what_a_rule_lets_in(rule: dict[str, Any], expected: list[str]) -> None:
    assert verdicts({"ingress": [rule]}) == [*expected, "-j DROP"]


def test_a_named_port_of_egress_is_the_receivers() -> None:
    rule = {"to": [{"podSelector": {"matchLabels": {"app": "user"}}}], "ports": [{"port": "web"}]}
    found = verdicts({"policyTypes": ["Egress"], "egress": [rule]})
    assert found == ["-d 10.0.0.2/32 -p tcp -m tcp --dport 8080 -j RETURN", "-j DROP"]


def test_no_rule_lets_nothing_in() -> None:
    assert verdicts({}) == ["-j DROP"]


def test_both_directions() -> None:
    assert verdicts({"policyTypes": ["Ingress", "Egress"]}) == ["-j DROP", "-j DROP"]


def test_a_pod_without_policy_has_no_chain() -> None:
    assert rules(Snapshot(pods=PODS, namespaces=NAMESPACES), "pods0").chains == ("SBX-FORWARD", "SBX-INPUT")


def test_a_pod_that_starts_counts_with_the_address_that_it_will_have() -> None:
    starting = PODS | {("here", "web"): pod("", {"app": "web"}, phase="Pending")}
    assert verdicts({}, starting) == []
    assert verdicts({}, starting, addresses={("here", "web"): "10.0.0.9"}) == ["-j DROP"]


def test_a_pod_that_ended_does_not_count() -> None:
    assert verdicts({}, PODS | {("here", "web"): pod("10.0.0.1", {"app": "web"}, phase="Succeeded")}) == []


@pytest.mark.parametrize(
    ("network", "holes", "left"),
    [
        ("10.0.0.0/30", [], ["10.0.0.0/30"]),
        ("10.0.0.0/30", ["10.0.0.0/31"], ["10.0.0.2/31"]),
        ("10.0.0.0/30", ["10.0.0.0/8"], []),
        ("10.0.0.0/30", ["192.168.0.0/16"], ["10.0.0.0/30"]),
        ("fd00::/8", [], []),
    ],
)
def test_networks_with_holes(network: str, holes: list[str], left: list[str]) -> None:
    assert subtract(network, holes) == left


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        ({"key": "a", "operator": "In", "values": ["1", "2"]}, True),
        ({"key": "a", "operator": "NotIn", "values": ["1"]}, False),
        ({"key": "b", "operator": "NotIn", "values": ["1"]}, True),
        ({"key": "a", "operator": "Exists"}, True),
        ({"key": "a", "operator": "DoesNotExist"}, False),
    ],
)
def test_selectors(term: dict[str, Any], expected: bool) -> None:
    assert matches({"matchExpressions": [term]}, {"a": "1"}) is expected


def test_a_rule_set_removes_the_chains_that_it_lacks() -> None:
    text = Rules(("SBX-FORWARD",), ("-A SBX-FORWARD -j RETURN",)).text(["SBX-FORWARD", "SBX-I-old"])
    assert text == "*mangle\n:SBX-FORWARD - [0:0]\n:SBX-I-old - [0:0]\n-A SBX-FORWARD -j RETURN\n-X SBX-I-old\nCOMMIT\n"


def test_a_pod_starts_when_the_watches_have_told_of_it_and_its_policies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before, it would have no rule, and be open."""
    enforcer = Enforcer(Layout(tmp_path))
    current: set[str] = set()
    monkeypatch.setattr(enforcer, "is_current", current.__contains__)
    folder = tmp_path / "run" / "pods"
    folder.mkdir(parents=True)
    (folder / "container.pod").write_text("here web 10.0.0.1")
    assert enforcer.look_for_pods() == []
    enforcer.objects["pods"] = dict(PODS)
    assert enforcer.look_for_pods() == []
    current.add("here")
    assert enforcer.look_for_pods() == [folder / "container.pod"]
    assert [*enforcer.starting.values()] == [(("here", "web"), "10.0.0.1")]
    assert enforcer.look_for_pods() == []


def test_policies_are_current_when_the_watch_has_told_of_each_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def policy(name: str, version: str) -> dict[str, Any]:
        return {"metadata": {"namespace": "here", "name": name, "resourceVersion": version}}

    there = [policy("a", "1"), policy("b", "2")]
    enforcer = Enforcer(Layout(tmp_path))
    monkeypatch.setattr(enforcer, "get", lambda path, timeout: io.BytesIO(json.dumps({"items": there}).encode()))
    for known, current in (
        (there[:1], False),
        ([there[0], policy("b", "1")], False),
        (there, True),
        ([*there, policy("c", "3")], False),
    ):
        enforcer.objects["policies"] = {key_of(item): item for item in known} | {("there", "x"): policy("x", "9")}
        assert enforcer.is_current("here") is current
