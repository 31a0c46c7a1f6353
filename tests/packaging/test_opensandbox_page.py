"""The page about OpenSandbox: its documents can be had, and it names what there is."""

from __future__ import annotations

import re
from pathlib import Path
from unittest.mock import AsyncMock, Mock

import pytest
from sandboxcore_kubernetes import Cluster, ClusterConfig
from sandboxcore_kubernetes._options import PodOptions
from sandboxcore_opensandbox._check import check
from sandboxcore_opensandbox._config import OpenSandboxConfig, ServiceOptions
from sandboxcore_opensandbox._parts import services_by_pool
from sandboxcore_opensandbox._pool_fit import look_at_pools
from sandboxcore_opensandbox.pools import pool_objects

from sandboxcore import Session

from .conftest import ROOT

PAGE = (ROOT / "docs" / "how-to" / "opensandbox.md").read_text()
DOCUMENTS = re.findall(r"^```yaml\n(services:\n.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
[(IMAGE, BUFFER, MOST)] = re.findall(r"pool template --image (\S+) --buffer (\d+) --max (\d+)", PAGE)


@pytest.mark.parametrize("key", sorted(set(OpenSandboxConfig.model_fields) - set(ClusterConfig.model_fields)))
def test_it_names_every_setting_of_its_own(key: str) -> None:
    assert re.search(rf'[`"]{key}\b', PAGE)


@pytest.mark.parametrize("key", [*ServiceOptions.model_fields, *PodOptions.model_fields])
def test_it_names_what_a_service_may_say(key: str) -> None:
    assert f"`{key}`" in PAGE


@pytest.mark.parametrize("document", range(len(DOCUMENTS)))
async def test_its_documents_can_be_had(tmp_path: Path, document: int) -> None:
    """Also from the pools that they name: the one that the page makes, and one of nginx."""
    (tmp_path / "compose.yaml").write_text(DOCUMENTS[document])
    config = OpenSandboxConfig()
    spec = Session("opensandbox").translate(tmp_path / "compose.yaml").spec
    assert check(spec, config) == ()
    images = {"agents": IMAGE, "web": "nginx:1.29"}
    pools = {name: pool_objects(name, image, buffer=int(BUFFER), maximum=int(MOST))[-1] for name, image in images.items()}
    cluster = Mock(Cluster, get=AsyncMock(side_effect=lambda kind, name: pools[name]))
    wanted = services_by_pool(spec, config)
    assert set(await look_at_pools(cluster, spec, wanted, 1)) == set(wanted)
