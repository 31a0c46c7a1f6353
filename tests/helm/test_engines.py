"""Two engines, one result: what they create, and what Helm 3 and 4 can do with it afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from sandboxcore_helm._helm import Helm
from sandboxcore_helm._release import Release

from sandboxcore import EnvironmentSpec, Session
from sandboxcore.errors import SpecError, UsageError
from sandboxcore.values import Event
from tests.cluster import helm
from tests.images import reference

from .charts import BARE_POD, DEPLOYMENT, STATEFUL, config_map, pod, write_chart
from .conftest import KINDS, Place
from .registry import registry_of

Own = Callable[..., EnvironmentSpec]
#: What a release's objects differ in by nature.
_VOLATILE = (
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "generation",
    "ownerReferences",
    "generateName",
    "managedFields",
    "selfLink",
)

#: Helm programs and pods are slow on a machine that is busy with other tests.
pytestmark = pytest.mark.timeout(300)
_SERVERS = ("clusterIP", "clusterIPs", "nodeName", "volumeName")
_OURS = ("sandboxcore.dev/run-id", "sandboxcore.dev/environment-id", "sandboxcore.dev/owner")


def _engines(events: list[Event]) -> list[tuple[str, str]]:
    created = [event.attributes for event in events if event.name == "helm.release.created"]
    return [(attributes["engine"], attributes.get("reason", "")) for attributes in created]


def _comparable(place: Place, release: str) -> dict[str, Any]:
    """Read the objects of a release that charts write, the names of release and run replaced."""
    found: dict[str, Any] = {}
    for item in json.loads(place.kubectl("get", KINDS, "-o", "json"))["items"]:
        metadata = item["metadata"]
        owned = (metadata.get("annotations") or {}).get("meta.helm.sh/release-name") == release
        if item["kind"] == "ReplicaSet" or not owned:
            continue
        item.pop("status", None)
        for key in _VOLATILE:
            metadata.pop(key, None)
        for key in _OURS:
            metadata.get("labels", {}).pop(key, None)
        metadata.get("annotations", {}).pop("kubernetes.io/change-cause", None)
        spec = item.get("spec") or {}
        for key in _SERVERS:
            spec.pop(key, None)
        text = json.dumps(item, sort_keys=True).replace(release, "RELEASE")
        found[f"{item['kind']}/{metadata['name'].replace(release, 'RELEASE')}"] = json.loads(text)
    return found


async def _objects_by(place: Place, engine: str, spec: EnvironmentSpec) -> dict[str, Any]:
    async with place.session(engine=engine, session={"run_id": "one-run"}) as session, session.environment(spec) as environment:
        assert environment.ref.data["engine"] == engine
        assert (await environment.default.exec(["echo", "here"])).stdout == b"here\n"
        found = _comparable(place, environment.ref.data["release"])
    # The token's volume has a name of its own in each pod.
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


async def test_both_engines_create_the_same(place: Place, busybox: EnvironmentSpec) -> None:
    by_render, by_helm = [await _objects_by(place, engine, busybox) for engine in ("render-once", "helm")]
    assert len(by_helm) >= 2
    assert by_render == by_helm
    assert place.objects() == set()


async def test_both_engines_create_the_same_of_ones_own_chart(place: Place, own: Own, tmp_path: Path) -> None:
    chart = write_chart(tmp_path, {**STATEFUL, **DEPLOYMENT, "more.yaml": config_map("{{ .Release.Name }}")})
    by_render, by_helm = [await _objects_by(place, engine, own(chart)) for engine in ("render-once", "helm")]
    assert {name.partition("/")[0] for name in by_helm} == {"StatefulSet", "Deployment", "ConfigMap"}
    assert by_render == by_helm
    assert place.objects() == set()


@pytest.mark.parametrize("major", [3, 4])
async def test_helm_manages_what_was_rendered_once(place: Place, own: Own, tmp_path: Path, major: int) -> None:
    """List, status, get, history, upgrade, and an environment that was upgraded is destroyed whole."""
    chart = write_chart(
        tmp_path, {**BARE_POD, "more.yaml": config_map("{{ .Release.Name }}", "{{ .Values.value }}")}, values={"value": "v1"}
    )
    async with place.session(engine="render-once", labels={"team": "blue"}) as session:
        environment = await session.provision(own(chart, values={"value": "v2"}), labels={"task": "one"})
        release, run_id = environment.ref.data["release"], session.run_id
        [listed] = json.loads(place.helm(major, "list", "-o", "json", "--selector", "team=blue,task=one"))
        assert (listed["name"], listed["status"], listed["chart"]) == (release, "deployed", "tiny-0.1.0")
        status = json.loads(place.helm(major, "status", release, "-o", "json"))
        assert (status["info"]["status"], status["config"]) == ("deployed", {"value": "v2", "labels": {"team": "blue"}})
        assert run_id in status["info"]["description"]
        assert f"name: {release}" in place.helm(major, "get", "manifest", release)
        assert json.loads(place.helm(major, "get", "values", release, "--all", "-o", "json"))["value"] == "v2"
        place.helm(major, "upgrade", release, str(chart), "--reuse-values", "--set", "value=v3")
        history = json.loads(place.helm(major, "history", release, "-o", "json"))
        assert [entry["status"] for entry in history] == ["superseded", "deployed"]
        assert place.get(f"configmap/{release}")["data"] == {"value": "v3"}
        assert (await environment.default.exec(["true"])).exit_code == 0
        [found] = await session.find(run_id=run_id)
        assert (found.ref.owner, found.ref.labels["task"], found.ref.state) == (environment.ref.owner, "one", "ready")
        await environment.destroy()
        assert place.objects() == set()


@pytest.mark.parametrize("major", [3, 4])
async def test_helm_uninstalls_what_was_rendered_once(place: Place, busybox: EnvironmentSpec, major: int) -> None:
    async with place.session(major=major) as session:
        environment = await session.provision(busybox)
        release = environment.ref.data["release"]
        place.helm(major, "uninstall", release, "--wait")
        assert json.loads(place.helm(major, "list", "-o", "json", "--all" if major == 3 else "-d")) == []
        assert await session.find(run_id=session.run_id) == []
        await environment.destroy()
    assert place.objects() == set()


async def test_the_reason_for_running_helm_is_told(place: Place, own: Own, tmp_path: Path) -> None:
    events: list[Event] = []
    random = write_chart(tmp_path / "a", {**BARE_POD, "x.yaml": config_map("{{ .Release.Name }}", "{{ randAlphaNum 5 }}")})
    plain = write_chart(tmp_path / "b", BARE_POD)
    async with place.session(on_event=events.append) as session:
        for spec in (own(random), own(plain), own(plain), own(plain, release="2e000003")):
            async with session.environment(spec) as environment:
                assert environment.names == ("default",)
    engines = _engines(events)
    assert [engine for engine, _ in engines] == ["helm", "helm", "render-once", "helm"]
    words = ("templates/x.yaml:6: uses 'randAlphaNum'", "first of its kind", "", "the user's own")
    assert [word for word, (_, reason) in zip(words, engines, strict=True) if word not in reason] == []
    with pytest.raises(UsageError, match="can't be rendered once"):
        async with place.session(engine="render-once") as session:
            await session.provision(own(random))
    assert place.objects() == set()


async def test_helm_installs_what_only_speaks_of_hooks_before_the_install(
    place: Place, own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed: list[str] = []
    install = Helm.install

    async def noted(self: Helm, name: str, *args: Any, **options: Any) -> Release:
        installed.append(name)
        return await install(self, name, *args, **options)

    monkeypatch.setattr(Helm, "install", noted)
    chart = write_chart(tmp_path, BARE_POD, files={"README.md": "It has no pre-install hooks."})
    async with place.session(engine="helm") as session:
        for spec in (own(chart), own(chart, values={"prompt": "Write a pre-install hook."})):
            async with session.environment(spec) as environment:
                assert installed.pop() == environment.ref.data["release"]
    assert place.objects() == set()


async def test_a_name_of_the_users_own_may_begin_with_a_digit(place: Place, own: Own, tmp_path: Path) -> None:
    chart = write_chart(tmp_path, BARE_POD)
    async with place.session() as session, session.environment(own(chart, release="7ab3cd9e")) as environment:
        assert environment.ref.data["release"] == "7ab3cd9e"
        with pytest.raises(Exception, match=r"in use|exists"):
            await session.provision(own(chart, release="7ab3cd9e"))
        assert (await environment.default.exec(["true"])).exit_code == 0
    assert place.objects() == set()


async def test_values_that_differ_share_one_rendering(place: Place, own: Own, tmp_path: Path) -> None:
    """A sample's metadata is text wherever it goes: nothing can be injected by it."""
    chart = write_chart(
        tmp_path, {"pod.yaml": pod(), "x.yaml": config_map("{{ .Release.Name }}", "{{ .Values.sample | quote }}")}
    )
    evil = ["one", "a,services.default.image=evil", 'x"\n  injected: "yes', "{{ .Release.Name }}", "$(reboot) `id` 'q' \\ ü"]
    events: list[Event] = []
    async with place.session(on_event=events.append) as session:
        specs = [own(chart, per_release={"sample": text, "annotations": {"inspectTaskName": text}}) for text in evil]
        outcomes = {outcome.index: outcome async for outcome in session.provision_many(specs)}
        for index, text in enumerate(evil):
            environment = outcomes[index].environment
            assert environment is not None, outcomes[index].error
            release = environment.ref.data["release"]
            assert place.get(f"configmap/{release}")["data"] == {"value": text}
            assert place.get(f"pod/{release}-default")["metadata"]["annotations"]["inspectTaskName"] == text
            assert json.loads(place.helm(3, "get", "values", release, "-o", "json"))["sample"] == text
    assert sum(engine == "render-once" for engine, _ in _engines(events)) >= 3
    assert place.objects() == set()


