"""Start the services of an environment, each as soon as what it depends on is so far."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from .._stages import Stages, until_all
from ..errors import SandboxError
from ..values import Event
from ._channel import LocalChannel
from ._describe import BACKEND
from ._health import probe_argv, wait_healthy
from ._service import Running, failed, start_service

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..abc import Emit, Executor
    from ..guest import Guest
    from ..spec import EnvironmentSpec, Healthcheck
    from ..values import Claim
    from ._ids import IdMapping
    from ._launch import Process
    from ._plan import Launch
    from ._programs import Programs
    from ._state import EnvironmentFolder

__all__ = ("TO_BE_STARTED", "Orchestra")

#: Seconds that a command without a healthcheck has to live (or to end well) before its service counts as ready.
SETTLE = 0.1
#: What a service waits for that depends on nothing more.
TO_BE_STARTED = "to be started"
_COMPLETED_HINT = "a sandbox ends with its command: give it one that stays (such as ['sleep', 'infinity']), or none"


class Orchestra:
    """The start of one environment.

    Args:
        waiting: What each service still waits for; kept up to date, and empty when all are ready.
    """

    def __init__(
        self,
        spec: EnvironmentSpec,
        claim: Claim,
        emit: Emit,
        folder: EnvironmentFolder,
        holder: Process,
        launches: Mapping[str, Launch],
        mapping: IdMapping,
        programs: Programs,
        starts: asyncio.Semaphore,
        waiting: dict[str, str],
    ) -> None:
        self._spec, self._claim, self._emit, self._folder, self._holder = spec, claim, emit, folder, holder
        self._launches, self._mapping, self._programs, self._starts = launches, mapping, programs, starts
        self._stages = {name: Stages() for name in spec.services}
        self._running: dict[str, Running] = {}
        self._waiting = waiting
        self._failure: asyncio.Future[SandboxError] = asyncio.get_running_loop().create_future()

    async def play(self) -> None:
        """Start everything and wait until it is ready.

        Raises:
            ProvisionError: The first failure of a service.
        """
        await until_all([self._bring_up(name) for name in self._spec.services], self._failure)

    def close(self) -> None:
        """Stop watching; what was started goes on."""
        for running in self._running.values():
            running.close()

    async def _bring_up(self, name: str) -> None:
        began = time.monotonic()
        await self._dependencies(name)
        self._tell("service.starting", name)
        self._waiting[name] = TO_BE_STARTED
        launch = self._launches[name]
        async with self._starts:
            folder = self._folder.service(list(self._spec.services).index(name))
            running = await start_service(name, launch, folder, self._holder, mapping=self._mapping, programs=self._programs)
        self._running[name] = running
        running.death.add_done_callback(lambda _: self._after_death(running))
        await self._until_ready(name, launch)
        del self._waiting[name]
        self._tell("service.ready", name, duration=time.monotonic() - began)

    async def _dependencies(self, name: str) -> None:
        for other, dependency in self._spec.services[name].depends_on.items():
            if other in self._stages:
                self._waiting[name] = f"for {other!r} to be {dependency.condition}"
                self._tell("service.waiting", name, reason=self._waiting[name])
                await self._stages[other].of(dependency.condition).wait()

    async def _until_ready(self, name: str, launch: Launch) -> None:
        from ..guest import Guest

        running, stages = self._running[name], self._stages[name]
        guest = Guest(LocalChannel(running.folder, name))
        try:
            if not await _answers(guest, running):
                return
            stages.started.set()
            if self._check(name) is not None:
                await self._until_healthy(running, guest.executor)
            elif launch.argv:
                # The chance to fail at once.
                await asyncio.wait({running.death}, timeout=SETTLE)
            if launch.argv:
                await _runs(running)
        finally:
            await guest.aclose()
        if not running.death.done():
            stages.healthy.set()

    def _check(self, name: str) -> Healthcheck | None:
        check = self._launches[name].healthcheck
        return check if check is not None and probe_argv(check.test) is not None else None

    async def _until_healthy(self, running: Running, executor: Executor) -> None:
        self._waiting[running.name] = "to be healthy"
        self._tell("service.waiting", running.name, reason="to be healthy")
        check = self._check(running.name)
        problem = await wait_healthy(check, executor) if check else None
        if problem is not None and not await _ended(running):
            raise failed(running.name, f"is unhealthy: {problem}", running.folder)

    def _after_death(self, running: Running) -> None:
        """Decide whether the end of a service is the end of the environment."""
        name, stages = running.name, self._stages[running.name]
        error: SandboxError | None = None
        if running.status().exit_code != 0:
            error = running.failure()
        elif name == self._spec.default_service:
            error = failed(name, "ended with exit code 0, so that no command can run in it", running.folder, _COMPLETED_HINT)
        elif self._check(name) is not None and not stages.healthy.is_set():
            error = failed(name, "ended with exit code 0 before it was healthy", running.folder)
        else:
            stages.started.set()
            stages.completed.set()
        if error is not None and not self._failure.done():
            self._failure.set_result(error)

    def _tell(self, what: str, name: str, *, duration: float | None = None, **attributes: str) -> None:
        claim = self._claim
        self._emit(
            Event(
                name=what,
                time=time.time(),
                backend=BACKEND,
                run_id=claim.run_id,
                environment_id=claim.environment_id,
                service=name,
                duration=duration,
                attributes=attributes,
            )
        )


async def _answers(guest: Guest, running: Running) -> bool:
    """Wait for the guest; False if the sandbox has ended before it could answer, which is judged elsewhere."""
    try:
        await guest.connect()
    except SandboxError:
        # The guest may be gone some moments before the sandbox's own process is.
        await asyncio.wait({running.death}, timeout=1.0)
        if await _ended(running):
            return False
        raise
    return True


async def _runs(running: Running) -> None:
    """Wait until the command was started, or until the sandbox has ended with it."""
    while not await _ended(running) and running.status().state == "waiting":
        await asyncio.wait({running.death}, timeout=0.02)


async def _ended(running: Running) -> bool:
    """Tell whether the sandbox has ended. Where its command has, or never began, that is near, and waited for."""
    if running.status().state in ("ended", "failed"):
        await asyncio.wait({running.death})
    return running.death.done()
