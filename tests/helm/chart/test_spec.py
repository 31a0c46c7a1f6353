"""From a spec, through values, to objects: nothing is lost on the way, and nothing else comes out."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sandboxcore_compose import ComposeTranslator
from sandboxcore_compose.values import helm_values
from sandboxcore_helm._values import built_in_values, check_values
from sandboxcore_kubernetes.objects import Placement, environment_objects

from sandboxcore.errors import SpecError
from sandboxcore.report import Loss
from sandboxcore.spec import (
    EnvironmentSpec,
    FileSpec,
    Healthcheck,
    NetworkPolicy,
    NetworkSpec,
    PortSpec,
    Resources,
    RestartPolicy,
    ServiceSpec,
    VolumeMount,
    VolumeSpec,
)
from tests.helm.chart.kit import CILIUM, Rendered, allowed, render

FULL = EnvironmentSpec(
    default="web",
    name="town",
    labels={"team": "a b", "not legal!": "x"},
    networks={"front": NetworkSpec(), "back": NetworkSpec(internal=True)},
    volumes={"data": VolumeSpec(labels={"why": "x y"}), "own": VolumeSpec(), "mine": VolumeSpec(external=True)},
    services={
        "db": ServiceSpec(
            image="d",
            networks={"back": ()},
            network_policy=NetworkPolicy(internet=True),
            volumes=(
                VolumeMount(source="data", target="/var/data"),
                VolumeMount(source="data", target="/sub", subpath="one", read_only=True),
                VolumeMount(source="mine", target="/mine", read_only=True),
            ),
            healthcheck=Healthcheck(test=("CMD", "up"), interval=2, timeout=3, retries=4, start_period=10, start_interval=5),
            restart=RestartPolicy(name="always"),
            security_opt=("no-new-privileges:true", "seccomp=unconfined", "apparmor=unconfined"),
        ),
        "web": ServiceSpec(
            image="w",
            entrypoint=("run", "$(it)"),
            command=("a b", "$$"),
            env={"A": "1", "EMPTY": "", "ODD": "'\"\n{{ x }}"},
            working_dir="/work",
            user="1000:0",
            groups=("5", "6"),
            resources=Resources(
                cpus=0.5, memory_bytes=1 << 30, cpus_request=0.1, memory_request_bytes=1 << 20, shm_bytes=1 << 20
            ),
            depends_on={"db": {"condition": "healthy"}, "job": {"condition": "completed", "required": False}},  # type: ignore[dict-item]
            volumes=(
                VolumeMount(source="data", target="/data", read_only=True),
                VolumeMount(source="own", target="/own"),
                VolumeMount(source="own", target="/again", read_only=True),
                VolumeMount(type="tmpfs", target="/tmp", size_bytes=1024),
                VolumeMount(target="/anonymous"),
            ),
            files={"/etc/a": FileSpec(content=b"\x00\xff", mode=0o400, read_only=True)},
            networks={"front": (), "back": ()},
            network_policy=NetworkPolicy(allow_cidrs=("1.1.1.0/24",)),
            ports=(PortSpec(container_port=80), PortSpec(container_port=80, protocol="udp"), PortSpec(container_port=80)),
            extra_hosts={"one": ("1.2.3.4",), "two": ("1.2.3.4", "::1")},
            labels={"some.label": "v", "sandboxcore.dev/service": "other"},
            platform="linux/x86_64",
            tty=True,
            stdin_open=True,
            read_only=True,
            privileged=True,
            cap_add=("CAP_NET_ADMIN",),
            cap_drop=("ALL",),
            sysctls={"net.core.somaxconn": "1024"},
            runtime="runc",
            pull_policy="never",
            stop_grace_period=2.5,
        ),
        "job": ServiceSpec(image="j", networks=None, exec_target=False, restart=RestartPolicy(name="on-failure")),
        "wide": ServiceSpec(image="x", networks={}, network_policy=NetworkPolicy(internet=True), user="root", hostname="wide"),
    },
)


def entries_of(spec: EnvironmentSpec) -> dict[str, Loss]:
    return {entry.key: entry.loss for entry in built_in_values(spec)[1]}


def meaning(pod: dict[str, Any]) -> dict[str, Any]:
    """Take from a pod what its service asked for; names of objects and of volumes are anybody's choice."""
    spec, container = pod["spec"], dict(pod["spec"]["containers"][0])
    sources = {one["name"]: _source(one) for one in spec.get("volumes", ())}
    mounts = {one["mountPath"]: (sources[one["name"]], one.get("readOnly", False)) for one in container.pop("volumeMounts", ())}
    mounts = {path: found for path, found in mounts.items() if path != "/.sandboxcore"}
    container.pop("name")
    sub = {one["mountPath"]: one.get("subPath") for one in pod["spec"]["containers"][0].get("volumeMounts", ())}
    keys = ("restartPolicy", "hostname", "hostAliases", "nodeSelector", "runtimeClassName", "enableServiceLinks")
    return {
        "container": container,
        "mounts": mounts,
        "sub": {path: found for path, found in sub.items() if found and not path.startswith("/etc/")},
        "together": "affinity" in spec,
        "security": spec.get("securityContext") or {},
        "service": pod["metadata"]["annotations"]["sandboxcore.dev/service"],
        **{key: spec.get(key) for key in keys},
    }