async def test_values_that_differ_decide_as_helm_has_them_decide(place: Place, busybox: EnvironmentSpec) -> None:
    """One that a template of the values asks for is rendered, whatever the other releases have there; the others are put in."""
    resource = """\
{{ if eq .Values.sampleMetadataDifficulty "hard" }}
apiVersion: v1
kind: ConfigMap
metadata: {name: "{{ .Release.Name }}-hard"}
data: {id: {{ .Values.sampleMetadataId | quote }}}
{{ end }}
"""
    service = {"image": reference("busybox"), "command": ["sleep", "infinity"], "imagePullPolicy": "Never"}
    events: list[Event] = []
    async with place.session(on_event=events.append) as session:
        specs = []
        for index, difficulty in enumerate(["easy", "hard", "hard", "easy", "", "", "hard"]):
            differing = {"sampleMetadataDifficulty": difficulty, "sampleMetadataId": f"id {index}", "labels": {"a": str(index)}}
            values = {"services": {"default": service}, "additionalResources": [resource]}
            specs.append(busybox.model_copy(update={"options": {"helm": {"values": values, "per_release": differing}}}))
        async for outcome in session.provision_many(specs):
            assert outcome.environment is not None, outcome.error
            release, spec = outcome.environment.ref.data["release"], specs[outcome.index]
            made = f"configmap/{release}-hard"
            assert (made in place.objects()) is (spec.options["helm"]["per_release"]["sampleMetadataDifficulty"] == "hard")
            if made in place.objects():
                assert place.get(made)["data"] == {"id": f"id {outcome.index}"}
            [pod_name] = [name for name in place.objects("pods") if release in name]
            assert place.get(pod_name)["metadata"]["labels"]["a"] == str(outcome.index)
    engines = _engines(events)
    assert sum(engine == "render-once" for engine, _ in engines) >= 3, engines
    told = {reason.partition(";")[0] for _, reason in engines}
    assert told == {"values:1: does more with sampleMetadataDifficulty than write it", "a value that differs is empty"}
    assert place.objects() == set()


