"""Real environments of the local backend, in a state folder of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from sandboxcore.guest import Guest
from sandboxcore.local import sandboxcore_channel, sandboxcore_discoverer
from sandboxcore.local._config import LocalConfig
from sandboxcore.local._provisioner import LocalProvisioner
from sandboxcore.spec import EnvironmentSpec, ServiceSpec
from sandboxcore.values import Claim, EnvironmentRef, Event, ExecRequest, ExecResult, SandboxRef, Selector


class Made:
    """An environment, and short ways to use it."""

    def __init__(self, backend: Backend, ref: EnvironmentRef) -> None:
        self.backend, self.ref = backend, ref
        self._guests: dict[str, Guest] = {}

    def sandbox(self, service: str) -> SandboxRef:
        return next(sandbox for sandbox in self.ref.sandboxes if sandbox.service == service)

    def guest(self, service: str) -> Guest:
        if service not in self._guests:
            channel = sandboxcore_channel(self.sandbox(service))
            assert channel is not None
            self._guests[service] = Guest(channel)
        return self._guests[service]

    async def run(self, *argv: str, service: str = "default", **request: Any) -> ExecResult:
        return await self.guest(service).executor.exec(ExecRequest(argv=argv, **request))

    async def output(self, *argv: str, service: str = "default", **request: Any) -> str:
        result = await self.run(*argv, service=service, **request)
        assert result.ok, result.error_text()
        return result.text().strip()

    async def close(self) -> None:
        for guest in self._guests.values():
            await guest.aclose()
        self._guests.clear()


class Backend:
    """A provisioner and a discoverer over one state folder."""

    def __init__(self, config: LocalConfig) -> None:
        self.config = config
        self.provisioner = LocalProvisioner(config)
        discoverer = sandboxcore_discoverer("local", config)
        assert discoverer is not None
        self.discoverer = discoverer
        self.events: list[Event] = []
        self._made: list[Made] = []
        self._count = 0

    async def make(
        self, spec: EnvironmentSpec | None = None, *, lease: float = 120.0, timeout: float = 60.0, **service: Any
    ) -> Made:
        """Provision a spec, or one service `default`."""
        self._count += 1
        claim = Claim(run_id="run", environment_id=f"env{self._count}", owner="tests", lease=lease, timeout=timeout)
        spec = spec or EnvironmentSpec(services={"default": ServiceSpec(**service)})
        made = Made(self, await self.provisioner.provision(spec, claim, self.events.append))
        self._made.append(made)
        return made

    async def all(self) -> list[EnvironmentRef]:
        return list(await self.discoverer.find(Selector()))

    async def logs(self, made: Made, service: str = "default", **options: Any) -> bytes:
        return b"".join([data async for data in self.discoverer.logs(made.sandbox(service), **options)])

    async def assert_log(self, made: Made, wanted: bytes, service: str = "default") -> None:
        """Wait until a service's command has written as much as is wanted; ready is one that has only begun."""
        deadline = time.monotonic() + 30
        while len(data := await self.logs(made, service)) < len(wanted) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        assert data == wanted

    async def close(self) -> None:
        for made in self._made:
            await made.close()
        for environment in await self.all():
            await self.provisioner.destroy(environment)
        await self.provisioner.aclose()


@pytest.fixture
async def make_backend(tmp_path: Path) -> AsyncIterator[Callable[..., Backend]]:
    """Make backends over one state folder; all their environments go at the end."""
    made: list[Backend] = []

    def make(**config: Any) -> Backend:
        made.append(Backend(LocalConfig(state_dir=tmp_path / "state", **config)))
        return made[-1]

    yield make
    for backend in made:
        await backend.close()


@pytest.fixture
def backend(make_backend: Callable[..., Backend]) -> Backend:
    """A backend as it is without configuration."""
    return make_backend()