def _source(volume: dict[str, Any]) -> str:
    body = {key: value for key, value in volume.items() if key != "name"}
    if "persistentVolumeClaim" in body:
        return "claim mine" if body["persistentVolumeClaim"]["claimName"] == "mine" else "claim"
    if "secret" in body:
        return f"secret {sorted(item['mode'] for item in body['secret']['items'])}"
    return json.dumps(body, sort_keys=True)


def test_pods_mean_what_those_of_the_other_kubernetes_backend_mean() -> None:
    values, _ = built_in_values(FULL)
    ours = {one["metadata"]["annotations"]["sandboxcore.dev/service"]: one for one in render(values).of("Pod").values()}
    objects = environment_objects(FULL, Placement(instance="i", namespace="ns"))
    theirs = {one["metadata"]["annotations"]["sandboxcore.dev/service"]: one for one in objects if one["kind"] == "Pod"}
    assert set(ours) == set(theirs) == set(FULL.services)
    for name, pod in theirs.items():
        wanted, found = meaning(pod), meaning(ours[name])
        ports = [found["container"].pop("ports", []), wanted["container"].pop("ports", [])]
        assert {json.dumps(port) for port in ports[0]} == {json.dumps(port) for port in ports[1]}
        amounts = [one["container"].pop("resources", {}) for one in (found, wanted)]
        assert _amounts(amounts[0]) == _amounts(amounts[1])
        assert found == wanted, name


def test_policies_mean_what_those_of_the_other_kubernetes_backend_mean() -> None:
    values, _ = built_in_values(FULL)
    ours, theirs = render(values).objects, environment_objects(FULL, Placement(instance="i", namespace="ns"))
    pairs = [(one, other) for one in FULL.services for other in FULL.services if one != other]
    reached = [pair for pair in pairs if allowed(ours, *pair)]
    assert reached == [pair for pair in pairs if allowed(theirs, *pair)] == [("db", "web"), ("web", "db")]


def _amounts(resources: dict[str, Any]) -> dict[str, float]:
    from sandboxcore_compose.documents import read_quantity

    return {f"{part}.{key}": read_quantity(value) for part, amounts in resources.items() for key, value in amounts.items()}


