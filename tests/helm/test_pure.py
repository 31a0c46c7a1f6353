"""What the Helm backend decides without a cluster."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from sandboxcore_helm._config import HelmConfig
from sandboxcore_helm._creating import Creator, dressed
from sandboxcore_helm._helm import HELM_ERRORS, Helm, HelmFailedError, cleaned, helm_error, parse_version
from sandboxcore_helm._identity import ENGINE, Identity, record_labels
from sandboxcore_helm._making import Making
from sandboxcore_helm._manifest import objects_of
from sandboxcore_helm._plan import merge, plan_release
from sandboxcore_helm._provisioner import HelmProvisioner, Tools
from sandboxcore_helm._readiness import awaited, object_ready, progress
from sandboxcore_helm._record import decode, record_secret
from sandboxcore_helm._release import Release
from sandboxcore_kubernetes.errors import ApiError

from sandboxcore import Session
from sandboxcore.errors import CapabilityError, ProvisionError, SandboxUnavailableError, SpecError, UsageError
from sandboxcore.plugins import PluginHost
from sandboxcore.report import Loss
from sandboxcore.spec import EnvironmentSpec, ServiceSpec
from sandboxcore.values import Claim

pytestmark = pytest.mark.tier("none")

#: What Helm 3 and 4 say, with noise around it, and what is made of it.
SAID: list[tuple[str, type[Exception], str]] = [
    (
        "Error: INSTALLATION FAILED: template: tiny/templates/x.yaml:1:17: executing ... nil pointer\n\nUse --debug flag",
        SpecError,
        "template: tiny/templates/x.yaml:1:17: executing ... nil pointer",
    ),
    (
        "Error: values don't meet the specifications of the schema(s) in the following chart(s):\ntiny:\n- count: Invalid type",
        SpecError,
        "- count: Invalid type",
    ),
    (
        'level=ERROR msg="x"\nError: INSTALLATION FAILED: cluster reachability check failed: kubernetes cluster unreachable: Get',
        SandboxUnavailableError,
        "unreachable",
    ),
    ("Error: INSTALLATION FAILED: cannot re-use a name that is still in use", ProvisionError, "cannot re-use a name"),
    ('Error: INSTALLATION FAILED: secrets is forbidden: User "x" cannot create', ProvisionError, "forbidden"),
    ('WARNING: Kubernetes configuration file is group-readable\nError: path "./x" not found', UsageError, 'path "./x" not found'),
    (
        'Error: unable to build kubernetes objects: resource mapping not found for name: "x": no matches for kind "Y"',
        SpecError,
        "no matches",
    ),
    (
        'Error: failed to perform "FetchReference" on source: 127.0.0.1:5000/charts/tiny:9.9.9: not found',
        UsageError,
        "9.9.9",
    ),
    ("Error: could not locate a version matching provided version string >9", UsageError, ">9"),
    ('Error: GET "https://h/v2/charts/x/tags/list": response status code 404: Not Found', UsageError, "404"),
    ('Error: GET "https://h/v2/charts/x/tags/list": response status code 401: Unauthorized', UsageError, "401"),
    ('Error: Get "https://h/v2/": tls: failed to verify certificate: x509: certificate signed by', UsageError, "x509"),
    ("Error: something that nobody has heard of", ProvisionError, "something that nobody has heard of"),
    ("", ProvisionError, "without saying why"),
]


@pytest.mark.parametrize(("said", "kind", "words"), SAID)
def test_what_helm_says_becomes_an_error_without_the_noise(said: str, kind: type[Exception], words: str) -> None:
    error = helm_error(HelmFailedError(cleaned(said)), "release 'x'")
    assert type(error) is kind
    assert words in str(error)
    assert "Error:" not in str(error)
    assert "Use --debug" not in str(error)


def test_the_table_of_errors_is_complete() -> None:
    """Each row but the last is used above or narrower than the last, and the last one matches everything."""
    assert HELM_ERRORS[-1][0] == ""
    for pattern, make, _ in HELM_ERRORS[:-1]:
        assert pattern
        assert isinstance(make("x", hint=None), Exception)


def test_versions_are_read() -> None:
    assert parse_version("v3.17.2+gcc0bbbd\n") == (3, 17, 2)
    assert parse_version("v4.0.0") == (4, 0, 0)
    assert parse_version("helm?") is None


def _workload(kind: str, name: str = "x", **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


async def test_the_program_sees_the_callers_environment_but_for_what_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "helm"
    program.write_text('#!/bin/sh\necho "$HELM_DRIVER,$HELM_DEBUG,$GOGC,$SSL_CERT_FILE" >&2\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.delenv("GOGC", raising=False)
    monkeypatch.setenv("HELM_DEBUG", "1")
    monkeypatch.setenv("HELM_DRIVER", "configmap")
    monkeypatch.setenv("SSL_CERT_FILE", "ca.pem")
    said = []
    for collecting in (None, "50"):
        if collecting:
            monkeypatch.setenv("GOGC", collecting)
        with pytest.raises(UsageError) as caught:
            await Helm(HelmConfig(helm=str(program)), "n").version()
        said.append(str(caught.value).split(": ")[-1])
    assert said == ["secret,,400,ca.pem", "secret,,50,ca.pem"]


@pytest.mark.parametrize(
    ("options", "environ", "seen"),
    [
        ({"kubeconfig": "~/x"}, {}, "HOME/x"),
        ({"kubeconfig": "~/x:/y"}, {"KUBECONFIG": "/z"}, "HOME/x:/y"),
        ({}, {"KUBECONFIG": "~/x"}, "HOME/x"),
        ({}, {}, ""),
        ({"in_cluster": True}, {"KUBECONFIG": "/z"}, "/dev/null"),
    ],
)
async def test_the_program_is_pointed_where_the_client_is(
    options: dict[str, Any], environ: dict[str, str], seen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else is in the environment, or becomes the kubeconfig's current context."""
    program = tmp_path / "helm"
    program.write_text(
        "#!/bin/sh\n"
        "case $1 in version) echo v3.19.0; exit;; esac\n"
        'echo "$KUBECONFIG|$(env | grep -E "^(HELM_KUBE|KUBERNETES_M)")|$*" >&2\nexit 1\n'
    )
    program.chmod(0o755)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    foreign = ("HELM_KUBEAPISERVER", "HELM_KUBETOKEN", "HELM_KUBECAFILE", "HELM_KUBECONTEXT", "KUBERNETES_MASTER")
    for name, value in {"HOME": str(tmp_path), **dict.fromkeys(foreign, "x"), **environ}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(HelmFailedError) as caught:
        await Helm(HelmConfig(helm=str(program), **options), "n", "mine").dry_run("r", "c", {}, labels={})
    files, others, argv = caught.value.text.split("|")
    assert (files, others) == (seen.replace("HOME", str(tmp_path)), "")
    assert "--kube-context mine" in argv
    assert "--kubeconfig" not in argv


