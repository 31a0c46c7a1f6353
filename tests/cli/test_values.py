"""What people type as the value of an option."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandboxcore.cli._values import backend_config, environment_variables, key_values, parse_duration, read_config_file
from sandboxcore.errors import SpecError, UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("0.5", 0.5),
        ("90s", 90),
        ("15m", 900),
        ("8h", 28800),
        ("1h30m", 5400),
        ("2d", 172800),
        ("1.5h", 5400),
        ("1w", 604800),
    ],
)
def test_durations_are_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "1x", "-1", "1 h", "h", "0", "0s", "1h30", "inf", "nan", "1e3", "٣", "9" * 400])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration"):
        parse_duration(text)


def test_key_values_keep_what_follows_the_first_equals_sign() -> None:
    assert key_values("-e", ["A=1", "B=x=y", "C=", "A=2"]) == {"A": "2", "B": "x=y", "C": ""}


@pytest.mark.parametrize("word", ["hunter2", "=hunter2", ""])
def test_a_word_that_is_no_key_value_is_refused_without_being_shown(word: str) -> None:
    with pytest.raises(UsageError) as caught:
        key_values("--label", [word])
    assert "--label" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in str(caught.value.hint)


def test_a_name_alone_takes_the_value_that_it_has_here() -> None:
    assert environment_variables(["A", "B=2"], {"A": "1", "B": "x"}) == {"A": "1", "B": "2"}


def test_a_name_alone_that_is_not_set_here_is_refused() -> None:
    with pytest.raises(UsageError, match="MISSING"):
        environment_variables(["MISSING"], {})


def test_config_takes_text_json_and_dots(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('root = "/a"\nlimit = 3\n[cache]\nsize = 1\n')
    words = ["root=/b", "flags=[1, 2]", "cache.path=/c", 'quoted="7"', "plain=7"]
    assert backend_config(words, file) == {
        "root": "/b",
        "limit": 3,
        "cache": {"size": 1, "path": "/c"},
        "flags": [1, 2],
        "quoted": "7",
        "plain": "7",
    }


@pytest.mark.parametrize("words", [["a=[1"], ["a=1", "a.b=2"], ["nothing"]])
def test_config_that_makes_no_sense_is_refused(words: list[str]) -> None:
    with pytest.raises(UsageError):
        backend_config(words, None)


def test_a_json_config_file_is_read_as_json(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"a": {"b": null}}')
    assert read_config_file(file) == {"a": {"b": None}}


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("a.toml", b"x = 1\ny = \n", ":2:5: "),
        ("a.json", b'{\n "a": }', ":2:7: "),
        ("a.json", b"[1]", ":1:1: "),
        ("a.toml", b"x = '\xff'", ": byte 5 is not UTF-8"),
        ("a.toml", b"x = 1\nx = 2\n", ":2:6: "),
    ],
)
def test_a_broken_config_file_is_reported_with_its_place(tmp_path: Path, name: str, content: bytes, place: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(SpecError) as caught:
        read_config_file(file)
    assert str(caught.value).startswith(f"{file}{place}")
    assert "\n" not in str(caught.value)


def test_a_missing_config_file_is_reported_by_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.toml: No such file"):
        read_config_file(tmp_path / "none.toml")