async def test_the_name_of_a_task_and_the_id_of_a_sample_share_one_rendering(place: Place, busybox: EnvironmentSpec) -> None:
    """Labels of the built-in chart take only some texts, markers as well."""
    events: list[Event] = []
    async with place.session(on_event=events.append) as session:
        for index in range(3):
            differing = {"annotations": {"inspectTaskName": f"task: '{index}'"}, "labels": {"inspectSampleUUID": f"u{index}"}}
            spec = busybox.model_copy(update={"options": {"helm": {"per_release": differing}}})
            async with session.environment(spec) as environment:
                metadata = place.get(f"pod/{environment.default.ref.data['pod']}")["metadata"]
                assert metadata["annotations"]["inspectTaskName"] == f"task: '{index}'"
                assert metadata["labels"]["inspectSampleUUID"] == f"u{index}"
    assert _engines(events) == [("render-once", "")] * 3


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[str]:
    """Serve a chart repository."""
    chart = write_chart(tmp_path, BARE_POD)
    folder = tmp_path / "repository"
    folder.mkdir()
    with tarfile.open(folder / "tiny-0.1.0.tgz", "w:gz") as archive:
        archive.add(chart, "tiny")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    url = f"http://127.0.0.1:{server.server_port}"
    (folder / "index.yaml").write_text(
        f"apiVersion: v1\nentries: {{tiny: [{{name: tiny, version: 0.1.0, urls: ['{url}/tiny-0.1.0.tgz']}}]}}\n"
    )
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield url
    server.shutdown()
    thread.join()
    server.server_close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


