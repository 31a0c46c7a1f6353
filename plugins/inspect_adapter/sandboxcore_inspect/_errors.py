"""Turns what sandboxcore raises into what Inspect expects of a sandbox."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from inspect_ai.util import OutputLimitExceededError as InspectLimitError
from inspect_ai.util import SandboxEnvironmentLimits
from inspect_ai.util import SandboxUnavailableError as InspectUnavailableError
from inspect_ai.util import SandboxUserUnsupportedError as InspectUserError
from sandboxcore import errors

if TYPE_CHECKING:
    from sandboxcore.values import ExecResult

__all__ = ("TABLE", "inspect_error")

_STARTED = {"no": "the command had not started", "yes": "the command had started", "unknown": "the command may have started"}


def inspect_error(error: errors.SandboxError) -> BaseException:
    """Return what Inspect understands; an error that it has no name for is returned as it is, and fails the sample."""
    return next((TABLE[cls](error) for cls in type(error).__mro__ if cls in TABLE), error)


def _output(result: ExecResult | None) -> str:
    return "" if result is None else result.text() + result.error_text()


def _timeout(error: errors.ExecTimeoutError) -> TimeoutError:
    found = TimeoutError(error.message)
    # Inspect shows this attribute's value to the model.
    found.truncated_output = _output(error.result) or None  # type: ignore[attr-defined]
    return found


def _limit(error: errors.OutputLimitExceededError) -> InspectLimitError:
    return InspectLimitError(SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE_STR, _output(error.result))


def _user(error: errors.SandboxUserUnsupportedError) -> InspectUserError:
    return InspectUserError(error.message)


def _unavailable(error: errors.SandboxUnavailableError) -> InspectUnavailableError:
    return InspectUnavailableError(f"{error.message} ({_STARTED[error.started]})")


def _file(error: errors.SandboxFileError) -> OSError:
    # Tools tell the model of these three classes of file errors; any other ends the sample.
    kind: type[OSError] = type(OSError(error.errno, ""))
    if error.errno == errno.ENOTDIR:
        kind = FileNotFoundError
    elif error.errno == errno.EROFS:
        kind = PermissionError
    return kind(error.errno, error.strerror, error.filename)


def _as_it_is(error: errors.SandboxError) -> errors.SandboxError:
    return error


#: Class of sandboxcore's tree to what becomes of it; a class that is not named here is treated as its nearest ancestor is.
TABLE: dict[type, Callable[..., BaseException]] = {
    errors.ExecTimeoutError: _timeout,
    errors.OutputLimitExceededError: _limit,
    errors.SandboxUserUnsupportedError: _user,
    errors.SandboxUnavailableError: _unavailable,
    errors.SandboxFileError: _file,
    errors.UsageError: _as_it_is,
    errors.CapabilityError: _as_it_is,
    errors.ProvisionError: _as_it_is,
    errors.EnvironmentNotFoundError: _as_it_is,
}
