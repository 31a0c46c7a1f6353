"""A real, small backend for the facade's tests: services are temporary directories, commands are processes of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from sandboxcore import (
    BackendInfo,
    Chunk,
    Claim,
    Discoverer,
    EnvironmentRef,
    EnvironmentSpec,
    Event,
    ExecRequest,
    ExecResult,
    ExecTimeoutError,
    Executor,
    FileInfo,
    FileReader,
    FileStore,
    FileWriter,
    OutputLimitExceededError,
    PluginHost,
    ProcessHandle,
    Provisioner,
    SandboxRef,
    Selector,
    Session,
    hookimpl,
)
from sandboxcore.errors import file_error


class World:
    """What the backend's environments live in: stays when a session ends, as a cluster would."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environments: dict[str, EnvironmentRef] = {}
        self.calls: list[str] = []
        #: Name of the point at which provisioning stays for ever, and whether it got there.
        self.stop_at = ""
        self.stopped = asyncio.Event()
        #: What provisioning raises there instead.
        self.raises: BaseException | None = None
        #: A backend that does not undo what it began.
        self.careless = False
        self.delay = 0.0
        self.renewals: list[tuple[float, tuple[str, ...], float]] = []
        self.running = 0
        self.most_running = 0
        self.destroy_raises: list[BaseException] = []
        self.destroy_delay = 0.0
        self.open_strategies = 0
        self.specs: list[EnvironmentSpec] = []

    async def point(self, name: str) -> None:
        """A place where provisioning waits for something."""
        self.calls.append(name)
        await asyncio.sleep(self.delay)
        if name == self.stop_at:
            self.stopped.set()
            if self.raises is not None:
                raise self.raises
            await asyncio.Event().wait()

    @property
    def folders(self) -> list[str]:
        return sorted(path.name for path in self.root.iterdir())


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid")

    rootfs: str = ""
    cpus: int = 1


class DirectoryProvisioner(Provisioner):
    def __init__(self, world: World, config: Any) -> None:
        self.world = world
        self.config = config
        world.open_strategies += 1

    async def provision(self, spec: EnvironmentSpec, claim: Claim, emit: Callable[[Event], None]) -> EnvironmentRef:
        world = self.world
        world.running += 1
        world.most_running = max(world.most_running, world.running)
        try:
            return await self._provision(spec, claim, emit)
        except BaseException:
            if not world.careless:
                await asyncio.sleep(0)
                self._remove(claim.environment_id)
            raise
        finally:
            world.running -= 1

    async def _provision(self, spec: EnvironmentSpec, claim: Claim, emit: Callable[[Event], None]) -> EnvironmentRef:
        self.world.specs.append(spec)
        await self.world.point("begin")
        ref = self._ref(spec, claim)
        self.world.environments[claim.environment_id] = ref
        for name in spec.services:
            os.makedirs(self._folder(claim.environment_id, name))  # noqa: PTH103
            emit(Event(name="service.created", time=time.time(), service=name))
            await self.world.point(f"created:{name}")
        await self.world.point("ready")
        ref = dataclasses.replace(ref, state="ready")
        self.world.environments[claim.environment_id] = ref
        await self.world.point("end")
        return ref

    def _ref(self, spec: EnvironmentSpec, claim: Claim) -> EnvironmentRef:
        sandboxes = tuple(
            SandboxRef(
                backend="directory",
                environment_id=claim.environment_id,
                run_id=claim.run_id,
                service=name,
                data={"folder": self._folder(claim.environment_id, name)},
            )
            for name in spec.services
        )
        now = time.time()
        return EnvironmentRef(
            backend="directory",
            environment_id=claim.environment_id,
            run_id=claim.run_id,
            owner=claim.owner,
            created_at=now,
            expires_at=now + claim.lease,
            default=spec.default_service,
            sandboxes=sandboxes,
            labels=claim.labels,
            state="creating",
        )

    def _folder(self, environment_id: str, service: str) -> str:
        return str(self.world.root / environment_id / service)

    def _remove(self, environment_id: str) -> None:
        self.world.environments.pop(environment_id, None)
        shutil.rmtree(self.world.root / environment_id, ignore_errors=True)

    async def destroy(self, environment: EnvironmentRef) -> None:
        self.world.calls.append(f"destroy:{environment.environment_id}")
        await asyncio.sleep(self.world.destroy_delay)
        if self.world.destroy_raises:
            raise self.world.destroy_raises.pop(0)
        self._remove(environment.environment_id)

    async def renew(self, environments: Sequence[EnvironmentRef], lease: float) -> None:
        self.world.renewals.append((time.monotonic(), tuple(ref.environment_id for ref in environments), lease))
        for ref in environments:
            if ref.environment_id in self.world.environments:
                known = self.world.environments[ref.environment_id]
                self.world.environments[ref.environment_id] = dataclasses.replace(known, expires_at=time.time() + lease)

    async def aclose(self) -> None:
        self.world.calls.append("close:provisioner")
        self.world.open_strategies -= 1


