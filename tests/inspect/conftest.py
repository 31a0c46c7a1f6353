"""What tests of the adapter share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True, scope="session")
def own_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keep what Inspect and the adapter note on this machine in a folder of the tests' own."""
    import os

    folder = tmp_path_factory.mktemp("inspect-data")
    os.environ["XDG_DATA_HOME"] = str(folder)
    return folder
