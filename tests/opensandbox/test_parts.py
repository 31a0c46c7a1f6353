"""Objects of a batch: what the pods have in common, what each has for itself, and in which order they start."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from sandboxcore_opensandbox import _check, _server_request
from sandboxcore_opensandbox._config import OpenSandboxConfig
from sandboxcore_opensandbox._notes import Notes, expire_time, read
from sandboxcore_opensandbox._parts import batch_sandbox, dependencies, divide, services_by_pool, template_pods
from sandboxcore_opensandbox._patching import strategic_merge
from sandboxcore_opensandbox._pool_fit import PoolFit

from sandboxcore.errors import CapabilityError, SpecError
from sandboxcore.spec import Dependency, EnvironmentSpec, ServiceSpec

pytestmark = pytest.mark.tier("none")


def pod(name: str, **container: Any) -> dict[str, Any]:
    return {
        "metadata": {"labels": {"run": "r", "service": name}},
        "spec": {"hostname": name, "containers": [{"name": "main", "image": "i", **container}], "restartPolicy": "Never"},
    }


PODS = [
    pod("a", env=[{"name": "A", "value": "1"}], command=["x"], volumeMounts=[{"name": "v", "mountPath": "/v"}]),
    pod("b", command=["y", "z"]),
    pod("c", env=[{"name": "C", "value": "2"}]),
]


def controllers(template: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Do what the controller does: merge, and then read the result over what was there, where keys and fields stay."""

    def over(old: Any, new: Any) -> Any:
        if isinstance(old, dict) and isinstance(new, dict):
            return {**old, **{key: over(old.get(key), value) for key, value in new.items()}}
        if isinstance(old, list) and isinstance(new, list):
            return [over(old[index] if index < len(old) else None, value) for index, value in enumerate(new)]
        return new

    return over(copy.deepcopy(template), strategic_merge(template, patch))  # type: ignore[no-any-return]


@pytest.mark.parametrize("pods", [PODS, PODS[::-1], [*PODS, PODS[0]], PODS[:1], [PODS[1]] * 3])
def test_every_pod_comes_out_as_it_was_meant(pods: list[dict[str, Any]]) -> None:
    made = template_pods(pods)
    assert [controllers(made.template, patch) for patch in made.patches] == pods


def test_equal_pods_need_no_patches() -> None:
    assert template_pods([PODS[0]] * 3).patches == ({}, {}, {})


def test_pods_that_differ_little_have_small_patches() -> None:
    pods = [pod("same", command=["x"] * 100) for _ in range(3)]
    for index, each in enumerate(pods):
        each["metadata"]["labels"]["environment"] = str(index)
    assert max(len(json.dumps(patch)) for patch in template_pods(pods).patches) < 100


def notes(**changes: Any) -> Notes:
    known: dict[str, Any] = {"services": ("s", "t"), "part": ("s", "t"), "environments": ("one", "two", "three")}
    return Notes(batch="one", run_id="r", owner="me", created=1.5, **(known | changes))


def test_pods_are_ordered_by_service() -> None:
    assert [notes().place(index) for index in range(7)] == [(0, "s"), (1, "s"), (2, "s"), (0, "t"), (1, "t"), (2, "t"), None]
    assert [notes().index(name, service) for service in ("s", "t") for name in ("one", "two", "three")] == list(range(6))


def test_what_is_written_can_be_read() -> None:
    given = notes(
        pool="p", labels={"a": "b"}, settings={"s": {"user": "u"}}, secret="x", kinds=("Secret",), tasks=True, queued=2.0
    )
    obj = batch_sandbox("one", "ns", given, lease_end=1000.25, grace=30.0, replicas=6)
    assert read(obj) == given
    assert obj["spec"] == {"replicas": 6, "expireTime": "1970-01-01T00:17:10.250Z", "poolRef": "p"}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"batch": "x"}', '{"unknown": 1}'])
def test_what_others_wrote_is_none_of_ours(text: str) -> None:
    obj = batch_sandbox("one", "ns", notes(), lease_end=0.0, grace=0.0, replicas=1)
    obj["metadata"]["annotations"]["sandboxcore.dev/opensandbox"] = text
    assert read(obj) is None


def test_times_are_utc_and_keep_fractions() -> None:
    assert expire_time(1795387580.531) == "2026-11-22T22:46:20.531Z"


def spec(**services: Any) -> EnvironmentSpec:
    return EnvironmentSpec(services={name: ServiceSpec(**body) for name, body in services.items()})


def test_pods_wait_for_what_their_service_depends_on_in_their_own_environment() -> None:
    needs = {"depends_on": {"first": Dependency(condition="healthy"), "elsewhere": Dependency(required=False)}}
    found = dependencies(spec(then=needs, first={}, other={}), ("first", "other", "then"), 2)
    assert found == {4: {0: "healthy"}, 5: {1: "healthy"}}


FITS = {name: PoolFit(name=name, image="i", container="sandbox", argv=("run",), tasks=True) for name in ("p", "q")}


