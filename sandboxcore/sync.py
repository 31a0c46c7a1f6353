"""The session for programs without an event loop: the same names, blocking.

Each session runs an event loop in a thread of its own, so this also works in notebooks. Interrupting a call with Ctrl-C
cancels what it waits for, with all that that means: commands are killed, what is half-made is undone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import environment as _environment
from . import process as _process
from . import session as _session
from ._batch import ProvisionOutcome as _AsyncOutcome
from ._loop_thread import LoopThread
from .values import DEFAULT_OUTPUT_LIMIT_BYTES

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from . import abc as _abc
    from ._translation import Source
    from .plugins import PluginHost
    from .report import TranslationReport
    from .values import (
        BackendInfo,
        Chunk,
        DoctorFinding,
        EnvironmentRef,
        Event,
        ExecResult,
        FileInfo,
        SandboxRef,
        Translation,
    )

__all__ = ("Environment", "FileReader", "FileWriter", "Process", "ProcessInput", "ProvisionOutcome", "Sandbox", "Session")


@dataclass(frozen=True, kw_only=True, slots=True)
class ProvisionOutcome:
    """What became of one of many: either the environment or the error is None. ``index`` is its place among the sources."""

    index: int
    environment: Environment | None = None
    error: Exception | None = None


class Session:
    """``sandboxcore.Session``, blocking: for ``with``. The arguments are the same."""

    def __init__(
        self,
        backend: str | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        owner: str | None = None,
        lease: float = 300.0,
        timeout: float = 600.0,
        labels: Mapping[str, str] | None = None,
        plugins: PluginHost | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        self._session = _session.Session(
            backend,
            config=config,
            run_id=run_id,
            owner=owner,
            lease=lease,
            timeout=timeout,
            labels=labels,
            plugins=plugins,
            on_event=on_event,
        )
        self._thread: LoopThread | None = None

    @property
    def backend(self) -> str:
        """Name of the backend."""
        return self._session.backend

    @property
    def info(self) -> BackendInfo:
        """What the backend is and can do."""
        return self._session.info

    @property
    def run_id(self) -> str:
        """Label on everything that the session makes."""
        return self._session.run_id

    @property
    def owner(self) -> str:
        """Who that is, for others who find it."""
        return self._session.owner

    @property
    def labels(self) -> Mapping[str, str]:
        """Put on every environment."""
        return self._session.labels

    @property
    def plugins(self) -> PluginHost:
        """The plugins that the session uses."""
        return self._session.plugins

    def __enter__(self) -> Self:
        thread = LoopThread()
        try:
            thread.run(self._session.__aenter__())
        except BaseException:
            thread.close()
            raise
        self._thread = thread
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        thread = self._loop()
        try:
            thread.run(self._session.__aexit__(kind, error, trace))
        finally:
            thread.close()

    def translate(
        self,
        source: Source | None,
        *,
        variables: Mapping[str, str] | None = None,
        translator: str | None = None,
        options: Mapping[str, object] | None = None,
    ) -> Translation:
        """Make an ``EnvironmentSpec`` of whatever describes an environment. Nothing is created."""
        return self._session.translate(source, variables=variables, translator=translator, options=options)

    @contextmanager
    def environment(
        self,
        source: Source | None = None,
        *,
        variables: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> Iterator[Environment]:
        """Provision an environment for ``with``; leaving the block destroys it, whatever happened in between."""
        environment = self.provision(source, variables=variables, labels=labels, name=name)
        try:
            yield environment
        except BaseException as error:
            try:
                environment.destroy()
            except Exception as failure:
                error.add_note(str(failure))
            raise
        environment.destroy()

    def provision(
        self,
        source: Source | None = None,
        *,
        variables: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        name: str | None = None,
        lease: float | None = None,
        keep: bool = False,
    ) -> Environment:
        """Create an environment and wait until every service is ready."""
        thread = self._loop()
        work = self._session.provision(source, variables=variables, labels=labels, name=name, lease=lease, keep=keep)
        return Environment(thread, thread.run(work))

    def check(self, translation: Translation) -> Translation:
        """Add what the backend says of the spec to the report, also what it would refuse. Nothing is created."""
        return self._loop().run(self._session.check(translation))

    def prepare(self, translation: Translation) -> Translation:
        """Do what any number of equal environments need only once: have images found or built, and the spec checked."""
        return self._loop().run(self._session.prepare(translation))

    def provision_many(self, sources: Iterable[Source | None], *, max_in_flight: int | None = None) -> Iterator[ProvisionOutcome]:
        """Provision many environments and yield each as it becomes ready, or fails."""
        thread = self._loop()
        for outcome in thread.iterate(self._session.provision_many(sources, max_in_flight=max_in_flight)):
            yield _outcome(thread, outcome)

    def find(
        self, *, run_id: str | None = None, environment_id: str | None = None, labels: Mapping[str, str] | None = None
    ) -> list[Environment]:
        """List environments that any process made; what is given must all be true."""
        thread = self._loop()
        found = thread.run(self._session.find(run_id=run_id, environment_id=environment_id, labels=labels))
        return [Environment(thread, environment) for environment in found]

    def attach(self, environment_id: str) -> Environment:
        """Find one environment by its id, by the beginning of its id if no other begins so, or by its name on the backend."""
        thread = self._loop()
        return Environment(thread, thread.run(self._session.attach(environment_id)))

    def cleanup(
        self,
        *,
        run_id: str | None = None,
        environment_id: str | None = None,
        expired: bool = False,
        everything: bool = False,
        dry_run: bool = False,
    ) -> list[EnvironmentRef]:
        """Destroy environments that any process made."""
        work = self._session.cleanup(
            run_id=run_id, environment_id=environment_id, expired=expired, everything=everything, dry_run=dry_run
        )
        return self._loop().run(work)

    def doctor(self) -> list[DoctorFinding]:
        """Check what the backend needs, and say the fix for what is missing."""
        return self._loop().run(self._session.doctor())

    def _loop(self) -> LoopThread:
        if self._thread is None:
            from .errors import UsageError

            raise UsageError("the session is not open", hint="use it in 'with sandboxcore.sync.Session(...) as session'")
        return self._thread


def _outcome(thread: LoopThread, outcome: _AsyncOutcome) -> ProvisionOutcome:
    made = outcome.environment
    environment = None if made is None else Environment(thread, made)
    return ProvisionOutcome(index=outcome.index, environment=environment, error=outcome.error)


class Environment:
    """All sandboxes that were provisioned together, the default one first."""

    def __init__(self, thread: LoopThread, environment: _environment.Environment) -> None:
        self._thread = thread
        self._environment = environment

    @property
    def id(self) -> str:
        """The environment's id, unique everywhere."""
        return self._environment.id

    @property
    def ref(self) -> EnvironmentRef:
        """Where it is, whose, and until when it is claimed."""
        return self._environment.ref

    @property
    def report(self) -> TranslationReport:
        """What became of the keys of its document."""
        return self._environment.report

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the services, the default one first."""
        return self._environment.names

    @property
    def default(self) -> Sandbox:
        """The sandbox that commands go to when nobody says which."""
        return Sandbox(self._thread, self._environment.default)

    def __repr__(self) -> str:
        return repr(self._environment)

    def __getitem__(self, name: str) -> Sandbox:
        return Sandbox(self._thread, self._environment[name])

    def __iter__(self) -> Iterator[Sandbox]:
        return (Sandbox(self._thread, sandbox) for sandbox in self._environment)

    def __len__(self) -> int:
        return len(self._environment)

    def __contains__(self, name: object) -> bool:
        return name in self._environment

    def destroy(self) -> None:
        """Take the environment away and wait until it is gone. Idempotent."""
        self._thread.run(self._environment.destroy())

    def renew(self, lease: float) -> None:
        """Claim the environment for ``lease`` seconds from now."""
        self._thread.run(self._environment.renew(lease))

    def keep(self, lease: float) -> None:
        """Let the environment outlive its session, claimed for ``lease`` seconds from now."""
        self._thread.run(self._environment.keep(lease))

    def pause(self) -> None:
        """Stop the services and keep what they need to go on. Commands that run end."""
        self._thread.run(self._environment.pause())

    def resume(self) -> None:
        """Let the services of a paused environment go on."""
        self._thread.run(self._environment.resume())

    def logs(self, service: str | None = None, *, tail: int | None = None, follow: bool = False) -> Iterator[bytes]:
        """Yield what a service's own command wrote, oldest first."""
        return self._thread.iterate(self._environment.logs(service, tail=tail, follow=follow))


