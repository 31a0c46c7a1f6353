"""Hooks of one's own chart run when Helm would run them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxcore import EnvironmentSpec
from sandboxcore.errors import ProvisionError, ProvisionTimeoutError, ServiceFailedError

from .charts import BARE_POD, config_map, hook_job, pod, write_chart
from .conftest import Place

#: Helm programs and pods are slow on a machine that is busy with other tests.
pytestmark = pytest.mark.timeout(300)

Own = Callable[..., EnvironmentSpec]


def _sandbox_hook() -> str:
    lines = pod("made-by-hook", name="{{ .Release.Name }}-hooked", extra="restartPolicy: Never").splitlines()
    hooked = ["  annotations: {helm.sh/hook: post-install}" if "annotations:" in line else line for line in lines]
    return "\n".join(hooked).replace("command: [sleep, infinity]", "command: ['true']")


@pytest.mark.parametrize("engine", ["render-once", "helm"])
async def test_hooks_after_the_install_run_when_all_is_ready(place: Place, own: Own, tmp_path: Path, engine: str) -> None:
    """A hook that lasts is left behind for the environment's time, and goes with it."""
    templates = {
        **BARE_POD,
        "first.yaml": hook_job("first", "post-install", "sleep 0.2", weight=-1),
        "second.yaml": hook_job("second", "post-install", "exit 0", policy="before-hook-creation"),
        "test.yaml": hook_job("test", "test", "exit 1"),
        "map.yaml": config_map('{{ .Release.Name }}-hook\n  annotations: {helm.sh/hook: "post-install,post-upgrade"}'),
    }
    async with place.session(engine=engine) as session:
        environment = await session.provision(own(write_chart(tmp_path, templates)))
        release = environment.ref.data["release"]
        assert place.objects("jobs") == {f"job.batch/{release}-second"}
        assert f"configmap/{release}-hook" in place.objects()
        assert (await environment.default.exec(["true"])).exit_code == 0
        await environment.destroy()
        assert place.objects() == set()


@pytest.mark.parametrize("engine", ["render-once", "helm"])
async def test_hooks_before_the_install_come_first(place: Place, own: Own, tmp_path: Path, engine: str) -> None:
    """The pod mounts what the hook makes, and would not start without it."""
    mounted = pod(extra="volumes: [{name: v, configMap: {name: '{{ .Release.Name }}-early'}}]")
    early = config_map('{{ .Release.Name }}-early\n  annotations: {helm.sh/hook: "pre-install"}')
    chart = write_chart(
        tmp_path, {"pod.yaml": mounted, "early.yaml": early, "job.yaml": hook_job("job", "pre-install", "exit 0")}
    )
    async with place.session(engine=engine) as session:
        async with session.environment(own(chart)) as environment:
            assert f"configmap/{environment.ref.data['release']}-early" in place.objects()
        assert place.objects() == set()


@pytest.mark.parametrize("event", ["pre-install", "{{ .Values.when }}"], ids=["written", "of-values"])
@pytest.mark.parametrize("engine", ["render-once", "helm"])
async def test_hooks_before_and_after_are_run_as_each_should(
    place: Place, own: Own, tmp_path: Path, engine: str, event: str
) -> None:
    """Also one that only the values make a hook. The one after the install comes when the pods are ready, not sooner."""
    named = "{{ .Release.Name }}-%s\n  annotations: {helm.sh/hook: %s}"
    templates = {
        **BARE_POD,
        "before.yaml": config_map(named % ("before", f"'{event}'")),
        "after.yaml": config_map(named % ("after", "post-install")),
    }
    chart = write_chart(tmp_path, templates, values={"when": "pre-upgrade"})
    async with place.session(engine=engine) as session:
        async with session.environment(own(chart, values={"when": "pre-install"})) as environment:
            release = environment.ref.data["release"]
            before, after = (place.get(f"configmap/{release}-{name}")["metadata"] for name in ("before", "after"))
            pod = place.get(f"pod/{release}-default")
            [ready] = [one for one in pod["status"]["conditions"] if one["type"] == "Ready"]
            assert before["creationTimestamp"] <= pod["metadata"]["creationTimestamp"]
            assert ready["lastTransitionTime"] <= after["creationTimestamp"]
            assert "STATUS: deployed" in place.helm(3, "status", release)
        assert place.objects() == set()


