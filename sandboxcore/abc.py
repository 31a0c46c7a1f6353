"""What the author of a backend or a translator implements.

A later method comes with a default body, so that it does not break those who came before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from .errors import CapabilityError
    from .report import ReportEntry
    from .spec import BuildSpec, EnvironmentSpec
    from .values import (
        Chunk,
        Claim,
        DoctorFinding,
        EnvironmentRef,
        Event,
        ExecRequest,
        ExecResult,
        FileInfo,
        SandboxRef,
        Selector,
        Translation,
    )

__all__ = (
    "Channel",
    "Discoverer",
    "Executor",
    "FileReader",
    "FileStore",
    "FileWriter",
    "ImageResolver",
    "ProcessHandle",
    "Provisioner",
    "Strategy",
    "Translator",
)

Emit = Callable[["Event"], None]


def _cant(what: str, backend: str = "") -> CapabilityError:
    from .errors import CapabilityError

    return CapabilityError(f"backend {backend!r} can't {what}" if backend else f"this backend can't {what}")


class Strategy(ABC):
    """Something that may hold connections; the core closes it."""

    async def aclose(self) -> None:
        """Let go of what is held. Idempotent."""


class Provisioner(Strategy):
    """Makes environments and takes them away."""

    #: How many ``provision`` calls ``Session.provision_many`` keeps going when its caller does not say; None: 32.
    max_in_flight: int | None = None

    def check(self, spec: EnvironmentSpec) -> Sequence[ReportEntry]:
        """Tell what becomes of the spec on this backend, before anything is created.

        Raises:
            CapabilityError: The backend can't do what the spec asks for.
        """
        return ()

    @abstractmethod
    async def provision(self, spec: EnvironmentSpec, claim: Claim, emit: Emit) -> EnvironmentRef:
        """Create the environment and wait until every service is ready.

        Every object that is created carries the claim. Progress goes to ``emit`` (``service.*`` events).

        Raises:
            CapabilityError: The backend can't do what the spec asks for. Nothing was created.
            ProvisionError: With the cause in its first line, as soon as it is certain. Nothing is left, also when the
                awaiting task is cancelled.
        """

    async def provision_batch(self, spec: EnvironmentSpec, claims: Sequence[Claim], emit: Emit) -> Sequence[EnvironmentRef]:
        """Create one environment a claim, all of the same spec, all or none: for backends with the capability ``batch``.

        The claims are of one run, and of one lease. Events name the environment that they are about.

        Returns:
            The environments in the order of the claims.

        Raises:
            CapabilityError: The backend can't do what the spec asks for. Nothing was created.
            ProvisionError: Names which failed and why. Nothing is left of any of them, also when the task is cancelled.
        """
        raise _cant("make several environments at once")

    @abstractmethod
    async def destroy(self, environment: EnvironmentRef) -> None:
        """Take the environment away and wait until it is gone. Idempotent: one that is gone already is no error."""

    @abstractmethod
    async def renew(self, environments: Sequence[EnvironmentRef], lease: float) -> None:
        """Move the expiry of these environments to ``lease`` seconds from now. Those that are gone are passed over."""

    async def pause(self, environment: EnvironmentRef) -> None:
        """Stop the environment's services and keep what they need to go on: for backends with the capability ``pause``.

        Raises:
            CapabilityError: The backend can't, with the reason. The environment is as it was.
        """
        raise _cant("pause environments")

    async def resume(self, environment: EnvironmentRef) -> EnvironmentRef:
        """Let the services of a paused environment go on, and say where they are now.

        Raises:
            CapabilityError: The backend can't, with the reason. The environment is as it was.
        """
        raise _cant("resume environments")

    async def doctor(self) -> Sequence[DoctorFinding]:
        """Check what the backend needs on this machine or cluster, and say the fix for what is missing."""
        return ()


class Discoverer(Strategy):
    """Finds environments that any process made."""

    @abstractmethod
    async def find(self, selector: Selector) -> Sequence[EnvironmentRef]:
        """List the environments that the selector matches, also half-made and expired ones."""

    async def logs(self, sandbox: SandboxRef, *, tail: int | None = None, follow: bool = False) -> AsyncIterator[bytes]:
        """Yield what the service's own command wrote, oldest first; ``tail`` is a number of lines."""
        from .errors import CapabilityError

        raise CapabilityError(f"backend {sandbox.backend!r} keeps no logs")
        yield b""

    async def open_port(self, sandbox: SandboxRef, port: int, protocol: asyncio.BaseProtocol) -> asyncio.Transport:
        """Connect the protocol to a TCP port of the sandbox: for backends with the capability ``ports``.

        Raises:
            CapabilityError: The backend can't.
            SandboxUnavailableError: Nothing listens there, or the sandbox is gone.
        """
        raise _cant("reach ports of sandboxes", sandbox.backend)


