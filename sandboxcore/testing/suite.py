"""The whole suite, ready to be collected: ``from sandboxcore.testing.suite import *``, and a ``target`` fixture."""

from __future__ import annotations

from . import (
    CapabilityConformance,
    DiscoverConformance,
    ExecConformance,
    FileConformance,
    ProcessConformance,
    ProvisionConformance,
)
from .bare_conformance import BareConformance
from .ending_conformance import EndingConformance
from .fixtures import base_spec, capabilities, cutter, environment, sandbox, scratch, session
from .link_conformance import LinkConformance
from .network_conformance import NetworkConformance
from .target import Target

__all__ = (
    "Target",
    "TestBare",
    "TestCapabilities",
    "TestDiscovery",
    "TestEndings",
    "TestExec",
    "TestFiles",
    "TestLinks",
    "TestNetworks",
    "TestProcesses",
    "TestProvision",
    "base_spec",
    "capabilities",
    "cutter",
    "environment",
    "sandbox",
    "scratch",
    "session",
)


class TestExec(ExecConformance):
    """EXEC-1 to 8, 11 and 15 to 17."""


class TestEndings(EndingConformance):
    """EXEC-9, 10 and 12 to 14."""


class TestProcesses(ProcessConformance):
    """EXEC-20 to 22."""


class TestFiles(FileConformance):
    """FILE-1 to 7."""


class TestCapabilities(CapabilityConformance):
    """CAP-1 and 2."""


class TestDiscovery(DiscoverConformance):
    """DISC-1 to 3."""


class TestProvision(ProvisionConformance):
    """PROV-1 to 7."""


class TestLinks(LinkConformance):
    """EXEC-18 and 19."""


class TestNetworks(NetworkConformance):
    """CAP-1 and 2, of networks."""


class TestBare(BareConformance):
    """Most of the others' clauses, where the sandbox has no shell; skipped where it has one."""
