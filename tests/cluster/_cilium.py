"""Real Cilium as what connects the pods: its programs, built from a pinned Go module, and how they are run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.images._packages import ensure

from ._build import locked
from ._cgroup import unified
from ._layout import NODE, ClusterError, Layout
from ._tools import kubectl

MODULE, VERSION = "github.com/cilium/cilium", "v1.15.19"
#: Program to its package in the module, and what it is built with.
PROGRAMS = {
    "cilium-agent": ("./daemon", ""),
    "cilium-operator": ("./operator", "ipam_provider_operator"),
    "cilium-cni": ("./plugins/cilium-cni", ""),
}
#: File, words and other words: the agent does not start on a kernel that has no loadable modules, hence no such list.
PATCH = ("pkg/datapath/linux/modules/modules_linux.go", '"/proc/modules"', '"/dev/null"')
#: The agent compiles a program for the kernel whenever pods need one, by the names without a number.
PACKAGES = {"clang-16": "clang-16", "llc-16": "llvm-16", "bpftool": "bpftool", "ipset": "ipset"}
#: The agent has files in these places whatever it is told, so it sees folders of the cluster there.
MACHINE = {"run/cilium": Path("/run/cilium"), "run/bpf": Path("/sys/fs/bpf")}
#: What keeps it from setting switches of the machine's kernel, which it can do without.
KEEP = ("mount --bind /proc/sys/kernel /proc/sys/kernel", "mount -o remount,bind,ro /proc/sys/kernel")


def programs(home: Path) -> Path:
    """Name the folder of the built programs; it changes with what they are built from."""
    digest = hashlib.sha256(repr((VERSION, PROGRAMS, PATCH)).encode()).hexdigest()[:12]
    return home / "bin" / f"cilium-{digest}"


def build_cilium(home: Path) -> Path:
    """Build what is missing (some 10 minutes, once) and return the programs' folder; safe to run twice at once.

    Raises:
        ClusterError: a package or Go is missing, or a program can't be built; nothing is left of it.
    """
    if problem := ensure(PACKAGES):
        raise ClusterError(problem)
    folder = programs(home)
    if folder.exists():
        return folder
    if not shutil.which("go"):
        raise ClusterError("Go is not installed (the cluster's programs are built from source)")
    with locked(home / "build-cilium.lock"):
        if not folder.exists():
            _build(folder)
    return folder


def _build(folder: Path) -> None:
    part = folder.with_name("cilium.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    downloaded = json.loads(_go(part, "mod", "download", "-json", f"{MODULE}@{VERSION}"))
    source = shutil.copytree(downloaded["Dir"], part / "source", copy_function=shutil.copyfile)
    path, words, others = source / PATCH[0], *PATCH[1:]
    if words not in path.read_text():
        raise ClusterError(f"{PATCH[0]} of {MODULE} {VERSION} is not as expected")
    path.write_text(path.read_text().replace(words, others))
    for name, (package, tags) in PROGRAMS.items():
        print(f"building {name} (once)", file=sys.stderr, flush=True)  # noqa: T201
        argv = ["build", "-mod=mod", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", f"-tags={tags}", "-o", str(part / name)]
        _go(source, *argv, package)
    (source / "bpf").rename(part / "bpf")
    shutil.rmtree(source)
    _write_tools(part / "tools")
    part.rename(folder)


def _go(where: Path, *argv: str) -> str:
    environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}
    command = ["nice", "go", *argv]
    done = subprocess.run(
        command, cwd=where, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ClusterError(f"go {argv[0]} {argv[-1]} failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


def _write_tools(folder: Path) -> None:
    """Make the programs that the agent calls by name: it wants one that loads modules, whether there are modules or not."""
    folder.mkdir()
    missing = {} if shutil.which("modprobe") else {"modprobe": "true"}
    for name, program in {"clang": "clang-16", "llc": "llc-16", **missing}.items():
        (folder / name).symlink_to(shutil.which(program) or program)


def prepare(layout: Layout) -> None:
    """Put the network plugin in its place, and mount what the agent keeps in the kernel; no-op where that is done."""
    for inner, outer in MACHINE.items():
        (layout.root / inner).mkdir(parents=True, exist_ok=True)
        outer.mkdir(parents=True, exist_ok=True)
    if not os.path.ismount(layout.root / "run" / "bpf"):
        subprocess.run(["mount", "-t", "bpf", "bpf", layout.root / "run" / "bpf"], check=True)
    plugin = layout.root / "cni" / "bin" / "cilium-cni"
    plugin.unlink(missing_ok=True)
    plugin.symlink_to(programs(layout.programs) / plugin.name)
    network = {"type": "cilium-cni", "log-file": f"{layout.root}/logs/cilium-cni.log"}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    plugins = {"cniVersion": "0.3.1", "name": layout.name, "plugins": [network, ports]}
    (layout.root / "cni" / "05-cilium.conflist").write_text(json.dumps(plugins))


def make_namespace(layout: Layout) -> None:
    """Make the namespace whose secrets the agent watches; no-op if it is there."""
    meta = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "cilium-secrets"}}
    kubectl(layout.kubeconfig, "apply", "-f", "-", text=json.dumps(meta))


def environment(layout: Layout) -> list[str]:
    """Give the variables by which the network plugin, run by containerd, finds the agent."""
    return [f"CILIUM_SOCK={layout.root}/run/cilium/cilium.sock"] if layout.cni == "cilium" else []


def command(layout: Layout, name: str) -> list[str | Path]:
    """Say how the operator or the agent is run."""
    root, folder = layout.root, programs(layout.programs)
    common = [f"--k8s-kubeconfig-path={layout.kubeconfig}", "--ipam=cluster-pool", "--enable-ipv4=true", "--enable-ipv6=false"]
    if name == "cilium-operator":
        return [
            *(folder / name, *common, f"--cluster-pool-ipv4-cidr={layout.pods}", "--cluster-pool-ipv4-mask-size=20"),
            "--operator-api-serve-addr=127.0.0.1:9234",
        ]
    mounts = " && ".join([*(f'mount --bind "$0/{inner}" {outer}' for inner, outer in MACHINE.items()), *KEEP])
    return [
        *("unshare", "--mount", "--propagation", "slave", "sh", "-c", f'{mounts} && exec "$@"', root),
        *("env", f"K8S_NODE_NAME={NODE}", f"PATH={folder}/tools:/usr/sbin:/sbin:{os.environ.get('PATH', os.defpath)}"),
        *(folder / name, *common, f"--state-dir={root}/run/cilium", f"--lib-dir={folder}"),
        *(f"--socket-path={root}/run/cilium/cilium.sock", f"--cgroup-root={unified()}"),
        *("--routing-mode=native", f"--ipv4-native-routing-cidr={layout.pods}", "--enable-bpf-masquerade=false"),
        *("--kube-proxy-replacement=false", "--enable-node-port=false", "--enable-l7-proxy=true"),
        *("--enable-health-checking=false", "--enable-endpoint-health-checking=false", "--agent-health-port=9879"),
        *("--enable-hubble=false", "--cluster-name=default", "--cluster-id=0", "--disable-envoy-version-check=true"),
        "--cni-exclusive=false",
    ]