def test_what_is_waited_for_is_what_helm_waits_for() -> None:
    template = {"template": {"metadata": {"labels": {"a": "b"}}}}
    hidden = {"template": {"metadata": {"labels": {"hidden": "x"}}}}
    found = awaited(
        [
            _workload("Pod", "bare"),
            _workload("StatefulSet", "set", replicas=2, ordinals={"start": 1}),
            _workload("StatefulSet", "one"),
            _workload("Deployment", "four", replicas=4, **template),
            _workload("Deployment", "all", replicas=2, strategy={"type": "Recreate"}, **template),
            _workload("Deployment", "paused", paused=True, **template),
            _workload("Deployment", "none", replicas=0, **template),
            _workload("Job"),
            _workload("ConfigMap"),
            _workload("Service", type="ClusterIP"),
            _workload("Service", "outside", type="LoadBalancer"),
            _workload("PersistentVolumeClaim", "claim"),
            _workload("Deployment", "helper", **hidden),
            _workload("Deployment", "paused-helper", paused=True, **hidden),
        ],
        shown=lambda metadata: "hidden" not in (metadata.get("labels") or {}),
    )
    assert found.pods == ("bare", "set-1", "set-2", "one-0")
    assert found.owners == ("set", "one")
    assert [(group.owner, group.count, group.labels) for group in found.replicas] == [
        ("four", 3, {"a": "b"}),
        ("all", 2, {"a": "b"}),
        ("none", 0, {"a": "b"}),
    ]
    assert [body["metadata"]["name"] for body in found.objects] == ["outside", "claim", "helper"]
    assert len(awaited([_workload("Job")], shown=bool, jobs=True).objects) == 1


