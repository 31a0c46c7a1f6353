"""Every error that sandboxcore raises, in one tree.

::

    SandboxError
    ├── UsageError                        bad input: nothing was created (exit code 2)
    │   ├── SpecError                     a document or value, with file, line and column
    │   ├── BackendNotFoundError          no plugin offers the backend that was asked for
    │   ├── ServiceNotFoundError          the environment has no service of that name (also KeyError)
    │   └── PluginError                   a plugin broke the rules of the plugin host
    ├── CapabilityError                   the backend can't do what was asked: nothing was created
    │   └── SandboxUserUnsupportedError   a command can't run as that user: it did not start
    ├── ProvisionError                    an environment could not be made ready: all of it is gone
    │   ├── ServiceFailedError            a service ended, crashed or stayed unhealthy
    │   └── ProvisionTimeoutError         not ready in time (also TimeoutError)
    ├── EnvironmentNotFoundError          no environment answers the selection (also LookupError)
    ├── ExecTimeoutError                  the command ran into its timeout and was killed (also TimeoutError)
    ├── OutputLimitExceededError          the command wrote too much and was killed
    ├── SandboxUnavailableError           the sandbox can't be reached; ``started`` tells what became of the command
    │   └── GuestUnavailableError         the guest can't be put into the sandbox: nothing was run
    └── SandboxFileError                  a file operation failed (also OSError, with errno and file name)
        ├── SandboxFileNotFoundError      (also FileNotFoundError)
        ├── SandboxFileExistsError        (also FileExistsError)
        ├── SandboxPermissionError        (also PermissionError)
        ├── SandboxIsADirectoryError      (also IsADirectoryError)
        └── SandboxNotADirectoryError     (also NotADirectoryError)

All of them survive pickling, so that they cross process pools. No message holds environment values or stdin.
"""

from __future__ import annotations

import errno as _errno
import os
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .values import ExecResult

__all__ = (
    "BackendNotFoundError",
    "CapabilityError",
    "EnvironmentNotFoundError",
    "ExecTimeoutError",
    "GuestUnavailableError",
    "OutputLimitExceededError",
    "PluginError",
    "ProvisionError",
    "ProvisionTimeoutError",
    "SandboxError",
    "SandboxFileError",
    "SandboxFileExistsError",
    "SandboxFileNotFoundError",
    "SandboxIsADirectoryError",
    "SandboxNotADirectoryError",
    "SandboxPermissionError",
    "SandboxUnavailableError",
    "SandboxUserUnsupportedError",
    "ServiceFailedError",
    "ServiceNotFoundError",
    "SpecError",
    "Started",
    "UsageError",
    "file_error",
)

Started = Literal["yes", "no", "unknown"]


def _rebuild(cls: type[SandboxError], args: tuple[Any, ...], state: dict[str, Any]) -> SandboxError:
    error = cls.__new__(cls)
    error.args = args
    for name, value in state.items():
        setattr(error, name, value)
    return error


