"""The backend against the contract."""

import pytest

from sandboxcore.testing.suite import *  # noqa: F403
from sandboxcore.testing.suite import Target


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Target:
    return Target(backend="minimal", config={"root": str(tmp_path_factory.mktemp("minimal"))})
