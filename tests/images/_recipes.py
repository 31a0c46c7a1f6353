"""How each image is made; what is in this folder decides the name of the file in the cache."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.images import _archive
from tests.images._cache import kept
from tests.images._packages import ImageError, ensure, found

Recipe = Callable[[Path, str], Path]

HERE = Path(__file__).parent
PASSWD = b"root:x:0:0:root:/root:/bin/sh\nagent:x:1000:1000::/home/agent:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"
GROUP = b"root:x:0:\nagent:x:1000:\nnogroup:x:65534:\n"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SUITE = "bookworm"
PACKAGES = "bash,coreutils,python3,procps,adduser,passwd"


def busybox(work: Path, name: str) -> Path:
    """sh and the usual tools, users root, agent (1000) and nobody; no bash, no Python, no GNU tools."""
    _need({"busybox": "busybox-static"})
    program = Path(found("busybox") or "")
    applets = subprocess.check_output([program, "--list"], text=True).split()

    def fill(layer: tarfile.TarFile) -> None:
        for path, mode in {"bin": 0o755, "etc": 0o755, "root": 0o700, "tmp": 0o1777, "usr/bin": 0o755, "var/log": 0o755}.items():
            _archive.add_directory(layer, path, mode)
        _archive.add_directory(layer, "home/agent", owner=1000)
        _archive.add_program(layer, "bin/busybox", program)
        for applet in applets:
            if applet != "busybox":
                _archive.add_link(layer, f"bin/{applet}", "busybox")
        _archive.add_file(layer, "etc/passwd", PASSWD)
        _archive.add_file(layer, "etc/group", GROUP)

    return _archive.write_image(work, name, {"Cmd": ["sh"], "Env": [PATH]}, _archive.write_layer(work, fill))


def debian(work: Path, name: str) -> Path:
    """Debian with bash, Python and GNU tools, the usual base of an agent's image."""
    _need({"mmdebstrap": "mmdebstrap"})
    layer = work / "layer.tar"
    agent = 'chroot "$1" useradd --create-home --uid 1000 --shell /bin/bash agent'
    options = ["--quiet", "--variant=essential", f"--include={PACKAGES}", f"--customize-hook={agent}"]
    options += [f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("doc", "man", "locale", "info")]
    command = ["mmdebstrap", *options, SUITE, str(layer)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ImageError(f"mmdebstrap failed: {' '.join(re.findall('^E: .*', done.stderr, re.MULTILINE)) or done.stderr[-300:]}")
    return _archive.write_image(work, name, {"Cmd": ["bash"], "Env": [PATH]}, layer)


def nonroot(work: Path, name: str) -> Path:
    """Debian whose processes are user 1000 unless something else is said."""
    with tarfile.open(archive("debian")) as whole:
        whole.extract("layer.tar", work, filter="data")
    config = {"Cmd": ["bash"], "Env": [PATH], "User": "1000", "WorkingDir": "/home/agent"}
    return _archive.write_image(work, name, config, work / "layer.tar")


def binary(work: Path, name: str) -> Path:
    """One static program and nothing else, as distroless images are."""
    return _program_image(work, name, "app")


def pause(work: Path, name: str) -> Path:
    """The image that holds a pod's namespaces."""
    return _program_image(work, name, "pause")


RECIPES: Mapping[str, Recipe] = {"busybox": busybox, "debian": debian, "nonroot": nonroot, "binary": binary, "pause": pause}


def reference(name: str) -> str:
    """Name the image as a service's ``image`` does."""
    return f"sandboxcore.test/{name}:1"


def archive(name: str) -> Path:
    """Return the archive of an image, made now if it is not in the cache; safe in several processes at once.

    Raises:
        ImageError: It can't be made here; the message says what is missing. Nothing is left in the cache.
    """
    recipe = RECIPES[name]
    return kept(f"{name}-{_digest(name)}.tar", lambda work: recipe(work, reference(name)))


def _digest(name: str) -> str:
    """Hash what makes an image, its name included, so that a changed recipe is not served from the cache."""
    total = hashlib.sha256(f"{name} {platform.machine()}".encode())
    for path in (HERE / "_recipes.py", HERE / "_archive.py", HERE / "pause.c"):
        total.update(path.read_bytes())
    return total.hexdigest()[:12]


def _program_image(work: Path, name: str, path: str) -> Path:
    program = work / path
    _compile(HERE / "pause.c", program)
    layer = _archive.write_layer(work, lambda tar: _archive.add_program(tar, path, program))
    return _archive.write_image(work, name, {"Entrypoint": [f"/{path}"]}, layer)


def _compile(source: Path, program: Path) -> None:
    """Compile with Zig (the package that builds our native programs) or the machine's compiler, whichever is there."""
    if importlib.util.find_spec("ziglang") is not None:
        compiler = [sys.executable, "-m", "ziglang", "cc", "-target", f"{platform.machine()}-linux-musl"]
    else:
        _need({"cc": "gcc libc6-dev"})
        compiler = ["cc"]
    command = [*compiler, "-static", "-Os", "-s", "-o", str(program), str(source)]
    done = subprocess.run(command, env=os.environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ImageError(f"{source.name} can't be compiled: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")


def _need(programs: Mapping[str, str]) -> None:
    problem = ensure(programs)
    if problem:
        raise ImageError(problem)
