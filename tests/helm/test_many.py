"""Many environments: how much is asked of the API server, who blocks whom, and how they go."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import sandboxcore_helm._quota as quota_line
from sandboxcore_helm._quota import QuotaLine

from sandboxcore import EnvironmentSpec, ProvisionOutcome, Session
from sandboxcore.errors import CapabilityError, ProvisionError, ProvisionTimeoutError, SpecError
from sandboxcore.spec import NetworkPolicy, Resources
from sandboxcore.values import Event
from tests.images import reference

from .charts import BARE_POD, DEPLOYMENT, STATEFUL, config_map, pod, write_chart
from .conftest import Place

#: Helm programs and pods are slow on a machine that is busy with other tests.
pytestmark = pytest.mark.timeout(300)

Own = Callable[..., EnvironmentSpec]


def changed(spec: EnvironmentSpec, **changes: Any) -> EnvironmentSpec:
    service = spec.services["default"].model_copy(update=changes)
    return spec.model_copy(update={"services": {"default": service}})


async def _requests(session: Session) -> int:
    provisioner: Any = session._open().provisioner
    return (await provisioner.cluster()).requests  # type: ignore[no-any-return]


@pytest.mark.parametrize("engine", ["render-once", "helm"])
async def test_a_sandbox_takes_a_dozen_requests(place: Place, busybox: EnvironmentSpec, engine: str) -> None:
    """From nothing to a command's result and away again; what the helm program itself asks for is not counted."""
    count = 10
    async with place.session(engine=engine) as session:
        made = [outcome.environment async for outcome in session.provision_many([busybox] * count)]
        assert all(made)
        results = await asyncio.gather(*(one.default.exec(["true"]) for one in made if one))
        assert [result.exit_code for result in results] == [0] * count
        await asyncio.gather(*(one.destroy() for one in made if one))
        assert place.objects() == set()
        assert await _requests(session) / count <= 12


async def test_helm_validates_the_first_of_a_kind(place: Place, own: Own, tmp_path: Path) -> None:
    """Those that are equal are valid too; one whose chart is wrong is told so each time."""
    log, program = tmp_path / "log", tmp_path / "helm"
    program.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec {place.config()["helm"]} "$@"\n')
    program.chmod(0o755)
    good = own(write_chart(tmp_path / "a", BARE_POD))
    wrong = own(write_chart(tmp_path / "b", {"pod.yaml": pod(extra="hostNetwork: 3")}))
    async with place.session(engine="helm", helm=str(program), helm_at_once=1) as session:
        for _ in range(2):
            with pytest.raises(SpecError, match="hostNetwork"):
                await session.provision(wrong)
        made = [outcome.environment async for outcome in session.provision_many([good] * 3)]
        assert all(made)
    installs = [line for line in log.read_text().splitlines() if line.startswith("install ")]
    assert ["--disable-openapi-validation" in line for line in installs] == [False] * 3 + [True] * 2
    assert place.objects() == set()


async def test_one_that_fits_nowhere_blocks_nobody(place: Place, busybox: EnvironmentSpec) -> None:
    """Not even where only one release is created at a time; why it waits is told."""
    never = changed(busybox, resources=Resources(cpus_request=4000.0))
    events: list[Event] = []
    async with place.session(creations_at_once=1, on_event=events.append) as session:
        outcomes: list[ProvisionOutcome] = []
        async for outcome in session.provision_many([never, never, busybox, busybox]):
            outcomes.append(outcome)
            if len(outcomes) == 2:
                break
        assert {outcome.index for outcome in outcomes if outcome.environment} == {2, 3}
    told = [str(event.attributes) for event in events if event.name == "service.waiting"]
    assert [text for text in told if "nsufficient cpu" in text]
    assert place.objects() == set()


@contextlib.asynccontextmanager
async def quota(place: Place, **hard: str) -> AsyncIterator[None]:
    body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "narrow"}, "spec": {"hard": hard}}
    place.kubectl("apply", "-f", "-", text=json.dumps(body))
    try:
        # The quota's own controller takes a moment to count.
        while "hard" not in place.get("resourcequota/narrow")["status"]:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        yield
    finally:
        place.kubectl("delete", "resourcequota", "narrow")


@pytest.mark.parametrize("engine", ["render-once", "helm"])
async def test_a_used_up_quota_is_waited_for_whole(place: Place, busybox: EnvironmentSpec, engine: str) -> None:
    """An environment of two pods does not hold one while it waits for the other, or two would wait for each other."""
    pair = busybox.model_copy(update={"services": dict.fromkeys(("default", "other"), busybox.services["default"])})
    events: list[Event] = []
    async with quota(place, pods="3"), place.session(engine=engine, on_event=events.append) as session:
        made = 0
        async for outcome in session.provision_many([pair] * 3):
            assert outcome.environment is not None, outcome.error
            made += 1
            if made == 1:
                while not any(event.attributes.get("cause") == "Quota" for event in events):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            await outcome.environment.destroy()
        assert made == 3
    assert place.objects() == set()