class SandboxError(Exception):
    """Root of the tree: one line that says what happened, and a hint that says what to do.

    Args:
        message: What happened, the cause first.
        hint: What the reader can do about it.
    """

    def __init__(self, message: str = "", *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


class UsageError(SandboxError):
    """The input is wrong. Nothing was created; the command line ends with exit code 2."""


class SpecError(UsageError):
    """A document or value can't be understood.

    Args:
        problems: One line each, ``file:line:column: key: message (did you mean ...)``, in the order of the document.
    """

    def __init__(self, message: str = "", *, problems: Sequence[str] = (), hint: str | None = None) -> None:
        super().__init__(message or "\n".join(problems), hint=hint)
        self.problems = tuple(problems) or (message,)


class BackendNotFoundError(UsageError):
    """No loaded plugin offers the backend that was asked for."""


class ServiceNotFoundError(UsageError, KeyError):
    """The environment has no service of that name. The message has those that it has."""


class PluginError(UsageError):
    """A plugin broke the rules of the plugin host, and what was asked for needs that plugin."""


class CapabilityError(SandboxError):
    """The backend can't do what was asked, and says so before anything is created."""


class SandboxUserUnsupportedError(CapabilityError):
    """A command can't run as that user in that sandbox. The command did not start."""


class ProvisionError(SandboxError):
    """An environment could not be made ready. Whatever had been created of it is gone.

    Args:
        service: Name of the service that is the cause, where one is.
    """

    def __init__(self, message: str = "", *, service: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.service = service


class ServiceFailedError(ProvisionError):
    """A service ended, crashed or stayed unhealthy. The message has its last log lines."""


class ProvisionTimeoutError(ProvisionError, TimeoutError):
    """The environment was not ready in time. The message names what it still waited for."""


class EnvironmentNotFoundError(SandboxError, LookupError):
    """No environment answers the selection."""


class ExecTimeoutError(SandboxError, TimeoutError):
    """The command ran into its timeout; it and all that it started were killed.

    Args:
        result: Output up to then; ``exit_code`` is that of the kill (137).
    """

    def __init__(self, message: str = "", *, result: ExecResult | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.result = result


class OutputLimitExceededError(SandboxError):
    """The command wrote more than the limit; it and all that it started were killed.

    Args:
        result: The head of the output, at most the limit of each stream.
        stream: Which stream ran over.
        limit_bytes: The limit of that stream.
    """

    def __init__(
        self,
        message: str = "",
        *,
        result: ExecResult | None = None,
        stream: str = "stdout",
        limit_bytes: int = 0,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.result = result
        self.stream = stream
        self.limit_bytes = limit_bytes


class SandboxUnavailableError(SandboxError):
    """The sandbox can't be reached, or was lost while a command ran.

    Args:
        started: Whether the command had started: ``"no"`` is certain (it may be run again safely), ``"yes"`` is certain,
            ``"unknown"`` means that it may have.
    """

    def __init__(self, message: str = "", *, started: Started = "unknown", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.started: Started = started


class GuestUnavailableError(SandboxUnavailableError):
    """The guest can't be put into the sandbox, or is gone for good. Nothing was run. The message says what was tried."""

    def __init__(self, message: str = "", *, hint: str | None = None) -> None:
        super().__init__(message, started="no", hint=hint)


class SandboxFileError(SandboxError, OSError):
    """A file operation in a sandbox failed; ``errno`` and ``filename`` are set. Nothing was left half-written."""

    def __init__(self, message: str = "", *, errno: int = _errno.EIO, filename: str = "", hint: str | None = None) -> None:
        SandboxError.__init__(self, message, hint=hint)
        self.errno = errno
        self.strerror = os.strerror(errno)
        self.filename = filename

    def __reduce__(self) -> tuple[Any, ...]:
        slots = {"errno": self.errno, "strerror": self.strerror, "filename": self.filename}
        return _rebuild, (type(self), self.args, self.__dict__ | slots)


class SandboxFileNotFoundError(SandboxFileError, FileNotFoundError):
    """The file, or a folder on the way to it, does not exist."""


class SandboxFileExistsError(SandboxFileError, FileExistsError):
    """There is a file already where one was to be made."""


class SandboxPermissionError(SandboxFileError, PermissionError):
    """The user may not do that to the file."""


class SandboxIsADirectoryError(SandboxFileError, IsADirectoryError):
    """A file was expected; it is a directory."""


class SandboxNotADirectoryError(SandboxFileError, NotADirectoryError):
    """A directory was expected; it is something else."""


_BY_ERRNO: dict[int, type[SandboxFileError]] = {
    _errno.ENOENT: SandboxFileNotFoundError,
    _errno.EEXIST: SandboxFileExistsError,
    _errno.EACCES: SandboxPermissionError,
    _errno.EPERM: SandboxPermissionError,
    _errno.EISDIR: SandboxIsADirectoryError,
    _errno.ENOTDIR: SandboxNotADirectoryError,
}


def file_error(errno: int, filename: str, *, hint: str | None = None) -> SandboxFileError:
    """Build the error for an errno that a sandbox answered, of the class that Python's own would have."""
    cls = _BY_ERRNO.get(errno, SandboxFileError)
    return cls(f"{os.strerror(errno)}: {filename!r}", errno=errno, filename=filename, hint=hint)