class DirectoryDiscoverer(Discoverer):
    def __init__(self, world: World) -> None:
        self.world = world
        world.open_strategies += 1

    async def find(self, selector: Selector) -> list[EnvironmentRef]:
        await asyncio.sleep(0)
        return [ref for ref in self.world.environments.values() if selector.matches(ref)]

    async def logs(self, sandbox: SandboxRef, *, tail: int | None = None, follow: bool = False) -> AsyncIterator[bytes]:
        lines = [f"{sandbox.service} {number}\n".encode() for number in range(5)]
        for line in lines[-tail:] if tail else lines:
            yield line

    async def aclose(self) -> None:
        self.world.calls.append("close:discoverer")
        self.world.open_strategies -= 1


class DirectoryProcess(ProcessHandle):
    def __init__(self, process: asyncio.subprocess.Process, request: ExecRequest) -> None:
        self.process = process
        self.request = request
        self.began = time.monotonic()

    async def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        await self.process.stdin.drain()

    async def write_eof(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    async def output(self) -> AsyncIterator[Chunk]:
        assert self.process.stdout is not None
        while data := await self.process.stdout.read(65536):
            yield Chunk("stdout", data)

    async def wait(self) -> ExecResult:
        try:
            async with asyncio.timeout(self.request.timeout):
                code = await self.process.wait()
        except TimeoutError:
            await self.kill()
            raise ExecTimeoutError("timed out", result=ExecResult(exit_code=137)) from None
        return ExecResult(exit_code=code if code >= 0 else 128 - code, duration=time.monotonic() - self.began)

    async def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()

    async def resize(self, columns: int, rows: int) -> None:
        pass

    @property
    def pid(self) -> int | None:
        return self.process.pid


class DirectoryExecutor(Executor):
    def __init__(self, world: World, sandbox: SandboxRef) -> None:
        self.world = world
        self.folder = sandbox.data["folder"]
        world.open_strategies += 1

    async def _spawn(self, request: ExecRequest) -> asyncio.subprocess.Process:
        pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        return await asyncio.create_subprocess_exec(
            *request.argv,
            stdin=pipe if request.stdin is not None or request.stdin_stream else nothing,
            stdout=pipe,
            stderr=pipe if not request.stdin_stream else nothing,
            cwd=Path(self.folder, request.cwd or "."),
            env={**os.environ, **request.env},
            start_new_session=True,
        )

    async def exec(self, request: ExecRequest) -> ExecResult:
        process = await self._spawn(request)
        try:
            async with asyncio.timeout(request.timeout):
                stdout, stderr = await process.communicate(request.stdin)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.communicate()
            if isinstance(error, TimeoutError):
                raise ExecTimeoutError("timed out", result=ExecResult(exit_code=137)) from None
            raise
        limit = request.output_limit_bytes
        code = process.returncode or 0
        result = ExecResult(exit_code=code if code >= 0 else 128 - code, stdout=stdout[:limit], stderr=stderr[:limit])
        if limit is not None and len(stdout) > limit:
            raise OutputLimitExceededError("too much", result=result, limit_bytes=limit)
        return result

    async def start(self, request: ExecRequest) -> ProcessHandle:
        handle = DirectoryProcess(await self._spawn(request), request)
        if request.stdin:
            await handle.write(request.stdin)
        return handle

    async def aclose(self) -> None:
        self.world.calls.append("close:executor")
        self.world.open_strategies -= 1


class DirectoryReader(FileReader):
    def __init__(self, path: Path) -> None:
        self.file = path.open("rb")

    async def read(self, max_bytes: int = 1 << 20) -> bytes:
        return self.file.read(max_bytes)

    async def aclose(self) -> None:
        self.file.close()


class DirectoryWriter(FileWriter):
    def __init__(self, path: Path, mode: int | None) -> None:
        self.path, self.mode = path, mode
        path.parent.mkdir(parents=True, exist_ok=True)
        self.part = path.with_name(path.name + ".part")
        self.file = self.part.open("wb")

    async def write(self, data: bytes) -> None:
        self.file.write(data)

    async def commit(self) -> None:
        self.file.close()
        if self.part.exists():
            self.part.chmod(0o644 if self.mode is None else self.mode)
            self.part.replace(self.path)

    async def abort(self) -> None:
        self.file.close()
        self.part.unlink(missing_ok=True)


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise file_error(error.errno or 5, str(error.filename)) from error


class DirectoryFiles(FileStore):
    def __init__(self, world: World, sandbox: SandboxRef) -> None:
        self.world = world
        self.root = Path(sandbox.data["folder"])
        world.open_strategies += 1

    async def open_read(self, path: str, *, user: str | None = None) -> FileReader:
        with _errors():
            return DirectoryReader(self.root / path)

    async def open_write(self, path: str, *, mode: int | None = None, user: str | None = None) -> FileWriter:
        with _errors():
            return DirectoryWriter(self.root / path, mode)

    async def list_dir(self, path: str, *, user: str | None = None) -> list[FileInfo]:
        with _errors():
            return [await self.stat(str(entry)) for entry in sorted((self.root / path).iterdir())]

    async def stat(self, path: str, *, follow: bool = True, user: str | None = None) -> FileInfo:
        with _errors():
            status = (self.root / path).stat(follow_symlinks=follow)
        return FileInfo(
            path=path,
            name=Path(path).name,
            type="directory" if (self.root / path).is_dir() else "file",
            size_bytes=status.st_size,
            mode=status.st_mode & 0o7777,
            uid=status.st_uid,
            gid=status.st_gid,
            modified=status.st_mtime,
        )

    async def remove(self, path: str, *, recursive: bool = False, user: str | None = None) -> None:
        with _errors():
            target = self.root / path
            if recursive and target.is_dir():
                shutil.rmtree(target)
            elif target.is_dir():
                target.rmdir()
            else:
                target.unlink()

    async def make_dir(self, path: str, *, mode: int = 0o755, parents: bool = True, user: str | None = None) -> None:
        with _errors():
            (self.root / path).mkdir(mode=mode, parents=parents, exist_ok=parents)

    async def aclose(self) -> None:
        self.world.calls.append("close:files")
        self.world.open_strategies -= 1


class DirectoryBackend:
    """The plugin."""

    def __init__(self, world: World) -> None:
        self.world = world

    @hookimpl
    def sandboxcore_backend_info(self) -> BackendInfo:
        return BackendInfo(name="directory", summary="directories of this machine", config_model=Config)

    @hookimpl
    def sandboxcore_provisioner(self, backend: str, config: Any) -> Provisioner | None:
        return DirectoryProvisioner(self.world, config) if backend == "directory" else None

    @hookimpl
    def sandboxcore_discoverer(self, backend: str) -> Discoverer | None:
        return DirectoryDiscoverer(self.world) if backend == "directory" else None

    @hookimpl
    def sandboxcore_executor(self, sandbox: SandboxRef) -> Executor | None:
        return DirectoryExecutor(self.world, sandbox) if sandbox.backend == "directory" else None

    @hookimpl
    def sandboxcore_file_store(self, sandbox: SandboxRef) -> FileStore | None:
        return DirectoryFiles(self.world, sandbox) if sandbox.backend == "directory" else None


@pytest.fixture
def world(tmp_path: Path) -> World:
    root = tmp_path / "world"
    root.mkdir()
    return World(root)


@pytest.fixture
def plugin(world: World) -> DirectoryBackend:
    return DirectoryBackend(world)


@pytest.fixture
def host(plugin: DirectoryBackend) -> PluginHost:
    return PluginHost.load(entry_points=False, disabled=(), extra=[plugin])


@pytest.fixture
def make_session(host: PluginHost) -> Callable[..., Session]:
    """Make sessions, each as another process would."""

    def make(**arguments: Any) -> Session:
        return Session("directory", **{"plugins": host, **arguments})

    return make


@pytest.fixture
async def session(make_session: Callable[..., Session]) -> AsyncIterator[Session]:
    async with make_session() as session:
        yield session


@pytest.fixture(autouse=True)
def _nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test with a world: every strategy was closed."""
    world: World | None = request.getfixturevalue("world") if "world" in request.fixturenames else None
    yield
    assert world is None or world.open_strategies == 0