def test_a_full_spec_comes_out_whole() -> None:
    values, _ = built_in_values(FULL)
    found = render(values | {"schedulingGates": True})
    pods = found.of("Pod")
    web = found.container("web")
    assert (web["command"], web["args"]) == (["run", "$$(it)"], ["a b", "$$$$"])
    assert web["env"] == [{"name": "A", "value": "1"}, {"name": "EMPTY", "value": ""}, {"name": "ODD", "value": "'\"\n{{ x }}"}]
    assert web["securityContext"] == {
        "runAsUser": 1000, "runAsGroup": 0, "privileged": True, "readOnlyRootFilesystem": True,
        "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
    }  # fmt: skip
    assert found.container("db")["securityContext"]["allowPrivilegeEscalation"] is False
    notes = pods["web"]["metadata"]["annotations"]
    assert (notes["some.label"], notes["team"]) == ("v", "a b")
    assert (notes["sandboxcore.dev/service"], notes["sandboxcore.dev/default"]) == ("web", "true")
    assert json.loads(notes["sandboxcore.dev/depends-on"])["job"] == {"condition": "completed", "required": False}
    assert pods["job"]["metadata"]["annotations"]["sandboxcore.dev/exec-target"] == "false"
    assert found.pod("web")["terminationGracePeriodSeconds"] == 3
    assert found.of("Secret")["web-files"]["data"] == {"f0": "AP8="}
    assert set(found.of("PersistentVolumeClaim")) == {"data"}
    assert found.of("PersistentVolumeClaim")["data"]["metadata"]["annotations"]["why"] == "x y"


def test_equal_environments_of_other_names_have_equal_values() -> None:
    # Else each would be rendered by itself.
    assert built_in_values(FULL.model_copy(update={"name": "other"})) == built_in_values(FULL)


def test_what_is_not_whole_is_told() -> None:
    found = entries_of(FULL)
    assert found == {
        "labels.not legal!": Loss.APPROX,
        "services.db.network_policy": Loss.EXACT,
        "services.db.volumes.0": Loss.APPROX,
        "services.db.volumes.1": Loss.APPROX,
        "services.web.labels.sandboxcore.dev/service": Loss.APPROX,
        "services.web.volumes.0": Loss.APPROX,
        "services.web.volumes.1": Loss.APPROX,
        "services.web.volumes.2": Loss.APPROX,
        "services.web.volumes.4": Loss.APPROX,
    }


def one(**service: Any) -> EnvironmentSpec:
    return EnvironmentSpec(services={"a": ServiceSpec(image="x", **service)})


@pytest.mark.tier("none")
@pytest.mark.parametrize(
    ("spec", "key", "loss"),
    [
        (one(user="agent"), "user", Loss.APPROX),
        (one(hostname="My.Box"), "hostname", Loss.APPROX),
        (one(files={"/f": FileSpec(content=b"", uid=5, read_only=True)}), "files./f", Loss.APPROX),
        (one(files={"/f": FileSpec(content=b"")}), "files./f", Loss.APPROX),
        (one(aliases=("not a host",)), "networks", Loss.APPROX),
        (one(init=True), "init", Loss.APPROX),
        (one(stop_signal="SIGINT"), "stop_signal", Loss.NOOP),
        (one(security_opt=("seccomp=profile.json",)), "security_opt", Loss.APPROX),
        (one(command=()), "command", Loss.APPROX),
        (one(healthcheck=Healthcheck(test=("x",), interval=1.5)), "healthcheck.interval", Loss.APPROX),
        (one(resources=Resources(pids=5)), "resources.pids", Loss.APPROX),
    ],
)  # fmt: skip
def test_each_loss_is_told(spec: EnvironmentSpec, key: str, loss: Loss) -> None:
    assert entries_of(spec) == {f"services.a.{key}": loss}


