"""What goes with an environment: all that is its own, nothing that is another's, and no environment waits for another one."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sandboxcore_helm._hookrun as hookrun
import sandboxcore_helm._removal as removal
from sandboxcore_kubernetes.cluster import Cluster
from sandboxcore_kubernetes.errors import ApiError

from sandboxcore import EnvironmentSpec
from sandboxcore.environment import Environment
from sandboxcore.errors import ProvisionError, SandboxError

from .charts import BARE_POD, config_map, hook_job, pod, write_chart
from .conftest import Place

#: Helm programs and pods are slow on a machine that is busy with other tests.
pytestmark = pytest.mark.timeout(300)

Own = Callable[..., EnvironmentSpec]

_EVENTS = ("pre-install", "post-install", "test", "pre-delete", "post-delete")
_HOLD = "sandboxcore.test/hold"


def _hooked(name: str, event: str) -> str:
    return config_map(f'{name}\n  annotations: {{helm.sh/hook: "{event}", helm.sh/hook-delete-policy: hook-succeeded}}')


@contextmanager
def _of_others(place: Place, names: list[str]) -> Iterator[None]:
    """Have ConfigMaps that no release knows of."""
    for name in names:
        place.kubectl("create", "configmap", name, "--from-literal=of=somebody")
    try:
        yield
    finally:
        place.kubectl("delete", "configmap", "--ignore-not-found", *names)


@pytest.mark.parametrize("engine", ["render-once", "helm"])
async def test_what_only_has_the_name_of_a_hook_stays(place: Place, own: Own, tmp_path: Path, engine: str) -> None:
    hooks = {f"{event}.yaml": _hooked(f"team-{event}", event) for event in _EVENTS}
    spec = own(write_chart(tmp_path, {**BARE_POD, **hooks}))
    with _of_others(place, [f"team-{event}" for event in _EVENTS]):
        before = place.objects()
        async with place.session(engine=engine) as session:
            with pytest.raises(ProvisionError, match="already exists"):
                await session.provision(spec)
        assert place.objects() == before


async def test_what_is_called_as_a_release_would_but_is_older_stays(place: Place, own: Own, tmp_path: Path) -> None:
    chart = write_chart(tmp_path, {**BARE_POD, "early.yaml": _hooked("{{ .Release.Name }}-settings", "pre-install")})
    with _of_others(place, ["web-settings"]):
        await asyncio.sleep(1.1)  # the server's times of creation are whole seconds
        before = place.objects()
        async with place.session(engine="helm") as session:
            with pytest.raises(ProvisionError, match="already exists"):
                await session.provision(own(chart, release="web"))
        assert place.objects() == before


@pytest.mark.parametrize("engine", ["render-once", "helm"])
async def test_a_hook_that_another_environment_has_stays(place: Place, own: Own, tmp_path: Path, engine: str) -> None:
    """Its name is in the chart of both, and only one of them made it."""
    one = write_chart(
        tmp_path / "a", {**BARE_POD, "hook.yaml": _hooked("shared-hook", "post-install").replace("hook-succeeded", "hook-failed")}
    )
    other = write_chart(tmp_path / "b", {**BARE_POD, "hook.yaml": _hooked("shared-hook", "test")})
    async with place.session(engine=engine) as session:
        first, second = await session.provision(own(one)), await session.provision(own(other))
        await second.destroy()
        assert "configmap/shared-hook" in place.objects()
        await first.destroy()
        assert place.objects() == set()


@pytest.mark.parametrize("engine", ["render-once", "helm"])
async def test_hooks_of_the_deletion_run(
    place: Place, own: Own, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """Those before it while the release is there, whose ConfigMap they need; and nothing of any is left."""
    monkeypatch.setattr(hookrun, "_DELETE_HOOKS_SECONDS", 100.0)
    templates = {
        **BARE_POD,
        "map.yaml": config_map("{{ .Release.Name }}-map"),
        "before.yaml": hook_job("before", "pre-delete", "cat /map/value", policy="before-hook-creation", mounted="map"),
        "after.yaml": hook_job("after", "post-delete", "true", policy="before-hook-creation"),
    }
    async with place.session(engine=engine) as session:
        environment = await session.provision(own(write_chart(tmp_path, templates)))
        release = environment.ref.data["release"]
        assert place.objects("jobs") == set()
        with caplog.at_level(logging.WARNING, logger="sandboxcore"):
            await environment.destroy()
        assert caplog.messages == []
        assert place.objects("jobs,configmaps,secrets") == set()
    events = json.loads(place.kubectl("get", "events", "-o", "json"))["items"]
    assert {f"{release}-before", f"{release}-after"} == {
        event["involvedObject"]["name"]
        for event in events
        if event["reason"] == "Completed" and event["involvedObject"]["name"].startswith(release)
    }


async def test_a_hook_of_the_deletion_that_fails_keeps_nothing(
    place: Place, own: Own, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hookrun, "_DELETE_HOOKS_SECONDS", 100.0)
    hooks = {"bye.yaml": hook_job("bye", "pre-delete", "echo what-it-said; exit 3", policy="before-hook-creation")}
    async with place.session(engine="render-once") as session:
        environment = await session.provision(own(write_chart(tmp_path, {**BARE_POD, **hooks})))
        with caplog.at_level(logging.WARNING, logger="sandboxcore"):
            await environment.destroy()
        assert "what-it-said" in caplog.text
        assert place.objects("jobs,configmaps,secrets") == set()


def _hooks_that_ran(place: Place, part: str) -> set[str]:
    """Name the Jobs with this in their names that the cluster has seen, though they may be gone."""
    events = json.loads(place.kubectl("get", "events", "-o", "json"))["items"]
    jobs = [event["involvedObject"]["name"] for event in events if event["involvedObject"]["kind"] == "Job"]
    return {name for name in jobs if part in name}


@pytest.mark.parametrize("engine", ["render-once", "helm"])
async def test_what_was_never_whole_goes_without_hooks(place: Place, own: Own, tmp_path: Path, engine: str) -> None:
    """They may need what there is not, as this image, and would only make the error come late."""
    hooks = {f"{event}.yaml": hook_job(f"bye-{engine}", event, "sleep infinity") for event in ("pre-delete", "post-delete")}
    bad = pod(image="sandboxcore.test/no-such-image:1")
    async with place.session(engine=engine) as session:
        with pytest.raises(ProvisionError, match="no-such-image"):
            await session.provision(own(write_chart(tmp_path, {"pod.yaml": bad, **hooks})))
    assert _hooks_that_ran(place, f"bye-{engine}") == set()
    assert place.objects() == set()


async def test_what_a_dead_client_never_finished_goes_without_hooks(place: Place, own: Own, tmp_path: Path) -> None:
    chart = write_chart(tmp_path, {**BARE_POD, "bye.yaml": hook_job("bye", "pre-delete", "sleep infinity")})
    async with place.session(engine="render-once") as session:
        environment = await session.provision(own(chart))
        release = environment.ref.data["release"]
        place.kubectl("label", "--overwrite", "secret", f"sh.helm.release.v1.{release}.v1", "status=pending-install")
    assert _hooks_that_ran(place, release) == set()
    assert place.objects() == set()


@pytest.mark.parametrize("event", ["pre-delete", "post-delete"])
async def test_a_hook_of_one_holds_no_others(
    place: Place, own: Own, busybox: EnvironmentSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, event: str
) -> None:
    monkeypatch.setattr(hookrun, "_DELETE_HOOKS_SECONDS", 100.0)
    hooked = own(write_chart(tmp_path, {**BARE_POD, "bye.yaml": hook_job("bye", event, "sleep infinity")}))
    async with place.session(engine="render-once") as session:
        made = [await session.provision(spec) for spec in (hooked, busybox, busybox)]
        hanging, *others = [asyncio.ensure_future(one.destroy()) for one in made]
        await asyncio.gather(*others)
        job = f"job.batch/{made[0].ref.data['release']}-bye"
        while job not in place.objects("jobs"):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        assert not hanging.done()
        place.kubectl("delete", job)
        await hanging
        assert place.objects() == set()


async def test_what_stands_against_one_kind_is_asked_once_and_holds_no_others(
    place: Place, own: Own, busybox: EnvironmentSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for the reaper, whose rights are not enough for what some charts have."""
    deletions: list[Any] = []
    real = Cluster.delete_collection

    async def refusing(self: Cluster, kind: str, **options: Any) -> None:
        deletions.append(kind)
        if kind == "v1/ConfigMap":
            raise ApiError("configmaps is forbidden: you may not", status=403, reason="Forbidden")
        await real(self, kind, **options)

    chart = own(write_chart(tmp_path, {**BARE_POD, "map.yaml": config_map("{{ .Release.Name }}-map")}))
    async with place.session(engine="render-once") as session:
        made = [await session.provision(spec) for spec in (chart, chart, busybox)]
        with monkeypatch.context() as patched:
            patched.setattr(Cluster, "delete_collection", refusing)
            outcomes = await asyncio.gather(*(one.destroy() for one in made), return_exceptions=True)
        assert ["you may not" in str(outcome) for outcome in outcomes] == [True, True, False]
        assert deletions.count("v1/ConfigMap") == deletions.count("v1/Pod") == 1
        assert {one.id for one in await session.find()} == {one.id for one in made[:2]}
        assert place.objects("pods") == set()
    assert place.objects() == set()