class Channel(Strategy):
    """Opens duplex, 8-bit clean byte streams into one sandbox.

    ``lands_in`` says what answers there: ``"guest"``, a guest that is there already; or ``"exec"``, the argv that ``open``
    is given, run in the sandbox with the stream as its stdin and stdout.
    """

    lands_in: Literal["guest", "exec"] = "exec"
    #: Absolute path of a guest that is mounted in the sandbox; empty where it has to be carried in.
    guest_path: str = ""
    #: ``uname -m`` of the sandbox, where the backend knows it.
    machine: str = ""
    #: Seconds between signs of life, for streams that proxies close or that can end unnoticed; None: not needed.
    keepalive: float | None = None

    @abstractmethod
    async def open(self, argv: Sequence[str], protocol: asyncio.BaseProtocol) -> asyncio.Transport:
        """Open a stream and connect it to the protocol, as ``loop.create_connection`` does.

        Args:
            argv: What to run at the far end; ignored where ``lands_in`` is ``"guest"``.
            protocol: An ``asyncio.Protocol`` or ``BufferedProtocol``; gets ``connection_made``, data and ``connection_lost``. A
                ``SandboxUnavailableError`` that the latter is given says why the stream ended, and is raised as it is where
                the guest had not answered yet.

        Raises:
            SandboxUnavailableError: With ``started="no"``; while commands wait it is tried again.
            GuestUnavailableError: The sandbox is gone for good; it is not tried again.
        """

    async def shortcut(self, sockets: Sequence[str], protocol: asyncio.BaseProtocol) -> asyncio.Transport | None:
        """Open a shorter way to the guest that ``open`` has reached before, and connect it to the protocol.

        It need not be sure of where it leads: the client goes on with ``open`` where what answers is not the same guest.

        Args:
            sockets: Where in the sandbox the guest may listen, the likeliest first.
            protocol: As for ``open``.

        Returns:
            None where there is no other way.

        Raises:
            OSError: There is none just now. Nothing is left behind.
        """
        return None


class ProcessHandle(ABC):
    """A command that runs."""

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """Send bytes to its standard input; waits while it does not read.

        Raises:
            BrokenPipeError: The command has closed its standard input, or ended.
        """

    @abstractmethod
    async def write_eof(self) -> None:
        """End its standard input. Idempotent."""

    @abstractmethod
    def output(self) -> AsyncIterator[Chunk]:
        """Yield output as it comes, until both streams end. While nobody reads, the command is held up."""

    @abstractmethod
    async def wait(self) -> ExecResult:
        """Wait for the end; output that nobody read is dropped, so the result's streams are empty.

        Raises:
            ExecTimeoutError: The request's timeout ran out.
            OutputLimitExceededError: The request's output limit was passed.
            SandboxUnavailableError: The sandbox was lost; ``started`` is set.
        """

    @abstractmethod
    async def signal(self, number: int) -> None:
        """Send a signal to the program. One that has ended already is no error."""

    @abstractmethod
    async def kill(self) -> None:
        """Kill the program and all that it started, and wait until they are gone. Idempotent."""

    @abstractmethod
    async def resize(self, columns: int, rows: int) -> None:
        """Change the size of its terminal; without a terminal nothing happens."""

    @property
    @abstractmethod
    def pid(self) -> int | None:
        """Its process id in the sandbox; None before it started."""


class Executor(Strategy):
    """Runs commands in one sandbox, each at most once."""

    @abstractmethod
    async def exec(self, request: ExecRequest) -> ExecResult:
        """Run a command to its end. Cancelling kills it and all that it started.

        Raises:
            ExecTimeoutError: The timeout ran out; the output so far is in ``result``, everything was killed.
            OutputLimitExceededError: Likewise for the output limit.
            SandboxUserUnsupportedError: It can't run as that user. Nothing ran.
            SandboxFileNotFoundError: The working directory does not exist. Nothing ran.
            SandboxUnavailableError: The sandbox can't be reached; ``started`` says what became of the command.
        """

    @abstractmethod
    async def start(self, request: ExecRequest) -> ProcessHandle:
        """Start a command and return when it runs. Raises as ``exec`` does."""