async def test_charts_come_from_folders_archives_and_repositories(
    place: Place, own: Own, repository: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    archive = tmp_path / "repository" / "tiny-0.1.0.tgz"
    specs = [own(archive), own(f"{repository}/tiny-0.1.0.tgz"), own("tiny", repo=repository, version="0.1.0")]
    async with place.session() as session:
        environments = await asyncio.gather(*map(session.provision, specs))
        assert [environment.names for environment in environments] == [("default",)] * 3
        with pytest.raises(UsageError, match=r"9\.9\.9"):
            await session.provision(own("tiny", repo=repository, version="9.9.9"))
    assert len(list((tmp_path / "cache").rglob("*.tgz"))) == 1
    assert place.objects() == set()


@pytest.mark.parametrize("major", [3, 4])
async def test_charts_come_from_registries(
    place: Place, own: Own, repository: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, major: int
) -> None:
    """With a version and without, and from one that nobody vouches for."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with registry_of(tmp_path / "repository" / "tiny-0.1.0.tgz", "tiny", "0.1.0") as (reference, certificate):
        async with place.session(major=major) as session:
            with pytest.raises(UsageError, match=r"can't be downloaded.*certificate"):
                await session.provision(own(reference, version="0.1.0"))
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            environments = await asyncio.gather(
                session.provision(own(reference, version="0.1.0")), session.provision(own(reference))
            )
            assert [environment.names for environment in environments] == [("default",)] * 2
            with pytest.raises(UsageError, match=r"can't be downloaded.*9\.9\.9"):
                await session.provision(own(reference, version="9.9.9"))
    assert place.objects() == set()


async def test_a_charts_mistakes_are_told_as_helm_tells_them(
    place: Place, own: Own, busybox: EnvironmentSpec, tmp_path: Path
) -> None:
    broken = write_chart(tmp_path / "a", {"x.yaml": "kind: {{ .Values.a.b.c }}\n"})
    schema = {"values.schema.json": '{"type": "object", "properties": {"count": {"type": "integer"}}}'}
    strict = write_chart(tmp_path / "b", BARE_POD, files=schema)
    values = tmp_path / "values.yaml"
    values.write_text("a: 1\nb: [\n")
    async with place.session() as session:
        for spec, words in (
            (own(broken), ("tiny/templates/x.yaml:1", "nil pointer")),
            (own(strict, values={"count": "many"}), ("count", "integer")),
            (own(tmp_path / "none"), ("no such folder",)),
            (own(tmp_path), ("Chart.yaml",)),
            (own(strict, values=str(values)), ("values.yaml:3",)),
        ):
            with pytest.raises(UsageError) as caught:
                await session.provision(spec)
            message = str(caught.value)
            assert [word for word in words if word not in message] == [], message
            assert "Error:" not in message
            assert "INSTALLATION FAILED" not in message
        with pytest.raises(SpecError, match=r"services\.default"):
            both = busybox.model_copy(update={"options": {"helm": {"chart": str(strict)}}})
            await session.provision(both)
    assert place.objects() == set()


async def test_a_chart_without_sandboxes_is_told(place: Place, own: Own, tmp_path: Path) -> None:
    chart = write_chart(tmp_path, {"x.yaml": config_map("{{ .Release.Name }}")})
    async with place.session() as session:
        with pytest.raises(Exception, match="has no sandbox"):
            await session.provision(own(chart))
    assert place.objects() == set()


async def test_the_program_without_a_kubeconfig_takes_the_pods_account(place: Place, own: Own, tmp_path: Path) -> None:
    """What ``in_cluster`` rests on; the account may do nothing, and the refusal names it."""
    async with place.session() as session, session.environment(own(write_chart(tmp_path, BARE_POD))) as environment:
        for major in (3, 4):
            await environment.default.write_file("/tmp/helm", helm(major).read_bytes(), mode=0o755)
            listed = await environment.default.exec(
                ["/tmp/helm", "list", "--namespace", place.namespace], env={"KUBECONFIG": os.devnull}
            )
            assert f"system:serviceaccount:{place.namespace}:default" in listed.stderr.decode()
    assert place.objects() == set()


def test_the_program_is_looked_for(place: Place, busybox: EnvironmentSpec) -> None:
    async def use(helm: str) -> None:
        async with Session("helm", config=place.config() | {"helm": helm}) as session:
            await session.provision(busybox)

    with pytest.raises(UsageError, match="no program 'no-such-helm'"):
        asyncio.run(use("no-such-helm"))
