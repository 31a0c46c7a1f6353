"""The two ends of a copy, and where things land: the rules of ``docker cp``. Pure."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

from ..errors import UsageError

__all__ = ("Local", "Place", "Remote", "Stream", "landing", "parse_place")

_ENVIRONMENT = re.compile(r"[^./:~][^/:]*")


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A path in a sandbox; ``service`` None is the default one."""

    environment: str
    service: str | None
    path: str

    def __str__(self) -> str:
        return ":".join(part for part in (self.environment, self.service, self.path) if part is not None)


@dataclass(frozen=True, kw_only=True)
class Local:
    """A path of this machine."""

    path: str

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Standard input or output."""

    def __str__(self) -> str:
        return "-"


Place = Remote | Local | Stream


def parse_place(text: str) -> Place:
    """Read ``ENV:PATH``, ``ENV:SERVICE:PATH``, ``-`` or a path of this machine.

    A text with a colon is a path of this machine if it starts with ``/``, ``.`` or ``~``, or has a ``/`` before the colon.
    What follows ``ENV:`` is a path if it starts with ``/``, ``.`` or ``~`` or has no further colon; else a service comes first.

    Raises:
        UsageError: A path is missing.
    """
    if text == "-":
        return Stream()
    environment, colon, rest = text.partition(":")
    if not colon or not _ENVIRONMENT.fullmatch(environment):
        if not text:
            raise UsageError("a path is missing", hint="write ENV:PATH, ENV:SERVICE:PATH or a path of this machine")
        return Local(path=text)
    service: str | None = None
    path = rest
    if ":" in rest and not rest.startswith(("/", ".", "~")):
        service, _, path = rest.partition(":")
    if not path:
        raise UsageError(f"{text}: a path is missing", hint="write ENV:PATH or ENV:SERVICE:PATH")
    return Remote(environment=environment, service=service or None, path=path)


def landing(source: str, target: str, *, source_is_directory: bool, target_kind: str | None) -> str:
    """Tell the path that the source gets at the other side.

    Args:
        source: Path as it was typed; a directory that ends with ``/.`` means what is in it.
        target: Path as it was typed.
        target_kind: ``"directory"``, ``"file"``, or None where there is nothing yet.

    Raises:
        UsageError: It can't land there. Nothing was written.
    """
    contents_only = source.endswith(("/.", "/..")) or source in (".", "..")
    if target_kind == "directory":
        return target if source_is_directory and contents_only else posixpath.join(target, _name(source))
    if target_kind == "file":
        if source_is_directory:
            raise UsageError(
                f"{target}: is a file, and {source} is a directory", hint="name a directory, or a path that does not exist"
            )
        if target.endswith("/"):
            raise UsageError(f"{target}: is not a directory", hint="leave out the slash at the end to overwrite the file")
        return target
    if not source_is_directory and target.endswith("/"):
        raise UsageError(f"{target}: no such directory", hint="make it first, or leave out the slash at the end")
    return target


def _name(source: str) -> str:
    return posixpath.basename(source.rstrip("/")) or "."
