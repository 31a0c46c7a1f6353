"""The error tree: drawn as it is, pickled as it was, and related to Python's own."""

from __future__ import annotations

import copy
import errno
import pickle
import re

import pytest

from sandboxcore import errors
from sandboxcore.values import ExecResult

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.SandboxError)]
RESULT = ExecResult(exit_code=137, stdout=b"so far", stderr=b"\xff")


def filled(cls: type[errors.SandboxError]) -> errors.SandboxError:
    """Build an error with everything that it can carry."""
    extra: dict[type[errors.SandboxError], dict[str, object]] = {
        errors.SpecError: {"problems": ["a.yaml:1:2: x: wrong", "y"]},
        errors.ServiceFailedError: {"service": "db"},
        errors.ProvisionTimeoutError: {"service": "db"},
        errors.ExecTimeoutError: {"result": RESULT},
        errors.OutputLimitExceededError: {"result": RESULT, "stream": "stderr", "limit_bytes": 7},
        errors.SandboxUnavailableError: {"started": "yes"},
    }
    arguments = dict(extra.get(cls, {}))
    if issubclass(cls, errors.SandboxFileError):
        arguments |= {"errno": errno.ENOENT, "filename": "/x"}
    return cls("what happened", hint="what to do", **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_errors_survive_pickling(cls: type[errors.SandboxError], protocol: int) -> None:
    error = filled(cls)
    error.add_note("a note")
    back = pickle.loads(pickle.dumps(error, protocol))
    assert type(back) is cls
    assert str(back) == str(error) == "what happened"
    assert back.hint == "what to do"
    assert back.__dict__ == error.__dict__
    assert back.__notes__ == ["a note"]
    if isinstance(error, OSError) and isinstance(error, errors.SandboxFileError):
        assert (back.errno, back.strerror, back.filename) == (error.errno, error.strerror, error.filename)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_errors_survive_copying(cls: type[errors.SandboxError]) -> None:
    assert copy.copy(filled(cls)).__dict__ == filled(cls).__dict__


def test_the_tree_is_drawn_as_it_is() -> None:
    drawn: dict[str, str] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ([│├└─ ]*)(\w+Error)\b", line)
        if found:
            depth = len(found[1]) // 4
            above[depth:] = [found[2]]
            drawn[found[2]] = above[depth - 1] if depth else "Exception"
    assert drawn == {cls.__name__: cls.__bases__[0].__name__ for cls in CLASSES}


@pytest.mark.parametrize(
    ("number", "python"),
    [
        (errno.ENOENT, FileNotFoundError),
        (errno.EEXIST, FileExistsError),
        (errno.EACCES, PermissionError),
        (errno.EPERM, PermissionError),
        (errno.EISDIR, IsADirectoryError),
        (errno.ENOTDIR, NotADirectoryError),
        (errno.ENOSPC, OSError),
    ],
)
def test_file_errors_are_pythons_own_too(number: int, python: type[OSError]) -> None:
    error = errors.file_error(number, "/a b")
    assert isinstance(error, python)
    assert isinstance(error, errors.SandboxError)
    assert (error.errno, error.filename) == (number, "/a b")
    # Python would have chosen the same class.
    assert isinstance(error, type(OSError(number, "x")))


def test_timeouts_and_lookups_are_pythons_own_too() -> None:
    assert issubclass(errors.ExecTimeoutError, TimeoutError)
    assert issubclass(errors.ProvisionTimeoutError, TimeoutError)
    assert issubclass(errors.EnvironmentNotFoundError, LookupError)
    assert str(errors.ServiceNotFoundError("no service 'x'")) == "no service 'x'"
    assert issubclass(errors.ServiceNotFoundError, KeyError)


def test_problems_make_the_message() -> None:
    error = errors.SpecError(problems=["one", "two"])
    assert str(error) == "one\ntwo"
    assert errors.SpecError("alone").problems == ("alone",)