@pytest.mark.parametrize(
    ("body", "ready"),
    [
        ({"kind": "PersistentVolumeClaim", "status": {"phase": "Pending"}}, False),
        ({"kind": "PersistentVolumeClaim", "status": {"phase": "Bound"}}, True),
        ({"kind": "Service", "spec": {"clusterIP": "1"}, "status": {"loadBalancer": {}}}, False),
        ({"kind": "Service", "spec": {"clusterIP": "1"}, "status": {"loadBalancer": {"ingress": [{}]}}}, True),
        ({"kind": "Job", "spec": {"completions": 2}, "status": {"succeeded": 1}}, False),
        ({"kind": "Job", "spec": {}, "status": {"succeeded": 1}}, True),
        ({"kind": "CustomResourceDefinition", "status": {"conditions": [{"type": "Established", "status": "True"}]}}, True),
        ({"kind": "CustomResourceDefinition", "status": {}}, False),
        ({"kind": "DaemonSet", "metadata": {"generation": 2}, "status": {"observedGeneration": 1}}, False),
        ({"kind": "Deployment", "spec": {"replicas": 4}, "status": {"readyReplicas": 2}}, False),
        ({"kind": "Deployment", "spec": {"replicas": 4}, "status": {"readyReplicas": 3}}, True),
        ({"kind": "StatefulSet", "spec": {"replicas": 4}, "status": {"readyReplicas": 3}}, False),
        ({"kind": "ReplicaSet", "metadata": {"generation": 1}, "spec": {"replicas": 0}, "status": {}}, False),
        ({"kind": "Pod", "status": {"phase": "Running"}}, False),
        ({"kind": "Pod", "status": {"conditions": [{"type": "Ready", "status": "True"}]}}, True),
        ({"kind": "Pod", "status": {"phase": "Succeeded"}}, True),
        (
            {
                "kind": "DaemonSet",
                "metadata": {"generation": 1},
                "status": {"observedGeneration": 1, "desiredNumberScheduled": 3, "updatedNumberScheduled": 3, "numberReady": 2},
            },
            True,
        ),
    ],
)
def test_objects_tell_by_their_status(body: dict[str, Any], ready: bool) -> None:
    assert object_ready(body) is ready


def test_a_job_that_failed_is_not_waited_for() -> None:
    failed = {"kind": "Job", "status": {"conditions": [{"type": "Failed", "status": "True", "message": "BackoffLimitExceeded"}]}}
    with pytest.raises(ValueError, match="BackoffLimitExceeded"):
        object_ready(failed)


def test_how_far_an_object_is_is_told() -> None:
    failing = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: narrow"}
    fine = {"type": "Progressing", "status": "True", "message": "has made progress"}
    body = {"kind": "Deployment", "spec": {"replicas": 2}, "status": {"conditions": [fine, failing]}}
    assert progress(body) == "0 of 2 pods are ready: exceeded quota: narrow"
    assert progress({"kind": "PersistentVolumeClaim", "status": {"phase": "Pending"}}) == ""


def _identity() -> Identity:
    return Identity(namespace="ns", release="abcdefgh", run_id="run", environment_id="environment")


def test_a_record_reads_back() -> None:
    release = Release(
        name="abcdefgh",
        namespace="ns",
        manifest="---\nkind: X\n",
        notes="ü",
        chart={"metadata": {"name": "c", "version": "1"}, "values": {"a": 1}},
        config={"b": 2},
    )
    labels = {"name": "stolen", "team": "blue"}
    secret = record_secret(release, status="deployed", description="d", labels=labels, annotations={}, first=1.5)
    assert secret["metadata"]["labels"]["name"] == "abcdefgh"
    assert secret["metadata"]["labels"]["team"] == "blue"
    found = decode(secret["data"]["release"])
    assert (found.manifest, found.notes, found.config, found.status) == (release.manifest, "ü", {"b": 2}, "deployed")
    for broken in ("", "x", "e30=", "AAAA"):
        with pytest.raises(ValueError, match="no release record"):
            decode(broken)


