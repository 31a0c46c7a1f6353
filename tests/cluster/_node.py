"""Start a cluster: etcd, the control plane, containerd, the kubelet, kube-proxy, and what enforces network policies."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from . import _cilium
from ._build import CNI, build, install_packages
from ._cgroup import make_cgroups
from ._images import images_of_tests, load, own_images
from ._layout import HERE, NODE, ClusterError, Layout
from ._network import BRIDGE, make_network
from ._pki import make_certificates, write_kubeconfigs
from ._processes import alive, start, wait_for
from ._remove import remove
from ._tools import ctr, kubectl

#: Daemons in the order in which they start, whatever connects the pods; then those that do, which are others.
DAEMONS = ("etcd", "containerd", "apiserver", "controllers", "scheduler", "kubelet", "proxy")
NETWORK_DAEMONS = {"bridge": ("policy",), "cilium": ("cilium-operator", "cilium-agent")}
ETCD = "http://127.0.0.1:2379"

CONTAINERD = """version = 3
root = "{root}/containerd/root"
state = "{root}/containerd/state"
[grpc]
address = "{root}/run/containerd.sock"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "sandboxcore.test/pause:1"
[plugins."io.containerd.cri.v1.runtime"]
# These machines grant no CAP_SYS_RESOURCE, without which a score can't be lowered.
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{root}/cni/bin", "{plugins}"]
conf_dir = "{root}/cni"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
runtime_path = "{binaries}/containerd-shim-runc-v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
Root = "{root}/containerd/runc"
"""


def daemons(layout: Layout) -> tuple[str, ...]:
    """Name the daemons of a cluster in the order in which they start."""
    return (*DAEMONS, *NETWORK_DAEMONS[layout.cni])


def running(layout: Layout) -> bool:
    """Say whether every daemon of the cluster runs."""
    return all(alive(layout, name) for name in daemons(layout))


def up(layout: Layout) -> None:
    """Start what does not run and return when pods can be made and names resolved; no-op on a cluster that runs.

    What a killed cluster left behind (a reboot, kill -9) is removed first.

    Raises:
        ClusterError: a program, the API server, the node or the DNS is not to be had; the rest is left to look at.
    """
    install_packages()
    binaries = build(layout.programs)
    if layout.cni == "cilium":
        _cilium.build_cilium(layout.programs)
    if not any(alive(layout, name) for name in daemons(layout)):
        remove(layout)
    make_network(layout)
    make_cgroups(layout)
    for folder in ("logs", "run/pods", "cni/bin", "etcd", "kubelet"):
        (layout.root / folder).mkdir(parents=True, exist_ok=True)
    make_certificates(layout)
    write_kubeconfigs(layout)
    write_configuration(layout, binaries)
    write_network(layout)
    for name in ("etcd", "containerd", "apiserver"):
        start_daemon(layout, name)
    wait_for("an answer of the API server", lambda: kubectl(layout.kubeconfig, "get", "--raw", "/readyz", check=False) == "ok")
    for name in ("controllers", "scheduler"):
        start_daemon(layout, name)
    wait_for("an answer of containerd", lambda: ctr(layout, "version", check=False))
    for archive in own_images(binaries):
        load(layout, archive)
    if layout.cni == "cilium":
        _cilium.make_namespace(layout)
    for name in ("kubelet", "proxy", *NETWORK_DAEMONS[layout.cni]):
        start_daemon(layout, name)
    hosts = "\n".join(f"            {address} {name}" for name, address in layout.outside_names.items())
    for manifest in sorted((HERE / "manifests").iterdir()):
        text = manifest.read_text().replace("DNS_SERVICE", layout.dns_service).replace("            OUTSIDE_NAMES", hosts)
        kubectl(layout.kubeconfig, "apply", "-f", "-", text=text)
    for archive in images_of_tests():
        load(layout, archive)
    wait_ready(layout)


def wait_ready(layout: Layout, *, timeout: float = 300.0) -> None:
    """Wait until the node takes pods and the cluster's DNS answers."""

    def get(*what: str) -> str:
        return kubectl(layout.kubeconfig, "get", *what, check=False)

    def ready(what: list[str], wanted: str) -> bool:
        for name in NETWORK_DAEMONS[layout.cni]:
            if not alive(layout, name):
                raise ClusterError(f"{name} has ended; {layout.root}/logs/{name}.log has why")
        return get(*what) == wanted

    node = ["node", NODE, "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}"]
    wait_for("a ready node", lambda: ready(node, "True"), timeout=timeout)
    dns = ["-n", "kube-system", "deploy", "coredns", "-o", "jsonpath={.status.readyReplicas}"]
    wait_for("a ready CoreDNS", lambda: ready(dns, "1"), timeout=timeout)


def start_daemon(layout: Layout, name: str) -> None:
    """Start one of the daemons; no-op if it runs."""
    start(layout, name, _command(layout, name))


