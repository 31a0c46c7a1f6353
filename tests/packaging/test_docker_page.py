"""The page about Docker names what there is."""

from __future__ import annotations

import pytest
from sandboxcore_docker._config import DockerConfig, ServiceOptions

from .conftest import ROOT

PAGE = (ROOT / "docs" / "how-to" / "docker.md").read_text()


@pytest.mark.parametrize("key", DockerConfig.model_fields)
def test_it_names_every_setting(key: str) -> None:
    assert f"| `{key}` |" in PAGE


@pytest.mark.parametrize("key", ServiceOptions.model_fields)
def test_it_names_what_a_service_may_say(key: str) -> None:
    assert f"`{key}`" in PAGE
