"""Hooks of one's own chart run when Helm would run them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxcore import EnvironmentSpec
from sandboxcore.errors import ServiceFailedError

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
            assert environment["made-by-hook"].ref.state == "completed"
        assert place.objects() == set()
