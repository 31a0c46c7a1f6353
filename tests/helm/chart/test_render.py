"""What the built-in chart makes of values, as both Helms render it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from sandboxcore_helm._values import CHART

from tests.helm.chart.kit import CILIUM, Rendered, allowed, render, selects, template, told

MAJORS = pytest.mark.parametrize("major", [3, 4])
ONE = {"myservice": {"image": "x"}}


def services(**named: dict[str, Any]) -> dict[str, Any]:
    return {"agentEnv": False, "services": {name: {"image": "x", **service} for name, service in named.items()}}


@MAJORS
def test_one_service_is_one_pod_that_runs_what_its_image_says(major: int) -> None:
    found = render({"agentEnv": False, "services": ONE}, major=major)
    assert [one["kind"] for one in found.objects] == ["NetworkPolicy", "Pod"]
    pod = found.pod("myservice")
    assert pod["containers"] == [{"name": "myservice", "image": "x"}]
    assert "runtimeClassName" not in pod
    assert (pod["restartPolicy"], pod["terminationGracePeriodSeconds"], pod["enableServiceLinks"]) == ("Always", 0, False)
    assert pod["automountServiceAccountToken"] is False


@MAJORS
def test_a_container_has_what_its_service_says_and_nothing_else(major: int) -> None:
    wanted: dict[str, Any] = {
        "imagePullPolicy": "Never",
        "command": ["a", "b: c", "{{ .x }}", "on"],
        "args": ["", "1"],
        "workingDir": "/w",
        "stdin": True,
        "tty": True,
        "resources": {"limits": {"cpu": "0.5", "memory": 1073741824}},
        "readinessProbe": {"exec": {"command": ["true"]}},
        "livenessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 5},
        "startupProbe": {"httpGet": {"path": "/", "port": 1}},
        "securityContext": {"runAsUser": 0, "runAsNonRoot": False},
        "lifecycle": {"preStop": {"exec": {"command": ["x"]}}},
        "envFrom": [{"secretRef": {"name": "s"}}],
    }
    found = render(services(a=wanted), major=major).container("a")
    assert found == {"name": "a", "image": "x", **wanted}


@MAJORS
def test_variables_are_text_and_references_are_kept(major: int) -> None:
    env = [
        {"name": "WHOLE", "value": 1000000},
        {"name": "BIG", "value": 123456789012},
        {"name": "HALF", "value": 0.5},
        {"name": "YES", "value": True},
        {"name": "NOTHING", "value": None},
        {"name": "TEXT", "value": "a: '\"{{ x }}\n$"},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
    ]
    found = render(services(a={"env": env}), major=major).container("a")["env"]
    assert [one.get("value") for one in found] == ["1000000", "123456789012", "0.5", "true", "", env[5]["value"], None]
    assert found[6] == env[6]


@MAJORS
def test_shared_volumes_keep_their_flags_and_their_pods_together(major: int) -> None:
    values = services(
        a={
            "volumes": ["data:/in:ro", "data:/out", {"name": "own", "emptyDir": {}}],
            "volumeMounts": [{"name": "own", "mountPath": "/o"}],
        },
        b={"volumes": [{"volume": "data", "mountPath": "/b", "subPath": "s"}, "given:/g", "there:/t:rw"]},
    )
    values["volumes"] = {
        "data": None,
        "given": {"spec": {"accessModes": ["ReadWriteMany"], "storageClassName": "nfs"}},
        "there": {"existingClaim": "mine"},
    }
    found = render(values, major=major)
    mounts = {one["mountPath"]: one for one in found.container("a")["volumeMounts"]}
    assert (mounts["/in"].get("readOnly"), mounts["/out"].get("readOnly")) == (True, None)
    assert [one["name"] for one in found.pod("a")["volumes"]] == ["own", "shared-data"]
    assert [one["persistentVolumeClaim"]["claimName"] for one in found.pod("b")["volumes"]] == [
        "sandboxcore-abcdefgh-data",
        "sandboxcore-abcdefgh-given",
        "mine",
    ]
    assert found.container("b")["volumeMounts"][0] == {"name": "shared-data", "mountPath": "/b", "subPath": "s"}
    claims = found.of("PersistentVolumeClaim")
    assert set(claims) == {"data", "given"}
    assert claims["data"]["spec"] == {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    assert claims["given"]["spec"] == values["volumes"]["given"]["spec"]
    (term,) = found.pod("b")["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    labels = term["labelSelector"]["matchLabels"]
    assert all(labels.items() <= found.of("Pod")[name]["metadata"]["labels"].items() for name in ("a", "b"))


def test_pods_that_share_a_volume_of_many_nodes_go_anywhere() -> None:
    values = services(a={"volumes": ["data:/d"]}) | {"volumes": {"data": {}}}
    values["volumeDefaults"] = {"accessModes": ["ReadWriteMany"], "storageClassName": "nfs-csi", "size": "1Ki"}
    found = render(values)
    assert "affinity" not in found.pod("a")
    claim = found.of("PersistentVolumeClaim")["data"]["spec"]
    assert (claim["storageClassName"], claim["accessModes"]) == ("nfs-csi", ["ReadWriteMany"])


@MAJORS
def test_files_are_secret_and_have_their_modes(major: int) -> None:
    values = services(a={"files": {"/z": {"text": "plain: text"}, "/b": {"content": "AP8=", "mode": 0o400}}})
    found = render(values, major=major)
    assert found.of("Secret")["a-files"]["data"] == {"f0": "AP8=", "f1": "cGxhaW46IHRleHQ="}
    assert found.container("a")["volumeMounts"] == [
        {"name": "sandboxcore-files", "mountPath": "/b", "subPath": "f0", "readOnly": True},
        {"name": "sandboxcore-files", "mountPath": "/z", "subPath": "f1", "readOnly": True},
    ]
    (volume,) = found.pod("a")["volumes"]
    assert [item["mode"] for item in volume["secret"]["items"]] == [0o400, 0o644]


@MAJORS
def test_every_object_carries_the_labels_and_annotations(major: int) -> None:
    text = "it's {{ a }}, b=[c]; d\n: #"
    values = {
        "annotations": {"inspectTaskName": text, "count": 1000000},
        "labels": {"inspectSampleUUID": "x-1", "number": 12},
        "sandboxcore": {"labels": {"sandboxcore.dev/run-id": "r1"}, "annotations": {"sandboxcore.dev/owner": "me@host:1"}},
        "volumes": {"v": {}},
        "networks": {"n": {}},
        "serviceAccountCreate": True,
        "serviceAccountName": "acc",
        "services": {
            "a_b": {
                "image": "x",
                "dnsRecord": True,
                "volumes": ["v:/v"],
                "files": {"/f": {"text": ""}},
                "networks": ["n"],
                "ports": [{"protocol": "TCP", "port": 80}],
                "egress": {"internet": True},
            },
            "c": {"image": "x", "networkIsolated": True},
        },
        "additionalResources": [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}", "labels": {"own": "1"}}}
        ],
        "guest": {"binaryData": {"guest-x86_64": "AA=="}},
    }
    found = render(values, "--api-versions", CILIUM, major=major)
    kinds = {
        "CiliumNetworkPolicy",
        "ConfigMap",
        "NetworkPolicy",
        "PersistentVolumeClaim",
        "Pod",
        "Secret",
        "Service",
        "ServiceAccount",
    }
    assert {one["kind"] for one in found.objects} == kinds
    wanted = {
        "inspectSampleUUID": "x-1",
        "number": "12",
        "sandboxcore.dev/run-id": "r1",
        "app.kubernetes.io/instance": "abcdefgh",
        "app.kubernetes.io/managed-by": "Helm",
        "app.kubernetes.io/name": "sandboxcore",
        "helm.sh/chart": "sandboxcore-0.1.0",
    }
    for one in found.objects:
        assert wanted.items() <= one["metadata"]["labels"].items(), one["metadata"]
        if one["metadata"]["name"] != "abcdefgh":
            notes = one["metadata"]["annotations"]
            assert (notes["inspectTaskName"], notes["count"], notes["sandboxcore.dev/owner"]) == (text, "1000000", "me@host:1")
    assert found.objects[-1]["kind"] == "CiliumNetworkPolicy"
    assert next(one for one in found.objects if one["metadata"]["name"] == "abcdefgh")["metadata"]["labels"]["own"] == "1"


@MAJORS
def test_any_name_is_a_service_s_name(major: int) -> None:
    found = render(
        {"services": {"Target_Env": {"image": "x"}, "a b": {"image": "x"}, "ok": {"image": "x", "logicalName": "o k"}}},
        major=major,
    )
    pods = found.of("Pod")
    assert {one["metadata"]["annotations"]["sandboxcore.dev/service"] for one in pods.values()} == {"Target_Env", "a b", "o k"}
    labels = {one["metadata"]["labels"]["inspect/service"] for one in pods.values()}
    assert "Target_Env" in labels
    assert len(labels) == len(pods) == 3


def test_the_default_and_what_commands_do_not_go_to_are_marked() -> None:
    values = services(a={}, b={"execTarget": False, "user": "agent"}) | {"default": "a"}
    pods = render(values).of("Pod")
    assert pods["a"]["metadata"]["annotations"]["sandboxcore.dev/default"] == "true"
    notes = pods["b"]["metadata"]["annotations"]
    assert (notes["sandboxcore.dev/exec-target"], notes["sandboxcore.dev/user"]) == ("false", "agent")


def test_pods_wait_by_gates_only_where_somebody_takes_them_away() -> None:
    values = services(a={"dependsOn": {"d_b": "healthy", "c": {"condition": "completed", "required": False}}}, d_b={}, c={})
    assert "schedulingGates" not in render(values).pod("a")
    found = render(values | {"schedulingGates": True})
    assert found.pod("a")["schedulingGates"] == [{"name": "sandboxcore.dev/depends-on"}]
    assert "schedulingGates" not in found.pod("c")
    note = yaml.safe_load(found.of("Pod")["a"]["metadata"]["annotations"]["sandboxcore.dev/depends-on"])
    assert note == {"d_b": {"condition": "healthy", "required": True}, "c": {"condition": "completed", "required": False}}


@MAJORS
def test_the_guest_is_mounted_where_it_is_asked_for(major: int) -> None:
    from sandboxcore_kubernetes.guest_mount import GUEST_FOLDER

    assert "volumeMounts" not in render(services(a={}), major=major).container("a")
    found = render(services(a={}) | {"guest": {"configMap": "g"}}, major=major)
    assert found.container("a")["volumeMounts"] == [{"name": "sandboxcore-guest", "mountPath": GUEST_FOLDER, "readOnly": True}]
    assert found.pod("a")["volumes"] == [{"name": "sandboxcore-guest", "configMap": {"name": "g", "defaultMode": 0o755}}]
    own = render(services(a={}) | {"guest": {"binaryData": {"guest-x86_64": "AA=="}}}, major=major)
    assert own.of("ConfigMap")["guest"]["binaryData"] == {"guest-x86_64": "AA=="}


def test_the_runtime_is_the_cluster_s_unless_one_is_named() -> None:
    values = services(
        a={}, b={"runtimeClassName": "runc"}, c={"runtimeClassName": "CLUSTER_DEFAULT"}, d={"runtimeClassName": None}
    )
    assert [render(values).pod(name).get("runtimeClassName") for name in "abcd"] == [None, "runc", None, None]
    values["runtimeClassName"] = "gvisor"
    assert [render(values).pod(name).get("runtimeClassName") for name in "abcd"] == ["gvisor", "runc", None, "gvisor"]


# -- names


@MAJORS
def test_a_service_that_is_called_like_its_pod_needs_no_resolver(major: int) -> None:
    found = render(services(victim={"dnsRecord": True, "additionalDnsRecords": ["Victim"]}, quiet={}), major=major)
    assert set(found.of("Service")) == {""}
    spec = found.of("Service")[""]["spec"]
    assert (spec["clusterIP"], spec["publishNotReadyAddresses"]) == ("None", True)
    selected = [one for one in found.of("Pod").values() if spec["selector"].items() <= one["metadata"]["labels"].items()]
    assert [one["metadata"]["name"] for one in selected] == ["sandboxcore-abcdefgh-victim"]
    pod = found.pod("victim")
    assert (pod["hostname"], pod["subdomain"]) == ("victim", "sandboxcore-abcdefgh")
    assert pod["dnsConfig"] == {"searches": ["sandboxcore-abcdefgh.ns.svc.cluster.local"]}
    assert "dnsPolicy" not in pod
    assert "initContainers" not in pod
    assert not found.of("ConfigMap")


def test_a_known_name_server_is_asked_for_the_environment_s_names_only() -> None:
    values = services(victim={"dnsRecord": True}) | {"dns": {"nameservers": ["10.0.0.10"], "clusterDomain": "example"}}
    pod = render(values).pod("victim")
    assert pod["dnsPolicy"] == "None"
    assert pod["dnsConfig"] == {"nameservers": ["10.0.0.10"], "searches": ["sandboxcore-abcdefgh.ns.svc.example"]}


@MAJORS
def test_other_names_bring_a_resolver_into_the_pods(major: int) -> None:
    values = services(
        a={"dnsRecord": True}, b={"additionalDnsRecords": ["example.com", "*.wild.org"]}, alone={"networkIsolated": True}
    )
    found = render(values, major=major)
    resolver, *_ = found.pod("a")["initContainers"]
    assert (resolver["name"], resolver["restartPolicy"]) == ("coredns", "Always")
    assert [one["name"] for one in found.pod("a")["containers"]] == ["a"]
    assert "initContainers" not in found.pod("alone")
    assert {"name": "sandboxcore-resolver", "mountPath": "/etc/resolv.conf", "subPath": "resolv.conf", "readOnly": True} in (
        found.container("a")["volumeMounts"]
    )
    rules = found.of("ConfigMap")["resolver"]["data"]["Corefile"]
    assert "rewrite name exact example.com b.sandboxcore-abcdefgh.ns.svc.cluster.local\n" in rules
    assert "rewrite name exact a a.sandboxcore-abcdefgh.ns.svc.cluster.local\n" in rules
    assert r"rewrite name regex ^.+\.wild\.org\.$ b." in rules
    assert "forward . /etc/resolv.conf {" in rules


def test_a_resolver_with_an_upstream_is_the_pod_s_only_one() -> None:
    values = services(a={"dnsRecord": True}, b={"additionalDnsRecords": ["x.y"]}) | {"corednsUpstream": ["10.0.0.10"]}
    found = render(values)
    assert found.pod("a")["dnsPolicy"] == "None"
    assert found.pod("a")["dnsConfig"] == {"nameservers": ["127.0.0.1"]}
    assert "volumeMounts" not in found.container("a")
    assert "forward . 10.0.0.10 {" in found.of("ConfigMap")["resolver"]["data"]["Corefile"]


def test_an_old_cluster_has_the_resolver_beside_the_service() -> None:
    values = services(a={"additionalDnsRecords": ["x.y"], "initContainers": [{"name": "i", "image": "z"}]})
    pod = render(values, "--kube-version", "1.28.0").pod("a")
    assert [one["name"] for one in pod["containers"]] == ["a", "coredns"]
    assert pod["initContainers"] == [{"name": "i", "image": "z"}]
    assert "restartPolicy" not in pod["containers"][1]


def test_a_host_name_of_its_own_leaves_the_service_its_name() -> None:
    found = render(services(web={"dnsRecord": True, "hostname": "box"}))
    assert found.pod("web")["hostname"] == "box"
    assert "exact web box.sandboxcore-abcdefgh" in found.of("ConfigMap")["resolver"]["data"]["Corefile"]


def test_no_name_is_more_than_a_name_to_the_resolver() -> None:
    values = {
        "services": {
            "a b\nbogus": {"image": "x", "dnsRecord": True},
            "ok": {"image": "x", "dnsRecord": True},
            "A_b": {"image": "x", "dnsRecord": True},
        }
    }
    rules = render(values).of("ConfigMap")["resolver"]["data"]["Corefile"].splitlines()
    names = [line.split() for line in rules if "rewrite" in line]
    assert all(len(words) == 5 for words in names)
    assert {"a_b", "ok"} <= {words[3] for words in names}
    assert not any("bogus" in line.split()[0] for line in rules if line.strip())


def test_long_names_are_legal_everywhere() -> None:
    key = "x" * 62 + "y"
    found = render({"services": {key: {"image": "x", "dnsRecord": True, "volumes": [f"{key}:/v"]}}, "volumes": {key: None}})
    assert all(len(one["metadata"]["name"]) <= 63 for one in found.objects if one["kind"] == "Service")
    assert all(len(label) <= 63 for one in found.objects for name in one["metadata"]["labels"] for label in name.split("/"))
    (pod,) = found.of("Pod").values()
    assert {len(pod["spec"]["hostname"]), len(pod["spec"]["containers"][0]["name"]), len(pod["spec"]["volumes"][0]["name"])} == {
        63
    }


def test_the_chart_has_the_version_of_its_package() -> None:
    from importlib.metadata import version

    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == version("sandboxcore-helm")


def test_agent_env_s_variable_makes_names() -> None:
    init = [{"name": "wait", "image": "y", "command": ["sh", "-c", "until nslookup $AGENT_ENV-web; do :; done"]}]
    found = render({"services": {"web": {"image": "x", "dnsRecord": True, "initContainers": init}}})
    variable = {"name": "AGENT_ENV", "value": "sandboxcore-abcdefgh"}
    assert found.container("web")["env"] == [variable]
    assert found.pod("web")["initContainers"][0]["env"] == [variable]
    assert "web" in found.of("Service")


# -- networks


@MAJORS
@pytest.mark.parametrize("ports", [False, True])
def test_services_reach_each_other_on_common_networks(major: int, ports: bool) -> None:
    web = {"networks": ["front"], "ports": [{"protocol": "tcp", "port": 80}] if ports else []}
    values = services(
        web=web,
        db={"networks": ["back"]},
        app={"networks": ["front", "back"]},
        none={},
        cut={"networks": ["front"], "networkIsolated": True},
    )
    values["networks"] = {"front": {}, "back": None}
    found = render(values, major=major)
    names = ["web", "db", "app", "none", "cut"]
    pairs = {(one, other) for one in names for other in names if one != other and allowed(found.objects, one, other)}
    assert pairs == {("web", "app"), ("app", "web"), ("db", "app"), ("app", "db")}
    assert allowed(found.objects, "app", "web", 81) is not ports


@pytest.mark.parametrize("ports", [False, True])
def test_without_networks_all_services_reach_each_other(ports: bool) -> None:
    found = render(services(a={"ports": [{"protocol": "TCP", "port": 80}] if ports else []}, b={}, cut={"networkIsolated": True}))
    names = ["a", "b", "cut"]
    assert {(x, y) for x in names for y in names if x != y and allowed(found.objects, x, y)} == {("a", "b"), ("b", "a")}
    assert allowed(found.objects, "b", "a", 81) is not ports


def outside(found: Rendered, service: str) -> list[dict[str, Any]]:
    """Name the addresses that a service reaches, resolvers apart."""
    pod = found.of("Pod")[service]
    rules = [rule for one in found.of("NetworkPolicy").values() if selects(one, pod) for rule in one["spec"].get("egress") or ()]
    others = [rule for rule in rules if {one["port"] for one in rule.get("ports") or ()} != {53}]
    return [peer["ipBlock"] for rule in others for peer in rule["to"] if "ipBlock" in peer]


@MAJORS
def test_ways_out_are_those_that_are_named(major: int) -> None:
    values = services(
        a={}, b={"egress": {"internet": True}}, c={"egress": {"allowCIDR": ["1.0.0.1"]}}, cut={"networkIsolated": True}
    )
    values["allowCIDR"] = ["8.8.8.8/32", "2001:db8::/32"]
    found = render(values, major=major)
    common = [{"cidr": "8.8.8.8/32"}, {"cidr": "2001:db8::/32"}]
    assert outside(found, "a") == common
    assert outside(found, "cut") == []
    assert outside(found, "c") == [*common, {"cidr": "1.0.0.1/32"}]
    internet = {one["cidr"]: one["except"] for one in outside(found, "b") if "except" in one}
    assert set(internet) == {"0.0.0.0/0", "::/0"}
    assert {"10.0.0.0/8", "169.254.0.0/16", "192.168.0.0/16"} <= set(internet["0.0.0.0/0"])


def test_names_are_asked_of_the_cluster_s_resolver_only() -> None:
    found = render(services(a={}))
    (rule, *others) = found.of("NetworkPolicy")[""]["spec"]["egress"]
    assert [(one["port"], one["protocol"]) for one in rule["ports"]] == [(53, "UDP"), (53, "TCP")]
    pods, cache = rule["to"][:-1], rule["to"][-1]
    assert {one["podSelector"]["matchLabels"]["k8s-app"] for one in pods} == {"kube-dns", "node-local-dns"}
    assert cache == {"ipBlock": {"cidr": "169.254.20.10/32"}}, "a node's cache is no pod to a policy: it is on the node's network"
    assert all("podSelector" in peer for other in others for peer in other["to"])


def test_well_known_peers_without_cilium() -> None:
    found = render(services(a={"egress": {"allowEntities": ["world-ipv4"]}}) | {"allowEntities": ["cluster"]})
    assert [one["cidr"] for one in outside(found, "a")] == ["0.0.0.0/0"]
    assert {"namespaceSelector": {}} in [peer for rule in found.of("NetworkPolicy")[""]["spec"]["egress"] for peer in rule["to"]]


@MAJORS
def test_cilium_says_the_rest(major: int) -> None:
    values = services(a={"dnsRecord": True}, b={"egress": {"internet": True}}, cut={"networkIsolated": True})
    values |= {
        "dns": {"nameservers": ["10.0.0.10"]},
        "allowDomains": ["*.example.org", "example.com"],
        "allowDomainsPorts": [{"port": 22, "domain": "example.com"}, {"port": 443, "protocol": "UDP"}],
        "allowEntities": ["kube-apiserver"],
    }
    found = render(values, "--api-versions", CILIUM, major=major)
    policies = found.of("CiliumNetworkPolicy")
    assert policies["isolated-cut"]["spec"]["egressDeny"] == [{"toEntities": ["all"]}]
    dns, scoped, domains, entities = policies["outside"]["spec"]["egress"]
    patterns = [one["matchPattern"] for one in dns["toPorts"][0]["rules"]["dns"]]
    searched = ["sandboxcore-abcdefgh.ns.svc.cluster.local", "ns.svc.cluster.local"]
    wanted = [f"*.{domain}" for domain in searched]
    for name in ("*.example.org", "example.com"):
        wanted += [name, *(f"{name}.{domain}" for domain in searched)]
    assert patterns == wanted
    assert scoped == {"toFQDNs": [{"matchPattern": "example.com"}], "toPorts": [{"ports": [{"port": "22", "protocol": "ANY"}]}]}
    https, http, more = domains["toPorts"]
    assert https["serverNames"] == ["*.example.org", "example.com"]
    assert [one["host"] for one in http["rules"]["http"]] == [
        "(?i)^[^.]+[.]example[.]org(:[0-9]+)?$",
        "(?i)^example[.]com(:[0-9]+)?$",
    ]
    assert more["ports"] == [{"port": "443", "protocol": "UDP"}]
    assert entities == {"toEntities": ["kube-apiserver"]}
    # A plain rule for the resolver would take the limit on names away.
    assert all("ports" not in rule for rule in found.of("NetworkPolicy")[""]["spec"].get("egress") or ())
    (everything,) = policies["egress-b"]["spec"]["egress"]
    assert everything["toPorts"][0]["rules"]["dns"] == [{"matchPattern": "*"}]


def test_identities_need_not_be_checked_where_cilium_has_no_proxy() -> None:
    values = services(a={}) | {"allowDomains": ["a.org"], "networkPolicy": {"cilium": True, "checkIdentity": False}}
    text = render(values).text
    assert "serverNames" not in text
    assert "http:" not in text


def test_no_policies_where_the_cluster_enforces_its_own() -> None:
    found = render(services(a={}) | {"networkPolicy": {"enabled": False}}, "--api-versions", CILIUM)
    assert {one["kind"] for one in found.objects} == {"Pod"}


# -- what is refused by hand


@MAJORS
@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "there is no service"),
        ({"services": ONE, "default": "other"}, 'no service is called "other"; there are myservice'),
        ({"services": ONE, "allowDomains": ["a.org"]}, "allowDomains: only Cilium can do that"),
        (
            {"services": {"a": {"image": "x", "egress": {"allowEntities": ["host"]}}}},
            "allowEntities host: only Cilium can do that",
        ),
        ({"services": ONE, "labels": {"app.kubernetes.io/name": "x"}}, "labels.app.kubernetes.io/name: is the chart's own"),
        ({"services": ONE, "networkPolicy": {"enabled": False}, "networks": {"a": {}}}, "nothing would enforce networks"),
        (
            {"services": {"a": {"image": "x", "networks": ["b"]}}, "networks": {"c": {}}},
            '"b" is not among the networks at the top (c)',
        ),
        ({"services": {"a": {"image": "x", "volumes": ["v:/v"]}}}, '"v" is not among the volumes'),
        ({"services": {"a": {"image": "x", "dependsOn": {"b": "started"}}}}, 'no service is called "b"'),
        ({"services": ONE, "serviceAccountCreate": True}, "serviceAccountName says which"),
        ({"services": ONE, "alowCIDR": []}, "alowCIDR"),
        ({"services": {"a": {"image": "x", "bogus": 1}}}, "bogus"),
        ({"services": {"a": {}}}, "image"),
        (
            {"services": ONE, "allowDomains": ["a"], "allowDomainsPorts": [{"port": 443}], "networkPolicy": {"cilium": True}},
            "would let connections past the check",
        ),
    ],
)
def test_what_is_wrong_is_said_by_hand_too(major: int, values: dict[str, Any], text: str) -> None:
    assert text in told(template(values, major=major))


# -- objects of the user's own


@MAJORS
def test_additional_resources_are_templates(major: int) -> None:
    text = """
