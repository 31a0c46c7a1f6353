"""The page about values names all of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sandboxcore_helm._values_check import schema

pytestmark = pytest.mark.tier("none")
PAGE = Path(__file__).parents[3] / "docs" / "reference" / "helm-values.md"


def test_every_value_is_explained() -> None:
    cells = [row.split("|")[1] for row in PAGE.read_text().splitlines() if row.startswith("| `")]
    explained = {name for cell in cells for name in re.findall(r"`([A-Za-z]+)`", cell)}
    values = set(schema()["properties"])
    service = set(schema()["definitions"]["service"]["properties"])
    assert values | service <= explained
    assert explained <= values | service


def test_every_setting_of_a_value_is_named() -> None:
    text = PAGE.read_text()
    for name in ("dns", "guest", "networkPolicy", "sandboxcore", "volumeDefaults"):
        assert all(f"`{key}`" in text or f"{name}.{key}`" in text for key in schema()["properties"][name]["properties"]), name