class FileReader(Strategy):
    """An open file that is read from front to back."""

    @abstractmethod
    async def read(self, max_bytes: int = 1 << 20) -> bytes:
        """Read on; ``b""`` at the end. Raises SandboxFileError and SandboxUnavailableError."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while data := await self.read():
            yield data


class FileWriter(Strategy):
    """A file in the making: it appears under its name when the block ends well, and not at all otherwise."""

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """Append bytes. Raises SandboxFileError (a full disk, say); then nothing is left behind."""

    @abstractmethod
    async def commit(self) -> None:
        """Put the file in its place, atomically. Idempotent."""

    @abstractmethod
    async def abort(self) -> None:
        """Throw away what was written. Idempotent; after ``commit`` it does nothing."""

    async def aclose(self) -> None:
        await self.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await (self.commit() if error is None else self.abort())


class FileStore(Strategy):
    """Moves files in and out of one sandbox. Relative paths start at the service's working directory.

    All raise SandboxFileError, of the class that Python's own error would have, and SandboxUnavailableError.
    """

    @abstractmethod
    async def open_read(self, path: str, *, user: str | None = None) -> FileReader:
        """Open a file for reading."""

    @abstractmethod
    async def open_write(self, path: str, *, mode: int | None = None, user: str | None = None) -> FileWriter:
        """Begin a file; parents are made. ``mode`` None keeps the mode of a file that is there, else 0o644."""

    @abstractmethod
    async def list_dir(self, path: str, *, user: str | None = None) -> Sequence[FileInfo]:
        """List a directory, sorted by name."""

    @abstractmethod
    async def stat(self, path: str, *, follow: bool = True, user: str | None = None) -> FileInfo:
        """Describe a file."""

    @abstractmethod
    async def remove(self, path: str, *, recursive: bool = False, user: str | None = None) -> None:
        """Remove a file, an empty directory, or with ``recursive`` a tree (links are never followed)."""

    @abstractmethod
    async def make_dir(self, path: str, *, mode: int = 0o755, parents: bool = True, user: str | None = None) -> None:
        """Make a directory; with ``parents`` one that exists is no error."""

    async def read_file(self, path: str, *, user: str | None = None) -> bytes:
        """Read a whole file."""
        reader = await self.open_read(path, user=user)
        async with reader:
            return b"".join([data async for data in reader])

    async def write_file(self, path: str, data: bytes, *, mode: int | None = None, user: str | None = None) -> None:
        """Write a whole file, atomically."""
        async with await self.open_write(path, mode=mode, user=user) as writer:
            await writer.write(data)


class ImageResolver(Strategy):
    """Finds or builds the image of a service that has none but says how it is built."""

    @abstractmethod
    async def resolve(self, project: str, service: str, build: BuildSpec) -> str | None:
        """Return a reference that the backend can pull or has already; None if this resolver knows no such image.

        Args:
            project: Name of the environment's spec.
            service: Name of the service.

        Raises:
            ProvisionError: The image could not be built; the message ends with the last lines of the build.
        """


class Translator(ABC):
    """Turns a document into a neutral spec and a report of what was lost. Pure: no network, nothing created."""

    #: ``compose``, ...: what ``--translator`` and error messages call it.
    name: str = ""

    @abstractmethod
    def claims(self, path: Path) -> bool:
        """Tell by its name whether this document is one of this translator's."""

    @abstractmethod
    def translate(
        self,
        paths: Sequence[Path],
        *,
        variables: Mapping[str, str] | None = None,
        backend: BackendInfo | None = None,
        options: Mapping[str, object] | None = None,
    ) -> Translation:
        """Translate the documents, the first being the base and each further one an override.

        Args:
            variables: For interpolation; the process environment is not looked at.
            backend: Whose capabilities the report is about; None: no backend in particular.
            options: The translator's own.

        Raises:
            SpecError: With every problem, each with file, line and column.
        """


if TYPE_CHECKING:
    from .values import BackendInfo
