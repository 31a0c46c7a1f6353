"""The backend against the contract."""

import pytest

from sandboxcore.testing.suite import *  # noqa: F403
from sandboxcore.testing.suite import Target


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Target:
    config = {"root": str(tmp_path_factory.mktemp("minimal"))}
    return Target(backend="minimal", config=config, slack=10, lease=4)  # for a machine that is busy with other things too
