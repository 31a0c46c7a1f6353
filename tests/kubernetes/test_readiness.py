"""Why pods don't start, as a real cluster says it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from sandboxcore_kubernetes import Cluster, ClusterConfig, PodWatch, diagnose, wait_ready
from sandboxcore_kubernetes.diagnosis import Cause
from sandboxcore_kubernetes.readiness import failure

from sandboxcore.errors import ProvisionError, ProvisionTimeoutError, SandboxError, ServiceFailedError
from sandboxcore.values import Event
from tests.images import reference

from .conftest import pod

#: Seconds within which every cause shows, on a machine that is busy with other things.
_PATIENCE = 90.0


@dataclass(frozen=True)
class _Case:
    body: Mapping[str, Any]
    error: type[ProvisionError]
    first_line: tuple[str, ...]
    rest: str = ""
    waits: bool = False


def _volume(**source: Any) -> dict[str, Any]:
    return {"volumeMounts": [{"name": "v", "mountPath": "/v"}], "spec": {"volumes": [{"name": "v", **source}]}}


#: Without a probe a container that crashes is ready for as long as it runs.
_UNREADY = {"readinessProbe": {"exec": {"command": ["false"]}, "initialDelaySeconds": 30}}
_NEVER = {**_UNREADY, "spec": {"restartPolicy": "Never"}}
_INIT = {
    "name": "i",
    "image": reference("busybox"),
    "imagePullPolicy": "Never",
    "command": ["sh", "-c", "echo init says no; exit 3"],
}
_MISSING_KEY = [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "no-such-secret", "key": "k"}}}]
CASES: dict[str, _Case] = {
    "bad-image": _Case(
        {"image": "registry.invalid/a/b:c", "imagePullPolicy": "IfNotPresent"},
        ProvisionError,
        ("image can't be pulled", "registry.invalid/a/b:c"),
    ),
    "never-pull": _Case(
        {"image": "sandboxcore.test/absent:1"}, ProvisionError, ("must not be pulled", "sandboxcore.test/absent:1")
    ),
    "bad-name": _Case({"image": "UPPER/Case::x"}, ProvisionError, ("not legal", "UPPER/Case::x")),
    "config": _Case({"env": _MISSING_KEY}, ProvisionError, ("configuration is incomplete", 'secret "no-such-secret" not found')),
    "non-root": _Case({"securityContext": {"runAsNonRoot": True}}, ProvisionError, ("would run as root",)),
    "crash": _Case(
        {"command": ["sh", "-c", "echo last words; exit 7"], **_UNREADY},
        ServiceFailedError,
        ("crashes again", "exit code 7"),
        "last words",
    ),
    "no-program": _Case({"command": ["/no/such/program"]}, ServiceFailedError, ("can't be started", "/no/such/program")),
    "failed": _Case({"command": ["sh", "-c", "echo bye; exit 5"], **_NEVER}, ServiceFailedError, ("ended", "exit code 5"), "bye"),
    "oom": _Case(
        {"command": ["sh", "-c", "x=a; while true; do x=$x$x; done"], "resources": {"limits": {"memory": "16Mi"}}, **_NEVER},
        ServiceFailedError,
        ("more memory than its limit",),
    ),
    "init": _Case(
        {"spec": {"initContainers": [_INIT], "restartPolicy": "Never"}},
        ServiceFailedError,
        ("init container i", "exit code 3"),
        "init says no",
    ),
    "mount": _Case(
        _volume(configMap={"name": "absent"}), ProvisionError, ("volume can't be mounted", 'configmap "absent" not found')
    ),
    "claim": _Case(
        _volume(persistentVolumeClaim={"claimName": "absent"}), ProvisionError, ("volume can't be mounted", '"absent" not found')
    ),
    "no-node": _Case(
        {"resources": {"requests": {"cpu": "900"}}}, ProvisionTimeoutError, ("no node fits", "Insufficient cpu"), waits=True
    ),
    "probe": _Case(
        {"readinessProbe": {"exec": {"command": ["sh", "-c", "echo not yet; exit 1"]}, "periodSeconds": 1}},
        ProvisionTimeoutError,
        ("health check fails", "not yet"),
        waits=True,
    ),
}


def _has_cause(watch: PodWatch, name: str, words: Sequence[str]) -> bool:
    """Say whether the cause that comes first is the one that is waited for: a new pod may have others, for a moment."""
    state = watch.get(name)
    causes = diagnose(state, watch.events_of(state)) if state is not None else []
    return bool(causes) and all(word in causes[0].message for word in words)


async def test_every_cause_is_told(cluster: Cluster) -> None:
    """All side by side: certain ones at once, uncertain ones when time is up, and a pod that is well is not disturbed."""
    loop = asyncio.get_running_loop()

    async with cluster.pods() as watch:

        async def one(name: str, body: Mapping[str, Any], waits_for: Sequence[str] = ()) -> tuple[Any, list[Event]]:
            events: list[Event] = []
            deadline = loop.time() + _PATIENCE
            try:
                await cluster.create(pod(name, **body))
                if waits_for:  # until there is the cause to be told
                    await watch.wait_for(lambda watch: _has_cause(watch, name, waits_for), _PATIENCE)
                    deadline = loop.time() + 0.2
                found: Any = await wait_ready(watch, [name], emit=events.append, deadline=deadline, crashes=2)
            except SandboxError as error:
                found = error
            return found, events

        outcomes = await asyncio.gather(
            one("well", {}), *(one(name, case.body, case.first_line if case.waits else ()) for name, case in CASES.items())
        )
    (well, events), *failures = outcomes
    assert [state.name for state in well] == ["well"]
    # On a slow node a pod may wait for the token of a new namespace, and is told to; it is ready once, and last.
    assert [event.name for event in events if event.name != "service.waiting"] == ["service.ready"]
    assert events[-1].name == "service.ready"
    for (name, case), (found, told) in zip(CASES.items(), failures, strict=True):
        assert type(found) is case.error, (name, found)
        first, *rest = str(found).splitlines()
        if name == "oom" and "exit code 137" in first:
            continue  # containerd learns of it from a control group that may be gone by then, and says only how it ended
        assert [words for words in (name, *case.first_line) if words not in first] == [], (name, first)
        assert case.rest in "\n".join(rest), (name, rest)
        assert found.hint, name
        assert found.service == name
        if case.waits:
            assert "service.waiting" in {event.name for event in told}, name


async def test_a_mount_that_succeeded_is_a_cause_no_more(cluster: Cluster) -> None:
    """Its warning stays, while the pod is busy with something else."""
    waits = ["sh", "-c", "while [ ! -e /v/go ] || [ ! -e /tmp/go ]; do sleep 0.1; done"]
    init = {**_INIT, "command": waits, "volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    body = pod("late-secret", spec={"initContainers": [init], "volumes": [{"name": "v", "secret": {"secretName": "late"}}]})
    async with cluster.pods() as watch:
        await cluster.create(body)

        def found() -> Mapping[str, bool] | None:
            state = watch.get("late-secret")
            return {cause.kind: cause.certain for cause in diagnose(state, watch.events_of(state))} if state else None

        await watch.wait_for(lambda _: not {"Mount", "MountRetrying"}.isdisjoint(found() or ()), _PATIENCE)
        await cluster.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "late"}, "stringData": {"go": ""}})
        state = await watch.wait_for(
            lambda _: (state := watch.get("late-secret")) and state.init_containers[0].state == "running" and state, _PATIENCE
        )
        assert "FailedMount" in {event.reason for event in watch.events_of(state)}
        assert found() == {}
    await cluster.delete("Pod", "late-secret", grace=0)


async def test_the_scheduler_is_believed_in_what_it_says_now(cluster: Cluster) -> None:
    """Not in what it warned of before: a claim that was not there yet is no reason to give up what an autoscaler may solve."""
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "late"}}]
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "late"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    async with cluster.pods() as watch:
        await cluster.create(pod("late-claim", spec={"volumes": volumes}, resources={"requests": {"cpu": "900"}}))

        def found() -> Mapping[str, bool] | None:
            state = watch.get("late-claim")
            return {cause.kind: cause.certain for cause in diagnose(state, watch.events_of(state))} if state else None

        await watch.wait_for(lambda _: found() == {"Mount": True}, _PATIENCE)
        await watch.wait_for(lambda watch: any("not found" in each.message for each in watch.events.of("Pod", "late-claim")), 90)
        await cluster.create(claim)
        await watch.wait_for(lambda _: found() == {"Unschedulable": False}, _PATIENCE)
    await cluster.delete("Pod", "late-claim", grace=0)
    await cluster.delete("PersistentVolumeClaim", "late")


async def test_pods_that_are_never_made_are_told(config: ClusterConfig, cluster: Cluster) -> None:
    """A quota, and what makes pods in vain."""
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "q"},
        "spec": {"hard": {"requests.memory": "64Mi"}},
    }
    await cluster.create(quota)
    async with asyncio.timeout(60):
        while not ((await cluster.get("ResourceQuota", "q")).get("status") or {}).get("hard"):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    labels = {"set": "greedy"}
    template = pod("x", labels=labels, resources={"requests": {"memory": "100Mi"}})
    stateful = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "greedy"},
        "spec": {
            "serviceName": "greedy",
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": template["spec"] | {"terminationGracePeriodSeconds": 0}},
        },
    }
    try:
        async with cluster.pods() as watch:
            await cluster.create(stateful)
            deadline = asyncio.get_running_loop().time() + 60
            with pytest.raises(ProvisionError, match="asks for more than the namespace's quota") as caught:
                await wait_ready(watch, labels=labels, count=1, owners=["greedy"], emit=lambda event: None, deadline=deadline)
            assert not isinstance(caught.value, ProvisionTimeoutError)
            assert "64Mi" in str(caught.value)
    finally:
        await cluster.delete("StatefulSet", "greedy")
        await cluster.delete("ResourceQuota", "q")


async def test_a_pod_that_vanishes_is_told(cluster: Cluster) -> None:
    async with cluster.pods() as watch:
        await cluster.create(pod("vanishes", readinessProbe={"exec": {"command": ["false"]}}))
        deadline = asyncio.get_running_loop().time() + 60
        waiting = asyncio.create_task(wait_ready(watch, ["vanishes"], emit=lambda event: None, deadline=deadline))
        await watch.wait_for(lambda watch: (found := watch.get("vanishes")) and found.phase == "Running", 60)
        await cluster.delete("Pod", "vanishes", grace=0)
        with pytest.raises(ProvisionError, match="deleted while it was waited for"):
            await waiting


@pytest.mark.tier("none")
async def test_when_time_is_up_nobody_waits_for_a_log() -> None:
    """Who waits for the pods ends it all a moment later, and would have no cause."""

    class Mute:
        namespace = "n"

        @property
        def cluster(self) -> Mute:
            return self

        async def logs(self, *pod: object, **which: object) -> AsyncIterator[bytes]:
            await asyncio.Event().wait()
            yield b""

    cause = Cause(kind="CrashLoop", service="web", severity="error", certain=True, message="it crashes", pod="p", logs="current")
    watch: Any = Mute()
    async with asyncio.timeout(4.0):
        error = await failure(watch, cause, timed_out=True)
    assert isinstance(error, ProvisionTimeoutError)
    assert str(error) == "service 'web': it crashes (until the time was up)"
