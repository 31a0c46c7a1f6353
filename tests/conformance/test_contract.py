"""The whole contract, on the backend that ``--backend`` names."""

import pytest

from sandboxcore.testing.suite import *  # noqa: F403
from sandboxcore.testing.suite import Target


@pytest.fixture(scope="session")
def target(chosen: Target) -> Target:
    """Take the target that the options describe."""
    return chosen
