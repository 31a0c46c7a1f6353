"""What is said while something is waited for."""

from __future__ import annotations

from typing import Any

import pytest

from sandboxcore.cli._output import age
from sandboxcore.cli._progress import describe
from sandboxcore.values import Event


@pytest.mark.parametrize(
    ("name", "fields", "text"),
    [
        ("service.waiting", {"service": "web"}, "web: waiting"),
        ("service.health_check", {"service": "web", "attributes": {"detail": "3 of 5"}}, "web: health check (3 of 5)"),
        ("environment.provision.start", {"environment_id": "abc"}, "abc: provision start"),
        ("exec.end", {"service": "web"}, None),
        ("file.read.start", {}, None),
    ],
)
def test_events_become_words(name: str, fields: dict[str, Any], text: str | None) -> None:
    assert describe(Event(name=name, time=0.0, **fields)) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (-5, "0s"), (59.9, "59s"), (60, "1m 0s"), (3_725, "1h 2m"), (90_000, "1d 1h")]
)
def test_ages_have_two_units(seconds: float, text: str) -> None:
    assert age(seconds) == text
