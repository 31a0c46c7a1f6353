"""The network namespace of a cluster: its bridge for pods, and the link to the machine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from ._layout import ClusterError, Layout

BRIDGE = "pods0"


def namespace_exists(layout: Layout) -> bool:
    return Path("/run/netns", layout.name).exists()


def make_network(layout: Layout) -> None:
    """Make the namespace with its bridge and link; no-op if it is there."""
    layout.choose_network()
    if namespace_exists(layout):
        return
    _ip("netns", "add", layout.name)
    try:
        _link(layout)
        _bridge(layout)
    except BaseException:
        remove_network(layout)
        raise


def _link(layout: Layout) -> None:
    _ip("link", "add", layout.name, "type", "veth", "peer", "name", "machine0", "netns", layout.name)
    _ip("addr", "add", f"{layout.outside}/30", "dev", layout.name)
    for address in layout.outside_names.values():
        _ip("addr", "add", f"{address}/32", "dev", layout.name)
    _ip("link", "set", layout.name, "up")
    _ip("-n", layout.name, "addr", "add", f"{layout.entrance}/30", "dev", "machine0")
    for interface in ("lo", "machine0"):
        _ip("-n", layout.name, "link", "set", interface, "up")
    _ip("-n", layout.name, "route", "add", "default", "via", layout.outside)
    _ip("route", "add", layout.network, "via", layout.entrance)


def _bridge(layout: Layout) -> None:
    _ip("-n", layout.name, "link", "add", BRIDGE, "type", "bridge")
    # Cilium leads to its pods by itself, and puts none on the bridge.
    length = 24 if layout.cni == "cilium" else 17
    _ip("-n", layout.name, "addr", "add", f"{layout.node_address}/{length}", "dev", BRIDGE)
    _ip("-n", layout.name, "link", "set", BRIDGE, "up")
    if shutil.which("modprobe"):
        subprocess.run(["modprobe", "br_netfilter"], capture_output=True, check=False)
    for key in ("net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables"):
        inside(layout, "sh", "-c", f"echo 1 > /proc/sys/{key}")


def remove_network(layout: Layout) -> None:
    """Delete the namespace, and with it every interface, address, route and firewall rule of the cluster; idempotent."""
    subprocess.run(["ip", "link", "delete", layout.name], capture_output=True, check=False)
    if namespace_exists(layout):
        _ip("netns", "delete", layout.name)


def inside(layout: Layout, *argv: str, text: str | None = None) -> str:
    """Run a program in the cluster's network and return what it printed.

    Raises:
        ClusterError: it ended with another status than 0.
    """
    command = ["nsenter", f"--net=/run/netns/{layout.name}", *argv]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


def _ip(*argv: str) -> None:
    done = subprocess.run(["ip", *argv], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"ip {' '.join(argv)}: {done.stderr.strip()}")