@contextmanager
def _held(place: Place, environment: Environment) -> Iterator[str]:
    """Have a finalizer that nobody takes away hold the environment's pod, until this ends."""
    name = environment.default.ref.data["pod"]
    place.kubectl("patch", "pod", name, "--type=merge", "-p", json.dumps({"metadata": {"finalizers": [_HOLD]}}))
    try:
        yield name
    finally:
        place.kubectl("patch", "pod", name, "--type=merge", "-p", json.dumps({"metadata": {"finalizers": None}}), check=False)


@pytest.mark.parametrize("engine", ["render-once", "helm"])
async def test_one_that_hangs_holds_no_others(place: Place, busybox: EnvironmentSpec, engine: str) -> None:
    """They are asked to go at once, and each is done when nothing of its own is left."""
    async with place.session(engine=engine) as session:
        made = [await session.provision(busybox) for _ in range(4)]
        with _held(place, made[1]) as pod:
            hanging, *others = [asyncio.ensure_future(one.destroy()) for one in (made[1], made[0], *made[2:])]
            await asyncio.gather(*others)
            assert {one.id for one in await session.find()} == {made[1].id}
            assert place.objects("pods") == {f"pod/{pod}"}
            assert not hanging.done()
        await hanging
        assert place.objects() == set()


async def test_what_is_left_is_named(place: Place, busybox: EnvironmentSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    async with place.session() as session:
        environment = await session.provision(busybox)
        with _held(place, environment) as pod, monkeypatch.context() as patch, pytest.raises(SandboxError) as caught:
            patch.setattr(removal, "_GIVE_UP_SECONDS", 10.0)
            await environment.destroy()
        assert f"there is still Pod {pod!r} (finalizer {_HOLD!r}" in str(caught.value)
        await environment.destroy()
        assert place.objects() == set()


async def test_a_record_that_is_broken_holds_no_others(place: Place, busybox: EnvironmentSpec) -> None:
    async with place.session() as session:
        made = [await session.provision(busybox) for _ in range(3)]
        record = f"sh.helm.release.v1.{made[0].ref.data['release']}.v1"
        right = place.get(f"secret/{record}")["data"]["release"]
        broken = base64.b64encode(b"no record").decode()
        place.kubectl("patch", "secret", record, "--type=merge", "-p", json.dumps({"data": {"release": broken}}))
        outcomes = await asyncio.gather(*(one.destroy() for one in made), return_exceptions=True)
        assert [isinstance(outcome, SandboxError) for outcome in outcomes] == [True, False, False]
        assert record in str(outcomes[0])
        assert {one.id for one in await session.find()} == {made[0].id}
        place.kubectl("patch", "secret", record, "--type=merge", "-p", json.dumps({"data": {"release": right}}))
    assert place.objects() == set()
