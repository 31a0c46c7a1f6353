"""Start one service, and know when it has died."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ProvisionError, ServiceFailedError
from ._channel import listen
from ._launch import Process, memory_file, readable, run
from ._networks import HOST
from ._plan import AT
from ._status import CommandStatus, last_words, read_status

if TYPE_CHECKING:
    from ._ids import IdMapping
    from ._plan import Launch
    from ._programs import Programs

__all__ = ("Running", "start_service")

_LOG_FILES = ("log", "log.old", "status", "errors")


class Running:
    """A service whose sandbox has been started."""

    def __init__(self, name: str, folder: Path, process: Process, pidfd: int | None, user: str | None = None) -> None:
        self.name = name
        self.user = user
        self.folder = folder
        self.process = process
        self._pidfd = pidfd
        self._loop = asyncio.get_running_loop()
        #: Done when the sandbox has ended.
        self.death: asyncio.Future[None] = self._loop.create_future()
        if pidfd is None:
            self.death.set_result(None)
        else:
            self._loop.add_reader(pidfd, self._died, pidfd)

    def _died(self, pidfd: int) -> None:
        self._loop.remove_reader(pidfd)
        if not self.death.done():
            self.death.set_result(None)

    def close(self) -> None:
        """Stop watching. Idempotent; the sandbox goes on."""
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None

    def status(self) -> CommandStatus:
        """Tell how far the service's command is."""
        return read_status(self.folder)

    def failure(self) -> ServiceFailedError:
        """Describe how it ended, with its last log lines."""
        status = self.status()
        how = status.reason + (f", user {self.user!r}" if self.user else "") if status.reason else ""
        how = how or (f"exit code {status.exit_code}" if status.exit_code is not None else "it was killed")
        what = "could not start its command" if status.state == "failed" else "ended"
        return failed(self.name, f"{what}: {how}", self.folder)


def failed(name: str, what: str, folder: Path, hint: str | None = None) -> ServiceFailedError:
    """Make the error of a service that failed."""
    return ServiceFailedError(f"service {name!r} {what}{last_words(folder)}", service=name, hint=hint)


async def start_service(
    name: str, launch: Launch, folder: Path, holder: Process, *, mapping: IdMapping, programs: Programs
) -> Running:
    """Start a service's sandbox and wait until its guest runs. By now it may have ended, with its command.

    Raises:
        ProvisionError: The sandbox could not be made.
    """
    for path in launch.fresh:
        own_directory(path, mapping)
    with contextlib.ExitStack() as stack:
        fds = _Descriptors(stack, launch, folder)
        argv = _enter_argv(launch, holder, mapping, programs, fds)
        done = await run(argv, pass_fds=fds.passed(), stderr=fds.errors)
        process = Process.parse(done.stdout)
        if done.status != 0 or process is None:
            raise _not_started(name, folder)
        (folder / "process").write_text(f"{process.pid} {process.started}")
        fds.close_ready_end()
        pidfd = process.open()  # None where it has ended already: commands can be short, and a client busy
        with contextlib.ExitStack() as unless_it_runs:
            if pidfd is not None:
                unless_it_runs.callback(os.close, pidfd)
            if not await _guest_runs(fds.ready, pidfd):
                raise _not_started(name, folder)
            unless_it_runs.pop_all()
    return Running(name, folder, process, pidfd, launch.user)


async def _guest_runs(ready: int, pidfd: int | None) -> bool:
    """Wait for the last word of the launcher before it becomes the guest, or for its end."""
    os.set_blocking(ready, False)
    if pidfd is not None:
        await readable(ready, pidfd)
    with contextlib.suppress(BlockingIOError):
        return os.read(ready, 1) == b"R"
    return False


def own_directory(path: Path, mapping: IdMapping) -> None:
    """Make a directory that belongs to the sandbox's root."""
    path.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.chmod(0o755)
    if mapping.root_id is not None:
        os.chown(path, mapping.root_id, mapping.root_id)


class _Descriptors:
    """What the programs inherit. All are closed with the stack; the programs keep their own copies."""

    def __init__(self, stack: contextlib.ExitStack, launch: Launch, folder: Path) -> None:
        self.listener = stack.enter_context(listen(folder))
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        # The guest rotates with sendfile, which refuses to append.
        self.log, self.log_old, self.status, self.errors = (
            os.open(folder / name, flags | (0 if name == "log.old" else os.O_APPEND), 0o600) for name in _LOG_FILES
        )
        arguments = b"".join(os.fsencode(argument) + b"\0" for argument in launch.bubblewrap)
        self.arguments = memory_file(arguments)
        self.plan = memory_file(launch.records)
        self.ready, self.ready_end = os.pipe2(os.O_CLOEXEC)
        stack.callback(self._close)

    def _close(self) -> None:
        for fd in (self.log, self.log_old, self.status, self.errors, self.arguments, self.plan, self.ready, self.ready_end):
            if fd >= 0:
                os.close(fd)

    def close_ready_end(self) -> None:
        os.close(self.ready_end)
        self.ready_end = -1

    def passed(self) -> tuple[int, ...]:
        return (self.listener.fileno(), self.log, self.log_old, self.status, self.arguments, self.plan, self.ready_end)


def _enter_argv(launch: Launch, holder: Process, mapping: IdMapping, programs: Programs, fds: _Descriptors) -> tuple[str, ...]:
    return (
        *(str(programs.launcher), "enter", "--holder", f"{holder.pid}:{holder.started}", "--at", AT),
        *(("--net", str(launch.group)) if launch.group != HOST else ()),
        *({"root": ("--root",), "subids": (), "single": ("--single",)}[mapping.kind]),
        *_flatten(("--limit", f"{kind}:{soft}:{hard}") for kind, soft, hard in launch.limits),
        *_flatten(stage.arguments() for stage in launch.stages),
        *("--", f"{AT}/bubblewrap/{programs.bubblewrap}", "--args", str(fds.arguments), "--"),
        *("/.sandboxcore/launcher", "prepare", "--plan", str(fds.plan), "--ready", str(fds.ready_end), *launch.prepare, "--"),
        *("/.sandboxcore/guest", "init", "--listen", str(fds.listener.fileno()), "--log", str(fds.log)),
        *("--log-old", str(fds.log_old), "--status", str(fds.status), *launch.guest),
    )


def _flatten(groups: Iterable[tuple[str, ...]]) -> Iterable[str]:
    return (argument for group in groups for argument in group)


def _not_started(name: str, folder: Path) -> ProvisionError:
    from ._explain import explain

    errors = (folder / "errors").read_text(errors="replace") if (folder / "errors").exists() else ""
    message, hint = explain(errors)
    return ProvisionError(f"service {name!r} could not be started: {message}", service=name, hint=hint)