def processes_below(pid: int) -> list[int]:
    """List the processes that descend from one, but for those that only wait to be reaped."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent, *_ = stat.read_text().rpartition(")")[2].split()
            if state != "Z":
                parents[int(stat.parent.name)] = int(parent)
    found = [pid]
    for parent in found:
        found.extend(child for child, its in parents.items() if its == parent)
    return found


PROGRAMS = (
    "sh",
    "cat",
    "ls",
    "id",
    "sleep",
    "touch",
    "mkdir",
    "rm",
    "readlink",
    "stat",
    "env",
    "grep",
    "mv",
    "wc",
    "head",
    "chown",
)


def program_files() -> dict[str, Path]:
    """Collect some of this machine's programs with their libraries, as a small image would have them."""
    files: dict[str, Path] = {}
    for name in PROGRAMS:
        program = Path(shutil.which(name, path="/usr/bin:/bin") or f"/bin/{name}")
        files[f"bin/{name}"] = program
        listing = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        for library in re.findall(r"(/\S+) \(0x", listing):
            files[library.lstrip("/")] = Path(library)
    return files


Entry = tuple[str, bytes | Path | None, dict[str, Any]]


def layer(entries: Iterable[Entry], *, compress: bool = False) -> tuple[bytes, str]:
    """Make a layer of (name, content, attributes of the TarInfo); content None makes a directory.

    Returns:
        The blob and the digest of what is in it.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content, attributes in entries:
            data = content.read_bytes() if isinstance(content, Path) else content
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
            info.mode, info.size = 0o755, len(data or b"")
            for attribute, value in attributes.items():
                setattr(info, attribute, value)
            archive.addfile(info, io.BytesIO(data or b"") if info.isreg() else None)
    plain = buffer.getvalue()
    import gzip

    return gzip.compress(plain) if compress else plain, f"sha256:{hashlib.sha256(plain).hexdigest()}"


def save_image(path: Path, layers: list[tuple[bytes, str]], config: dict[str, Any]) -> Path:
    """Write what `docker save` writes."""
    document = json.dumps({"config": config, "rootfs": {"type": "layers", "diff_ids": [digest for _, digest in layers]}}).encode()
    name = f"{hashlib.sha256(document).hexdigest()}.json"
    names = [f"{index}/layer.tar" for index in range(len(layers))]
    manifest = json.dumps([{"Config": name, "RepoTags": ["test:1"], "Layers": names}]).encode()
    blobs = [(name, document), ("manifest.json", manifest), *zip(names, (blob for blob, _ in layers), strict=True)]
    with tarfile.open(path, "w") as archive:
        for member, data in blobs:
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def base_layer() -> tuple[bytes, str]:
    """Make the lowest layer of the tests' images."""
    passwd = b"root:x:0:0:root:/root:/bin/sh\nworker:x:1234:1235::/home/worker:/bin/sh\n"
    group = b"root:x:0:\nworkers:x:1235:\nextra:x:1236:worker\n"
    entries: list[Entry] = [(name, None, {}) for name in ("bin", "etc", "var", "var/data", "root", "home/worker")]
    entries.append(("tmp", None, {"mode": 0o1777}))
    entries.extend((name, path, {}) for name, path in program_files().items())
    entries.append(("etc/passwd", passwd, {"mode": 0o644}))
    entries.append(("etc/group", group, {"mode": 0o644}))
    entries.append(("var/data/lower", b"lower", {"mode": 0o640, "uid": 1234, "gid": 1235}))
    entries.append(("etc/original", b"as it came\n", {"mode": 0o644}))
    return layer(entries)


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of a shell and a few tools, with a user of its own."""
    config = {
        "Env": ["PATH=/bin", "FROM_IMAGE=yes"],
        "Entrypoint": ["/bin/sh", "-c"],
        "Cmd": ["echo from the image; sleep 1000"],
        "WorkingDir": "/var/data",
    }
    return save_image(tmp_path_factory.mktemp("image") / "image.tar", [base_layer()], config)