async def test_a_quota_is_named_in_the_end(place: Place, busybox: EnvironmentSpec) -> None:
    """At the deadline where it could have had room, and at once where it never has."""
    async with quota(place, pods="1", **{"requests.cpu": "100m"}):
        little = changed(busybox, resources=Resources(cpus_request=0.01))
        async with place.session() as session:
            with pytest.raises(ProvisionError, match=r"^quota: .*exceeded quota: narrow") as caught:
                await session.provision(changed(busybox, resources=Resources(cpus_request=0.2)))
            assert not isinstance(caught.value, ProvisionTimeoutError)
        async with (
            place.session() as holding,
            holding.environment(little),
            place.session(session={"timeout": 20.0}) as session,
        ):
            with pytest.raises(ProvisionTimeoutError, match=r"^not created after 20 s: quota: .*exceeded quota: narrow"):
                await session.provision(little)
            assert len(place.objects("pods")) == 1
            [finding] = [one for one in await session.doctor() if one.check == "quota"]
            assert (finding.status, "pods" in finding.detail) == ("warning", True)
    assert place.objects() == set()


async def test_a_quota_is_named_though_the_time_ends_in_another_try(place: Place, busybox: EnvironmentSpec) -> None:
    """One that waits for its place behind others, say: what it has waited for all the time is the quota."""
    refused = asyncio.Event()

    def told(event: Event) -> None:
        if event.attributes.get("cause") == "Quota":
            refused.set()

    async with (
        quota(place, pods="1"),
        place.session() as holding,
        holding.environment(busybox),
        place.session(creations_at_once=1, on_event=told, session={"timeout": 20.0}) as session,
    ):
        provisioner: Any = session._open().provisioner
        waiting = asyncio.ensure_future(session.provision(busybox))
        await refused.wait()
        await (await provisioner.tools()).creating.acquire()
        with pytest.raises(ProvisionTimeoutError, match=r"^not created after 20 s: quota: .*exceeded quota: narrow"):
            await waiting
    assert place.objects() == set()


async def test_those_whom_a_quota_refused_try_again_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """In turn, so that one who needs much holds up nobody; and when one got in, its pods' start holds no others."""
    monkeypatch.setattr(quota_line, "_PAUSES", (0.0,))
    line, tries, done = QuotaLine(), list[int](), asyncio.Event()
    deadline = asyncio.get_running_loop().time() + 60.0

    async def wait(name: int, refusals: int) -> None:
        for _ in range(refusals):
            async with line.turn(deadline):
                tries.append(name)
                assert line._turns.locked()
                await asyncio.sleep(0)
                assert tries[-1] == name
        async with line.turn(deadline) as got_in:
            tries.append(name)
            got_in()
            await done.wait()

    waiting = [asyncio.ensure_future(wait(name, refusals)) for name, refusals in enumerate((2, 0, 1))]
    while len(tries) < 6:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert tries == [0, 1, 2, 0, 2, 0]
    assert not any(one.done() for one in waiting)
    done.set()
    await asyncio.gather(*waiting)


async def test_a_turn_after_a_refusal_is_waited_for_until_something_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota_line, "_PAUSES", (10_000.0,))
    line, now = QuotaLine(), asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError):
        async with line.turn(now):
            raise AssertionError("it is nobody's turn")
    turn = asyncio.ensure_future(line.turn(now + 60.0).__aenter__())
    await asyncio.sleep(0)
    assert not turn.done()
    line.room()
    (await turn)()
    assert not line._turns.locked()


async def test_volumes_of_stateful_sets_go_too_and_what_is_kept_stays(place: Place, own: Own, tmp_path: Path) -> None:
    kept = config_map("{{ .Release.Name }}-kept\n  annotations: {helm.sh/resource-policy: keep}")
    chart = write_chart(tmp_path, {**STATEFUL, "kept.yaml": kept}, values={"mounts": [{"name": "data", "mountPath": "/data"}]})
    releases = set()
    async with place.session(engine="render-once") as session:
        environments = await asyncio.gather(*(session.provision(own(chart)) for _ in range(2)))
        for environment in environments:
            await environment.default.write_file("/data/x", "kept in the volume")
            releases.add(environment.ref.data["release"])
        assert len(place.objects("persistentvolumeclaims")) == 2
    assert place.objects() == {f"configmap/{release}-kept" for release in releases}
    place.kubectl("delete", "configmap", "--all")


