"""The frozen values that cross the seam between the core, its users and the backends."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pydantic import BaseModel

    from .report import TranslationReport
    from .spec import EnvironmentSpec

__all__ = (
    "BackendInfo",
    "Chunk",
    "Claim",
    "DoctorFinding",
    "EnvironmentRef",
    "Event",
    "ExecRequest",
    "ExecResult",
    "FileInfo",
    "SandboxRef",
    "Selector",
    "Translation",
)

DEFAULT_OUTPUT_LIMIT_BYTES = 10 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class ExecRequest:
    """A command to run.

    Args:
        argv: Program and arguments, never a shell line.
        stdin: What the command reads; None is end-of-file at once.
        env: Added to the service's environment.
        cwd: Working directory; relative to the service's own. None: the service's own.
        user: Name or ``uid``, with ``:group`` or ``:gid`` where wanted. None: the service's own.
        timeout: Seconds until the command and all that it started are killed; None: never.
        output_limit_bytes: Most bytes of each output stream before the command is killed; None: no limit.
        stdin_stream: Standard input is written while the command runs (``start``); ``stdin`` goes first.
        pty: The command runs on a terminal of its own; its output is one stream.
        terminal_size: Columns and rows of that terminal.
    """

    argv: Sequence[str]
    stdin: bytes | None = field(default=None, repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: str | None = None
    user: str | None = None
    timeout: float | None = None
    output_limit_bytes: int | None = DEFAULT_OUTPUT_LIMIT_BYTES
    stdin_stream: bool = False
    pty: bool = False
    terminal_size: tuple[int, int] = (80, 24)

    def __post_init__(self) -> None:
        if isinstance(self.argv, (str, bytes)):
            raise TypeError("argv is a sequence of strings, one an argument; for a shell line use ['sh', '-c', line]")
        object.__setattr__(self, "argv", tuple(self.argv))
        if not self.argv or not all(isinstance(argument, str) for argument in self.argv):
            raise TypeError("argv is a sequence of strings and has at least the program")
        if self.timeout is not None and self.timeout <= 0:
            raise ValueError(f"timeout is a number of seconds above 0, not {self.timeout!r}; leave it out for none")
        wrong = next((name for name, value in self.env.items() if not isinstance(name, str) or not isinstance(value, str)), None)
        if wrong is not None:
            raise TypeError(f"names and values of environment variables are strings; look at {wrong!r}")
        words = (*self.argv, *self.env, *self.env.values(), self.cwd or "", self.user or "")
        if any("\0" in word for word in words):
            raise ValueError("a NUL byte can't be part of argv, env, cwd or user")
        if any(not name or "=" in name for name in self.env):
            raise ValueError("the name of an environment variable can't be empty or hold '='")


@dataclass(frozen=True, kw_only=True, slots=True)
class ExecResult:
    """What a command returned.

    Args:
        exit_code: What the program returned; 128 + n where signal n ended it.
        stdout: Bytes as they were written. With ``pty`` all output is here.
        stderr: Bytes as they were written.
        duration: Seconds from the request to the result, as the client saw them.
        signal: Number of the signal that ended the program, 0 if it ended by itself.
        cpu_time: Seconds of processor time that the command used; 0.0 where it is unknown.
        max_rss_bytes: Its peak of resident memory; 0 where it is unknown.
    """

    exit_code: int
    stdout: bytes = b""
    stderr: bytes = b""
    duration: float = 0.0
    signal: int = 0
    cpu_time: float = 0.0
    max_rss_bytes: int = 0

    @property
    def ok(self) -> bool:
        """Whether the program returned 0."""
        return self.exit_code == 0

    def text(self, encoding: str = "utf-8", errors: str = "replace") -> str:
        """Decode stdout."""
        return self.stdout.decode(encoding, errors)

    def error_text(self, encoding: str = "utf-8", errors: str = "replace") -> str:
        """Decode stderr."""
        return self.stderr.decode(encoding, errors)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a running command's output."""

    stream: Literal["stdout", "stderr"]
    data: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class FileInfo:
    """What a sandbox says of a file. ``modified`` is seconds since the epoch; ``target`` is where a symbolic link points."""

    path: str
    name: str
    type: Literal["file", "directory", "symlink", "other"]
    size_bytes: int
    mode: int
    uid: int
    gid: int
    modified: float
    target: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class SandboxRef:
    """Where a sandbox is: enough to reach it from any process.

    ``data`` is the backend's own address of it, of JSON types. ``exit_code`` is how its own command ended: of a service that
    is ``completed`` or ``failed``, where the backend knows it.
    """

    backend: str
    environment_id: str
    run_id: str
    service: str
    data: Mapping[str, Any] = field(default_factory=dict)
    state: Literal["starting", "ready", "completed", "failed"] = "ready"
    exit_code: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvironmentRef:
    """Where an environment is, and whose. Times are seconds since the epoch; the default service comes first.

    ``data`` is the backend's own address of it, of JSON types. ``name`` is what people see it called there, where that is not
    its id: a Helm release's name.
    """

    backend: str
    environment_id: str
    run_id: str
    owner: str
    created_at: float
    expires_at: float
    default: str
    sandboxes: tuple[SandboxRef, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    state: Literal["creating", "ready", "failed", "destroying"] = "ready"
    data: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """Who makes an environment, and for how long it is claimed. Every object that a backend makes carries this.

    ``lease`` is seconds from now; past it anyone may reap the environment unless its owner renewed it.
    ``timeout`` is seconds for the whole provisioning. ``keep``: it outlives the session that makes it, so nobody renews the
    lease by itself.
    """

    run_id: str
    environment_id: str
    owner: str
    lease: float = 300.0
    labels: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 600.0
    keep: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Selector:
    """Which environments to find; what is given must all be true."""

    run_id: str | None = None
    environment_id: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def matches(self, environment: EnvironmentRef) -> bool:
        """Tell whether an environment is among them."""
        return (
            self.run_id in (None, environment.run_id)
            and self.environment_id in (None, environment.environment_id)
            and all(environment.labels.get(name) == value for name, value in self.labels.items())
        )


@dataclass(frozen=True, kw_only=True)
class BackendInfo:
    """What a backend is called, can do and is configured by.

    ``capabilities`` are the field's words (``stdin``, ``user``, ``pty``, ``multi_service``, ``network_policy``, ``internet``,
    ``siblings``, ``resources``, ``volumes``, ``batch``, ``pool``, ``pause``, ``images``, ...).
    """

    name: str
    summary: str
    capabilities: frozenset[str] = frozenset()
    config_model: type[BaseModel] | None = None
    #: Takes the checked configuration and returns which of the capabilities are had under it; None: all of them always.
    capabilities_under: Callable[[Any], frozenset[str]] | None = None

    def under(self, config: Any) -> BackendInfo:
        """Narrow the capabilities to those that are had under a configuration."""
        if self.capabilities_under is None:
            return self
        return dataclasses.replace(self, capabilities=self.capabilities & self.capabilities_under(config))


@dataclass(frozen=True, kw_only=True, slots=True)
class DoctorFinding:
    """One thing that a backend needs, whether it is there, and what to do when it is not."""

    check: str
    status: Literal["ok", "warning", "error"]
    detail: str = ""
    fix: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Translation:
    """What a translator made of a document."""

    spec: EnvironmentSpec
    report: TranslationReport


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that happened in the life of an environment or a command.

    ``attributes`` never hold environment values, stdin or output. ``name`` is dotted (``environment.provision.start``,
    ``service.waiting``, ``exec.end``); ``duration`` is seconds, where the event ends something.
    """

    name: str
    time: float
    backend: str = ""
    run_id: str = ""
    environment_id: str = ""
    service: str = ""
    duration: float | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def replace(self, **changes: Any) -> Event:
        """Copy with changes."""
        return dataclasses.replace(self, **changes)
