"""Start the containers of an environment, each as soon as what it depends on is so far, and know what becomes of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sandboxcore._at_once import cancel
from sandboxcore._stages import Stages, until_all
from sandboxcore.errors import SandboxError, ServiceFailedError
from sandboxcore.values import Event

from ._describe import BACKEND
from ._endings import describe_end, describe_health, log_tail, refused_by_init
from ._errors import provision_error
from ._http import HttpError

if TYPE_CHECKING:
    from sandboxcore.abc import Emit
    from sandboxcore.spec import EnvironmentSpec
    from sandboxcore.values import Claim

    from ._engine import Engine
    from ._events import EventStream, Listener

__all__ = ("Orchestra", "Part", "Teller")

#: Seconds that a command without a healthcheck has to live (or to end well) before its service counts as ready.
SETTLE = 0.1
_OOM_PAUSE = 0.3
_INIT, _INIT_LOOKS, _INIT_PAUSE = "docker-init", 200, 0.025
_COMPLETED_HINT = "a sandbox ends with its command: give it one that stays (such as ['sleep', 'infinity'])"


@dataclass(frozen=True, kw_only=True)
class Part:
    """A container that was made, and what there is to wait for.

    Args:
        command: Whether it runs a command of the service's or the image's own, which may fail at once.
        init: Whether the engine's init starts that command, after the container's start has succeeded.
    """

    container: str
    has_healthcheck: bool
    command: bool
    init: bool = False


class Teller:
    """Makes the events of one environment."""

    def __init__(self, claim: Claim, emit: Emit) -> None:
        self._claim, self._emit = claim, emit

    def __call__(self, what: str, service: str = "", *, duration: float | None = None, **attributes: Any) -> None:
        claim = self._claim
        self._emit(
            Event(
                name=f"service.{what}",
                time=time.time(),
                backend=BACKEND,
                run_id=claim.run_id,
                environment_id=claim.environment_id,
                service=service,
                duration=duration,
                attributes=attributes,
            )
        )


class Orchestra:
    """The start of one environment."""

    def __init__(
        self, spec: EnvironmentSpec, tell: Teller, engine: Engine, events: EventStream, parts: Mapping[str, Part]
    ) -> None:
        self._spec, self._tell, self._engine, self._events, self._parts = spec, tell, engine, events, parts
        self._stages = {name: Stages() for name in spec.services}
        self._judging: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._listening: list[tuple[str, Listener]] = []
        #: Services that are not ready, and what they wait for.
        self.waiting: dict[str, str] = dict.fromkeys(spec.services, "to be started")
        self._failure: asyncio.Future[SandboxError] = asyncio.get_running_loop().create_future()

    async def play(self) -> None:
        """Start everything and wait until it is ready.

        Raises:
            ProvisionError: The first failure of a service.
        """
        try:
            await until_all([self._bring_up(name) for name in self._spec.services], self._failure)
        finally:
            for container, listener in self._listening:
                self._events.forget(container, listener)
            await cancel(self._judging.values())

    def state(self, name: str) -> Literal["ready", "completed"]:
        """Tell how a service is once all are ready."""
        return "completed" if self._stages[name].completed.is_set() else "ready"

    async def _bring_up(self, name: str) -> None:
        began = time.monotonic()
        part, stages = self._parts[name], self._stages[name]
        await self._dependencies(name)
        self.waiting[name] = "to be started"
        self._listen(name, part)
        async with self._engine.busy:
            self._tell("starting", name)
            await self._start(name, part)
        stages.started.set()
        if part.has_healthcheck:
            self.waiting[name] = "to be healthy"
            self._tell("waiting", name, reason="to be healthy")
            await stages.healthy.wait()
        elif part.command:
            if part.init:
                await self._past_init(name, part)
            await asyncio.sleep(SETTLE)
            await self._settled(name)
        del self.waiting[name]
        self._tell("ready", name, duration=time.monotonic() - began)

    def _listen(self, name: str, part: Part) -> None:
        def hear(action: str, attributes: Mapping[str, str]) -> None:
            self._hear(name, action)

        self._listening.append((part.container, hear))
        self._events.listen(part.container, hear)

    async def _dependencies(self, name: str) -> None:
        for other, dependency in self._spec.services[name].depends_on.items():
            if other in self._stages:
                condition = dependency.condition
                if condition == "healthy" and not self._parts[other].has_healthcheck:
                    condition = "started"
                self.waiting[name] = f"for {other!r} to be {condition}"
                self._tell("waiting", name, reason=self.waiting[name])
                await self._stages[other].of(condition).wait()

    async def _start(self, name: str, part: Part) -> None:
        try:
            await self._engine.change("POST", f"/containers/{part.container}/start")
        except HttpError as error:
            raise provision_error(error, service=name) from error

    async def _settled(self, name: str) -> None:
        """Wait for a verdict that is on its way."""
        while (task := self._judging.get(name)) is not None and not task.done():
            await asyncio.wait((task,))

    async def _past_init(self, name: str, part: Part) -> None:
        """Wait until the init has started the command, or has ended because it could not."""
        for _ in range(_INIT_LOOKS):
            try:
                query = {"ps_args": "-o pid,args"}
                found = await self._engine.call("GET", f"/containers/{part.container}/top", query=query)
            except HttpError as error:
                if "not running" not in error.message:
                    return  # the engine's machine has no ps that could tell
                self._hear(name, "resync")
                await self._settled(name)
            else:
                # At first there is only what will be the init, then the init twice, and then it and the command.
                lines = [_INIT in line[-1] for line in found.get("Processes") or ()]
                if any(lines) and not all(lines):
                    return
            if name not in self.waiting or self._stages[name].completed.is_set():
                return
            await asyncio.sleep(_INIT_PAUSE)

    def _hear(self, name: str, action: str) -> None:
        if action == "healthy":
            self._stages[name].healthy.set()
        elif action in ("die", "unhealthy", "destroy", "resync"):
            task = self._judging.get(name)
            if task is not None and not task.done():
                self._again.add(name)
            else:
                self._judging[name] = asyncio.ensure_future(self._judge(name))

    async def _judge(self, name: str) -> None:
        """Ask how the container is, once for all that was heard, and decide what that means for the environment."""
        while True:
            self._again.discard(name)
            try:
                error = await self._verdict(name)
            except HttpError as refusal:
                error = provision_error(refusal, service=name)
            except SandboxError as trouble:
                error = trouble
            if error is not None and not self._failure.done():
                self._failure.set_result(error)
            if name not in self._again or error is not None:
                return

    async def _verdict(self, name: str) -> SandboxError | None:
        part, stages = self._parts[name], self._stages[name]
        found = await self._engine.attempt(self._engine.call("GET", f"/containers/{part.container}/json"))
        if found is None:
            return ServiceFailedError(f"service {name!r} is gone: somebody removed its container", service=name)
        state = found["State"]
        health = (state.get("Health") or {}).get("Status")
        if state.get("Running") or state.get("Restarting") or state.get("Status") == "created":
            if health == "unhealthy" and not stages.healthy.is_set():
                return await self._failed(name, found, f"is unhealthy: {describe_health(found)}")
            if health == "healthy":
                stages.healthy.set()
            return None
        if state.get("ExitCode") or state.get("OOMKilled") or state.get("Error"):
            return await self._ended(name, found)
        if name == self._spec.default_service:
            return await self._failed(name, found, "ended with exit code 0, so that no command can run in it", _COMPLETED_HINT)
        if part.has_healthcheck and not stages.healthy.is_set():
            return await self._failed(name, found, "ended with exit code 0 before it was healthy")
        stages.started.set()
        stages.completed.set()
        return None

    async def _ended(self, name: str, found: dict[str, Any]) -> ServiceFailedError:
        state, limit = found["State"], found["HostConfig"].get("Memory")
        if state.get("ExitCode") == 137 and limit and not state.get("OOMKilled"):
            # That memory was the reason is told apart from the end, and may come after it.
            await asyncio.sleep(_OOM_PAUSE)
            found = await self._engine.attempt(self._engine.call("GET", f"/containers/{found['Id']}/json")) or found
        return await self._failed(name, found, describe_end(found))

    async def _failed(self, name: str, found: dict[str, Any], what: str, hint: str | None = None) -> ServiceFailedError:
        tail = await log_tail(self._engine, found["Id"], tty=bool(found["Config"].get("Tty")))
        if self._parts[name].init and found["State"].get("ExitCode") in (126, 127) and (why := refused_by_init(tail)):
            return ServiceFailedError(f"service {name!r}: its command can't be started: {why}", service=name)
        lines = f"; its last output:\n{tail}" if tail else "; it wrote nothing"
        return ServiceFailedError(f"service {name!r} {what}{lines}", service=name, hint=hint)
