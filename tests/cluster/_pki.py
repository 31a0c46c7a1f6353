"""Certificates of the cluster's components, and their kubeconfigs."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path

from ._layout import NODE, Layout

COMPONENTS = ("kube-controller-manager", "kube-scheduler", "kube-proxy")
CLIENTS = ("admin", "kubelet", *COMPONENTS)


def make_certificates(layout: Layout) -> Path:
    """Make the authority, the keys and all certificates; kept if they are there for the same addresses."""
    folder, stamp = layout.root / "pki", f"{layout.network} 1"
    if (folder / "done").exists() and (folder / "done").read_text() == stamp:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    _openssl(
        folder,
        "req",
        "-x509",
        *["-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", "/CN=kubernetes", "-keyout", "ca.key", "-out", "ca.crt"],
    )
    _openssl(folder, "genrsa", "-out", "sa.key", "2048")
    _openssl(folder, "rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub")
    names = [f"DNS:{name}" for name in ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost")]
    addresses = [f"IP:{ip}" for ip in ("127.0.0.1", layout.api_service, layout.node_address, layout.entrance)]
    _certificate(folder, "apiserver", "/CN=kube-apiserver", *names, *addresses)
    _certificate(folder, "admin", "/O=system:masters/CN=admin")
    _certificate(folder, "kubelet", f"/O=system:nodes/CN=system:node:{NODE}", f"DNS:{NODE}", f"IP:{layout.node_address}")
    for component in COMPONENTS:
        _certificate(folder, component, f"/CN=system:{component}")
    (folder / "done").write_text(stamp)
    return folder


def write_kubeconfigs(layout: Layout) -> dict[str, Path]:
    """Write a self-contained kubeconfig (JSON is YAML) for each client certificate."""
    return {name: _kubeconfig(layout, name) for name in CLIENTS}


def _kubeconfig(layout: Layout, name: str) -> Path:
    def data(file: str) -> str:
        return base64.b64encode((layout.root / "pki" / file).read_bytes()).decode()

    server = {"server": f"https://{layout.entrance}:6443", "certificate-authority-data": data("ca.crt")}
    user = {"client-certificate-data": data(f"{name}.crt"), "client-key-data": data(f"{name}.key")}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": server}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": name}}],
    }
    path, part = layout.root / f"{name}.kubeconfig", layout.root / f"{name}.kubeconfig.part"
    part.touch(mode=0o600)
    part.write_text(json.dumps(config))
    part.rename(path)
    return path


def _certificate(folder: Path, name: str, subject: str, *names: str) -> None:
    alternatives = f"subjectAltName={','.join(names)}" if names else ""
    (folder / "ext").write_text(f"extendedKeyUsage=serverAuth,clientAuth\n{alternatives}\n")
    _openssl(folder, *f"req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj".split(), subject)
    signing = f"x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -out {name}.crt -extfile ext"
    _openssl(folder, *signing.split())


def _openssl(folder: Path, *argv: str) -> None:
    subprocess.run(["openssl", *argv], cwd=folder, check=True, capture_output=True)
