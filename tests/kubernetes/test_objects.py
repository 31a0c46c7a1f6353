"""From specs to objects, without a cluster."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sandboxcore_kubernetes.objects import Placement, alias_slice, check, environment_objects, escape, pod_template

from sandboxcore.errors import CapabilityError, SandboxUserUnsupportedError, SpecError
from sandboxcore.spec import (
    Dependency,
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

pytestmark = pytest.mark.tier("none")

PLACE = Placement(instance="env", namespace="ns", labels={"sandboxcore.dev/run-id": "r"})


def _one(**keys: Any) -> EnvironmentSpec:
    return EnvironmentSpec(services={"default": ServiceSpec(image="a:1", **keys)}, volumes={"v": VolumeSpec()})


def _pod(**keys: Any) -> dict[str, Any]:
    spec = _one(**keys)
    check(spec)
    made: dict[str, Any] = pod_template(spec, "default", PLACE)["spec"]
    return made


def _main(**keys: Any) -> dict[str, Any]:
    made: dict[str, Any] = _pod(**keys)["containers"][0]
    return made


@pytest.mark.parametrize(
    ("text", "escaped"), [("$(A)", "$$(A)"), ("$$", "$$$$"), ("$x $", "$x $"), ("$$(A)", "$$$$(A)"), ("a$$b", "a$$$$b"), ("", "")]
)
def test_what_the_kubelet_would_expand_is_escaped(text: str, escaped: str) -> None:
    assert escape(text) == escaped


@pytest.mark.parametrize(
    ("entrypoint", "command", "expected"),
    [
        (None, None, {}),
        (None, ("b",), {"args": ["b"]}),
        (("a",), None, {"command": ["a"]}),
        (("a",), ("b",), {"command": ["a"], "args": ["b"]}),
        ((), ("b",), {"command": ["b"]}),
    ],
)
def test_entrypoint_and_command_follow_the_image_rules(entrypoint: Any, command: Any, expected: dict[str, Any]) -> None:
    made = _main(entrypoint=entrypoint, command=command)
    assert {key: made[key] for key in ("command", "args") if key in made} == expected


def test_nothing_is_asked_for_that_the_spec_does_not() -> None:
    made = _main()
    assert set(made) == {"name", "image", "volumeMounts"}
    assert _pod()["restartPolicy"] == "Never"
    assert _pod()["automountServiceAccountToken"] is False


def test_rights_and_limits_are_carried_over() -> None:
    resources = Resources(cpus=0.5, memory_bytes=1 << 30, cpus_request=0.1, gpus=1, shm_bytes=1 << 20)
    made = _main(
        resources=resources,
        user="1000:1001",
        cap_add=("CAP_NET_RAW",),
        cap_drop=("ALL",),
        read_only=True,
        security_opt=("no-new-privileges:true", "seccomp=unconfined"),
    )
    assert made["resources"] == {
        "limits": {"cpu": "500m", "memory": "1Gi", "nvidia.com/gpu": "1"},
        "requests": {"cpu": "100m"},
    }
    assert made["securityContext"] == {
        "runAsUser": 1000,
        "runAsGroup": 1001,
        "readOnlyRootFilesystem": True,
        "capabilities": {"add": ["NET_RAW"], "drop": ["ALL"]},
        "allowPrivilegeEscalation": False,
        "seccompProfile": {"type": "Unconfined"},
    }
    assert {"name": "shm", "mountPath": "/dev/shm"} in made["volumeMounts"]
    pod = _pod(
        runtime="gvisor",
        groups=("7",),
        sysctls={"net.core.somaxconn": "9"},
        platform="linux/arm64",
        restart=RestartPolicy(name="always"),
    )
    assert pod["runtimeClassName"] == "gvisor"
    assert pod["securityContext"] == {"supplementalGroups": [7], "sysctls": [{"name": "net.core.somaxconn", "value": "9"}]}
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux", "kubernetes.io/arch": "arm64"}
    assert pod["restartPolicy"] == "Always"


def test_a_healthcheck_becomes_probes() -> None:
    made = _main(healthcheck=Healthcheck(test=("CMD-SHELL", "test -e /x"), interval=2.5, timeout=1, retries=4, start_period=10))
    assert made["readinessProbe"] == {
        "exec": {"command": ["/bin/sh", "-c", "test -e /x"]},
        "timeoutSeconds": 1,
        "periodSeconds": 3,
        "failureThreshold": 4,
    }
    assert made["startupProbe"]["failureThreshold"] == 2 + 4
    assert "readinessProbe" not in _main(healthcheck=Healthcheck(test=("NONE",)))


def test_volumes_are_as_large_as_their_use() -> None:
    """One service: an empty directory. Several: a claim, and one node for all of them."""
    mount = VolumeMount(source="v", target="/v", read_only=True)
    alone = _pod(volumes=(mount, VolumeMount(type="tmpfs", target="/t", size_bytes=9)))
    assert alone["volumes"][:2] == [
        {"name": "volume-v", "emptyDir": {}},
        {"name": "mount-1", "emptyDir": {"medium": "Memory", "sizeLimit": "9"}},
    ]
    assert alone["containers"][0]["volumeMounts"][0] == {"name": "volume-v", "mountPath": "/v", "readOnly": True}
    service = ServiceSpec(image="a:1", volumes=(mount,))
    spec = EnvironmentSpec(services={"default": service, "other": service}, volumes={"v": VolumeSpec()})
    kinds = [each["kind"] for each in environment_objects(spec, PLACE)]
    assert kinds.count("PersistentVolumeClaim") == 1
    pod = pod_template(spec, "other", PLACE)["spec"]
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == "env-volume-v"
    assert "podAffinity" in pod["affinity"]


def test_files_are_secrets(tmp_path: Path) -> None:
    bound = tmp_path / "conf"
    bound.write_bytes(b"bound")
    bind = VolumeMount(type="bind", source=str(bound), target="/etc/conf", read_only=True)
    spec = _one(files={"/etc/a": FileSpec(content=b"top secret", mode=0o600)}, volumes=(bind,))
    (secret,) = [each for each in environment_objects(spec, PLACE) if each["kind"] == "Secret"]
    assert sorted(secret["data"].values()) == ["Ym91bmQ=", "dG9wIHNlY3JldA=="]
    pod = pod_template(spec, "default", PLACE)["spec"]
    assert pod["volumes"][0]["secret"]["items"][0] == {"key": "file-0", "path": "file-0", "mode": 0o600}
    assert {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]} >= {"/etc/a", "/etc/conf"}


@pytest.mark.parametrize(
    ("keys", "error", "words"),
    [
        ({"volumes": (VolumeMount(type="bind", source="/", target="/x"),)}, CapabilityError, "path of this machine"),
        ({"user": "agent"}, SandboxUserUnsupportedError, "only the image knows"),
        ({"groups": ("wheel",)}, CapabilityError, "groups"),
        ({"network_policy": NetworkPolicy(allow_domains=("a.b",))}, CapabilityError, "allow_domains"),
        ({"network_policy": NetworkPolicy(allow_entities=("host",))}, CapabilityError, "host"),
        ({"extra_hosts": {"h": ("host-gateway",)}}, CapabilityError, "host-gateway"),
        ({"security_opt": ("systempaths=unconfined",)}, CapabilityError, "security_opt"),
        ({"image": None}, CapabilityError, "image"),
        ({"entrypoint": ()}, SpecError, "nothing would run"),
        ({"options": {"kubernetes": {"node_selektor": {}}}}, SpecError, "node_selektor"),
        ({"files": {"/big": FileSpec(content=bytes(1_000_001))}}, CapabilityError, "bytes"),
    ],
)
def test_what_pods_can_not_do_is_said_before(keys: dict[str, Any], error: type[Exception], words: str) -> None:
    spec = EnvironmentSpec(services={"default": ServiceSpec(**({"image": "a:1"} | keys))}, volumes={"v": VolumeSpec()})
    with pytest.raises(error, match=r"services\.default") as caught:
        check(spec)
    assert words in str(caught.value)


def test_losses_are_reported() -> None:
    spec = _one(
        resources=Resources(pids=5, ulimits={"nofile": (1, 2)}, cpus=1),
        ports=(PortSpec(container_port=80, host_port=8080),),
        init=True,
        volumes=(VolumeMount(source="v", target="/v"),),
    )
    keys = {entry.key.removeprefix("services.default.") for entry in check(spec)}
    assert keys == {"resources.pids", "resources.ulimits", "resources.cpus", "ports.0", "init", "volumes.0"}


def test_names_that_siblings_do_not_find_are_told() -> None:
    web = ServiceSpec(image="a", networks={"default": ("ok", "example.com")})
    spec = EnvironmentSpec(services={"web_1": web, "b": ServiceSpec(image="a")}, networks={"default": NetworkSpec()})
    found = [(entry.key, entry.loss.value, entry.reason.split("'")[1]) for entry in check(spec)]
    assert found == [("services.web_1.aliases", "APPROX", name) for name in ("web_1", "example.com")]
    main = pod_template(spec, "web_1", PLACE)["spec"]["hostname"]
    assert repr(main) in check(spec)[0].reason
    assert check(EnvironmentSpec(services={"web_1": ServiceSpec(image="a")})) == ()


def _policies(**services: ServiceSpec) -> dict[str, dict[str, Any]]:
    networks = {"default": NetworkSpec(), "inner": NetworkSpec(internal=True)}
    made = environment_objects(EnvironmentSpec(services=services, networks=networks), PLACE)
    return {each["metadata"]["name"]: each["spec"] for each in made if each["kind"] == "NetworkPolicy"}


def test_policies_begin_with_nothing() -> None:
    made = _policies(default=ServiceSpec(image="a"))
    assert made["env-deny"]["policyTypes"] == ["Ingress", "Egress"]
    assert set(made) == {"env-deny", "env-dns"}


def test_siblings_and_the_world_are_let_through_where_asked() -> None:
    online = NetworkPolicy(internet=True, allow_cidrs=("10.1.0.0/16",))
    made = _policies(
        default=ServiceSpec(image="a", network_policy=online),
        other=ServiceSpec(image="a"),
        inner=ServiceSpec(image="a", networks={"inner": ()}, network_policy=online),
        alone=ServiceSpec(image="a", networks=None),
    )
    assert set(made) == {"env-deny", "env-dns", "env-network-default", "env-egress-default"}
    (rule,) = made["env-egress-default"]["egress"]
    world = rule["to"][0]["ipBlock"]
    assert world["cidr"] == "0.0.0.0/0"
    assert {"10.0.0.0/8", "169.254.0.0/16"} <= set(world["except"])
    assert {"ipBlock": {"cidr": "10.1.0.0/16"}} in rule["to"]
    assert made["env-dns"]["podSelector"]["matchExpressions"][0]["values"] == ["alone"]


@pytest.mark.parametrize(("domains", "ports"), [(("a.test", "*.a.test"), {"80", "443"}), (("a.test", "*"), None)])
def test_names_are_reached_on_the_ports_that_they_are_on_with_helm(domains: tuple[str, ...], ports: set[str] | None) -> None:
    service = ServiceSpec(image="a", network_policy=NetworkPolicy(allow_domains=domains))
    made = environment_objects(EnvironmentSpec(services={"default": service}), replace(PLACE, cilium=True))
    [policy] = [each for each in made if each["kind"] == "CiliumNetworkPolicy"]
    [rule] = [each for each in policy["spec"]["egress"] if "toFQDNs" in each]
    found = [port for to in rule.get("toPorts", ()) for port in to["ports"]]
    assert {port["port"] for port in found} == (ports or set())
    assert ("toPorts" in rule) == (ports is not None)
    assert {port["protocol"] for port in found} <= {"TCP"}


def test_policies_choose_jobs_too() -> None:
    online = NetworkPolicy(internet=True)
    services = {
        "default": ServiceSpec(image="a"),
        "job": ServiceSpec(image="a", exec_target=False, network_policy=online),
        "alone": ServiceSpec(image="a", exec_target=False, networks=None),
    }
    made = environment_objects(EnvironmentSpec(services=services), PLACE)
    policies = {each["metadata"]["name"]: each["spec"] for each in made if each["kind"] == "NetworkPolicy"}
    pods = {each["metadata"]["name"]: each["metadata"]["labels"] for each in made if each["kind"] == "Pod"}
    [(_, value)] = (
        policies["env-egress-job"]["podSelector"]["matchLabels"].items() - {"app.kubernetes.io/instance": "env"}.items()
    )
    assert value == "job"
    for policy in ("env-egress-job", "env-dns"):
        selector = policies[policy]["podSelector"]
        chosen = [
            name
            for name, labels in pods.items()
            if selector["matchLabels"].items() <= labels.items()
            and all(labels.get(rule["key"]) not in rule["values"] for rule in selector.get("matchExpressions", ()))
        ]
        assert chosen == (["env-job"] if policy == "env-egress-job" else ["env-default", "env-job"])
        assert "inspect/service" not in pods["env-job"]


def test_objects_come_in_the_order_of_their_making() -> None:
    services = {
        "web": ServiceSpec(image="a", depends_on={"db": Dependency(condition="healthy")}, aliases=("www",)),
        "db": ServiceSpec(image="a"),
    }
    spec = EnvironmentSpec(services=services)
    made = environment_objects(spec, PLACE)
    assert [each["metadata"]["name"] for each in made if each["kind"] == "Pod"] == ["env-db", "env-web"]
    assert made[0]["kind"] == "NetworkPolicy"
    for each in made:
        assert each["metadata"]["labels"]["sandboxcore.dev/run-id"] == "r"
    names = alias_slice(spec, "web", PLACE, "10.0.0.1")
    assert names is not None
    assert [endpoint["hostname"] for endpoint in names["endpoints"]] == ["www"]
    assert alias_slice(spec, "db", PLACE, "10.0.0.1") is None
