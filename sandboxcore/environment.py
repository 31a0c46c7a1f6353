"""What a program works with: an environment and its sandboxes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ._forwarding import forwarded
from ._validation import did_you_mean
from .errors import CapabilityError, SandboxFileNotFoundError, ServiceNotFoundError, UsageError
from .process import Process, Starting
from .report import TranslationReport
from .values import DEFAULT_OUTPUT_LIMIT_BYTES, ExecRequest

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from ._events import Span
    from ._runtime import Runtime
    from .abc import FileReader, FileWriter
    from .plugins import Binding
    from .values import EnvironmentRef, ExecResult, FileInfo, SandboxRef

__all__ = ("Environment", "Sandbox")

_NO_ENV: Mapping[str, str] = {}


class Sandbox:
    """One running service: a place to run commands in and to keep files in.

    Relative paths and working directories start at the service's own working directory.
    """

    __slots__ = ("_binding", "_runtime", "ref")

    def __init__(self, runtime: Runtime, ref: SandboxRef) -> None:
        self._runtime = runtime
        self._binding: Binding | None = None
        #: Where it is; enough to reach it from another process.
        self.ref = ref

    @property
    def name(self) -> str:
        """Name of the service."""
        return self.ref.service

    @property
    def environment_id(self) -> str:
        """Id of the environment that it belongs to."""
        return self.ref.environment_id

    def __repr__(self) -> str:
        return f"<Sandbox {self.name!r} of environment {self.environment_id}>"

    async def exec(
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
        """Run a command to its end. A non-zero exit code is a result; cancelling kills the command and all it started.

        Args:
            argv: Program and arguments, never a shell line.
            stdin: What it reads (text as UTF-8); None is end-of-file at once.
            env: Added to the service's environment.
            user: Name or ``uid``, with ``:group`` or ``:gid`` where wanted.
            timeout: Seconds until the command and all that it started are killed; None: never.
            output_limit_bytes: Most bytes of each output stream before the command is killed; None: no limit.

        Raises:
            ExecTimeoutError: The timeout ran out; the output so far is in ``result``, everything was killed.
            OutputLimitExceededError: Likewise for the output limit.
            SandboxUserUnsupportedError: It can't run as that user. Nothing ran.
            SandboxFileNotFoundError: The working directory does not exist. Nothing ran.
            SandboxUnavailableError: The sandbox can't be reached; ``started`` tells what became of the command.
        """
        request = ExecRequest(
            argv=argv,
            stdin=stdin.encode() if isinstance(stdin, str) else stdin,
            env=_NO_ENV if env is None else env,
            cwd=cwd,
            user=user,
            timeout=timeout,
            output_limit_bytes=output_limit_bytes,
        )
        binding = self._binding
        if binding is None or binding.closed:
            binding = self._bind()
        if self._runtime.events.active:
            return await self._observed_exec(binding, request)
        return await binding.executor.exec(request)

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
    ) -> AbstractAsyncContextManager[Process]:
        """Start a command for ``async with``; leaving the block kills what still runs of it.

        Its standard input stays open until ``process.stdin.close()``; ``stdin`` is what it reads first.

        Args:
            pty: Run it on a terminal of its own; its output is one stream.
            terminal_size: Columns and rows of that terminal.
        """
        request = ExecRequest(
            argv=argv,
            stdin=stdin.encode() if isinstance(stdin, str) else stdin,
            env=_NO_ENV if env is None else env,
            cwd=cwd,
            user=user,
            timeout=timeout,
            output_limit_bytes=output_limit_bytes,
            stdin_stream=True,
            pty=pty,
            terminal_size=terminal_size,
        )
        return Starting(self._bind, request, lambda: self._span("exec", argv0=request.argv[0], pty=pty))

    async def read_file(self, path: str, *, user: str | None = None) -> bytes:
        """Read a whole file. Large ones: ``open_read``."""
        with self._span("file.read", path=path) as span:
            data = await self._bind().files.read_file(path, user=user)
            span.end(size_bytes=len(data))
            return data

    async def write_file(self, path: str, data: bytes | str, *, mode: int | None = None, user: str | None = None) -> None:
        """Write a whole file (text as UTF-8), atomically; parents are made. ``mode`` None keeps that of a file that is there."""
        content = data.encode() if isinstance(data, str) else data
        with self._span("file.write", path=path, size_bytes=len(content)):
            await self._bind().files.write_file(path, content, mode=mode, user=user)

    async def open_read(self, path: str, *, user: str | None = None) -> FileReader:
        """Open a file for reading in pieces: ``async with await sandbox.open_read(path) as reader``."""
        with self._span("file.open_read", path=path):
            return await self._bind().files.open_read(path, user=user)

    async def open_write(self, path: str, *, mode: int | None = None, user: str | None = None) -> FileWriter:
        """Begin a file that appears when the block ends well: ``async with await sandbox.open_write(path) as writer``."""
        with self._span("file.open_write", path=path):
            return await self._bind().files.open_write(path, mode=mode, user=user)

    async def list_dir(self, path: str = ".", *, user: str | None = None) -> list[FileInfo]:
        """List a directory, sorted by name."""
        with self._span("file.list", path=path):
            return list(await self._bind().files.list_dir(path, user=user))

    async def stat(self, path: str, *, follow: bool = True, user: str | None = None) -> FileInfo:
        """Describe a file; ``follow`` False describes a symbolic link itself."""
        with self._span("file.stat", path=path):
            return await self._bind().files.stat(path, follow=follow, user=user)

    async def exists(self, path: str, *, user: str | None = None) -> bool:
        """Tell whether there is a file, of whatever kind; a link that leads nowhere is none."""
        try:
            await self._bind().files.stat(path, follow=True, user=user)
        except (SandboxFileNotFoundError, NotADirectoryError):
            return False
        return True

    async def remove(self, path: str, *, recursive: bool = False, user: str | None = None) -> None:
        """Remove a file, an empty directory, or with ``recursive`` a tree (links are never followed)."""
        with self._span("file.remove", path=path):
            await self._bind().files.remove(path, recursive=recursive, user=user)

    async def make_dir(self, path: str, *, mode: int = 0o755, parents: bool = True, user: str | None = None) -> None:
        """Make a directory; with ``parents`` one that exists is no error."""
        with self._span("file.make_dir", path=path):
            await self._bind().files.make_dir(path, mode=mode, parents=parents, user=user)

    def port_forward(
        self, port: int, *, host: str = "127.0.0.1", local_port: int = 0
    ) -> AbstractAsyncContextManager[tuple[str, int]]:
        """Listen on this machine, for ``async with``, and connect whoever comes to a TCP port of the sandbox.

        Args:
            port: The sandbox's side, 1 to 65535.
            host: Address to listen on.
            local_port: Port to listen on; 0: any that is free.

        Returns:
            Gives the address and port that it listens on. Leaving the block closes it, with all connections.

        Raises:
            CapabilityError: The backend can't reach ports of its sandboxes.
        """
        if not 0 < port < 65536:
            raise UsageError(f"a port is a number from 1 to 65535, not {port!r}")
        if "ports" not in self._runtime.capabilities:
            raise CapabilityError(f"backend {self.ref.backend!r} can't reach ports of sandboxes")
        return forwarded(partial(self._runtime.discoverer.open_port, self.ref, port), host=host, local_port=local_port)

    def _bind(self) -> Binding:
        binding = self._binding
        if binding is None or binding.closed:
            binding = self._binding = self._runtime.bind(self.ref)
        return binding

    def _span(self, name: str, **attributes: Any) -> Span:
        return self._runtime.events.span(name, environment_id=self.environment_id, service=self.name, **attributes)

    async def _observed_exec(self, binding: Binding, request: ExecRequest) -> ExecResult:
        with self._span("exec", argv0=request.argv[0]) as span:
            result = await binding.executor.exec(request)
            span.end(exit_code=result.exit_code)
            return result


class Environment:
    """All sandboxes that were provisioned together, the default one first."""

    def __init__(self, runtime: Runtime, ref: EnvironmentRef, report: TranslationReport | None = None) -> None:
        self._runtime = runtime
        self._destroying = asyncio.Lock()
        self._destroyed = False
        #: Where it is, whose, and until when it is claimed.
        self.ref = ref
        #: What became of the keys of its document; empty for one that was found.
        self.report = report or TranslationReport()
        ordered = sorted(ref.sandboxes, key=lambda sandbox: sandbox.service != ref.default)
        self._sandboxes = {sandbox.service: Sandbox(runtime, sandbox) for sandbox in ordered}

    @property
    def id(self) -> str:
        """The environment's id, unique everywhere."""
        return self.ref.environment_id

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the services, the default one first."""
        return tuple(self._sandboxes)

    @property
    def default(self) -> Sandbox:
        """The sandbox that commands go to when nobody says which."""
        if not self._sandboxes:
            raise ServiceNotFoundError(f"environment {self.id} has no sandboxes; its state is {self.ref.state!r}")
        return next(iter(self))

    def __repr__(self) -> str:
        return f"<Environment {self.id} on {self.ref.backend!r}: {', '.join(self.names)}>"

    def __getitem__(self, name: str) -> Sandbox:
        """Return the sandbox of a service.

        Raises:
            ServiceNotFoundError: There is none of that name; the message names those that there are.
        """
        try:
            return self._sandboxes[name]
        except KeyError:
            near = did_you_mean(name, self.names) if isinstance(name, str) else ""
            message = f"environment {self.id} has no service {name!r}{near}; it has {', '.join(self.names) or 'none'}"
        raise ServiceNotFoundError(message)

    def __iter__(self) -> Iterator[Sandbox]:
        return iter(self._sandboxes.values())

    def __len__(self) -> int:
        return len(self._sandboxes)

    def __contains__(self, name: object) -> bool:
        return name in self._sandboxes

    async def destroy(self) -> None:
        """Take the environment away and wait until it is gone, also when the awaiting task is cancelled. Idempotent.

        Raises:
            SandboxError: The backend could not; calling it again tries again.
        """
        async with self._destroying:
            if not self._destroyed:
                await self._runtime.destroy(self.ref)
                self._destroyed = True

    async def renew(self, lease: float) -> None:
        """Claim the environment for ``lease`` seconds from now. What its session provisioned is renewed by itself."""
        if not 0 < lease < float("inf"):
            raise UsageError(f"a lease is a number of seconds above 0, not {lease!r}")
        self.ref = await self._runtime.renew(self.ref, lease)

    async def keep(self, lease: float) -> None:
        """Let the environment outlive its session, claimed for ``lease`` seconds from now; nobody renews that by itself.

        Raises:
            SandboxError: It can't be renewed; it still goes with its session.
        """
        if not 0 < lease < float("inf"):
            raise UsageError(f"a lease is a number of seconds above 0, not {lease!r}")
        self.ref = await self._runtime.keep(self.ref, lease)

    async def pause(self) -> None:
        """Stop the services and keep what they need to go on. Commands that run end.

        Raises:
            CapabilityError: The backend can't, with the reason; nothing has changed.
        """
        await self._runtime.pause(self.ref)

    async def resume(self) -> None:
        """Let the services of a paused environment go on.

        Raises:
            CapabilityError: The backend can't, with the reason; nothing has changed.
        """
        self.ref = await self._runtime.resume(self.ref)
        for sandbox in self.ref.sandboxes:
            moved = self._sandboxes[sandbox.service]
            moved.ref, moved._binding = sandbox, None

    def logs(self, service: str | None = None, *, tail: int | None = None, follow: bool = False) -> AsyncIterator[bytes]:
        """Yield what a service's own command wrote, oldest first.

        Args:
            service: Which; None: the default one.
            tail: Number of lines to begin at, from the end; None: all that is kept.
            follow: Go on with what is written from now on.
        """
        sandbox = self.default if service is None else self[service]
        return self._runtime.discoverer.logs(sandbox.ref, tail=tail, follow=follow)
