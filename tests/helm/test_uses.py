"""Which uses of a value that differs from release to release are no more than writing it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from unittest.mock import Mock

import pytest
from sandboxcore_helm._charts import BUILT_IN, Chart
from sandboxcore_helm._differing import of_place, of_text
from sandboxcore_helm._plan import Plan
from sandboxcore_helm._prover import Prover
from sandboxcore_helm._scan import scan_chart, value_sources
from sandboxcore_helm._uses import Source, more_than_written

from .charts import BARE_POD, write_chart

pytestmark = pytest.mark.tier("none")

WRITTEN = {
    "quoted": "x: {{ .Values.meta.id | quote }}",
    "in a text": 'x: {{ printf "id %s" .Values.meta.id | quote }}',
    "by the root": "{{ range .Values.ports }}{{ $.Values.meta.id | quote }}{{ if eq .name `web` }}x{{ end }}{{ end }}",
    "all of it": "{{- with .Values.meta }}\nmeta: {{- toYaml . | nindent 2 }}\n{{- end }}",
    "one by one": "{{ range $key, $value := .Values.meta }}{{ $key }}: {{ $value | quote }}{{ end }}",
    "of a variable": "{{ $id := .Values.meta.id }}{{ if .Values.other }}{{ $id | quote }}{{ end }}",
    "of a named template": '{{ define "id" }}{{ .Values.meta.id | quote }}{{ end }}{{ include "id" . | nindent 2 }}',
    "where there is none": '{{ if .Values.meta.id }}{{ .Values.meta.id | default "x" | quote }}{{ end }}',
    "by tpl": "{{ tpl (toYaml .Values.meta) . | nindent 2 }}",
    "of all values": '{{ $all := .Values }}{{ if eq $all.mode "x" }}{{ $all.meta.id | quote }}{{ end }}',
    "of all copied": '{{ $all := deepCopy $.Values }}{{ if eq $all.mode "x" }}{{ end }}{{ deepCopy .Values.meta | toYaml }}',
    "within all values": '{{ with .Values }}{{ if eq .mode "x" }}{{ .meta.id | quote }}{{ end }}{{ else }}{{ .x }}{{ end }}',
    "by all values": (
        '{{ include "a" .Values }}{{ define "a" }}{{ if eq $.mode "x" }}{{ include "id" . | nindent 2 }}{{ end }}{{ end }}'
        '{{ define "id" }}{{ .meta.id | quote }}{{ end }}'
    ),
    "by another root": (
        '{{ include "a" (dict "Values" $.Values "port" .port "Chart" .Chart) | quote }}'
        '{{ define "a" }}{{ if eq .Values.mode "x" }}{{ .Values.meta.id }}{{ end }}{{ end }}'
    ),
    "by name": '{{ index .Values "meta" "id" | quote }}{{ get .Values.meta `id` | quote }}{{ index .Values "a-b" "c" | upper }}',
    "in a mapping": '{{ toYaml (dict "id" .Values.meta.id) }}{{ toYaml (default dict .Values.meta) }}',
    "whether there is one": '{{ if and (hasKey .Values "mode") (not (hasKey .Values.meta "id")) }}{{ end }}',
    "beside conditions": '{{ .Values.meta.id | quote }}{{ if and (eq .Values.mode "x") (has "y" .Values.meta.all) }}{{ end }}',
    "beside names": '{{ .Values.meta.id | quote }}{{ printf "%s-web" (include "full" .) | trunc 63 | trimSuffix "-" }}',
    "beside the standard": '{{ .Values.meta.id | quote }}{{ if contains .Chart.Name .Release.Name }}{{ end }}{{ lower "{{" }}',
}
MORE = {
    "compared": '{{ if eq .Values.meta.id "3" }}{{ end }}',
    "compared elsewhere": "{{ if .Values.other }}{{ else if eq (int .Values.meta.id) 3 }}{{ end }}",
    "looked up": "{{ index .Values.flags .Values.meta.id }}",
    "as a key's name": '{{ index .Values "meta" "id" | upper }}',
    "within": '{{ with .Values.meta }}{{ if eq .id "x" }}{{ end }}{{ end }}',
    "of a variable": '{{ $m := .Values.meta }}{{ if eq $m.id "x" }}{{ end }}',
    "of all values": '{{ $all := .Values }}{{ if eq $all.meta.id "x" }}{{ end }}',
    "of all copied": '{{ $all := deepCopy .Values }}{{ if eq $all.meta.id "x" }}{{ end }}',
    "of a second name": '{{ $a := .Values }}{{ $b := $a }}{{ with $b }}{{ if eq .meta.id "x" }}{{ end }}{{ end }}',
    "within all values": '{{ with .Values }}{{ if eq .meta.id "x" }}{{ end }}{{ end }}',
    "of all values one by one": '{{ $all := .Values }}{{ range $all }}{{ if eq .id "x" }}{{ end }}{{ end }}',
    "of all values' text": '{{ $all := .Values }}{{ if contains "x" (toYaml $all) }}{{ end }}',
    "put into all values": '{{ $all := .Values }}{{ $_ := set $all "mode" $all.meta }}',
    "merged": '{{ $_ := merge .Values.other .Values.meta }}{{ if eq .Values.other.id "x" }}{{ end }}',
    "by all values": '{{ include "is" .Values }}{{ define "is" }}{{ if eq .meta.id "x" }}{{ end }}{{ end }}',
    "by all values' dollar": (
        '{{ include "is" .Values }}{{ define "is" }}{{ with .x }}{{ if eq $.meta.id "x" }}{{ end }}{{ end }}{{ end }}'
    ),
    "by all values further on": (
        '{{ with .Values }}{{ include "far" . }}{{ end }}{{ define "far" }}{{ include "is" $ }}{{ end }}'
        '{{ define "is" }}{{ if eq .meta.id "x" }}{{ end }}{{ end }}'
    ),
    "by all values under another name": (
        '{{ include "is" (dict "v" .Values) }}{{ define "is" }}{{ if eq .v.meta.id "x" }}{{ end }}{{ end }}'
    ),
    "by another root": (
        '{{ include "is" (dict "Values" .Values) }}{{ define "is" }}{{ if eq .Values.meta.id "x" }}{{ end }}{{ end }}'
    ),
    "of a named template as a key": (
        '{{ $d := dict (include "id" .) "x" }}{{ if $d.hard }}{{ end }}{{ define "id" }}{{ .Values.meta.id }}{{ end }}'
    ),
    "by another root's text": '{{ if contains "x" (toYaml (dict "Values" .Values "a" (include "a" .))) }}{{ end }}',
    "by name": '{{ if eq (index .Values "meta" "id") "x" }}{{ end }}',
    "by the root and name": '{{ if eq (get (index $ "Values" "meta") "id") "x" }}{{ end }}',
    "looked up by a pipe": '{{ .Values.meta.id | index .Values "flags" }}',
    "looked up further": '{{ index .Values "flags" .Values.meta.id }}',
    "asked for as a key": "{{ if hasKey .Values.flags .Values.meta.id }}{{ end }}",
    "as a key": '{{ $d := dict .Values.meta.id "x" }}{{ if $d.hard }}{{ end }}',
    "as a second key": '{{ if (dict "a" 1 .Values.meta.id "x").hard }}{{ end }}',
    "one by one": '{{ range $key, $value := .Values.meta }}{{ if eq $value "x" }}{{ end }}{{ end }}',
    "of a named template": '{{ if eq (include "id" .) "x" }}{{ end }}{{ define "id" }}{{ .Values.meta.id }}{{ end }}',
    "of a far one": (
        '{{ if eq (include "far" .) "x" }}{{ end }}{{ define "far" }}{{ include "id" . }}{{ end }}'
        '{{ define "id" }}{{ .Values.meta.id }}{{ end }}'
    ),
    "of a computed one": '{{ if eq (include (print "i" "d") .) "x" }}{{ end }}{{ define "id" }}{{ .Values.meta.id }}{{ end }}',
    "handed on": '{{ include "is" .Values.meta }}{{ define "is" }}{{ if eq .id "x" }}{{ end }}{{ end }}',
    "handed on in parts": '{{ include "is" (dict "a" .Values.meta.id) }}{{ define "is" }}{{ if eq .a "x" }}{{ end }}{{ end }}',
    "shortened": "{{ .Values.meta.id | trunc 200 | quote }}",
    "shortened by its format": '{{ printf "%.100s" .Values.meta.id | quote }}',
    "as a format": '{{ printf .Values.meta.id "x" | quote }}',
    "put into another": '{{ $d := dict }}{{ $_ := set $d "id" .Values.meta.id }}{{ if eq $d.id "x" }}{{ end }}',
    "of the root's text": '{{ if contains "hard" (toYaml .) }}{{ end }}',
    "by a method": '{{ if eq (.Values.AsMap.meta.id) "x" }}{{ end }}',
    "in parentheses": '{{ if eq (.Values.meta).id "x" }}{{ end }}',
    "by a name for the root": '{{ $root := . }}{{ if eq $root.Values.meta.id "x" }}{{ end }}',
    "as helm's own": "helm.sh/hook: {{ .Values.meta.id | quote }}",
    "in tpl": '{{ tpl (printf "{{ if eq %q `x` }}{{ end }}" .Values.meta.id) . }}',
    "for tpl to see": "{{ tpl .Values.text .Values.meta }}",
    "for tpl to see as the dot": "{{ with .Values.meta }}{{ tpl $.Values.text . }}{{ end }}",
    "for tpl to see with all": "{{ with .Values }}{{ tpl .text . }}{{ end }}",
    "below": '{{ if eq .Values.id "x" }}{{ end }}',
    "unreadable": "{{ .Values.meta.id | quote }} {{ if",
}


def _reason(text: str, *, by_tpl: bool = False) -> str:
    return more_than_written(("meta", "id"), [Source(name="x.yaml", text=text, scope="x", by_tpl=by_tpl)])


@pytest.mark.parametrize("text", WRITTEN.values(), ids=WRITTEN.keys())
def test_what_is_only_written_is_seen_to_be(text: str) -> None:
    assert _reason(text) == ""


@pytest.mark.parametrize("text", MORE.values(), ids=MORE.keys())
def test_all_else_is_told_with_its_place(text: str) -> None:
    assert _reason(text).startswith("x.yaml:")


def test_what_tpl_brings_is_followed() -> None:
    template = Source(name="x.yaml", text='{{ if eq (tpl .Values.expected .) "x" }}{{ end }}', scope="x")
    value = Source(name="values", text="{{ .Values.meta.id }}", scope="values", by_tpl=True)
    assert more_than_written(("meta", "id"), [template]) == ""
    assert more_than_written(("meta", "id"), [template, value]).startswith("x.yaml:1: does more with meta.id")


def _place(chart: Path, *path: str, **values: object) -> str:
    found = Chart(path=chart, scan=scan_chart(chart), built_in=chart == BUILT_IN)
    return of_place(path, found, value_sources(values))


def test_templates_in_values_are_read(tmp_path: Path) -> None:
    hard = '{{ if eq .Values.sampleMetadataDifficulty "hard" }}kind: ConfigMap{{ end }}'
    labels = '{{ if contains "x" (include "agentEnv.labels" $) }}kind: ConfigMap{{ end }}'
    written = "metadata: {name: {{ .Release.Name }}, annotations: {x: {{ .Values.sampleMetadataDifficulty | quote }}}}"
    assert "values:1: does more" in _place(BUILT_IN, "sampleMetadataDifficulty", additionalResources=[hard])
    assert _place(BUILT_IN, "sampleMetadataOther", additionalResources=[hard]) == ""
    assert _place(BUILT_IN, "sampleMetadataDifficulty", additionalResources=[written]) == ""
    assert "values:1" in _place(BUILT_IN, "labels", "inspectSampleUUID", additionalResources=[labels])
    assert _place(BUILT_IN, "labels", "inspectSampleUUID", additionalResources=[written, hard]) == ""
    assert _place(BUILT_IN, "services", "default", "runtimeClassName") != ""
    files = {"part.tmpl": '{{ if eq .Values.id "x" }}{{ end }}'}
    chart = write_chart(tmp_path, {**BARE_POD, "x.yaml": '{{ tpl (.Files.Get "part.tmpl") . }}'}, files=files)
    assert "part.tmpl:1" in _place(chart, "id")


@pytest.mark.parametrize(
    ("template", "read"),
    [
        ('{{/* see _helpers.tpl */}}{{ .Files.Get "README.md" }}{{ .Values.tpl }}{{ include "tpl" . }}', set()),
        ('{{ tpl (.Files.Get "files/a.txt") . }}', {"files/a.txt"}),
        (
            '{{ range $path, $_ := .Files.Glob "files/*" }}{{ tpl ($.Files.Get $path) $ }}{{ end }}',
            {"files/a.txt", "files/b.txt"},
        ),
        ('{{ tpl ((.Files.Glob "*.md").AsConfig) . }}', {"README.md", "files/a.txt", "files/b.txt"}),
        ("{{ tpl (.Files.Get .Values.name) . }}", {"README.md", "files/a.txt", "files/b.txt"}),
        ('{{ $x := "README.md" }}{{ tpl (.Files.Get $x) . }}', {"README.md", "files/a.txt", "files/b.txt"}),
        ('{{ $f := index . "Files" }}{{ tpl ($f.Get "README.md") . }}', {"README.md", "files/a.txt", "files/b.txt"}),
    ],
)
def test_files_are_read_that_tpl_may_get(tmp_path: Path, template: str, read: set[str]) -> None:
    files = {"README.md": "Write {{ now or {{ if", "files/a.txt": "{{ .Values.id }}", "files/b.txt": "{{ .Values.id }}"}
    scan = scan_chart(write_chart(tmp_path, {"x.yaml": template}, files=files))
    assert {source.name for source in scan.sources} - {"templates/x.yaml"} == read


def test_places_are_read_once_for_all_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where one of the values that differ has to be rendered, which makes each release one of its own kind."""
    asked: list[tuple[str, ...]] = []

    def noted(path: tuple[str, ...], chart: Chart, values: Sequence[Source]) -> str:
        asked.append(path)
        return of_place(path, chart, values)

    monkeypatch.setattr("sandboxcore_helm._prover.of_place", noted)
    chart = Chart(path=tmp_path, scan=scan_chart(write_chart(tmp_path, {"x.yaml": '{{ if eq .Values.a "x" }}{{ end }}'})))
    prover = Prover(Mock(), "n")
    for index in range(3):
        varying = ((("a",), f"a {index}"), (("b",), f"b {index}"))
        plan = Plan(chart="x", version=None, repo=None, values={}, varying=varying, release=None)
        unfit = prover.to_be_rendered(chart, plan)
        assert list(unfit) == [("a",)]
        assert prover.to_be_rendered(chart, plan.fixed(unfit)) == {}
    assert asked == [("a",), ("b",)]


