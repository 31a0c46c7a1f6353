"""The pages about values and settings name all of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sandboxcore_helm._config import EnvironmentOptions, HelmConfig, ServiceOptions
from sandboxcore_helm._values_check import schema

pytestmark = pytest.mark.tier("none")
DOCS = Path(__file__).parents[3] / "docs"
PAGE = DOCS / "reference" / "helm-values.md"


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


def test_every_setting_of_the_backend_is_explained() -> None:
    _, _, rest = (DOCS / "how-to" / "helm.md").read_text().partition("## What can be set")
    section, _, _ = rest.partition("\n## ")
    tables = [
        {name for row in part.splitlines() if row.startswith("| `") for name in re.findall(r"`([a-z_]+)`", row.split("|")[1])}
        for part in section.split("For one environment")
    ]
    assert tables == [set(HelmConfig.model_fields), set(EnvironmentOptions.model_fields)]
    assert all(f"`{name}`" in section.split("and for one service")[1] for name in ServiceOptions.model_fields)