@pytest.mark.tier("none")
@pytest.mark.parametrize(
    ("service", "key"),
    [
        ({"image": None}, "image"),
        ({"entrypoint": ()}, "entrypoint"),
        ({"groups": ("staff",)}, "groups"),
        ({"security_opt": ("label=disable",)}, "security_opt"),
        ({"extra_hosts": {"h": ("host-gateway",)}}, "extra_hosts"),
        ({"volumes": (VolumeMount(type="bind", source="/here", target="/there"),)}, "volumes.0"),
        ({"files": {"/f": FileSpec(content=bytes(1_000_001), read_only=True)}}, "files"),
        ({"files": {"/f": FileSpec(content=random.Random(1).randbytes(400_000), read_only=True)}}, "files"),
        ({"network_policy": NetworkPolicy(allow_entities=("wrld",))}, "egress.allowEntities[0]"),
        ({"network_policy": NetworkPolicy(allow_cidrs=("1.2.3/8",))}, "egress.allowCIDR[0]"),
    ],
)  # fmt: skip
def test_what_kubernetes_can_not_do_is_refused(service: dict[str, Any], key: str) -> None:
    with pytest.raises(SpecError) as found:
        built_in_values(EnvironmentSpec(services={"a": ServiceSpec(**{"image": "x", **service})}))
    assert [problem.partition(": ")[0] for problem in found.value.problems] == [f"services.a.{key}"]


@pytest.mark.tier("none")
def test_two_services_of_one_name_are_told_of() -> None:
    services = {"Web": ServiceSpec(image="x", aliases=("api",)), "web": ServiceSpec(image="x", aliases=("API",))}
    values, entries = built_in_values(EnvironmentSpec(services=services))
    assert set(values["services"]) == {"web", "web-" + next(iter(set(values["services"]) - {"web"})).removeprefix("web-")}
    assert {entry.key for entry in entries} == {"services.web.networks"}
    assert len(entries) == 2


@pytest.mark.tier("none")
def test_values_of_a_service_s_own_are_laid_over_it() -> None:
    spec = one(options={"helm": {"values": {"tolerations": [{"key": "gpu"}], "workingDir": "/w"}}})
    service = built_in_values(spec)[0]["services"]["a"]
    assert (service["tolerations"], service["workingDir"]) == ([{"key": "gpu"}], "/w")
    with pytest.raises(SpecError, match="did you mean 'tolerations'"):
        built_in_values(one(options={"helm": {"values": {"toleration": []}}}))


@pytest.mark.tier("none")
def test_values_of_a_service_s_own_leave_what_is_beside_them() -> None:
    check = Healthcheck(test=("CMD", "true"))
    own = {
        "securityContext": {"runAsNonRoot": True},
        "readinessProbe": {"exec": None, "httpGet": {"port": 80}},
        "workingDir": None,
        "lifecycle": {"preStop": {"sleep": {"seconds": 1, "unit": None}}},
    }
    spec = one(user="1000", read_only=True, working_dir="/w", healthcheck=check, options={"helm": {"values": own}})
    service = built_in_values(spec)[0]["services"]["a"]
    assert service["securityContext"] == {"runAsNonRoot": True, "runAsUser": 1000, "readOnlyRootFilesystem": True}
    assert set(service["readinessProbe"]) == {"httpGet", "timeoutSeconds", "periodSeconds", "failureThreshold"}
    assert "workingDir" not in service
    assert service["lifecycle"] == {"preStop": {"sleep": {"seconds": 1}}}


@pytest.mark.tier("none")
def test_values_of_a_service_s_own_go_in_place_of_what_they_exclude() -> None:
    check = Healthcheck(test=("CMD", "true"), start_period=10)
    own = {
        "readinessProbe": {"httpGet": {"port": 80}},
        "startupProbe": {"exec": {"command": ["up"]}},
        "files": {"/text": {"text": "new"}, "/mode": {"mode": 0o600}},
    }
    files = {path: FileSpec(content=b"old", read_only=True) for path in ("/text", "/mode")}
    values = built_in_values(one(healthcheck=check, files=files, options={"helm": {"values": own}}))[0]
    service = values["services"]["a"]
    assert set(service["readinessProbe"]) == {"httpGet", "timeoutSeconds", "periodSeconds", "failureThreshold"}
    assert service["startupProbe"]["exec"] == {"command": ["up"]}
    assert service["files"] == {
        "/text": {"text": "new", "mode": 0o644, "readOnly": True},
        "/mode": {"content": "b2xk", "mode": 0o600, "readOnly": True},
    }