class Sandbox:
    """One running service: a place to run commands in and to keep files in."""

    def __init__(self, thread: LoopThread, sandbox: _environment.Sandbox) -> None:
        self._thread = thread
        self._sandbox = sandbox

    @property
    def name(self) -> str:
        """Name of the service."""
        return self._sandbox.name

    @property
    def environment_id(self) -> str:
        """Id of the environment that it belongs to."""
        return self._sandbox.environment_id

    @property
    def ref(self) -> SandboxRef:
        """Where it is."""
        return self._sandbox.ref

    def __repr__(self) -> str:
        return repr(self._sandbox)

    @contextmanager
    def port_forward(self, port: int, *, host: str = "127.0.0.1", local_port: int = 0) -> Iterator[tuple[str, int]]:
        """Listen on this machine, for ``with``, and connect whoever comes to a TCP port of the sandbox."""
        forwarding = self._sandbox.port_forward(port, host=host, local_port=local_port)
        address = self._thread.run(forwarding.__aenter__())
        try:
            yield address
        finally:
            self._thread.run(forwarding.__aexit__(None, None, None))

    def exec(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout: float | None = None,
        output_limit_bytes: int | None = DEFAULT_OUTPUT_LIMIT_BYTES,
    ) -> ExecResult:
        """Run a command to its end. A non-zero exit code is a result."""
        work = self._sandbox.exec(
            argv, stdin=stdin, env=env, cwd=cwd, user=user, timeout=timeout, output_limit_bytes=output_limit_bytes
        )
        return self._thread.run(work)

    def start(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout: float | None = None,
        output_limit_bytes: int | None = None,
        pty: bool = False,
        terminal_size: tuple[int, int] = (80, 24),
    ) -> AbstractContextManager[Process]:
        """Start a command for ``with``; leaving the block kills what still runs of it."""
        starting = self._sandbox.start(
            argv,
            stdin=stdin,
            env=env,
            cwd=cwd,
            user=user,
            timeout=timeout,
            output_limit_bytes=output_limit_bytes,
            pty=pty,
            terminal_size=terminal_size,
        )
        return _Started(self._thread, starting)

    def read_file(self, path: str, *, user: str | None = None) -> bytes:
        """Read a whole file."""
        return self._thread.run(self._sandbox.read_file(path, user=user))

    def write_file(self, path: str, data: bytes | str, *, mode: int | None = None, user: str | None = None) -> None:
        """Write a whole file, atomically; parents are made."""
        self._thread.run(self._sandbox.write_file(path, data, mode=mode, user=user))

    def open_read(self, path: str, *, user: str | None = None) -> FileReader:
        """Open a file for reading in pieces: ``with sandbox.open_read(path) as reader``."""
        return FileReader(self._thread, self._thread.run(self._sandbox.open_read(path, user=user)))

    def open_write(self, path: str, *, mode: int | None = None, user: str | None = None) -> FileWriter:
        """Begin a file that appears when the block ends well: ``with sandbox.open_write(path) as writer``."""
        return FileWriter(self._thread, self._thread.run(self._sandbox.open_write(path, mode=mode, user=user)))

    def list_dir(self, path: str = ".", *, user: str | None = None) -> list[FileInfo]:
        """List a directory, sorted by name."""
        return self._thread.run(self._sandbox.list_dir(path, user=user))

    def stat(self, path: str, *, follow: bool = True, user: str | None = None) -> FileInfo:
        """Describe a file."""
        return self._thread.run(self._sandbox.stat(path, follow=follow, user=user))

    def exists(self, path: str, *, user: str | None = None) -> bool:
        """Tell whether there is a file, of whatever kind."""
        return self._thread.run(self._sandbox.exists(path, user=user))

    def remove(self, path: str, *, recursive: bool = False, user: str | None = None) -> None:
        """Remove a file, an empty directory, or with ``recursive`` a tree."""
        self._thread.run(self._sandbox.remove(path, recursive=recursive, user=user))

    def make_dir(self, path: str, *, mode: int = 0o755, parents: bool = True, user: str | None = None) -> None:
        """Make a directory; with ``parents`` one that exists is no error."""
        self._thread.run(self._sandbox.make_dir(path, mode=mode, parents=parents, user=user))


