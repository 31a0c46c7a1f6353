"""YAML as Helm reads it: without a cluster."""

from __future__ import annotations

import math
from typing import Any

import pytest
from sandboxcore_helm._goyaml import load, load_all, plain_scalar

pytestmark = pytest.mark.tier("none")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("y", True),
        ("N", False),
        ("on", True),
        ("Off", False),
        ("yes", True),
        ("~", None),
        ("null", None),
        ("", None),
        ("nil", "nil"),
        ("12", 12),
        ("+12", 12),
        ("010", 8),
        ("08", 8),
        ("09:30", "09:30"),
        ("0o17", 15),
        ("0x1F", 31),
        ("0x", "0x"),
        ("0b11", 3),
        ("1_000", 1000),
        ("1e3", 1000),
        ("2e000003", 2000),
        ("1.5", 1.5),
        (".5", 0.5),
        (".", "."),
        ("-", "-"),
        ("12:30:45", "12:30:45"),
        ("2001-01-01", "2001-01-01"),
        ("=", "="),
        ("a1b2c3d4", "a1b2c3d4"),
        ("1a2b", "1a2b"),
        ("18446744073709551615", (1 << 64) - 1),
        ("0.1.2", "0.1.2"),
        ("-.inf", -math.inf),
    ],
)
def test_a_plain_word_means_what_go_takes_it_for(text: str, value: Any) -> None:
    found = plain_scalar(text)
    assert (found, type(found)) == (value, type(value))


def test_quotes_and_tags_make_text() -> None:
    assert load("{a: 'y', b: \"08\", c: !!str 12, d: |\n  on\n}".replace("d: |\n  on\n", "d: on")) == {
        "a": "y",
        "b": "08",
        "c": "12",
        "d": True,
    }


def test_keys_are_text() -> None:
    assert load("on: 1\n1: 2\n~: 3\n2.5: 4\n") == {"true": 1, "1": 2, "null": 3, "2.5": 4}


def test_merges_and_streams() -> None:
    assert load("a: &a {x: 1}\nb: {<<: *a, z: 2}") == {"a": {"x": 1}, "b": {"x": 1, "z": 2}}
    assert list(load_all("a: 1\n---\n---\nb: 2\n")) == [{"a": 1}, None, {"b": 2}]
