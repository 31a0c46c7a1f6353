"""The built-in chart on a cluster, installed by hand: who really reaches whom, and what is really in the pods."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from typing import Any

import pytest
from sandboxcore_helm._values import CHART
from sandboxcore_kubernetes.guest_mount import GUEST_FOLDER, guest_mount

from tests.cluster import ClusterError, answering, kubectl, outside, own
from tests.helm.chart.town import SECONDS, Town, box, node_address, server, settled

#: The first test installs everything, on a machine that may be busy.
pytestmark = pytest.mark.timeout(600)
RESOLVER = {
    "corednsImage": "sandboxcore.test/coredns:1",
    "corednsImagePullPolicy": "Never",
    "corednsCommand": ["/app", "-conf", "/etc/coredns/Corefile"],
}


def resolver_address() -> str:
    return kubectl("-n", "kube-system", "get", "service", "kube-dns", "-o", "jsonpath={.spec.clusterIP}")


def away() -> str:
    """An address outside of the cluster, or one where nobody is when the cluster is not our own."""
    try:
        return outside()
    except ClusterError:
        return "192.0.2.1"


@pytest.fixture(scope="module")
def town(place: Any) -> Iterator[Town]:
    found = Town(place)
    layout = own()
    not_internet = [layout.pods, layout.services] if layout else ["10.0.0.0/8"]
    mount = guest_mount("guest")
    place.kubectl("create", "-f", "-", text=json.dumps(mount.config_map))
    nets = {
        "web": server(networks=["a"]),
        "db": server(networks=["b"]),
        "app": box(networks=["a", "b"]),
        "narrow": server(networks=["a"], ports=[{"protocol": "TCP", "port": 80}]),
        "alone": server(),
        "cut": server(networks=["a"], networkIsolated=True),
    }
    ways = {
        "shut": box(),
        "some": box(egress={"allowCIDR": [f"{away()}/32", f"{node_address()}/32"]}),
        "wide": box(egress={"internet": True}),
    }
    stores = {
        "writer": box(volumes=["data:/data"], command=["sh", "-c", "echo kept > /data/file; exec sleep 1000000"]),
        "reader": box(volumes=["data:/data:ro"], files={"/etc/own/file": {"text": "secret\n", "mode": 0o400}}),
        "sealed": box(
            "nonroot",
            securityContext={"readOnlyRootFilesystem": True},
            podSecurityContext={"fsGroup": 1000},
            files={"/etc/own/file": {"text": "group's\n", "mode": 0o400}},
            env=[{"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['inspect/service']"}}}],
        ),
        "scratch": {**box("binary"), "command": None},
    }
    named = {"target_env": server(additionalDnsRecords=["example.com", "*.wild.org"]), "asker": box("debian")}
    gated = {"db": box(), "app": box(dependsOn={"db": "healthy"})}
    plain = {"agentEnv": False}
    try:
        found.install(
            {
                "nets": {**plain, "networks": {"a": {}, "b": {}}, "services": nets},
                "flat": {"dns": {"nameservers": [resolver_address()]}, "services": {"one": server(), "two": box()}},
                "ways": {**plain, "networkPolicy": {"notInternet": not_internet}, "services": ways},
                "keep": {**plain, "volumes": {"data": None}, "guest": {"configMap": "guest"}, "services": stores},
                "name": {**RESOLVER, "services": named},
                "gate": {**plain, "schedulingGates": True, "services": gated},
            }
        )
        found.wait("nets", "flat", "ways", "keep", "name")
        yield found
    finally:
        found.uninstall()
        place.kubectl("delete", "configmap", "guest")
        settled(place.objects, set())


NETS = {name: (name, 80) for name in ("web", "db", "narrow", "alone", "cut")}


def test_services_connect_on_common_networks_only(town: Town) -> None:
    names = {**NETS, "narrow81": ("narrow", 81), "web81": ("web", 81)}
    # Those that are on no network have no names; nor can they look any up, or connect to an address.
    cut = {name: (town.address(f"nets-{name}"), 80) for name in ("alone", "cut")}
    rest = {name: (town.address(f"nets-{name}"), 80) for name in ("web", "db", "narrow")}
    tried = {"app": {**names, **cut}, "web": {**names, **cut}, "db": names, "alone": {**rest, "cut": cut["cut"]}, "cut": rest}
    wanted = {
        "app": {"web", "web81", "db", "narrow"},
        "web": {"web", "web81", "narrow"},
        "db": {"db"},
        "alone": set(),
        "cut": set(),
    }
    settled(
        lambda: town.reach_all({f"nets-{pod}": targets for pod, targets in tried.items()}),
        {f"nets-{pod}": found for pod, found in wanted.items()},
    )


def test_nobody_connects_to_another_environment_or_the_node(town: Town) -> None:
    targets = {"one": (town.address("flat-one"), 80), "web": (town.address("nets-web"), 80), "node": (node_address(), 10250)}
    wanted = {"flat-two": {"one"}, "nets-app": {"web"}, "ways-wide": set(), "ways-some": {"node"}}
    settled(lambda: town.reach_all(dict.fromkeys(wanted, targets)), wanted)


def test_addresses_outside_are_reached_by_those_who_may(town: Town) -> None:
    if own() is None:
        pytest.skip("only our own cluster knows an address outside that is this machine's")
    with answering(outside()) as port:
        targets = {"outside": (outside(), port)}
        wanted = {"ways-some": {"outside"}, "ways-wide": {"outside"}, "ways-shut": set(), "nets-app": set()}
        settled(lambda: town.reach_all(dict.fromkeys(wanted, targets)), wanted)


def test_a_service_is_found_by_its_name_without_a_resolver(town: Town) -> None:
    pod = town.place.get("pod/sandboxcore-nets-app")
    assert [one["name"] for one in pod["spec"]["containers"]] == ["app"]
    assert "initContainers" not in pod["spec"]
    assert town.run("nets-app", "hostname").strip() == "app"
    assert town.run("flat-two", 'nc -w 20 "$AGENT_ENV-one" 80 </dev/null && echo $?').strip() == "0"


def test_a_known_resolver_is_asked_for_the_environment_s_names(town: Town) -> None:
    lines = town.run("flat-two", "cat /etc/resolv.conf").splitlines()
    namespace = f"{town.place.namespace}.svc.cluster.local"
    assert sorted(lines) == [f"nameserver {resolver_address()}", f"search sandboxcore-flat.{namespace} {namespace}"]
    settled(lambda: town.reach("flat-two", {"one": ("one", 80)}), {"one"})


def test_aliases_are_found_where_there_are_any(town: Town) -> None:
    names = ("target_env", "TARGET_ENV", "example.com", "deep.down.wild.org", "asker", "$AGENT_ENV-target_env")
    for name in names:
        settled(
            lambda name=name: town.run("name-asker", f'getent hosts "{name}" > /dev/null && echo found || echo none'), "found\n"
        )
    pod = next(one for one in town.place.get("pods")["items"] if one["metadata"]["labels"].get("inspect/service") == "target_env")
    assert town.run("name-asker", "getent hosts example.com").split()[0] == pod["status"]["podIP"]
    assert town.run("name-asker", "getent hosts nobody.example.com || echo none").strip() == "none"


def test_a_shared_volume_is_read_only_where_it_says_so(town: Town) -> None:
    settled(lambda: town.run("keep-reader", "cat /data/file || true"), "kept\n")
    assert "denied" in town.run("keep-reader", "touch /data/new 2>/dev/null || echo denied")
    assert town.run("keep-writer", "touch /data/new && echo done").strip() == "done"


def test_a_file_has_its_content_and_mode(town: Town) -> None:
    assert town.run("keep-reader", "cat /etc/own/file; stat -Lc %a /etc/own/file").split() == ["secret", "400"]


def test_a_sealed_pod_runs_as_its_image_says(town: Town) -> None:
    found = town.run("keep-sealed", "id -u; echo $NAME; cat /etc/own/file; touch /new 2>/dev/null || echo denied; env").split(
        "\n"
    )
    assert found[:4] == ["1000", "sealed", "group's", "denied"]
    assert not [line for line in found if line.startswith("AGENT_ENV")]


@pytest.mark.parametrize("service", ["scratch", "sealed", "reader"])
def test_the_guest_runs_in_any_image(town: Town, service: str) -> None:
    program = f"{GUEST_FOLDER}/guest-{platform.machine()}"
    pod = f"sandboxcore-keep-{service}"
    assert town.place.kubectl("exec", pod, "-c", service, "--", program, "version").strip() == "1"


def test_a_gated_pod_starts_when_its_gate_is_taken(town: Town) -> None:
    town.place.kubectl("wait", "pod/sandboxcore-gate-db", "--for=condition=Ready", f"--timeout={SECONDS}s")
    pod = town.place.get("pod/sandboxcore-gate-app")
    assert [one["reason"] for one in pod["status"]["conditions"]] == ["SchedulingGated"]
    town.place.kubectl("patch", "pod", "sandboxcore-gate-app", "--type=merge", "-p", '{"spec": {"schedulingGates": []}}')
    town.place.kubectl("wait", "pod/sandboxcore-gate-app", "--for=condition=Ready", f"--timeout={SECONDS}s")


def test_both_helms_know_the_releases(town: Town) -> None:
    for major in (3, 4):
        listed = json.loads(town.place.helm(major, "list", "-o", "json"))
        assert {one["name"]: one["status"] for one in listed} == dict.fromkeys(town.majors, "deployed")


def test_an_upgrade_that_changes_no_pod_keeps_them(town: Town) -> None:
    def pods() -> dict[str, Any]:
        found = json.loads(town.place.kubectl("get", "pods", "-l", "app.kubernetes.io/instance=flat", "-o", "json"))["items"]
        return {one["metadata"]["uid"]: one["metadata"]["labels"].get("round") for one in found}

    before = pods()
    for major in (3, 4):
        town.place.helm(major, "upgrade", "flat", str(CHART), "--reuse-values", "--set-string", f"labels.round={major}")
        assert pods() == dict.fromkeys(before, str(major))
