"""Which charts can be rendered once: each line of the tables is rendered by Helm for real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sandboxcore_helm._charts import BUILT_IN, Charts
from sandboxcore_helm._config import HelmConfig
from sandboxcore_helm._helm import Helm
from sandboxcore_helm._manifest import objects_of
from sandboxcore_helm._markers import NAMES, new_release_name, own_name
from sandboxcore_helm._pattern import Pattern
from sandboxcore_helm._plan import Plan
from sandboxcore_helm._proof import Marked, NotProvenError, prove
from sandboxcore_helm._prover import Prover

from .charts import BARE_POD, DEPLOYMENT, STATEFUL, config_map, write_chart
from .conftest import Place

#: Helm programs and pods are slow on a machine that is busy with other tests.
pytestmark = pytest.mark.timeout(300)

NAME = "{{ .Release.Name }}"

#: What a chart does with its release's name, and a word of the reason why it can't be rendered once.
BROKEN: dict[str, tuple[str, str]] = {
    "truncated": (config_map("{{ .Release.Name | trunc 5 }}-x"), "depends on the name"),
    "upper-case": (config_map(NAME, "{{ .Release.Name | upper }}"), "depends on the name"),
    "encoded": (config_map(NAME, "{{ .Release.Name | b64enc }}"), "depends on the name"),
    "digest": (config_map(NAME, "{{ .Release.Name | sha256sum }}"), "depends on the name"),
    "snake-case": (config_map(NAME, '{{ printf "%sAb" .Release.Name | snakecase }}'), "depends on the name"),
    "first-digit": (config_map(NAME, 'x{{ regexFind "[0-9]+" .Release.Name }}'), "depends on the name"),
    "trimmed": (config_map(NAME, '{{ .Release.Name | trimPrefix "a" }}'), "depends on the name"),
    "sorted": (config_map(NAME, '{{ list .Release.Name "m" | sortAlpha | join "-" }}'), "depends on the name"),
    "conditional": ('{{ if contains "z" .Release.Name }}\n' + config_map(NAME) + "{{ end }}", "how many objects"),
    "port": (config_map(NAME, "{{ add 30000 (mod (adler32sum .Release.Name | atoi) 2000) }}"), "depends on the name"),
    "now": (config_map(NAME, "{{ now | unixEpoch | quote }}"), "'now'"),
    "random": (config_map(NAME, "{{ randAlphaNum 8 }}"), "'randAlphaNum'"),
    "certificate": (config_map(NAME, '{{ (genCA "x" 1).Cert | b64enc }}'), "'genCA'"),
    "uuid": (config_map(NAME, "{{ uuidv4 }}"), "'uuidv4'"),
    "shuffled": (config_map(NAME, '{{ shuffle "abcdef" }}'), "'shuffle'"),
    "looked-up": (config_map(NAME, '{{ (lookup "v1" "Namespace" "" "default").kind }}'), "'lookup'"),
    "shared": (config_map("everybodys"), "every release would share"),
    "list": ("apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: ConfigMap, metadata: {name: " + NAME + "}}]\n", "list"),
    "elsewhere": (config_map(NAME + "\n  namespace: default"), "another namespace"),
}

#: What a chart may do with it.
FINE: dict[str, str] = {
    "plain": config_map(NAME, NAME),
    "full-name": config_map('{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}'),
    "standard": config_map(
        "{{ if contains .Chart.Name .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-x{{ end }}"
    ),
    "quoted": config_map(NAME, "{{ .Release.Name | quote }}"),
    "as-key": f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {NAME}\ndata:\n  {NAME}: x\n",
    "twice": config_map(NAME, f"{NAME}.{NAME}"),
    "in-a-block": config_map(NAME, f"|\n    #!/bin/sh\n    echo {NAME}\n    ---\n    now"),
    "commented": config_map(NAME) + "{{/* now randAlphaNum */}}\n# now\n",
    "field-called-now": config_map(NAME, '{{ .Values.now | default "x" }}'),
}


class Renderer:
    """Proves charts in a namespace."""

    def __init__(self, place: Place) -> None:
        config = HelmConfig.model_validate(place.config())
        self.helm = Helm(config, place.namespace)
        self.charts = Charts(self.helm)
        self.prover = Prover(self.helm, place.namespace)
        self.namespace = place.namespace

    async def pattern(self, chart: Path, values: dict[str, Any] | None = None, *varying: tuple[tuple[str, ...], str]) -> Pattern:
        return await self.prover.pattern(await self.charts.get(str(chart)), self.plan(chart, values, *varying), alone=True)

    def plan(self, chart: Path, values: dict[str, Any] | None = None, *varying: tuple[tuple[str, ...], str]) -> Plan:
        return Plan(chart=str(chart), version=None, repo=None, values=values or {}, varying=varying, release=None)

    async def outcome(self, chart: Path) -> str:
        try:
            await self.pattern(chart)
        except NotProvenError as error:
            return error.reason
        return ""


@pytest_asyncio.fixture
async def renderer(place: Place) -> AsyncIterator[Renderer]:
    yield Renderer(place)


async def test_charts_that_substitution_breaks_are_refused(renderer: Renderer, tmp_path: Path) -> None:
    charts = {name: write_chart(tmp_path / name, {"x.yaml": text}) for name, (text, _) in BROKEN.items()}
    reasons = dict(zip(charts, await asyncio.gather(*map(renderer.outcome, charts.values())), strict=True))
    wrong = {name: reason for name, reason in reasons.items() if BROKEN[name][1] not in reason}
    assert wrong == {}


async def test_a_chart_that_only_writes_the_name_is_taken_and_exact(renderer: Renderer, tmp_path: Path) -> None:
    chart = write_chart(tmp_path, {f"{name}.yaml": text.replace(NAME, f"{NAME}-{name}", 1) for name, text in FINE.items()})
    pattern = await renderer.pattern(chart)
    release, objects = pattern.fill("qw7er2ty", renderer.namespace)
    real = await renderer.helm.dry_run("qw7er2ty", str(chart), {}, labels={})
    assert objects == objects_of(real.manifest) == objects_of(release.manifest)
    assert release.manifest == real.manifest


@pytest.mark.parametrize("templates", [BARE_POD, DEPLOYMENT, STATEFUL], ids=["pod", "deployment", "stateful"])
async def test_charts_of_sandboxes_are_taken(renderer: Renderer, tmp_path: Path, templates: dict[str, str]) -> None:
    assert await renderer.outcome(write_chart(tmp_path, templates)) == ""


async def test_definitions_of_resources_are_helms(renderer: Renderer, tmp_path: Path) -> None:
    chart = write_chart(tmp_path, {"x.yaml": FINE["plain"]}, files={"crds/x.yaml": "kind: CustomResourceDefinition\n"})
    assert "custom resource definitions" in await renderer.outcome(chart)


async def test_templates_in_values_are_looked_through(renderer: Renderer, tmp_path: Path) -> None:
    chart = write_chart(tmp_path, {"x.yaml": config_map(NAME, "{{ tpl .Values.text . }}")})
    with pytest.raises(NotProvenError, match="'now'"):
        await renderer.pattern(chart, {"text": "{{ now }}"})
    await renderer.pattern(chart, {"text": "{{ .Release.Name }}"})


@pytest.mark.parametrize(
    ("use", "taken"),
    [
        ("{{ .Values.meta.id | quote }}", True),
        ('{{ printf "id is %s" .Values.meta.id | quote }}', True),
        ('{{ index .Values "meta" "id" | quote }}{{ if hasKey .Values "other" }}{{ end }}', True),
        ('{{ define "a" }}{{ if eq .mode "x" }}{{ .meta.id | quote }}{{ end }}{{ end }}{{ include "a" .Values }}', True),
        ('{{ $v := .Values }}{{ with $v }}{{ if eq .mode "x" }}{{ .meta.id | quote }}{{ end }}{{ end }}', True),
        ('{{ include "b" (dict "Values" $.Values "c" .Chart) }}{{ define "b" }}{{ .Values.meta.id | quote }}{{ end }}', True),
        ("{{ .Values.meta.id }}", False),
        ("{{ .Values.meta.id | lower | quote }}", False),
        ("{{ .Values.meta.id | trunc 63 | quote }}", False),
        ('{{ if eq .Values.meta.id "hard one" }}a{{ else }}b{{ end }}', False),
    ],
)
async def test_values_that_differ_are_markers_where_they_are_only_written(
    renderer: Renderer, tmp_path: Path, use: str, taken: bool
) -> None:
    chart = write_chart(tmp_path, {"x.yaml": config_map(NAME, use)}, values={"mode": "x", "meta": {"id": ""}})
    text = 'the "hard one": {{}}'.replace("{{}}", "#1, 'x' \\ \t ü")
    if not taken:
        with pytest.raises(NotProvenError) as caught:
            await renderer.pattern(chart, {}, (("meta", "id"), text))
        assert caught.value.holes
        return
    plan = renderer.plan(chart, {}, (("meta", "id"), text))
    pattern = await renderer.pattern(chart, {}, (("meta", "id"), text))
    release, objects = pattern.fill("qw7er2ty", renderer.namespace, plan.texts)
    real = await renderer.helm.dry_run("qw7er2ty", str(chart), plan.values_for("qw7er2ty"), labels={})
    assert objects == objects_of(real.manifest) == objects_of(release.manifest)
    assert release.config == real.config


async def test_the_built_in_chart_passes_with_all_markers(renderer: Renderer) -> None:
    """So that fewer of them do for it when it is used."""
    service = {
        "image": "x",
        "dnsRecord": True,
        "ports": [{"port": 80, "protocol": "TCP"}],
        "files": {"/a": {"text": "x"}},
        "networks": ["n"],
    }
    other = {"image": "y", "networkIsolated": True, "dependsOn": {"a-b": "healthy"}, "volumes": ["v:/v"]}
    values = {
        "services": {"a-b": service, "default": other},
        "networks": {"n": {}},
        "volumes": {"v": {}},
        "schedulingGates": True,
    }
    renderings = [Marked(release=await renderer.helm.dry_run(name, str(BUILT_IN), values, labels={})) for name in NAMES]
    pattern = prove(renderings, renderer.namespace)
    assert pattern.manifest is not None
    release, objects = pattern.fill("qw7er2ty", renderer.namespace)
    real = await renderer.helm.dry_run("qw7er2ty", str(BUILT_IN), values, labels={})
    assert (release.manifest, objects) == (real.manifest, objects_of(real.manifest))


def test_names_avoid_the_charts_words() -> None:
    assert new_release_name("abcdefgh", ()) == "abcdefgh"
    assert new_release_name("abwebfgh", ("web",)) not in (None, "abwebfgh")
    assert new_release_name("abcdefgh", "abcdefghijklmnopqrstuvwxyz") is None
    for _ in range(50):
        name = new_release_name("", ("a", "b"))
        assert name is not None
        assert own_name(name)
        assert not set("ab") & set(name)
    assert [own_name(name) for name in ("2e000003", "12345678", "abc", "abcdefg-", "Abcdefgh", "a1234567")] == [False] * 5 + [
        True
    ]
