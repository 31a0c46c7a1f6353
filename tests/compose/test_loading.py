# ruff: noqa: E501
"""Loading: what callers pass in, and what a file may cost."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from sandboxcore_compose import load
from sandboxcore_compose._dotenv import DotenvError, parse_dotenv
from sandboxcore_compose._scalars import Timestamp, go_text, resolve
from sandboxcore_compose._schema import _compiled, _validator
from sandboxcore_compose._template import InvalidTemplateError, RequiredVariableError, substitute
from sandboxcore_compose._units import format_duration, parse_bytes, parse_duration, split_command

from sandboxcore.errors import SpecError


def write(folder: Path, text: str, name: str = "compose.yaml") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def problems(folder: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(SpecError) as found:
        load(write(folder, text))
    return found.value.problems


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None), ("~", None), ("null", None), ("true", True), ("FALSE", False), ("yes", "yes"), ("on", "on"), ("1", 1), ("-1", -1),
        ("017", 15), ("0o17", 15), ("0x1F", 31), ("0b11", 3), ("1_000", 1000), ("1e3", 1000.0), (".5", 0.5), ("08", 8.0), ("22:22", "22:22"),
        ("1.2.3", "1.2.3"), ("+1", 1), ("-", "-"), (".", "."), ("2001-01-02", Timestamp("2001-01-02")), ("18446744073709551616", 1.8446744073709552e19),
    ],
)  # fmt: skip
def test_plain_scalars(text: str, value: object) -> None:
    assert resolve(text) == value
    assert type(resolve(text)) is type(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (1.5, "1.5"),
        (1e6, "1e+06"),
        (123456.7, "123456.7"),
        (1234567.0, "1.234567e+06"),
        (1e-5, "1e-05"),
        (True, "true"),
    ],
)
def test_numbers_become_text_as_go_writes_them(value: object, text: str) -> None:
    assert go_text(value) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$A", "a"), ("${A}", "a"), ("$$A", "$A"), ("$", "$"), ("$1", "$1"), ("$(x)", "$(x)"), ("${N:-d}", "d"), ("${E-d}", ""), ("${E:-d}", "d"),
        ("${A:+x}", "x"), ("${E:+x}", ""), ("${E+x}", "x"), ("${N:-${A}}", "a"), ("${N:-{x}}", "{x}"), ("${N:-}}", "}"), ("${N-b}c}", "bc}"),
        ("${N:-{}", "{"), ("${A}${N}", "a"), ("${N:-a:b}", "a:b"), ("$Aé", "aé"), ("${A?x}", "a"),
    ],
)  # fmt: skip
def test_variables(text: str, value: str) -> None:
    assert substitute(text, {"A": "a", "E": ""}.get) == value


@pytest.mark.parametrize(
    "text", ["${", "${}", "${1A}", "${A", "${A:}", "${A:=b}", "${ A}", "${A/b}", "${N:-\n}", "${N:-" * 80 + "}" * 80]
)
def test_templates_that_are_none(text: str) -> None:
    with pytest.raises(InvalidTemplateError):
        substitute(text, {}.get)


def test_a_required_variable_says_why() -> None:
    with pytest.raises(RequiredVariableError, match="N is required: give a"):
        substitute("${N:?give $A}", {"A": "a"}.get)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1.5g", 1610612736), ("1k", 1024), ("1 m", 1048576), ("10", 10), ("1KiB", 1024), ("1e3", 1000), ("2p", 2 << 50)],
)
def test_sizes(text: str, value: int) -> None:
    assert parse_bytes(text) == value


@pytest.mark.parametrize("text", ["", "g", "1x", "-1", "1 k ", "0x10", "1kbb"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("90s", "1m30s"), ("1.5s", "1.5s"), ("500ms", "500ms"), ("1d", "24h0m0s"), ("0", "0s"), ("1us", "1µs"), ("-1s", "-1s")],
)
def test_durations(text: str, shown: str) -> None:
    assert format_duration(parse_duration(text)) == shown


@pytest.mark.parametrize(
    ("line", "words", "cut"),
    [
        ("a b", ["a", "b"], ""), ("a 'b c' \"d e\"", ["a", "b c", "d e"], ""), ("a\\ b", ["a b"], ""), ("a | b", ["a"], "| b"),
        ("a 2>&1", ["a"], ">&1"), ("a \"|\"", ["a", "|"], ""), ("a ''", ["a", ""], ""), ("a `b c`", ["a", "`b c`"], ""),
    ],
)  # fmt: skip
def test_command_lines(line: str, words: list[str], cut: str) -> None:
    assert split_command(line) == (words, cut)


def test_dotenv_files() -> None:
    text = '# c\nexport A=1\nB=\'$A b\'\nC="$A\\nb" # c\nD=x # c\nE=x#y\nF\nG: yaml\nH=\nI=${A:-z}$O\n\nJ="two\nlines"\n'
    assert parse_dotenv(text, {"O": "outer", "F": "inherited"}.get) == {
        "A": "1", "B": "$A b", "C": "1\nb", "D": "x", "E": "x#y", "F": "inherited", "G": "yaml", "H": "", "I": "1outer", "J": "two\nlines",
    }  # fmt: skip


@pytest.mark.parametrize(("text", "line"), [("A=1\nB C=2", 2), ("A='open\n", 1), ("\n\n=x", 3), ("A=${", 1)])
def test_a_wrong_line_of_a_dotenv_file_is_named(text: str, line: int) -> None:
    with pytest.raises(DotenvError) as found:
        parse_dotenv(text, {}.get)
    assert found.value.line == line


def test_variables_win_over_the_env_file_and_env_files_replace_it(tmp_path: Path) -> None:
    file = write(tmp_path, "services: {a: {image: '$A-$B-$C'}}")
    (tmp_path / ".env").write_text("A=dot\nB=dot\n")
    (tmp_path / "other.env").write_text("B=other\n")
    assert load(file, variables={"A": "given"}).services["a"]["image"] == "given-dot-"
    assert load(file, variables={"A": "given"}).missing == ("C",)
    assert load(file, env_files=[tmp_path / "other.env"]).services["a"]["image"] == "-other-"


def test_the_process_environment_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_PROCESS", "secret")
    file = write(tmp_path, "services: {a: {image: 'x$FROM_PROCESS', environment: [FROM_PROCESS]}}")
    found = load(file).services["a"]
    assert (found["image"], found["environment"]) == ("x", {"FROM_PROCESS": None})


def test_names_of_a_project(tmp_path: Path) -> None:
    folder = tmp_path / "My Project!"
    folder.mkdir()
    assert load(write(folder, "services: {a: {image: x}}")).name == "myproject"
    file = write(folder, "name: from-${N}\nservices: {a: {image: '$COMPOSE_PROJECT_NAME'}}")
    assert load(file, variables={"N": "file"}).services["a"]["image"] == "from-file"
    assert load(file, variables={"COMPOSE_PROJECT_NAME": "var"}).name == "var"
    assert load(file, variables={"COMPOSE_PROJECT_NAME": "var"}, project_name="given").name == "given"
    assert "can't be a project's name" in problems(folder, "name: BAD\nservices: {a: {image: x}}")[0]


def test_a_folder_means_its_file_and_override(tmp_path: Path) -> None:
    write(tmp_path, "services: {a: {image: x}}")
    write(tmp_path, "services: {a: {user: u}}", "compose.override.yaml")
    assert load(tmp_path).services["a"]["user"] == "u"
    assert "user" not in load(tmp_path / "compose.yaml").services["a"]
    with pytest.raises(SpecError, match="no Compose file here"):
        load(tmp_path.parent / tmp_path.name / ".." / tmp_path.name / "..")


def test_profiles(tmp_path: Path) -> None:
    file = write(tmp_path, "services: {a: {image: x}, b: {image: x, profiles: [p]}, c: {image: x, profiles: [q]}}")
    assert list(load(file).services) == ["a"]
    assert list(load(file, profiles=["p"]).services) == ["a", "b"]
    assert list(load(file, profiles=["*"]).services) == ["a", "b", "c"]
    assert list(load(file, variables={"COMPOSE_PROFILES": "p, q"}).services) == ["a", "b", "c"]


def test_our_check_of_the_schema_agrees_with_the_library() -> None:
    documents = [
        {}, {"services": {}}, {"services": {"a": {"image": 1}}}, {"services": {"a b": {}}}, {"services": None}, {"name": "x", "x-y": 1},
        {"services": {"a": {"ports": [80, "80", {"target": 1}]}}}, {"services": {"a": {"ports": [80, 80]}}}, {"services": {"a": {"cap_add": ["A", "A"]}}},
        {"services": {"a": {"depends_on": {"b": {}}}}}, {"services": {"a": {"oom_score_adj": 5000}}}, {"services": {"a": {"cgroup": "other"}}},
        {"services": {"a": {"container_name": "-"}}}, {"services": {"a": {"environment": {"A": None, "B": 1.5}}}}, {"version": 3}, {"networks": {"n": None}},
    ]  # fmt: skip
    assert [_compiled()(document) for document in documents] == [_validator().is_valid(document) for document in documents]


LAUGHS = 'x-a: &a ["lol", "lol", "lol"]\n' + "".join(
    f"x-{n}: &{n} [{', '.join([f'*{p}'] * 9)}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True)
)
BOMBS = {
    "laughs": LAUGHS + "services: {a: {image: x}}\n",
    "merged": "x-a: &a {k: 1}\n"
    + "".join(f"x-{i}: &m{i} {{<<: [{', '.join(['*a' if i == 0 else f'*m{i - 1}'] * 9)}], k{i}: 1}}\n" for i in range(30)),
    "itself": "services: &a {b: *a}\n",
    "deep list": "services: " + "[" * 100_000,
    "deep mapping": "services: " + "{a: " * 50_000,
    "deep block": "\n".join(" " * i + "a:" for i in range(2_000)),
    "deep variable": "services: {a: {image: '" + "${A:-" * 5_000 + "}" * 5_000 + "'}}",
    "many extends": "services:\n" + "".join(f"  s{i}: {{extends: s{i + 1}}}\n" for i in range(1_000)) + "  s1000: {image: x}\n",
    "many problems": "services:\n" + "".join(f"  s{i}:\n    imag: x\n" for i in range(30_000)),
    "many bad items": "services:\n  a:\n    image: x\n    ports:\n" + "".join(f"      - {{bad{i}: 1}}\n" for i in range(50_000)),
    "control characters": "\0\1\2",
    "a list": "[1, 2]",
    "nothing": "# nothing\n",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_soon(tmp_path: Path, name: str) -> None:
    begin = time.process_time()
    found = problems(tmp_path, BOMBS[name])
    assert len(found) <= 500
    assert time.process_time() - begin < 20


def test_a_hundred_thousand_lines_are_no_problem(tmp_path: Path) -> None:
    lines = "".join(f'      V{number}: "{number}"\n' for number in range(100_000))
    begin = time.process_time()
    project = load(write(tmp_path, "services:\n  a:\n    image: x\n    environment:\n" + lines))
    assert len(project.services["a"]["environment"]) == 100_000
    assert time.process_time() - begin < 20


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(SpecError, match="is not UTF-8 text"):
        load(file)
    with pytest.raises(SpecError, match="no such file"):
        load(tmp_path / "gone.yaml")
    with pytest.raises(SpecError, match="no Compose file was given"):
        load([])