class _Started(AbstractContextManager["Process"]):
    def __init__(self, thread: LoopThread, starting: AbstractAsyncContextManager[_process.Process]) -> None:
        self._thread = thread
        self._starting = starting

    def __enter__(self) -> Process:
        return Process(self._thread, self._thread.run(_entered(self._starting)))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._thread.run(_left(self._starting, kind, error, trace))


async def _entered(starting: AbstractAsyncContextManager[_process.Process]) -> _process.Process:
    return await starting.__aenter__()


async def _left(
    starting: AbstractAsyncContextManager[_process.Process],
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
) -> None:
    await starting.__aexit__(kind, error, trace)


class ProcessInput:
    """Standard input of a running command."""

    def __init__(self, thread: LoopThread, stdin: _process.ProcessInput) -> None:
        self._thread = thread
        self._stdin = stdin

    def write(self, data: bytes | str) -> None:
        """Send bytes (text as UTF-8); waits while the command does not read."""
        self._thread.run(self._stdin.write(data))

    def close(self) -> None:
        """Let the command read end-of-file. Idempotent."""
        self._thread.run(self._stdin.close())


class Process:
    """A running command."""

    def __init__(self, thread: LoopThread, process: _process.Process) -> None:
        self._thread = thread
        self._process = process
        self.stdin = ProcessInput(thread, process.stdin)

    @property
    def pid(self) -> int | None:
        """Its process id in the sandbox."""
        return self._process.pid

    def output(self) -> Iterator[Chunk]:
        """Yield output as it comes, until both streams end."""
        return self._thread.iterate(self._process.output())

    def wait(self) -> ExecResult:
        """Wait for the end; output that nobody read is dropped."""
        return self._thread.run(self._process.wait())

    def communicate(self, data: bytes | str = b"") -> ExecResult:
        """Send what is left of the input, close it, and wait for the end."""
        return self._thread.run(self._process.communicate(data))

    def signal(self, number: int) -> None:
        """Send a signal to the program. One that has ended already is no error."""
        self._thread.run(self._process.signal(number))

    def kill(self) -> None:
        """Kill the program and all that it started, and wait until they are gone. Idempotent."""
        self._thread.run(self._process.kill())

    def resize(self, columns: int, rows: int) -> None:
        """Change the size of its terminal; without a terminal nothing happens."""
        self._thread.run(self._process.resize(columns, rows))


class FileReader:
    """An open file that is read from front to back."""

    def __init__(self, thread: LoopThread, reader: _abc.FileReader) -> None:
        self._thread = thread
        self._reader = reader

    def read(self, max_bytes: int = 1 << 20) -> bytes:
        """Read on; ``b""`` at the end."""
        return self._thread.run(self._reader.read(max_bytes))

    def close(self) -> None:
        """Close it. Idempotent."""
        self._thread.run(self._reader.aclose())

    def __iter__(self) -> Iterator[bytes]:
        while data := self.read():
            yield data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class FileWriter:
    """A file in the making: it appears under its name when the block ends well, and not at all otherwise."""

    def __init__(self, thread: LoopThread, writer: _abc.FileWriter) -> None:
        self._thread = thread
        self._writer = writer

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._thread.run(self._writer.write(data))

    def commit(self) -> None:
        """Put the file in its place, atomically. Idempotent."""
        self._thread.run(self._writer.commit())

    def abort(self) -> None:
        """Throw away what was written. Idempotent; after ``commit`` it does nothing."""
        self._thread.run(self._writer.abort())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._thread.run(self._writer.__aexit__(kind, error, trace))
