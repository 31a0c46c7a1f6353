"""The sessions of one eval: one for each backend and configuration, shared by all of its tasks, samples and epochs."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar
from dataclasses import dataclass
from logging import getLogger
from typing import TYPE_CHECKING, Any

import rich
from inspect_ai.util import display_counter, display_type, trace_action, trace_message
from inspect_ai.util._sandbox.lifecycle import sandbox_lifecycle_state
from rich.markup import escape
from sandboxcore._validation import printable
from sandboxcore.errors import ProvisionError, SandboxError
from sandboxcore.report import Loss
from sandboxcore.session import Session

from ._records import Record, forget, remember
from ._source import config_of, text_of, translated, variables_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandboxcore.environment import Environment
    from sandboxcore.spec import EnvironmentSpec
    from sandboxcore.values import Event, Translation

    from ._config import SandboxcoreConfig

__all__ = ("MARK", "Eval", "Shared", "Tenant", "current_eval", "logger")

#: Below Inspect's own, as its trace log takes nothing else.
logger = getLogger("inspect_ai.sandboxcore")

#: Label of everything that evals make, by which `inspect sandbox cleanup` finds it.
MARK = {"inspect": "sandbox"}
#: Seconds for which samples that arrive one by one are gathered.
GATHER_SECONDS = 0.01
_QUIET = ("exec", "file")
#: Lines about what is different, before they are only counted.
MOST_LOSSES = 10


@dataclass(frozen=True)
class Tenant:
    """For whom an environment was made."""

    environment: Environment
    sample: str
    epoch: str


@dataclass
class _Wanted:
    spec: EnvironmentSpec
    made: asyncio.Future[Environment]


class Shared:
    """A session, and what samples share of it. Made in the eval's event loop."""

    def __init__(self, config: SandboxcoreConfig) -> None:
        self.session = Session(
            config.backend,
            config=config.options,
            lease=config.lease,
            timeout=config.timeout,
            labels=MARK,
            on_event=self._observe,
        )
        self.record = Record(
            backend=self.session.backend, run_id=self.session.run_id, owner=self.session.owner, options=dict(config.options)
        )
        #: Whether a task or sample has come to use it, so that a clean-up will follow.
        self.used = False
        #: Whether something outlives it.
        self.kept = False
        self.tenants: dict[str, Tenant] = {}
        self._prepared: dict[tuple[object, frozenset[tuple[str, str]]], asyncio.Future[Translation]] = {}
        self._gathered: list[_Wanted] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._starting: dict[str, str] = {}

    async def open(self) -> None:
        """Connect to the backend."""
        await self.session.__aenter__()
        remember(self.record)

    async def close(self) -> None:
        """Destroy what is left, but for what was kept, and disconnect.

        Raises:
            SandboxError: Some could not be destroyed.
        """
        try:
            await self.session.__aexit__(None, None, None)
        finally:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        if not self.kept:
            forget(self.record)

    async def announce(self, given: object, metadata: Mapping[str, Any]) -> None:
        """Find out at the start of a task whether its sandboxes can be had, and tell what will be different from what it says.

        Args:
            metadata: That of one sample, which stands for all.

        Raises:
            SandboxError: They can't. Nothing was provisioned.
        """
        losses = (await self.prepare(given, metadata)).report.of(Loss.APPROX, Loss.POLICY)
        if losses and display_type() != "none":
            more = (
                f"\n  and {len(losses) - MOST_LOSSES} more; see: sandboxcore translate --report" if losses[MOST_LOSSES:] else ""
            )
            lines = "".join(f"\n  {escape(str(loss))}" for loss in losses[:MOST_LOSSES])
            rich.print(f"sandboxcore, backend {self.session.backend}:{lines}{more}")
        self.used = True

    async def prepare(self, given: object, metadata: Mapping[str, Any]) -> Translation:
        """Translate a configuration and have its images found or built, once for all samples that share the outcome."""
        variables = variables_of(text_of(given), metadata)
        key = (given, frozenset(variables.items()))
        if key not in self._prepared:
            self._prepared[key] = asyncio.ensure_future(self._prepare(given, variables))
        try:
            return await asyncio.shield(self._prepared[key])
        except SandboxError:
            self._prepared.pop(key, None)
            raise

    async def _prepare(self, given: object, variables: Mapping[str, str]) -> Translation:
        translation = translated(self.session, given, variables)
        with trace_action(logger, "sandboxcore", f"prepare {translation.spec.name or 'environment'}"):
            return await self.session.prepare(translation)

    async def provision(self, spec: EnvironmentSpec) -> Environment:
        """Make an environment, together with those that others ask for at this moment.

        Raises:
            ProvisionError: With the cause. Nothing is left, also when the awaiting task is cancelled.
        """
        loop = asyncio.get_running_loop()
        wanted = _Wanted(spec, loop.create_future())
        if not self._gathered:
            loop.call_later(GATHER_SECONDS, self._begin)
        self._gathered.append(wanted)
        try:
            return await wanted.made
        except asyncio.CancelledError:
            if wanted.made.done() and not wanted.made.cancelled() and wanted.made.exception() is None:
                self.destroy_soon(wanted.made.result())
            raise

    def labelled(self, spec: EnvironmentSpec, labels: Mapping[str, str]) -> EnvironmentSpec:
        """Put the sample's names on an environment, but where that would keep equal ones from being made together."""
        if "batch" in self.session.info.capabilities:
            return spec
        shown = {f"inspect-{name}": printable(value) for name, value in labels.items() if value}
        return spec.model_copy(update={"labels": {**spec.labels, **shown}})

    async def destroy(self, environment: Environment) -> None:
        """Destroy an environment; what fails is told, and tried again when the session is closed."""
        try:
            await environment.destroy()
        except SandboxError as error:
            logger.warning("environment %s: %s", environment.id, error)
        else:
            self.tenants.pop(environment.id, None)

    def destroy_soon(self, environment: Environment) -> None:
        """Destroy an environment for which nobody waits."""
        self._spawn(self.destroy(environment))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _begin(self) -> None:
        batch, self._gathered = self._gathered, []
        task = self._spawn(self._make(batch))

        def given_up(_: object) -> None:
            if all(wanted.made.cancelled() for wanted in batch):
                task.cancel()

        for wanted in batch:
            wanted.made.add_done_callback(given_up)

    async def _make(self, batch: list[_Wanted]) -> None:
        batch = [wanted for wanted in batch if not wanted.made.done()]
        outcomes = self.session.provision_many([wanted.spec for wanted in batch])
        try:
            async for outcome in outcomes:
                wanted = batch[outcome.index]
                if outcome.environment is not None:
                    self._hand_over(wanted, outcome.environment)
                elif isinstance(outcome.error, ProvisionError) and len(batch) > 1 and "batch" in self.session.info.capabilities:
                    # Of those that are made together all fail with one; apart they do not.
                    self._spawn(self._make_alone(wanted))
                elif outcome.error is not None:
                    _fail(wanted, outcome.error)
        except Exception as error:
            for wanted in batch:
                _fail(wanted, error)
        finally:
            await outcomes.aclose()

    async def _make_alone(self, wanted: _Wanted) -> None:
        try:
            self._hand_over(wanted, await self.session.provision(wanted.spec))
        except Exception as error:
            _fail(wanted, error)

    def _hand_over(self, wanted: _Wanted, environment: Environment) -> None:
        if wanted.made.done():
            self.destroy_soon(environment)
        else:
            wanted.made.set_result(environment)

    def _observe(self, event: Event) -> None:
        """Show what happens in Inspect's trace, and how many sandboxes wait for what in its display."""
        if event.name.startswith(_QUIET):
            return
        what = " ".join(f"{name}={value}" for name, value in event.attributes.items())
        trace_message(logger, "sandboxcore", f"{event.name} {event.environment_id} {event.service} {what}".rstrip())
        if event.name == "environment.provision.start":
            self._starting[event.environment_id] = ""
        elif event.name.startswith("environment.provision."):
            self._starting.pop(event.environment_id, None)
        elif event.environment_id in self._starting:
            self._starting[event.environment_id] = str(event.attributes.get("detail") or event.attributes.get("reason") or "")
        else:
            return
        reasons = [reason for reason in self._starting.values() if reason]
        waiting = f" ({reasons[-1]})" if reasons else ""
        display_counter("sandboxes starting", f"{len(self._starting)}{waiting}")


