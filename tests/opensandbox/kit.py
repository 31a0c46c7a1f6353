"""The real OpenSandbox for tests: its controller on the test cluster, and its server as a process of this machine.

No public registry has what these tests need, so the binaries come from a folder: ``$SANDBOXCORE_TEST_OPENSANDBOX``, or
``shared/opensandbox`` beside this repository. It has ``bin/*.xz`` (controller, task-executor, execd), ``bootstrap.sh``, ``crd``,
``rbac`` and ``charts`` of OpenSandbox's own source tree. Without it the tests are skipped.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "SANDBOXCORE_TEST_OPENSANDBOX"
SYSTEM = "opensandbox-system"
DEPLOYMENT = "opensandbox-controller-manager"
SERVER = "opensandbox-server==1.1.1"
RELEASE = "opensandbox"
IMAGES = {name: f"sandboxcore.test/opensandbox-{name}:1" for name in ("controller", "task-executor", "execd")}


def folder() -> Path:
    """Find the kit."""
    given = os.environ.get(VARIABLE)
    return Path(given) if given else Path(__file__).parents[3] / "shared" / "opensandbox"


def state() -> Path:
    """Find the folder for what is unpacked and installed."""
    made = Path(os.environ.get("SANDBOXCORE_TEST_CACHE", "~/.cache")).expanduser() / "sandboxcore-test-opensandbox"
    made.mkdir(parents=True, exist_ok=True)
    return made


def missing() -> str:
    """Say what of the kit is not here, or nothing."""
    names = [name for name in ("bin/opensandbox-controller.xz", "crd", "rbac", "charts") if not (folder() / name).exists()]
    return f"the OpenSandbox binaries are not here ({folder()} has no {names[0]}; set {VARIABLE})" if names else ""


@functools.cache
def probe() -> str:
    """Install the controller if need be; returns why it can't be had, or nothing."""
    from tests.cluster import probe as cluster

    problem = missing() or cluster()
    if problem:
        return problem
    with _locked("up"):
        if not _is_up():
            _install()
    return ""


def values() -> Mapping[str, object]:
    """Give values of the controller's chart that need no registry."""
    repository, _, tag = IMAGES["controller"].rpartition(":")
    return {
        "controller": {"image": {"repository": repository, "tag": tag, "pullPolicy": "Never"}},
        "crds": {"install": False},
        "rbac": {"create": False},
        "serviceAccount": {"create": False, "name": "opensandbox-controller-manager"},
    }


def _is_up() -> bool:
    from tests.cluster import kubectl

    found = kubectl("-n", SYSTEM, "get", "deployment", DEPLOYMENT, "-o", "jsonpath={.status.readyReplicas}", check=False)
    return found.strip() not in ("", "0")


def _install() -> None:
    from tests.cluster import helm, kubeconfig, kubectl

    load_images()
    kubectl("create", "namespace", SYSTEM, check=False)
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(folder() / "crd"))
    kubectl("wait", "--for=condition=Established", "--timeout=60s", "-f", str(folder() / "crd"))
    kubectl("apply", "-k", str(folder() / "rbac"))
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(values(), file)
        file.flush()
        chart = folder() / "charts" / "opensandbox-controller"
        argv = ["upgrade", "--install", RELEASE, str(chart), "--namespace", SYSTEM, "--values", file.name]
        _run(str(helm(3)), "--kubeconfig", str(kubeconfig()), *argv)
    kubectl("-n", SYSTEM, "rollout", "status", "--timeout=300s", f"deployment/{DEPLOYMENT}")


def load_images() -> None:
    """Make the three images on busybox, laid out and named as OpenSandbox's Dockerfiles do, and load them."""
    from tests.cluster import load

    server = {"Entrypoint": ["./server"], "WorkingDir": "/workspace", "Env": ["PATH=/bin"]}
    for name, config in (
        ("controller", {**server, "User": "65532"}),
        ("task-executor", {**server, "User": "0"}),
        ("execd", {"Entrypoint": ["./execd"], "WorkingDir": "/", "User": "0", "Env": ["PATH=/bin"]}),
    ):
        program = _unpacked(f"opensandbox-{name}")
        load(_image(name, config, program))


def _unpacked(name: str) -> Path:
    packed, program = folder() / "bin" / f"{name}.xz", state() / name
    if not program.exists() or program.stat().st_mtime < packed.stat().st_mtime:
        part = program.with_suffix(".part")
        with lzma.open(packed) as source, part.open("wb") as target:
            shutil.copyfileobj(source, target)
        part.chmod(0o755)
        part.rename(program)
    return program


def _image(name: str, config: Mapping[str, object], program: Path) -> Path:
    from tests.images._archive import add_directory, add_file, add_link, add_program, write_image, write_layer

    busybox = shutil.which("busybox")
    assert busybox is not None
    digest = hashlib.sha256(program.read_bytes()).hexdigest()[:12]
    made = state() / f"{name}-{digest}.tar"
    if made.exists():
        return made

    def fill(tar: tarfile.TarFile) -> None:
        for path, mode in (("bin", 0o755), ("tmp", 0o1777), ("workspace", 0o755)):
            add_directory(tar, path, mode)
        add_program(tar, "bin/busybox", Path(busybox))
        for applet in ("sh", "cp", "chmod", "mkdir", "ls", "cat", "sleep", "nsenter"):
            add_link(tar, f"bin/{applet}", "busybox")
        if name == "execd":
            add_program(tar, "execd", program)
            add_file(tar, "bootstrap.sh", (folder() / "bootstrap.sh").read_bytes(), 0o755)
        else:
            add_program(tar, "workspace/server", program)

    with tempfile.TemporaryDirectory(dir=state()) as work:
        layer = write_layer(Path(work), fill)
        write_image(Path(work), IMAGES[name], dict(config), layer).rename(made)
    return made


def server_program() -> Path:
    """Install opensandbox-server from PyPI into an environment of its own, once; it needs other versions than we do."""
    program = state() / "server" / "bin" / "opensandbox-server"
    with _locked("server"):
        if not program.exists():
            venv = program.parents[1]
            _run(sys.executable, "-m", "venv", "--clear", str(venv))
            _run(str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", SERVER)
    return program


@contextmanager
def _locked(name: str) -> Iterator[None]:
    with (state() / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{Path(argv[0]).name} {' '.join(argv[1:3])}: {done.stderr.strip()[-500:]}")
