"""Start, stop and fill the test cluster by hand; `up` prints the path of its kubeconfig."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import _node
from ._build import build, install_packages, locked
from ._cilium import build_cilium
from ._enforce import Enforcer
from ._images import load
from ._layout import CNI, NETWORKS, ClusterError, Layout, default_layout
from ._remove import remove


def main() -> int:
    """Do what the command line says and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="build the programs only, print their folder; safe to run twice at once")
    commands.add_parser("up", help="build if needed, start what does not run, load the images of the tests")
    commands.add_parser("load", help="load image archives").add_argument("archive", nargs="+", type=Path)
    down = commands.add_parser("down", help="stop everything and forget its data")
    down.add_argument("--purge", action="store_true", help="and the programs, certificates and images")
    commands.add_parser("enforce", help="the daemon that enforces network policies").add_argument("root", type=Path)
    for name in ("build", "up", "load", "down"):
        help_ = f"the cluster with this network (else {CNI} says which, else {NETWORKS[0]})"
        commands.choices[name].add_argument("--cni", choices=NETWORKS, default="", help=help_)
    arguments = parser.parse_args()
    try:
        layout = default_layout("" if arguments.command == "enforce" else arguments.cni)
        print(_run(arguments, layout) or "", end="")  # noqa: T201
    except ClusterError as error:
        print(f"tests.cluster: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _run(arguments: argparse.Namespace, layout: Layout) -> str | None:
    if arguments.command == "enforce":
        Enforcer(Layout(arguments.root)).run()
    if arguments.command == "build":
        install_packages()
        if layout.cni == "cilium":
            build_cilium(layout.programs)
        return f"{build(layout.programs)}\n"
    if arguments.command == "load":
        for archive in arguments.archive:
            load(layout, archive)
        return None
    with locked(layout.root / "up.lock"):
        if arguments.command == "down":
            remove(layout, purge=arguments.purge)
            return None
        _node.up(layout)
        (layout.root / "run" / "by-tests").unlink(missing_ok=True)
    return f"{layout.kubeconfig}\n"


if __name__ == "__main__":
    sys.exit(main())
