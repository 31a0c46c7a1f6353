"""Values files: what is wrong with them, what Helm reads in them, and what they become."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sandboxcore_helm._values import (
    CHART,
    ValuesTranslator,
    built_in_values,
    check_values,
    plain_values,
    read_values_files,
    requirements,
    service_names,
)
from sandboxcore_helm._values_check import problems_of

from sandboxcore.errors import SpecError, UsageError
from sandboxcore.report import Loss
from sandboxcore.spec import EnvironmentSpec
from sandboxcore.values import BackendInfo
from tests.cluster import helm
from tests.helm.chart.kit import render

HELM = BackendInfo(name="helm", summary="")
DOCKER = BackendInfo(name="docker", summary="")


def refused(folder: Path, text: str) -> list[str]:
    file = folder / "values.yaml"
    file.write_text(text)
    with pytest.raises(SpecError) as found:
        ValuesTranslator().translate([file])
    return [problem.removeprefix(f"{file}:") for problem in found.value.problems]


def translate(folder: Path, text: str, backend: BackendInfo | None = HELM, **options: object) -> Any:
    file = folder / "values.yaml"
    file.write_text(text)
    return ValuesTranslator().translate([file], backend=backend, options=options)


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("services: {a: {imag: x, image: x}}", ["1:16: services.a.imag: unknown key (did you mean 'image'?)"]),
        (
            "services:\n  a: {}\nalowCIDR: []",
            ["2:3: services.a: lacks 'image'", "3:1: alowCIDR: unknown key (did you mean 'allowCIDR'?)"],
        ),
        ("services: {a: {image: 3.12}}", ["1:16: services.a.image: must be a string, not the number 3.12"]),
        ("services: {a: {image: x, command: [yes]}}", ["1:36: services.a.command[0]: must be a string, not true"]),
        ("services: {a: {image: x, env: {A: 1}}}", ["1:26: services.a.env: must be a list or nothing, not a mapping"]),
        (
            "services: {a: {image: x, volumes: [x]}}",
            ["1:36: services.a.volumes[0]: must be NAME:/PATH, with ':ro' where it is read-only"],
        ),
        (
            "services: {a: {image: x, volumes: ['d:/d']}}",
            ["1:36: services.a.volumes[0]: 'd' is not among the volumes at the top"],
        ),
        (
            "services: {a: {image: x, networks: [frnt]}}\nnetworks: {front: }",
            ["1:37: services.a.networks[0]: 'frnt' is not among the networks at the top (did you mean 'front'?)"],
        ),
        ("services: {}", ["1:1: services: there is no service; at least one is needed"]),
        ("", ["1:1: lacks 'services'"]),
        ("services: {a: {image: x}}\ndefault: b", ["2:1: default: no service is called 'b'"]),
        (
            "services: {a: {image: x}}\nlabels: {a: 'x y'}",
            ["2:10: labels.a: must be at most 63 letters, digits, '-', '_' and '.', as labels are"],
        ),
        (
            "services: {a: {image: x}}\nlabels: {app.kubernetes.io/name: x}",
            ["2:10: labels.app.kubernetes.io/name: is the chart's own"],
        ),
        ("services: {a: {image: x}}\nannotations: {'a b': x}", ["2:15: annotations.a b: is not a legal name for an annotation"]),
        (
            "services: {a: {image: x}}\nallowCIDR: [1.2.3.400/8]",
            ["2:13: allowCIDR[0]: must be an address range such as 1.1.1.0/24"],
        ),
        (
            "services: {a: {image: x}}\nallowCIDR: [example.org]",
            ["2:13: allowCIDR[0]: must be an address range such as 1.1.1.0/24"],
        ),
        (
            "services: {a: {image: x}}\nallowDomains: ['https://a.org']",
            ["2:16: allowDomains[0]: must be a host name, with '*' for a part of it: no scheme, port or path"],
        ),
        (
            "services: {a: {image: x}}\nallowDomains: [a.org]\nallowDomainsPorts: [{port: 443}, {port: 22, domain: b.org}]",
            [
                "3:21: allowDomainsPorts[0]: would let connections past the check of the host's name; "
                "on ports 80 and 443 only UDP can be added",
                "3:45: allowDomainsPorts[1].domain: is not among allowDomains (did you mean 'a.org'?)",
            ],
        ),
        (
            "services: {a: {image: x, egress: {allowEntities: [wrld]}}}",
            [
                "1:51: services.a.egress.allowEntities[0]: must be one of all, world, world-ipv4, world-ipv6, cluster, host, "
                "remote-node, "
                "kube-apiserver, health, init, ingress, unmanaged, none (did you mean 'world'?)"
            ],
        ),
        (
            "services: {a: {image: x}}\nserviceAccountCreate: true",
            ["2:1: serviceAccountCreate: serviceAccountName says which; it is not set"],
        ),
        (
            "services: {a: {image: x, networkIsolated: true, egress: {internet: true}}}",
            ["1:49: services.a.egress: the service is isolated; take one of the two away"],
        ),
        (
            "services: {a: {image: x, networkIsolated: true}}\nnetworkPolicy: {enabled: false}",
            ["1:26: services.a.networkIsolated: nothing would enforce this: networkPolicy.enabled is false"],
        ),
        (
            "services: {a: {image: x, readinessProbe: {exec: {command: [x]}, periodSecond: 3}}}",
            ["1:65: services.a.readinessProbe.periodSecond: unknown key (did you mean 'periodSeconds'?)"],
        ),
        (
            "services:\n  a:\n    image: x\n    livenessProbe: {grpc: null, exec: {command: [x]}}\n"
            "    readinessProbe: {exec: {command: [x]}, httpGet: {port: 80}}",
            ["5:5: services.a.readinessProbe: has exec and httpGet; only one of them can be"],
        ),
        (
            "services: {a: {image: x, volumes: [{name: data, emptyDir: {}}], volumeMounts: [{name: dta, mountPath: /x}]}}",
            ["1:81: services.a.volumeMounts[0].name: no volume of the service is called 'dta' (did you mean 'data'?)"],
        ),
        ("services: {a: {image: x, dependsOn: {b: started}}}", ["1:38: services.a.dependsOn.b: no service is called 'b'"]),
        ("services: {a: {image: x, dependsOn: {a: started}}}", ["1:38: services.a.dependsOn.a: a service can't wait for itself"]),
        (
            "services: {a: {image: x, files: {/f: {mode: 1}}}}",
            ["1:34: services.a.files./f: needs content (base64) or text, and only one of them"],
        ),
        (
            "services: {a: {image: x, env: [{name: A, value: b, valueFrom: {}}]}}",
            ["1:32: services.a.env[0]: has value and valueFrom; only one of them can be"],
        ),
        (
            "services: {a: {image: x}, b: {image: z, logicalName: a}}",
            ["1:41: services.b.logicalName: 'a' is the name of 'a' as well"],
        ),
        (
            "services:\n  a:\n    image: x\n    imag: x\n    networks: [frnt]\n    dependsOn: {b: started}\n  b: 3\n"
            "networks: {front: {}}",
            [
                "4:5: services.a.imag: unknown key (did you mean 'image'?)",
                "5:16: services.a.networks[0]: 'frnt' is not among the networks at the top (did you mean 'front'?)",
                "7:3: services.b: must be a mapping, not the number 3",
            ],
        ),
        (
            "services: {a: {image: x, networks: [net], volumes: ['v:/v']}}\nnetworks: [net]\nvolumes: 3\ndefault: b\n"
            "allowDomains: a.org\nallowDomainsPorts: [{port: 22, domain: a.org}]\n"
            "serviceAccountName: 3\nserviceAccountCreate: true",
            [
                "2:1: networks: must be a mapping or nothing, not a list",
                "3:1: volumes: must be a mapping or nothing, not the number 3",
                "4:1: default: no service is called 'b'",
                "5:1: allowDomains: must be a list or nothing, not a string",
                "7:1: serviceAccountName: must be a string or nothing, not the number 3",
            ],
        ),
        ("services: {a: {image: x}}\nservices: {}", ["2:1: services: is there twice, first in line 1"]),
        ("services: [\n", ["2:1: not YAML: did not find expected node content"]),
        ("- a", ["1:1: values are a mapping"]),
        ("a: 1\n---\nb: 2", ["1:1: there is more than one document; values are one mapping"]),
        ("on: 1", ["1:1: the key true is not a string; put it in quotes"]),
    ],
)
@pytest.mark.tier("none")
def test_every_problem_has_its_place_and_its_fix(tmp_path: Path, text: str, problems: list[str]) -> None:
    assert refused(tmp_path, text) == problems


@pytest.mark.tier("none")
def test_anything_anywhere_is_told_of(tmp_path: Path) -> None:
    """Whatever stands in the place of a value, what is right beside it is looked at as well."""
    values = plain_values(translate(tmp_path, AGENT_ENV).spec.options["helm"]["values"])
    for path in [path for path, _ in _places(values) if path]:
        for junk in (None, "x", [[3]], {"x": [3]}):
            wrong = copy.deepcopy(values)
            above = wrong
            for key in path[:-1]:
                above = above[key]
            above[path[-1]] = junk
            wrong["default"] = "nobody"
            found = [".".join(map(str, problem.path)) for problem in problems_of(wrong)]
            assert "default" in found or path == ("services",), (path, junk)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    yield path, value
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _places(inner, (*path, key))


@pytest.mark.tier("none")
def test_what_is_secret_is_in_no_message(tmp_path: Path) -> None:
    (problem,) = refused(tmp_path, "services: {a: {image: x, env: [{name: A, value: [hidden]}]}}")
    assert "hidden" not in problem
    found = translate(tmp_path, "services: {a: {image: x, env: [{name: A, value: hidden}], files: {/f: {text: hidden}}}}")
    assert "hidden" not in repr(found.spec)


#: One value of each kind for each key that agent-env 0.14 takes.
AGENT_ENV = """
global: {nameOverride: "", fullnameOverride: ""}
allowDomains: ["*.example.org", example.com]
allowDomainsPorts: [{port: 22, protocol: TCP, domain: example.com}, {port: 8443}]
allowCIDR: [1.1.1.1/32]
allowEntities: [world]
networkPolicy: {enabled: true}
extraContainers: [{name: relay, image: r, securityContext: {runAsUser: 5}}]
imagePullSecrets: [{name: gcr}]
networks: {first.net: {}, second: }
corednsImage: coredns/coredns:1
corednsCommand: [/coredns]
corednsReadyPort: 18182
corednsUpstream: [10.0.0.10]
corednsSecurityContext: {runAsUser: 1}
volumes: {shared: , given: {spec: {accessModes: [ReadWriteMany], resources: {requests: {storage: 1Gi}}}}}
additionalResources:
- "kind: ConfigMap\\napiVersion: v1\\nmetadata: {name: one}"
- {kind: ConfigMap, apiVersion: v1, metadata: {name: two}}
annotations: {inspectTaskName: "a, b=c"}
labels: {inspectSampleUUID: abc}
automountServiceAccountToken: true
serviceAccountCreate: true
serviceAccountName: account
services:
  default:
    image: python:3
    imagePullPolicy: IfNotPresent
    runtimeClassName: CLUSTER_DEFAULT
    command: [tail]
    args: [-f, /dev/null]
    workingDir: /w
    env: [{name: A, value: 1}, {name: B, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
    dnsRecord: true
    additionalDnsRecords: [example.com, a_b]
    ports: [{protocol: TCP, port: 80}]
    networks: [first.net]
    initContainers:
    - {name: i, image: x, command: [a], args: [b], imagePullPolicy: Never, workingDir: /, resources: {}, securityContext: {}}
    volumes: ["shared:/s", {name: own, emptyDir: {}}]
    volumeMounts: [{name: own, mountPath: /own}]
    resources: {limits: {memory: 1Gi}, requests: {cpu: 100m}}
    readinessProbe: {tcpSocket: {port: 80}}
    livenessProbe: {exec: {command: [x]}}
    securityContext: {runAsUser: 1000}
    tolerations: [{key: a, operator: Exists}]
    nodeSelector: {a: b}
  other: {image: x, networkIsolated: true, command: null, workingDir: null, imagePullPolicy: null, runtimeClassName: gvisor}
"""


def test_every_value_of_agent_env_is_taken(tmp_path: Path) -> None:
    found = translate(tmp_path, AGENT_ENV)
    values, entries = built_in_values(found.spec)
    assert entries == ()
    for major in (3, 4):
        rendered = render(values, "--api-versions", "cilium.io/v2/CiliumNetworkPolicy", major=major)
        pod = rendered.pod("default")
        assert [one["name"] for one in pod["containers"]] == ["default", "relay"]
        assert [one["name"] for one in pod["initContainers"]] == ["coredns", "i"]
        assert (pod["serviceAccountName"], pod["automountServiceAccountToken"]) == ("account", True)
        assert (pod["imagePullSecrets"], pod["nodeSelector"]) == ([{"name": "gcr"}], {"a": "b"})
        assert pod["tolerations"] == [{"key": "a", "operator": "Exists"}]
        assert pod["initContainers"][0]["startupProbe"]["httpGet"]["port"] == "dns-ready"
        assert {"one", "two"} <= {one["metadata"]["name"] for one in rendered.objects}
        assert rendered.pod("other")["runtimeClassName"] == "gvisor"


SCALARS = """
a: [y, Yes, on, off, n, NO, true, TRUE, ~, null, Null, '', "y"]
b: [08, 017, 0o17, 0x1F, 0b11, 1_000, 1e3, 2e000003, .5, 5., -0, +1, 1e400x, 12345678901234567890]
c: [12:30:45, 2001-01-01, 2001-01-01T00:00:00Z, =, .inf1, 0.1, 100000000000000000000x, 1.0]
d: {"y": 1, a b: 2}
e: &x {f: 1}
g: {<<: *x, h: 2}
"""


@pytest.mark.parametrize("major", [3, 4])
def test_scalars_mean_what_they_mean_to_helm(tmp_path: Path, major: int) -> None:
    chart = tmp_path / "chart"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: x\nversion: 0.1.0\n")
    (chart / "templates" / "all.yaml").write_text("all: {{ .Values | toJson }}\n")
    file = tmp_path / "values.yaml"
    file.write_text(SCALARS)
    done = subprocess.run(
        [str(helm(major)), "template", "r", str(chart), "-f", str(file)], capture_output=True, text=True, check=True
    )
    text = next(line for line in done.stdout.splitlines() if line.startswith("all: "))
    theirs = json.loads(text.removeprefix("all: "), parse_int=float)
    ours = json.loads(json.dumps(plain_values(read_values_files([file]))), parse_int=float)
    # Helm leaves keys out whose value is null; it reads numbers as floats.
    assert ours == theirs


def test_files_are_laid_over_each_other_as_helm_does_it(tmp_path: Path) -> None:
    first, second = tmp_path / "values.yaml", tmp_path / "more-values.yaml"
    first.write_text(
        "services: {a: {image: x, command: [a, b], env: [{name: A, value: b}]}}\nlabels: {a: b, c: d}\nallowCIDR: [1.1.1.1]\n"
    )
    second.write_text("services: {a: {command: [c], env: null}, b: {image: z}}\nlabels: {a: null}\n")
    found = ValuesTranslator().translate([first, second]).spec.options["helm"]["values"]
    assert found == {
        "services": {"a": {"image": "x", "command": ["c"], "env": None}, "b": {"image": "z"}},
        "labels": {"a": None, "c": "d"},
        "allowCIDR": ["1.1.1.1"],
    }
    argv = [str(helm(3)), "template", "r", str(CHART), "-n", "n", "--kube-version", "1.34.0"]
    theirs = subprocess.run([*argv, "-f", str(first), "-f", str(second)], capture_output=True, text=True, check=True).stdout
    ours = subprocess.run([*argv, "-f", "-"], input=json.dumps(found), capture_output=True, text=True, check=True).stdout
    assert ours == theirs


@pytest.mark.tier("none")
def test_a_file_becomes_a_spec_with_the_services_known(tmp_path: Path) -> None:
    text = """
default: web
networks: {a: , b: }
allowCIDR: [1.1.1.1/32]
services:
  db: {image: d, networks: [b], restartPolicy: Never, args: ["$$(x)"], env: [{name: A, value: 1}, {name: B, value: "$$$$"}]}
  web:
    image: w
    logicalName: The Web
    command: [run]
    networks: [a, b]
    dependsOn: {db: healthy}
    egress: {internet: true}
    resources: {limits: {cpu: 500m, memory: 1Gi}, requests: {memory: 1M}}
    execTarget: false
  cut: {image: c, networkIsolated: true}
"""
    found = translate(tmp_path, text)
    spec: EnvironmentSpec = found.spec
    assert (list(spec.services), spec.default_service) == (["db", "The Web", "cut"], "The Web")
    web, db = spec.services["The Web"], spec.services["db"]
    assert (web.entrypoint, web.command, db.entrypoint, db.command) == (("run",), None, None, ("$(x)",))
    assert db.env == {"A": "1", "B": "$$"}
    assert (set(web.networks or ()), spec.services["cut"].networks) == ({"a", "b"}, None)
    assert (web.network_policy.internet, web.network_policy.allow_cidrs) == (True, ("1.1.1.1/32",))
    assert (web.resources.cpus, web.resources.memory_bytes, web.resources.memory_request_bytes) == (0.5, 1 << 30, 10**6)
    assert web.depends_on["db"].condition == "healthy"
    assert (web.exec_target, db.exec_target) == (False, True)
    assert (db.restart.name, web.restart.name) == ("no", "always")
    assert found.report.entries == ()
    values, entries = built_in_values(spec)
    assert (service_names(values), entries) == ({"db": "db", "web": "The Web", "cut": "cut"}, ())


@pytest.mark.tier("none")
def test_a_file_s_values_are_printed_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text("services: {a: {image: x, tolerations: [{key: a}], env: [{name: A, value: 0o17}]}}\n")
    command = [sys.executable, "-m", "sandboxcore", "translate", str(file), "--to", "values"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {
        "services": {"a": {"image": "x", "tolerations": [{"key": "a"}], "env": [{"name": "A", "value": 15}]}}
    }


@pytest.mark.tier("none")
def test_another_backend_is_told_what_it_does_not_get(tmp_path: Path) -> None:
    text = "services: {a: {image: x, tolerations: [{key: a}], imagePullPolicy: null}}\nimagePullSecrets: [{name: s}]"
    found = translate(tmp_path, text, DOCKER).report.entries
    assert [(one.loss, one.key, one.line, one.service) for one in found] == [
        (Loss.APPROX, "imagePullSecrets", 2, ""),
        (Loss.APPROX, "services.a.tolerations", 1, "a"),
    ]


@pytest.mark.tier("none")
def test_values_of_a_chart_of_one_s_own_are_not_looked_into(tmp_path: Path) -> None:
    found = translate(tmp_path, "anything: [goes]", chart="./mine", version="1.2")
    assert found.spec.options["helm"] == {"chart": "./mine", "version": "1.2", "values": {"anything": ["goes"]}}
    assert list(found.spec.services) == ["default"]
    for options in ({"chrt": "x"}, {"chart": 1}, {"version": "1"}):
        with pytest.raises(UsageError):
            translate(tmp_path, "a: b", **options)


@pytest.mark.tier("none")
@pytest.mark.parametrize(
    ("name", "claimed"),
    [
        ("values.yaml", True),
        ("helm-values.yaml", True),
        ("my-values.yml", True),
        ("x.values.yaml", True),
        ("Values.YAML", True),
        ("compose-values.yaml", False),
        ("compose.yaml", False),
        ("values.json", False),
        ("myvalues.yaml", False),
        ("Chart.yaml", False),
    ],
)
def test_files_are_known_by_their_names(name: str, claimed: bool) -> None:
    assert ValuesTranslator().claims(Path(name)) is claimed


@pytest.mark.tier("none")
def test_a_file_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="can't be read"):
        ValuesTranslator().translate([tmp_path / "values.yaml"])


@pytest.mark.tier("none")
def test_values_say_what_they_need_of_a_cluster() -> None:
    values: dict[str, Any] = {
        "allowDomains": ["a.org"],
        "allowEntities": ["world", "host"],
        "runtimeClassName": "gvisor",
        "serviceAccountName": "acc",
        "imagePullSecrets": [{"name": "s"}],
        "schedulingGates": True,
        "volumes": {"a": None, "b": {"existingClaim": "mine"}, "c": {"spec": {"storageClassName": "nfs"}}},
        "services": {
            "one": {
                "image": "x",
                "egress": {"allowDomains": ["b.org"]},
                "priorityClassName": "high",
                "dependsOn": {"two": "started"},
            },
            "two": {"image": "x", "runtimeClassName": "CLUSTER_DEFAULT", "additionalDnsRecords": ["a_b"]},
        },
    }
    check_values(values)
    found = requirements(values)
    assert found.cilium == ("allowDomains", "allowEntities: host", "services.one.egress.allowDomains")
    assert (found.runtime_classes, found.storage_classes, found.claims) == ({"gvisor"}, {"", "nfs"}, {"mine"})
    assert (found.service_account, found.pull_secrets, found.priority_classes) == ("acc", {"s"}, {"high"})
    assert found.resolver.startswith("coredns/coredns")
    assert found.scheduling_gates
    assert found.enforced
    least = requirements({"services": {"a": {"image": "x", "dnsRecord": True}}, "networkPolicy": {"enabled": False}})
    assert (least.cilium, least.resolver, least.scheduling_gates, least.enforced) == ((), "", False, False)