def _fail(wanted: _Wanted, error: Exception) -> None:
    if not wanted.made.done():
        wanted.made.set_exception(error)


class Eval:
    """What one eval has open."""

    def __init__(self) -> None:
        self.open: dict[str, Shared] = {}
        #: Configuration to the metadata of the first sample that has it.
        self.metadata: dict[object, Mapping[str, Any]] = {}
        self._lock = asyncio.Lock()

    async def shared(self, given: object) -> Shared:
        """Return what samples with this configuration share; opens it for the first."""
        config = config_of(given)
        key = config.model_copy(update={"backend": config.backend_name, "spec": None, "user": None}).model_dump_json(
            exclude={"translator", "variables"}
        )
        async with self._lock:
            if key not in self.open:
                shared = Shared(config)
                await shared.open()
                self.open[key] = shared
            return self.open[key]

    def take(self) -> list[Shared]:
        """Hand over all that is open, to be closed."""
        taken, self.open = list(self.open.values()), {}
        return taken

    def take_unused(self) -> list[Shared]:
        """Hand over what no task has come to use."""
        unused = [key for key, shared in self.open.items() if not shared.used]
        return [self.open.pop(key) for key in unused]


_without_scope: ContextVar[Eval | None] = ContextVar("sandboxcore_eval", default=None)


def current_eval() -> Eval:
    """Return what the running eval has open; outside of an eval, what this context has."""
    scope = sandbox_lifecycle_state()
    if scope is not None:
        return scope.get(Eval)
    found = _without_scope.get()
    if found is None:
        found = Eval()
        _without_scope.set(found)
    return found