def test_labels_of_a_record_are_ours_before_anybodys() -> None:
    claim = Claim(
        run_id="run",
        environment_id="environment",
        owner="me",
        labels={
            "task": "a",
            "name": "stolen",
            "any text": "x",
            "long": "y" * 64,
            "sandboxcore.dev/run-id": "stolen",
            "odd": "a=b,c",
        },
    )
    labels = record_labels(_identity(), claim, {"team": "blue"}, engine="helm", lease=None, now=10.0)
    assert labels["sandboxcore.dev/run-id"] == "run"
    assert {"task", "team", ENGINE} <= labels.keys()
    assert not {"name", "any text", "long", "odd"} & labels.keys()


def test_what_is_kept_is_not_labelled_and_hooks_are_no_part_of_the_release() -> None:
    plain: dict[str, Any] = {"kind": "ConfigMap", "metadata": {"name": "x", "labels": {"a": "b"}}}
    kept = {"kind": "ConfigMap", "metadata": {"name": "x", "annotations": {"helm.sh/resource-policy": "keep"}}}
    metadata = dressed(plain, _identity())["metadata"]
    assert metadata["labels"] == {"a": "b", "app.kubernetes.io/managed-by": "Helm", **_identity().labels}
    assert metadata["annotations"]["meta.helm.sh/release-name"] == "abcdefgh"
    assert dressed(kept, _identity())["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "Helm"}
    assert "annotations" not in dressed(plain, _identity(), hook=True)["metadata"]
    assert plain["metadata"]["labels"] == {"a": "b"}


async def test_a_namespace_without_its_account_is_waited_for_most_of_a_minute_and_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """So long takes a controller manager that lost the API server; the pauses are the test's to count, not to wait for."""
    paused: list[float] = []

    async def pause(seconds: float) -> None:
        paused.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", pause)
    said = 'pods "p" is forbidden: error looking up service account n/default: serviceaccount "default" not found'
    cluster = Mock(create=AsyncMock(side_effect=lambda *args, **more: _created(sum(paused) < 60, said)))
    assert await Creator(cluster).post({}) == {"made": True}
    assert max(paused) <= 8
    cluster.create.side_effect = ApiError(said.replace("default", "mine"), status=403, reason="Forbidden")
    paused.clear()
    with pytest.raises(ApiError, match="mine"):
        await Creator(cluster).post({})
    assert paused == []


async def test_a_charts_namespace_comes_before_what_is_in_it_and_pods_come_last() -> None:
    made: list[str] = []

    async def create(body: dict[str, Any], *, field_manager: str) -> dict[str, Any]:
        for _ in range(3 if body["kind"] == "Namespace" else 1):
            await asyncio.sleep(0)
        made.append(body["kind"])
        return body

    cluster = Mock(create=create, resource=AsyncMock())
    kinds = ("Pod", "ConfigMap", "Namespace", "Service")
    bodies = [{"apiVersion": "v1", "kind": kind, "metadata": {"name": "x"}} for kind in kinds]
    await Creator(cluster).post_all(bodies, "n")
    assert made == ["Namespace", "ConfigMap", "Service", "Pod"]


def _created(refused: bool, said: str) -> dict[str, Any]:
    if refused:
        raise ApiError(said, status=403, reason="Forbidden")
    return {"made": True}


def test_manifests_are_taken_apart() -> None:
    listed = "kind: List\nitems: [{kind: B}, {kind: BList, items: [{kind: C}]}]\n"
    text = f"---\n# Source: t/a.yaml\nkind: A\n---\n# nothing\n---\n{listed}"
    assert [body["kind"] for body in objects_of(text)] == ["A", "B", "C"]
    for wrong in ("---\n# Source: t/a.yaml\na: [\n", "---\n# Source: t/a.yaml\n[1]\n", "---\n# Source: t/a.yaml\na: b\n"):
        with pytest.raises(UsageError, match=r"^t/a\.yaml: is no"):
            objects_of(wrong)


def test_values_merge_as_helm_merges_them() -> None:
    assert merge({"a": {"b": 1, "c": 2}, "l": [1]}, {"a": {"c": 3}, "l": [2], "n": None}) == {
        "a": {"b": 1, "c": 3},
        "l": [2],
        "n": None,
    }


def _spec(**helm: Any) -> EnvironmentSpec:
    return EnvironmentSpec(services={"default": ServiceSpec()}, options={"helm": helm})


def _config(**given: Any) -> Any:
    return PluginHost.load().configure("helm", given)


def test_what_differs_is_apart_from_what_does_not() -> None:
    plan = plan_release(_spec(chart="./c", values={"a": 1}, per_release={"m": {"id": "x"}, "t": "y"}), _config(values={"b": 2}))
    assert plan.values == {"a": 1, "b": 2}
    assert plan.texts == ("x", "y")
    assert plan.values_for("n") == {"a": 1, "b": 2, "m": {"id": "x"}, "t": "y"}
    assert plan.fixed().values == plan.values_for("n")


@pytest.mark.parametrize(
    "wrong",
    [
        {"chart": "./c", "release": "Not-Legal"},
        {"chart": "./c", "release": "-x"},
        {"chart": "./c", "values": "./no-such-values.yaml"},
        {"chart": "./c", "per_release": {"n": 1}},
        {"chart": 5},
    ],
)
def test_wrong_options_are_told_before_anything_is_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        plan_release(_spec(**wrong), _config())


@pytest.mark.parametrize(
    ("options", "service", "told"),
    [
        ({"chart_version": "1.2"}, {}, "options.helm: unknown key 'chart_version' (did you mean 'version'?)"),
        ({"node_selektor": {}}, {}, "options.helm: unknown key 'node_selektor' (did you mean 'node_selector'?)"),
        ({}, {"valeus": {}}, "services.default.options.helm: unknown key 'valeus' (did you mean 'values'?)"),
        ({}, {"values": []}, "services.default.options.helm: values: must be a valid dictionary"),
    ],
)
def test_unknown_options_are_told(options: dict[str, Any], service: dict[str, Any], told: str) -> None:
    spec = EnvironmentSpec(services={"default": ServiceSpec(image="x", options={"helm": service})}, options={"helm": options})
    with pytest.raises(SpecError) as caught:
        plan_release(spec, _config())
    assert str(caught.value) == told


def test_what_compose_writes_into_the_options_is_known(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(
        "services: {default: {image: x, x-sandboxcore: {node_selector: {a: b}, options: {helm: {values: {hostname: h}}}}}}\n"
        "x-sandboxcore: {node_selector: {c: d}}\n"
        "x-k8s: {service_account_name: me, service_account_create: true, automount_service_account_token: true}\n"
    )
    values = plan_release(Session("helm").translate(file).spec, _config()).values
    assert values["services"]["default"]["nodeSelector"] == {"a": "b"}
    assert values["services"]["default"]["hostname"] == "h"
    assert [values[f"serviceAccount{key}"] for key in ("Name", "Create")] == ["me", True]
    assert values["automountServiceAccountToken"] is True
    assert plan_release(Session("helm").translate(file).spec, _config()).entries == ()


def _told(spec: EnvironmentSpec, **config: Any) -> dict[str, str]:
    found = plan_release(spec, _config(**config)).entries
    assert {entry.loss for entry in found} <= {Loss.APPROX}
    return {entry.key.removeprefix("services.default.options.kubernetes."): entry.reason for entry in found}


def test_words_for_pods_that_no_value_says_are_told(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(
        "services: {default: {image: x, x-sandboxcore: {options: {kubernetes: {tolerations: [{key: gpu}], scheduler: s}}}}}\n"
        "x-sandboxcore: {options: {kubernetes: {priority_class: low, node_selector: {a: b}, service_account: me,\n"
        "  service_account_create: true, automount_service_account_token: true, image_pull_secrets: [s], labels: {a: b}}}}\n"
    )
    told = _told(Session("helm").translate(file).spec)
    assert set(told) == {
        *("tolerations", "scheduler", "priority_class", "node_selector", "service_account", "service_account_create"),
        *("automount_service_account_token", "image_pull_secrets", "labels"),
    }
    assert told["tolerations"] == "is not for Helm: say tolerations in the service's options.helm.values"
    assert "priorityClassName" in told["priority_class"]
    assert "options.helm.service_account_name" in told["service_account"]


def test_words_for_pods_that_helms_own_say_are_not_told() -> None:
    words = {"tolerations": [{"key": "a"}], "node_selector": {"a": "b"}, "image_pull_secrets": ["s"], "labels": {"a": "b"}}
    service = ServiceSpec(image="x", options={"helm": {"values": {"tolerations": []}, "node_selector": {"c": "d"}}})
    common: dict[str, Any] = {"kubernetes": words}
    spec = EnvironmentSpec(services={"default": service}, options=common)
    assert _told(spec, labels={"a": "b"}, values={"imagePullSecrets": [{"name": "s"}]}) == {}
    assert set(_told(spec, labels={"a": "c"})) == {"image_pull_secrets", "labels"}
    given = {**common, "helm": {"values": {"services": {"default": {"image": "x"}}}}}
    assert set(_told(EnvironmentSpec(services={"default": service}, options=given))) == set(words)
    chart = {**common, "helm": {"chart": "./c"}}
    assert set(_told(EnvironmentSpec(services={"default": ServiceSpec()}, options=chart))) == set(words)
    with pytest.raises(SpecError, match="tolerationz"):
        _told(EnvironmentSpec(services={"default": service}, options={"kubernetes": {"tolerationz": []}}))


@pytest.mark.parametrize(
    "wrong",
    [
        {"engine": "other"},
        {"labels": {"name": "x"}},
        {"labels": {"a": "b,c=d"}},
        {"labels": {"sandboxcore.dev/x": "y"}},
        {"chrat": "x"},
        {"in_cluster": True, "impersonate_user": "x"},
    ],
)
def test_a_wrong_configuration_is_told(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        _config(**wrong)


@pytest.mark.parametrize("said", [True, False])
@pytest.mark.parametrize("there", [True, False])
async def test_what_values_say_of_cilium_comes_before_the_cluster(said: bool, there: bool) -> None:
    """Its API may be hidden from this user, or be there and not be wanted."""
    answer: dict[str, Any] = {} if there else {"side_effect": ApiError(message="no", status=403)}
    cluster = Mock(request=AsyncMock(**answer), context="x")
    cluster.list = AsyncMock(return_value={"items": [{"spec": {"clusterIP": "10.0.0.10"}}]})
    tools = Tools(cluster, "n", _config())
    for policy, taken in (({"cilium": said}, said), ({}, there)):
        values = {"networkPolicy": policy, "services": {"default": {"image": "x"}}, "allowDomains": ["example.org"]}
        assert await tools.takes_cilium(values) is taken
        assert await tools.resolvers(values) == (["10.0.0.10"] if taken else [])
        making = Making(tools, _spec(), plan_release(_spec(values=values), _config()), Mock(), Mock(), deadline=0)
        if taken:
            await making._check_cluster()
            continue
        with pytest.raises(CapabilityError, match=r"cilium is false" if policy else r"has no Cilium"):
            await making._check_cluster()


@pytest.mark.parametrize(
    ("values", "promised"),
    [
        (None, False),
        ({"networkPolicy": {"cilium": True}}, True),
        ({"networkPolicy": {"cilium": False}}, False),
        ({"networkPolicy": None}, False),
        ("values.yaml", False),
    ],
)
def test_names_are_promised_where_the_configuration_has_cilium(values: Any, promised: bool) -> None:
    """CAP-1: a list of words is asked for before any cluster is."""
    info = PluginHost.load().info("helm").under(_config(values=values))
    assert ("network_policy" in info.capabilities) is promised
    assert "images" in info.capabilities


async def test_who_can_pause_is_told_truly() -> None:
    host = PluginHost.load()
    with pytest.raises(CapabilityError) as refused:
        await HelmProvisioner(_config()).pause(Mock())
    named = [name for name in host.backends if name in (refused.value.hint or "")]
    assert named
    assert all("pause" in host.info(name).capabilities for name in named)


def test_the_plugin_loads_light() -> None:
    import subprocess
    import sys

    heavy = "aiohttp kubernetes yaml jsonschema"
    script = f"import sys, sandboxcore_helm.plugin; print(json.dumps([one for one in '{heavy}'.split() if one in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", f"import json; {script}"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
