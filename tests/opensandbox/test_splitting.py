"""How many environments one object holds."""

from __future__ import annotations

import json

import pytest
from sandboxcore_opensandbox._splitting import ANNOTATION_BYTES, Footprint, pooled_footprint, split, template_footprint

from sandboxcore.errors import CapabilityError

pytestmark = pytest.mark.tier("none")


def test_a_few_are_one_object() -> None:
    assert split(100, pooled_footprint(1, "agents", 20)) == [range(100)]


def test_none_are_no_object() -> None:
    assert split(0, pooled_footprint(1, "agents", 20)) == []


def test_many_are_divided_evenly_and_completely() -> None:
    parts = split(10_000, pooled_footprint(1, "agents", 20))
    assert len(parts) > 1
    assert [number for part in parts for number in part] == list(range(10_000))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("pool", ["p", "a-pool-with-a-rather-long-name-as-people-like-them"])
@pytest.mark.parametrize("pods", [1, 3])
def test_what_the_controller_writes_stays_below_the_limit(pool: str, pods: int) -> None:
    """The largest object, with its lists as the controller fills them by its end, against the API server's own limit."""
    [part, *_] = split(100_000, pooled_footprint(pods, pool, notes=20))
    names = [f"{pool}-abcde"] * len(part) * pods
    listed = json.dumps({"pods": names}, separators=(",", ":"))
    endpoints = json.dumps(["255.255.255.255"] * len(names), separators=(",", ":"))
    assert 3 * len(listed) + len(endpoints) + 20 * len(part) < 256 * 1024
    assert 3 * len(listed) + len(endpoints) + 20 * len(part) > ANNOTATION_BYTES // 2  # and no smaller than it has to be


def test_patches_count_too() -> None:
    parts = split(100, template_footprint(2, patches=100_000, notes=20))
    assert max(map(len, parts)) <= 10


def test_one_that_fits_nowhere_is_refused() -> None:
    with pytest.raises(CapabilityError, match="larger"):
        split(1, template_footprint(1, patches=2_000_000, notes=0))


def test_what_every_object_needs_counts() -> None:
    assert len(split(10, Footprint(annotations=0, body=1000), fixed=Footprint(annotations=0, body=1024 * 1024 - 2500))) == 5
