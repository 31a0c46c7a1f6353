"""Kill all that runs in an environment at once, and remove its files."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SandboxError
from ._explain import explain
from ._launch import Process, run, wait_gone
from ._programs import launcher_binary
from ._state import LAST, EnvironmentFolder, State

if TYPE_CHECKING:
    from ._ids import IdMapping

__all__ = ("Remover", "finish")

_ATTEMPTS = 3
#: How long a holder may take to start before its folder is removed all the same.
_STARTING_SECONDS = 30.0


class Remover:
    """Takes environments away.

    Args:
        starts: Bounds how many programs run for this at the same moment.
    """

    def __init__(self, state: State, mapping: IdMapping, starts: asyncio.Semaphore) -> None:
        self._state, self._mapping, self._starts = state, mapping, starts

    async def remove(self, folder: EnvironmentFolder) -> None:
        """Kill, wait until everything is gone, and remove the files. Idempotent.

        Raises:
            SandboxError: It is another user's, or files could not be removed; nothing of it runs any more.
        """
        if not folder.path.exists():
            return
        if folder.path.stat().st_uid != os.geteuid():
            raise SandboxError(f"environment {folder.path.name!r} belongs to another user")
        await _end(folder.holder)
        # In this order: a holder that is being started has its turn already, and the folder's lock.
        async with self._starts, _alone(folder.path):
            await _end(folder.holder)  # which may be one that has been started meanwhile
            errors = [await self._remove_files(folder, maps) for maps in self._ways()]
        if folder.path.exists() and errors[0]:
            raise SandboxError(f"the files of environment {folder.path.name!r} could not be removed: {explain(errors[0])[0]}")

    async def clear_away(self, folder: EnvironmentFolder, cause: BaseException) -> None:
        """Remove what was made before an error; a failure in that must not hide the error."""
        try:
            await self.remove(folder)
        except (SandboxError, OSError) as error:
            cause.add_note(f"and {error}; `sandboxcore cleanup` will find it")

    async def reap(self) -> None:
        """Remove what is left of environments whose lease is over."""
        for folder in self._state.folders():
            if folder.expires_at < time.time():
                with contextlib.suppress(SandboxError, OSError):
                    await self.remove(folder)

    def _ways(self) -> Iterator[tuple[str, ...]]:
        """Yield ways to remove files: with the rights over the sandbox's ids, then (had no sandbox ever run) without."""
        if self._mapping.kind != "root":
            yield self._mapping.arguments()
        yield ()

    async def _remove_files(self, folder: EnvironmentFolder, maps: tuple[str, ...]) -> str:
        if not folder.path.exists():
            return ""
        argv = [str(launcher_binary()), "remove", *maps, str(folder.path), *LAST]
        return (await run(argv, env={"PATH": os.environ.get("PATH", os.defpath)})).stderr


@contextlib.asynccontextmanager
async def _alone(path: Path) -> AsyncIterator[None]:
    """Hold the folder's lock, which ``launcher hold`` holds while it starts a holder: what it notes is not removed unread."""
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield
        return
    try:
        deadline = time.monotonic() + _STARTING_SECONDS
        while time.monotonic() < deadline:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(0.02)
            except OSError:  # its file system has no locks
                break
        yield
    finally:
        os.close(folder)


async def finish(work: Callable[[], Coroutine[None, None, None]]) -> None:
    """Carry idempotent work to its end though the caller, or the work itself (by the end of the loop), is cancelled."""
    for _ in range(_ATTEMPTS):
        task = asyncio.ensure_future(work())
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        if not task.cancelled():
            task.result()
            return


async def _end(holder: Process | None) -> None:
    if holder is not None:
        _kill(holder)
        await wait_gone(holder)
        _reap_child(holder)


def _kill(process: Process) -> None:
    pidfd = process.open()
    if pidfd is None:
        return
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)


def _reap_child(process: Process) -> None:
    """Reap the holder where this process is the init of a container, so that it became its child."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
