"""The conformance suite: every clause of the contract as a test that any backend can run.

The shortest way to adopt it is a test module such as this one::

    import pytest
    from sandboxcore.testing.suite import *


    @pytest.fixture(scope="session")
    def target() -> Target:
        return Target(backend="mine")

``suite`` has one ``Test...`` class a concern. Who wants to leave a class out, or to mark one clause as a known failure, takes
the ``...Conformance`` base classes from here and names the subclasses itself; the fixtures come along with the star import
of ``sandboxcore.testing.fixtures``.

A test's docstring begins with the ids of the clauses that it checks; ``clauses_of`` reads them.
"""

from __future__ import annotations

try:
    import pytest
    import pytest_asyncio  # noqa: F401
except ImportError as error:  # pragma: no cover - depends on what is installed
    raise ImportError("sandboxcore.testing needs pytest and pytest-asyncio: pip install 'sandboxcore[testing]'") from error

_TESTS = ("bare", "capability", "discover", "ending", "exec", "file", "link", "network", "process", "provision")
# Has to come before their import; otherwise authors would see bare assertions without the values.
pytest.register_assert_rewrite(*(f"{__name__}.{name}_conformance" for name in _TESTS), f"{__name__}._conformance")

from ._conformance import Conformance, clauses_of, needs, shell_free  # noqa: E402
from .bare_conformance import BareConformance  # noqa: E402
from .capability_conformance import CapabilityConformance  # noqa: E402
from .discover_conformance import DiscoverConformance  # noqa: E402
from .ending_conformance import EndingConformance  # noqa: E402
from .exec_conformance import ExecConformance  # noqa: E402
from .file_conformance import FileConformance  # noqa: E402
from .link_conformance import LinkConformance  # noqa: E402
from .links import LinkCutter  # noqa: E402
from .network_conformance import NetworkConformance  # noqa: E402
from .process_conformance import ProcessConformance  # noqa: E402
from .provision_conformance import ProvisionConformance  # noqa: E402
from .target import Target  # noqa: E402

__all__ = (
    "BareConformance",
    "CapabilityConformance",
    "Conformance",
    "DiscoverConformance",
    "EndingConformance",
    "ExecConformance",
    "FileConformance",
    "LinkConformance",
    "LinkCutter",
    "NetworkConformance",
    "ProcessConformance",
    "ProvisionConformance",
    "Target",
    "clauses_of",
    "needs",
    "shell_free",
)
