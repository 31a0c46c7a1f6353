"""Where clusters are, without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster import ClusterError
from tests.cluster._layout import CNI, Layout, default_layout

PLACE = "SANDBOXCORE_TEST_CLUSTER"


def test_a_cluster_with_cilium_is_beside_the_other_and_uses_its_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(PLACE, str(tmp_path / "place"))
    monkeypatch.delenv(CNI, raising=False)
    plain, chosen = default_layout(), default_layout("cilium")
    monkeypatch.setenv(CNI, "cilium")
    assert default_layout() == chosen == Layout(tmp_path / "place-cilium", "cilium", tmp_path / "place")
    assert default_layout("bridge") == plain == Layout(tmp_path / "place")
    assert plain.programs == chosen.programs == plain.root
    assert plain.name != chosen.name


def test_a_network_that_there_is_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CNI, "calico")
    with pytest.raises(ClusterError, match=f"{CNI}: there is no network 'calico', only bridge and cilium"):
        default_layout()