def _command(layout: Layout, name: str) -> list[str | Path]:
    root, pki = layout.root, layout.root / "pki"
    binaries = build(layout.programs)
    if name in NETWORK_DAEMONS["cilium"]:
        return _cilium.command(layout, name)
    if name == "containerd":
        return ["env", *_cilium.environment(layout), binaries / "containerd", "-c", root / "containerd.toml"]
    if name == "policy":
        return [sys.executable, "-m", "tests.cluster", "enforce", root]
    flags: dict[str, list[str]] = {
        "etcd": [
            *(f"--data-dir={root}/etcd", "--unsafe-no-fsync", "--listen-peer-urls=http://127.0.0.1:2380"),
            *(f"--listen-client-urls={ETCD}", f"--advertise-client-urls={ETCD}"),
        ],
        "apiserver": [
            *(f"--etcd-servers={ETCD}", "--bind-address=0.0.0.0", f"--advertise-address={layout.node_address}"),
            *(f"--tls-cert-file={pki}/apiserver.crt", f"--tls-private-key-file={pki}/apiserver.key"),
            *(f"--client-ca-file={pki}/ca.crt", f"--kubelet-certificate-authority={pki}/ca.crt"),
            *(f"--kubelet-client-certificate={pki}/admin.crt", f"--kubelet-client-key={pki}/admin.key"),
            *(f"--service-account-key-file={pki}/sa.pub", f"--service-account-signing-key-file={pki}/sa.key"),
            "--service-account-issuer=https://kubernetes.default.svc",
            *(f"--service-cluster-ip-range={layout.services}", "--kubelet-preferred-address-types=InternalIP"),
            *("--authorization-mode=Node,RBAC", "--allow-privileged=true", "--shutdown-delay-duration=0s"),
        ],
        "controllers": [
            *(f"--kubeconfig={root}/kube-controller-manager.kubeconfig", "--leader-elect=false"),
            *(f"--service-account-private-key-file={pki}/sa.key", f"--root-ca-file={pki}/ca.crt"),
            *("--use-service-account-credentials=true", "--enable-hostpath-provisioner=true"),
        ],
        "scheduler": [f"--kubeconfig={root}/kube-scheduler.kubeconfig", "--leader-elect=false"],
        "kubelet": [
            *(f"--kubeconfig={root}/kubelet.kubeconfig", f"--config={root}/kubelet.json", f"--root-dir={root}/kubelet"),
            *(f"--hostname-override={NODE}", f"--node-ip={layout.node_address}"),
        ],
        "proxy": [
            *(f"--kubeconfig={root}/kube-proxy.kubeconfig", "--proxy-mode=iptables", f"--cluster-cidr={layout.pods}"),
            *(f"--hostname-override={NODE}", "--conntrack-max-per-core=0"),
        ],
    }
    return [binaries / "kube-node", name, *flags[name]]


def write_configuration(layout: Layout, binaries: Path) -> None:
    """Write the files that containerd and the kubelet read."""
    root = layout.root
    (root / "containerd.toml").write_text(CONTAINERD.format(root=root, binaries=binaries, plugins=CNI))
    # Nodes of clouds have a search domain, which pods get as well; Cilium refuses questions for names in it.
    search = "search node.test\n" if layout.cni == "cilium" else ""
    (root / "resolv.conf").write_text(f"{search}nameserver 127.0.0.1\n")
    (root / "kubelet.json").write_text(json.dumps(_kubelet(layout)))


def write_network(layout: Layout) -> None:
    """Write what containerd connects pods by."""
    if layout.cni == "cilium":
        _cilium.prepare(layout)
        return
    root = layout.root
    addresses = {"type": "host-local", "dataDir": f"{root}/ipam", "ranges": [[{"subnet": layout.pods}]]}
    bridge = {"type": "bridge", "bridge": BRIDGE, "isGateway": True, "ipMasq": True, "hairpinMode": True}
    ipam = addresses | {"routes": [{"dst": "0.0.0.0/0"}]}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    plugins = [bridge | {"ipam": ipam}, ports, {"type": "register_pod", "folder": f"{root}/run/pods"}]
    # In one step: containerd reads it whenever it changes, and forgets all networks when it is half there.
    part = root / "cni" / "part"
    part.write_text(json.dumps({"cniVersion": "0.4.0", "name": layout.name, "plugins": plugins}))
    part.rename(root / "cni" / "10-bridge.conflist")
    _write_plugin(layout)


def _write_plugin(layout: Layout) -> None:
    """Write the last plugin of the pods' network as a program for this very Python: one in PATH may be slow to find."""
    program, part = layout.root / "cni" / "bin" / "register_pod", layout.root / "cni" / "bin" / "part"
    part.write_text(f"#!{sys.executable} -IS\n{(HERE / 'register_pod.py').read_text()}")
    part.chmod(0o755)
    part.rename(program)


def _kubelet(layout: Layout) -> dict[str, object]:
    pki = layout.root / "pki"
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{pki}/kubelet.crt",
        "tlsPrivateKeyFile": f"{pki}/kubelet.key",
        "containerRuntimeEndpoint": f"unix://{layout.socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.name}",
        "failSwapOn": False,
        "clusterDNS": [layout.dns_service],
        "clusterDomain": "cluster.local",
        "podLogsDir": f"{layout.root}/logs/pods",
        "resolvConf": f"{layout.root}/resolv.conf",
        "maxPods": 500,
        "registryPullQPS": 0,
        "serializeImagePulls": False,
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%"},
    }