apiVersion: v1
kind: ConfigMap
metadata:
  name: '{{ template "agentEnv.fullname" $ }}-one'
data:
  document: |
    ---
    kind: inner
---
# only a comment
---
apiVersion: v1
kind: Secret
metadata:
  name: {{ .Release.Name }}-two
  labels:
    {{- include "agentEnv.selectorLabels" . | nindent 4 }}
stringData: {a: {{ .Values.sampleMetadataFoo | quote }}, b: {{ index .Values.services "myservice" "image" }}}
"""
    third = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "{{ .Release.Name }}-three"},
        "spec": {"ports": [{"port": 5000000}]},
    }
    found = render({"services": ONE, "additionalResources": [text, third], "sampleMetadataFoo": "a: 'b'"}, major=major)
    by_name = {one["metadata"]["name"]: one for one in found.objects}
    assert by_name["sandboxcore-abcdefgh-one"]["data"] == {"document": "---\nkind: inner\n"}
    assert by_name["abcdefgh-two"]["stringData"] == {"a": "a: 'b'", "b": "x"}
    assert by_name["abcdefgh-three"]["spec"]["ports"] == [{"port": 5000000}]
    assert "additionalResources[0]: no object in YAML" in told(
        template({"services": ONE, "additionalResources": ["a: [b"]}, major=major)
    )


def test_a_release_name_stands_in_the_objects_as_it_is() -> None:
    values = {
        "services": {"a_b": {"image": "x", "dnsRecord": True, "volumes": ["v:/v"], "ports": [{"protocol": "TCP", "port": 1}]}},
        "volumes": {"v": {}},
        "networks": {"n": {}},
    }
    one, other = (render(values, "--api-versions", CILIUM, release=name).text for name in ("kzqwvxjm", "a2b3c4d5"))
    assert one.replace("kzqwvxjm", "a2b3c4d5") == other


def test_search_domains_of_the_kubelet_are_not_refused_by_cilium() -> None:
    found = render(services(a={"dnsRecord": True}), "--api-versions", CILIUM)
    (dns,) = found.of("CiliumNetworkPolicy")["outside"]["spec"]["egress"]
    patterns = {one["matchPattern"] for one in dns["toPorts"][0]["rules"]["dns"]}
    assert {"*.ns.svc.cluster.local", "*.svc.cluster.local", "*.cluster.local"} <= patterns
    assert "*" not in patterns