@pytest.mark.tier("none")
def test_services_without_any_network_are_apart() -> None:
    spec = EnvironmentSpec(networks={}, services={name: ServiceSpec(image="x", networks={}) for name in ("a", "b")})
    values, _ = built_in_values(spec)
    assert values["networks"]
    assert all("networks" not in service for service in values["services"].values())


# -- Compose files of other projects


@pytest.fixture(scope="module")
def corpus() -> Path:
    """The folder with real files of other projects, which is not part of this repository."""
    given = os.environ.get("SANDBOXCORE_COMPOSE_CORPUS")
    folder = Path(given) if given else Path(__file__).parents[4] / "shared" / "corpus" / "compose"
    if not folder.is_dir():
        pytest.skip("the corpus of Compose files is not here; SANDBOXCORE_COMPOSE_CORPUS says where it is")
    return folder


def translated(corpus: Path) -> dict[str, EnvironmentSpec]:
    found: dict[str, EnvironmentSpec] = {}
    for place in sorted(corpus.glob("*/case.json")):
        case = json.loads(place.read_text())
        if not case["docker_accepts"]:
            continue
        options = {"images": "built/{service}:1"}
        try:
            spec = (
                ComposeTranslator()
                .translate([place.parent / "in" / case["main"]], variables={"HOME": "/root"}, options=options)
                .spec
            )
        except SpecError:
            continue
        found[place.parent.name] = spec
    return found


def test_compose_files_of_other_projects_become_right_values(corpus: Path) -> None:
    specs = translated(corpus)
    refused: list[str] = []
    right: dict[str, dict[str, Any]] = {}
    for name, spec in specs.items():
        try:
            values, _ = helm_values(spec)
        except SpecError:
            refused.append(name)
            continue
        check_values(values)
        right[name] = values
    assert len(right) > 0.9 * len(specs) > 0
    wanted = len(specs) if os.environ.get("SANDBOXCORE_HELM_CORPUS") == "all" else 25
    chosen = sorted(right)[:: max(1, len(right) // wanted)]
    for index, name in enumerate(chosen):
        _is_the_project(specs[name], render(right[name], "--api-versions", CILIUM, major=3 + index % 2))


def _is_the_project(spec: EnvironmentSpec, found: Rendered) -> None:
    pods = {pod["metadata"]["annotations"]["sandboxcore.dev/service"]: pod["spec"] for pod in found.of("Pod").values()}
    assert set(pods) == set(spec.services)
    for name, service in spec.services.items():
        container = pods[name]["containers"][0]
        assert container["image"] == service.image
        assert {one["name"] for one in container.get("env", ())} == set(service.env)
        assert {mount.target for mount in service.volumes} <= {one["mountPath"] for one in container.get("volumeMounts", ())}


def test_the_command_line_writes_values_that_are_right(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(
        """
services:
  target_env: {image: x, command: "serve 'a b'", networks: [my_net], healthcheck: {test: up}, volumes: ["shared:/v:ro", "own:/w"]}
  default: {image: z, depends_on: {target_env: {condition: service_healthy}}, networks: [my_net, other], volumes: ["shared:/v"]}
networks: {my_net: , other: {internal: true}}
volumes: {shared: , own: }
"""
    )
    command = [sys.executable, "-m", "sandboxcore", "translate", str(file), "--to", "values", "-q"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    values = tmp_path / "values.yaml"
    values.write_text(text)
    for major in (3, 4):
        found = render(text, major=major)
        assert set(found.of("Pod")) == {"default", "target-env"}
    check_values(json.loads(text))