async def test_all_of_a_pods_place_is_known(place: Place, own: Own, tmp_path: Path) -> None:
    """The default one is called so, or marked, or the first; a pod without the label is none."""
    unlabelled = pod(name="{{ .Release.Name }}-helper").replace("inspect/service: default", "role: helper")
    templates = {
        "a.yaml": pod("zebra", name="{{ .Release.Name }}-a"),
        "b.yaml": pod("marked", name="{{ .Release.Name }}-b").replace(
            "inspect/service: marked}", "inspect/service: marked, sandboxcore.dev/default: 'true'}"
        ),
        "c.yaml": unlabelled,
    }
    async with place.session() as session, session.environment(own(write_chart(tmp_path, templates))) as environment:
        assert environment.names == ("marked", "zebra")
        assert (await environment["zebra"].exec(["hostname"])).text().strip().endswith("-a")
    assert place.objects() == set()


@pytest.mark.parametrize("engine", ["render-once", "helm"])
async def test_pods_without_the_releases_label_are_waited_for(place: Place, own: Own, tmp_path: Path, engine: str) -> None:
    """A helper that is no sandbox needs no label of Helm's; nor has it to be told apart from that of another release."""
    labels = "{app.kubernetes.io/instance: {{ .Release.Name | quote }}, inspect/service: "
    helper = {name: text.replace(f"{labels}deployed}}", "{app: redis}") for name, text in DEPLOYMENT.items()}
    bare = pod(name="{{ .Release.Name }}-bare").replace(f"{labels}default}}", "{app: redis}")
    chart = write_chart(tmp_path, {**BARE_POD, **helper, "bare.yaml": bare})
    async with place.session(engine=engine, session={"timeout": 60.0}) as session:
        first, second = await asyncio.gather(*(session.provision(own(chart)) for _ in range(2)))
        for environment in (first, second):
            assert environment.names == ("default",)
            release = environment.ref.data["release"]
            assert place.get(f"deployment/{release}-deployed")["status"]["readyReplicas"] == 1
            assert place.get(f"pod/{release}-bare")["status"]["phase"] == "Running"
    assert place.objects() == set()


async def test_what_pods_wait_for_is_told_before_what_waits_for_pods(place: Place, own: Own, tmp_path: Path) -> None:
    """A volume that waits for its first consumer is no cause where the consumer fits on no node."""
    claim = """\
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: "{{ .Release.Name }}"}
spec: {storageClassName: nobody-provides-it, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
"""
    never = pod().replace("imagePullPolicy", "resources: {requests: {cpu: 4k}}\n      imagePullPolicy")
    charts = [
        write_chart(tmp_path / name, {name: never if name == "both" else pod(), "claim.yaml": claim}) for name in ("both", "one")
    ]
    async with place.session(session={"timeout": 30.0}) as session:
        with pytest.raises(ProvisionTimeoutError, match=r"\A.*nsufficient cpu"):
            await session.provision(own(charts[0]))
        with pytest.raises(ProvisionTimeoutError, match=r"\A.*PersistentVolumeClaim '\w+'"):
            await session.provision(own(charts[1]))
    assert place.objects() == set()


async def test_what_the_cluster_can_not_do_is_refused_before(place: Place, busybox: EnvironmentSpec) -> None:
    asking = changed(busybox, network_policy=NetworkPolicy(allow_domains=("example.org",)))
    async with place.session(values={"networkPolicy": {"cilium": False}}) as session:
        with pytest.raises(CapabilityError, match=r"networkPolicy\.cilium is false"):
            await session.provision(asking)
    async with place.session() as session:
        with pytest.raises(CapabilityError, match="Cilium"):
            await session.provision(asking)
        environment = await session.provision(busybox)
        with pytest.raises(CapabilityError):
            await environment.pause()
        assert len(place.objects("pods")) == 1
    assert place.objects() == set()


async def test_a_bad_image_is_told_at_once(place: Place, own: Own, tmp_path: Path) -> None:
    chart = write_chart(tmp_path, {"pod.yaml": pod(image="sandboxcore.test/no-such-image:1")})
    async with place.session(session={"timeout": 100.0}) as session:
        with pytest.raises(ProvisionError, match=r"no-such-image") as caught:
            await session.provision(own(chart))
        assert not isinstance(caught.value, ProvisionTimeoutError)
    assert place.objects() == set()


async def test_a_user_by_name_is_the_images_own(place: Place, busybox: EnvironmentSpec) -> None:
    """Kubernetes knows numbers only; a guest that is carried in is the container's user and no other."""
    named = changed(busybox, image=reference("debian"), user="nobody")
    async with place.session() as session, session.environment(named) as environment:
        assert (await environment.default.exec(["id", "-un"])).text() == "nobody\n"
        assert (await environment.default.exec(["id", "-un"], user="root")).text() == "root\n"
        await environment.default.write_file("/tmp/mine", b"x")
        assert (await environment.default.exec(["stat", "-c", "%U", "/tmp/mine"])).text() == "nobody\n"
    async with place.session(guest="carry") as session:
        with pytest.raises(CapabilityError, match="by name"):
            await session.provision(named)
        async with session.environment(busybox) as environment:
            assert (await environment.default.exec(["cat"], stdin=b"carried")).stdout == b"carried"
    assert place.objects() == set()