@pytest.mark.parametrize(
    ("schema", "taken"),
    [
        ('{"type": "object", "properties": {"id": {"type": "string"}}}', True),
        ('{"properties": {"id": {"maxLength": 100}}}', False),
        ('{"additionalProperties": {"pattern": "^.{1,100}$"}}', False),
        ('{"properties": {"other": {"maxLength": 100}}}', True),
        ('{"allOf": [{"properties": {"id": {"maxLength": 100}}}]}', False),
    ],
)
def test_a_schema_that_may_refuse_a_text_is_seen(tmp_path: Path, schema: str, taken: bool) -> None:
    chart = write_chart(tmp_path, BARE_POD, files={"values.schema.json": schema})
    assert (_place(chart, "id") == "") is taken


def test_imported_values_and_helms_own_keys_are_not_followed(tmp_path: Path) -> None:
    chart = write_chart(tmp_path, BARE_POD)
    assert _place(chart, "annotations", "inspectTaskName") == ""
    assert "Helm itself" in _place(chart, "annotations", "helm.sh/hook")
    with (chart / "Chart.yaml").open("a") as file:
        file.write("dependencies: [{name: a, version: 1.0.0, import-values: [data]}]\n")
    assert "imports values" in _place(chart, "annotations", "inspectTaskName")


def test_texts_that_yaml_has_in_other_ways_are_not_put_in(tmp_path: Path) -> None:
    folder = write_chart(tmp_path, BARE_POD)
    own = Chart(path=folder, scan=scan_chart(folder))
    built_in = Chart(path=BUILT_IN, scan=scan_chart(BUILT_IN), built_in=True)
    assert [bool(of_text(own, ("a",), text)) for text in ("", "{{ x }}", " x", "x\n", "x\r\ny", "\u2028")] == [True] * 6
    assert [of_text(own, ("a",), text) for text in ("x", "a: 'b'\n\tc", "ü 3")] == [""] * 3
    assert [bool(of_text(built_in, ("labels", "a"), text)) for text in ("x-1", "a b", "x" * 64)] == [False, True, True]
