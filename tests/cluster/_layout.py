"""Where a test cluster keeps its things, what it is called, and which addresses it has."""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

HERE = Path(__file__).resolve().parent
NODE = "node1"
#: What can connect the pods, and the variable that chooses for test runs.
NETWORKS = ("bridge", "cilium")
CNI = "SANDBOXCORE_TEST_CNI"


class ClusterError(Exception):
    """The test cluster can't be had, or something in it did not happen in time; the message says what."""


@dataclass(frozen=True)
class Layout:
    """Folders, names and addresses of one cluster; all follow from its root, so two of them live side by side.

    The node, its control plane and its pods live in a network namespace of their own, linked to the machine by a pair
    of interfaces: no rule, bridge or port of the cluster meets the machine's (a Docker engine's, say), and deleting the
    namespace removes all of them at once.
    """

    root: Path
    #: What connects the pods: "bridge", with policies of our own, or "cilium".
    cni: str = "bridge"
    #: The root of the cluster whose built programs this one uses; None: its own.
    shared: Path | None = None

    @property
    def programs(self) -> Path:
        """The folder in whose `bin` the built programs are."""
        return self.shared or self.root

    @cached_property
    def name(self) -> str:
        """Name the network namespace, the control group and the interface on the machine: short and unique."""
        return f"sbx-{hashlib.sha256(str(self.root).encode()).hexdigest()[:8]}"

    @cached_property
    def prefix(self) -> str:
        """The first two numbers of every address of this cluster, kept from its first start."""
        kept = self.root / "network"
        return kept.read_text() if kept.exists() else ""

    @property
    def network(self) -> str:
        return f"{self.prefix}.0.0/16"

    @property
    def pods(self) -> str:
        return f"{self.prefix}.64.0/18" if self.cni == "cilium" else f"{self.prefix}.0.0/17"

    @property
    def services(self) -> str:
        return f"{self.prefix}.128.0/18"

    @property
    def node_address(self) -> str:
        return f"{self.prefix}.0.1"

    @property
    def api_service(self) -> str:
        return f"{self.prefix}.128.1"

    @property
    def dns_service(self) -> str:
        return f"{self.prefix}.128.10"

    @property
    def outside(self) -> str:
        """The machine's own address as pods see it: one that is neither a pod, a service nor the node."""
        return f"{self.prefix}.192.1"

    @property
    def outside_names(self) -> dict[str, str]:
        """Names that pods can look up, of further addresses of the machine as pods see it, one each."""
        names = enumerate(("allowed", "denied", "www.allowed"), start=5)
        return {f"{name}.outside.test": f"{self.prefix}.192.{number}" for number, name in names}

    @property
    def entrance(self) -> str:
        """The node's address on the link to the machine; the API server listens there, port 6443."""
        return f"{self.prefix}.192.2"

    @property
    def kubeconfig(self) -> Path:
        return self.root / "admin.kubeconfig"

    @property
    def socket(self) -> Path:
        return self.root / "run" / "containerd.sock"

    def choose_network(self) -> None:
        """Take a block of addresses that the machine does not use yet, and keep it."""
        if self.prefix:
            return
        routes = subprocess.run(["ip", "-4", "route", "show", "table", "all"], capture_output=True, text=True, check=True).stdout
        first = int(self.name[-4:], 16)
        free = [block for n in range(56) if f"10.{(block := 200 + (first + n) % 56)}." not in routes]
        if not free:
            raise ClusterError("no block of addresses from 10.200.0.0/16 to 10.255.0.0/16 is free on this machine")
        (self.root / "network").write_text(f"10.{free[0]}")
        self.__dict__.pop("prefix")


def default_layout(cni: str = "") -> Layout:
    """Place the cluster in ``SANDBOXCORE_TEST_CLUSTER``, else in the user's cache; one with Cilium has a folder beside it.

    Args:
        cni: One of `NETWORKS`; empty: as ``SANDBOXCORE_TEST_CNI`` says, else the first of them.

    Raises:
        ClusterError: there is no such network.
    """
    given = os.environ.get("SANDBOXCORE_TEST_CLUSTER")
    root = Path(given) if given else Path.home() / ".cache" / "sandboxcore-test-cluster"
    cni = cni or os.environ.get(CNI) or NETWORKS[0]
    if cni not in NETWORKS:
        raise ClusterError(f"{CNI}: there is no network {cni!r}, only {' and '.join(NETWORKS)}")
    return Layout(root) if cni == "bridge" else Layout(root.with_name(f"{root.name}-{cni}"), cni, root)
