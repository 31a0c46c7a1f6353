"""The folder where environments are kept between processes.

::

    STATE/envs/ID/env.json      claim and services, written before anything else is created, and again when all is ready
    STATE/envs/ID/lease         end of the lease, seconds since the epoch; the holder reads it
    STATE/envs/ID/holder        PID STARTED of the process that all others of the environment depend on
    STATE/envs/ID/services/N/   socket, log, log.old, status, errors, process, and the service's own file tree
    STATE/envs/ID/volumes/N/    a volume that services share
    STATE/rootfs/KEY/           an unpacked image
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..errors import SandboxError
from ._launch import Process

__all__ = ("EnvironmentFolder", "State", "read_small", "write_atomically")

#: Removed last, so that what is half removed is still found.
LAST = ("holder", "lease", "env.json")


def state_path(configured: Path | None) -> Path:
    """Return where the state is kept."""
    if configured is not None:
        return configured.expanduser().absolute()
    if given := os.environ.get("SANDBOXCORE_STATE_DIR"):
        return Path(given).absolute()
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path("~/.local/state").expanduser()) / "sandboxcore"


def read_small(path: Path) -> str | None:
    """Read a small file; None if it is not there."""
    try:
        return path.read_text()
    except OSError:
        return None


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that others see the old or the new content, never half of it."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(text)
    new.replace(path)


def _lease_line(end: float) -> bytes:
    """Render the end of a lease; always as long, so that it can be written over the last one."""
    return b"%020.3f\n" % end


@dataclass(frozen=True)
class EnvironmentFolder:
    """The folder of one environment."""

    path: Path

    @property
    def holder(self) -> Process | None:
        """The environment's holder, running or not; None: it never started."""
        return Process.parse(read_small(self.path / "holder") or "")

    def service(self, index: int) -> Path:
        """Return the folder of a service."""
        return self.path / "services" / str(index)

    def describe(self) -> dict[str, Any] | None:
        """Return what ``env.json`` says; None if it is not there yet, or not ours to understand."""
        try:
            found = json.loads((self.path / "env.json").read_text())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def write(self, description: Mapping[str, Any]) -> None:
        """Replace ``env.json``."""
        write_atomically(self.path / "env.json", json.dumps(description))

    @property
    def expires_at(self) -> float:
        """When the lease ends. A folder whose maker died in its first moments has a minute."""
        try:
            return float(read_small(self.path / "lease") or "")
        except ValueError:
            with contextlib.suppress(OSError):
                return self.path.stat().st_mtime + 60
            return 0.0

    def set_lease(self, lease: float) -> None:
        """Let the lease end ``lease`` seconds from now, and tell the holder if that is sooner than it knows.

        Raises:
            FileNotFoundError: The environment is gone.
        """
        before = self.expires_at
        end = time.time() + lease
        # In place and of fixed length: the holder has no right to open files by name, it keeps this one open.
        fd = os.open(self.path / "lease", os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.pwrite(fd, _lease_line(end), 0)
        finally:
            os.close(fd)
        if end < before:
            self._wake_holder()

    def _wake_holder(self) -> None:
        pidfd = self.holder.open() if self.holder else None
        if pidfd is None:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGUSR1)
        os.close(pidfd)


class State:
    """The state folder of this user."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def environments(self) -> Path:
        """Where the environments' folders are."""
        return self.path / "envs"

    @property
    def rootfs(self) -> Path:
        """Where unpacked images are."""
        return self.path / "rootfs"

    def ensure(self) -> None:
        """Make the folder, open to nobody else.

        Raises:
            SandboxError: It can't be made, or is somebody else's.
        """
        try:
            for folder in (self.path, self.environments, self.rootfs):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            info = self.path.stat()
        except OSError as error:
            raise SandboxError(f"the state folder can't be made: {error}", hint="set SANDBOXCORE_STATE_DIR") from error
        if info.st_uid != os.geteuid() or info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise SandboxError(
                f"the state folder {str(self.path)!r} belongs to or is writable by somebody else",
                hint="set SANDBOXCORE_STATE_DIR to a folder of your own with mode 0700",
            )

    def folder(self, environment_id: str) -> EnvironmentFolder:
        """Return the folder of an environment, there or not."""
        name = quote(environment_id, safe="")
        return EnvironmentFolder(self.environments / (name if name.strip(".") else f"%{name}"))

    def create(self, environment_id: str, description: Mapping[str, Any], lease: float) -> EnvironmentFolder:
        """Make the folder of a new environment, with its claim in it.

        Raises:
            SandboxError: There is an environment of this id already.
        """
        folder = self.folder(environment_id)
        try:
            folder.path.mkdir(mode=0o700)
        except FileExistsError:
            raise SandboxError(f"there is an environment {environment_id!r} already") from None
        folder.write(description)
        write_atomically(folder.path / "lease", _lease_line(time.time() + lease).decode())
        return folder

    def folders(self) -> Iterator[EnvironmentFolder]:
        """List the environments that are this user's."""
        try:
            entries = sorted(os.scandir(self.environments), key=lambda entry: entry.name)
        except OSError:
            return
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_uid == os.geteuid():
                    yield EnvironmentFolder(Path(entry.path))