def test_services_are_grouped_by_their_pool() -> None:
    config = OpenSandboxConfig(pool="p", pools={"b": "q", "c": ""})
    given = spec(a={}, b={}, c={"image": "i"}, d={})
    assert [(group.pool, group.services) for group in divide(given, config, FITS)] == [
        ("p", ("a", "d")),
        ("q", ("b",)),
        ("", ("c",)),
    ]
    assert services_by_pool(given, config) == {"p": ("a", "d"), "q": ("b",)}


def test_services_with_commands_of_their_own_are_apart() -> None:
    given = spec(a={}, b={"command": ("serve",)}, c={"command": ("sleep", "infinity")}, d={"command": ("run",)})
    found = divide(given, OpenSandboxConfig(pool="p"), FITS)
    assert [(group.tasks, group.services) for group in found] == [(False, ("a", "c", "d")), (True, ("b",))]


def test_options_of_a_service_win() -> None:
    options = {"opensandbox": {"poolRef": "q"}}
    given = EnvironmentSpec(
        services={"a": ServiceSpec(), "b": ServiceSpec(options=options)}, options={"opensandbox": {"pool": "p"}}
    )
    assert services_by_pool(given, OpenSandboxConfig(pool="other")) == {"p": ("a",), "q": ("b",)}


def test_unknown_options_are_told() -> None:
    with pytest.raises(SpecError, match="did you mean 'poolRef'"):
        services_by_pool(spec(a={"options": {"opensandbox": {"poolref": "q"}}}), OpenSandboxConfig())


#: Fields that a sandbox of either kind has, or about which more is said than one line.
_HAD = {
    "command",
    "entrypoint",
    "env",
    "exec_target",
    "files",
    "image",
    "networks",
    "network_policy",
    "options",
    "user",
    "working_dir",
}
_HAD_BY_KIND = {
    "pool": _HAD | {"aliases", "depends_on", "volumes"},
    "server": _HAD | {"aliases", "depends_on", "platform", "resources"},  # of which the first two mean others, and there are none
}


@pytest.mark.parametrize(
    ("kind", "spoken_of"),
    [("pool", set(_check._OF_THE_TEMPLATE)), ("server", set(_server_request._NOT_HAD) | set(_server_request._REFUSED))],
)
def test_no_field_is_passed_over_in_silence(kind: str, spoken_of: set[str]) -> None:
    assert spoken_of & _HAD_BY_KIND[kind] == set()
    assert spoken_of | _HAD_BY_KIND[kind] == set(ServiceSpec.model_fields)


@pytest.mark.parametrize(
    ("mode", "service", "key"),
    [
        ("crd", {"healthcheck": {"test": ["CMD", "true"]}}, "healthcheck"),
        ("server", {"healthcheck": {"test": ["CMD", "true"]}}, "healthcheck"),
        ("server", {"cap_drop": ["ALL"]}, "cap_drop"),
    ],
)
def test_what_a_pod_of_a_pool_does_without_is_told(mode: Any, service: dict[str, Any], key: str) -> None:
    spec = EnvironmentSpec.model_validate({"services": {"a": service}})
    look = _check.check if mode == "crd" else _server_request.check
    assert f"services.a.{key}" in [entry.key for entry in look(spec, OpenSandboxConfig(mode=mode, pool="p"))]


def _checked(condition: str, *, waits: dict[str, Any], pools: dict[str, str]) -> dict[str, str]:
    services = {"a": {**waits, "depends_on": {"b": {"condition": condition}}}, "b": {"image": "i"}}
    entries = _check.check(EnvironmentSpec.model_validate({"services": services}), OpenSandboxConfig(pools=pools))
    return {entry.key: entry.loss.value for entry in entries if "depends_on" in entry.key}


def test_what_is_not_waited_for_where_pods_run_already_is_told() -> None:
    for condition in ("started", "healthy"):
        assert _checked(condition, waits={"image": "i"}, pools={"b": "p"}) == {"services.a.depends_on.b": "APPROX"}
        assert _checked(condition, waits={"command": ["serve"]}, pools={"a": "p"}) == {"services.a.depends_on": "APPROX"}
        assert _checked(condition, waits={}, pools={"a": "p"}) == {"services.a.depends_on": "NOOP"}
        assert _checked(condition, waits={"image": "i"}, pools={}) == {}


@pytest.mark.parametrize("pooled", ["a", "b"])
def test_the_end_of_a_service_is_not_waited_for_where_either_is_from_a_pool(pooled: str) -> None:
    with pytest.raises(CapabilityError, match=r"services\.a\.depends_on"):
        _checked("completed", waits={"image": "i"}, pools={pooled: "p"})


@pytest.mark.parametrize("mode", ["crd", "server"])
def test_volumes_of_a_pod_of_a_pool_are_refused(mode: Any) -> None:
    spec = EnvironmentSpec.model_validate({"services": {"a": {"volumes": [{"target": "/v"}]}}})
    look = _check.check if mode == "crd" else _server_request.check
    with pytest.raises(CapabilityError, match=r"services\.a\.volumes"):
        look(spec, OpenSandboxConfig(mode=mode, pool="p"))