@pytest.mark.parametrize("engine", ["render-once", "helm"])
async def test_hooks_before_the_install_and_pods_after_it_hold_up_nobody(
    place: Place, own: Own, tmp_path: Path, engine: str
) -> None:
    """Where one release is created at a time, and one helm program runs: a hook that never ends, and a pod that fits nowhere."""
    early = config_map('{{ .Release.Name }}-early\n  annotations: {helm.sh/hook: "pre-install"}')
    endless = {**BARE_POD, "job.yaml": hook_job("job", "pre-install", "sleep infinity")}
    never = pod().replace("imagePullPolicy", "resources: {requests: {cpu: 4k}}\n      imagePullPolicy")
    charts = [
        write_chart(tmp_path / str(index), templates)
        for index, templates in enumerate([endless, {"pod.yaml": never, "early.yaml": early}, {**BARE_POD, "early.yaml": early}])
    ]
    async with place.session(engine=engine, creations_at_once=1, helm_at_once=1) as session:
        held = [asyncio.ensure_future(session.provision(own(chart))) for chart in charts[:2]]
        while len(place.objects("jobs")) < 1 or len(place.objects("pods")) < 2:
            assert not any(one.done() for one in held)
            await asyncio.sleep(0.2)
        async with session.environment(own(charts[2])) as environment:
            assert environment.names == ("default",)
        assert not any(one.done() for one in held)
        for one in held:
            one.cancel()
        await asyncio.wait(held)
    assert place.objects() == set()


@pytest.mark.parametrize("engine", ["auto", "render-once"])
async def test_a_bad_image_is_told_at_once_behind_hooks_too(place: Place, own: Own, tmp_path: Path, engine: str) -> None:
    early = config_map('{{ .Release.Name }}-early\n  annotations: {helm.sh/hook: "pre-install"}')
    bad = pod(image="sandboxcore.test/no-such-image:1")
    async with place.session(engine=engine, session={"timeout": 100.0}) as session:
        with pytest.raises(ProvisionError, match=r"\A.*no-such-image") as caught:
            await session.provision(own(write_chart(tmp_path, {"pod.yaml": bad, "early.yaml": early})))
        assert not isinstance(caught.value, ProvisionTimeoutError)
    assert place.objects() == set()


async def test_a_hook_that_fails_takes_all_away(place: Place, own: Own, tmp_path: Path) -> None:
    chart = write_chart(tmp_path, {**BARE_POD, "job.yaml": hook_job("job", "post-install", "echo what-it-said; exit 3")})
    async with place.session(engine="render-once") as session:
        with pytest.raises(ServiceFailedError, match=r"post-install hook '\w+-job' failed") as caught:
            await session.provision(own(chart))
        assert "what-it-said" in str(caught.value)
        assert place.objects() == set()


async def test_a_pod_that_a_hook_makes_is_a_sandbox(place: Place, own: Own, tmp_path: Path) -> None:
    """A pod that goes on is no hook that ends: Helm, too, waits for such one until it succeeded, so it is made ready-made."""
    chart = write_chart(tmp_path, {**BARE_POD, "hook.yaml": _sandbox_hook()})
    async with place.session(engine="render-once") as session:
        async with session.environment(own(chart)) as environment:
            assert set(environment.names) == {"default", "made-by-hook"}
            seen = environment["made-by-hook"].ref
            assert (seen.state, seen.exit_code) == ("completed", 0)
        assert place.objects() == set()
