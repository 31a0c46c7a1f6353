"""The session: provision environments, find them again, and leave nothing behind."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ._batch import Batch, ProvisionOutcome, Work
from ._checking import ask, asked_of
from ._closing import close_all, each, finish
from ._events import EventSink
from ._identity import check_labels, check_run_id, default_owner, new_environment_id, new_run_id
from ._image_resolution import resolve_images
from ._runtime import DESTROY_SECONDS, Runtime
from ._selecting import by_prefix, doomed
from ._translation import translate
from .environment import Environment
from .errors import CapabilityError, SandboxError, UsageError
from .plugins import PluginHost
from .report import Loss, TranslationReport
from .values import Claim, Selector

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from ._events import Span
    from ._translation import Source
    from .spec import EnvironmentSpec
    from .values import BackendInfo, DoctorFinding, EnvironmentRef, Event, Translation

__all__ = ("ProvisionOutcome", "Session")

BACKEND_VARIABLE = "SANDBOXCORE_BACKEND"
DEFAULT_BACKEND = "local"
DEFAULT_IN_FLIGHT = 32


class Session:
    """A program's use of one backend, for ``async with``.

    Leaving the block destroys every environment that the session provisioned, unless it was provisioned with ``keep``.

    Args:
        backend: Name of the backend; None: ``$SANDBOXCORE_BACKEND``, else ``local``.
        config: The backend's configuration.
        run_id: Label on everything that the session makes; None: a new one.
        owner: Who that is, for others who find it; None: user, host and process id.
        lease: Seconds for which environments are claimed; a background task renews them while the session is open.
        timeout: Seconds for provisioning one environment.
        labels: Put on every environment.
        plugins: A plugin host to use; None: a new one with all that is installed.
        on_event: Called with each event, in the event loop; what it raises is logged once.

    Raises:
        BackendNotFoundError: No plugin brings the backend.
        UsageError: The configuration or another argument is wrong.
    """

    def __init__(
        self,
        backend: str | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        owner: str | None = None,
        lease: float = 300.0,
        timeout: float = 600.0,
        labels: Mapping[str, str] | None = None,
        plugins: PluginHost | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        self.backend = backend or os.environ.get(BACKEND_VARIABLE) or DEFAULT_BACKEND
        self.run_id = new_run_id() if run_id is None else check_run_id(run_id)
        self.owner = owner or default_owner()
        self.lease = _seconds("lease", lease)
        self.timeout = _seconds("timeout", timeout)
        self.labels = check_labels(labels)
        self.plugins = plugins or PluginHost.load()
        self._config = self.plugins.configure(self.backend, config)
        self.info: BackendInfo = self.plugins.info(self.backend).under(self._config)
        self._events = EventSink(self.plugins, on_event, backend=self.backend, run_id=self.run_id)
        self._runtime: Runtime | None = None
        self._batches: list[Batch] = []

    async def __aenter__(self) -> Self:
        if self._runtime is not None:
            raise UsageError("a session is opened once; make another one")
        provisioner = self.plugins.provisioner(self.backend, self._config)
        try:
            discoverer = self.plugins.discoverer(self.backend, self._config, provisioner)
        except BaseException:
            await close_all((provisioner,))
            raise
        self._runtime = Runtime(self.plugins, self._config, self._events, provisioner, discoverer, lease=self.lease)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            await finish(self._close(), seconds=3 * DESTROY_SECONDS, what="closing the session")
        except Exception as failure:
            if error is None:
                raise
            # What went wrong in the block is what the caller has to see first.
            error.add_note(str(failure))

    async def _close(self) -> None:
        runtime = self._open()
        try:
            await runtime.settle()
            for batch in self._batches:
                await batch.settle()
            failures = await each(list(runtime.owned.values()), _destroy)
        finally:
            await runtime.aclose()
        if failures:
            raise _not_destroyed([(environment.id, error) for environment, error in failures])

    def translate(
        self,
        source: Source | None,
        *,
        variables: Mapping[str, str] | None = None,
        translator: str | None = None,
        options: Mapping[str, object] | None = None,
    ) -> Translation:
        """Make an ``EnvironmentSpec`` of whatever describes an environment. Nothing is created.

        Args:
            source: A spec, a mapping with its keys, the path of a document, or several paths (the first is the base).
            variables: For interpolation in documents; the process environment is not looked at.
            translator: Which translator to use; None: the one that knows files of that name.
            options: The translator's own.

        Raises:
            SpecError: The source is wrong, missing, or nothing that an installed translator knows.
        """
        return translate(
            source,
            host=self.plugins,
            backend=self.info,
            variables=variables,
            translator=translator,
            options=options,
        )

    async def check(self, translation: Translation) -> Translation:
        """Add what the backend says of the spec to the report. The session need not be open, nor the backend be reached.

        What the backend would refuse is an entry of class ``REJECT``, the first that it finds. Nothing is created, and no
        image is looked for or built.

        Raises:
            UsageError: The backend can't be used as it is configured.
        """
        entries = await asked_of(self.plugins, self.info, self._config, translation.spec)
        return replace(translation, report=translation.report.extended(entries))

    async def prepare(self, translation: Translation) -> Translation:
        """Do what any number of equal environments need only once: have images found or built, and the spec checked.

        Nothing is provisioned.

        Returns:
            The spec with its images, for ``provision`` and ``provision_many``, and the report with what the backend adds.

        Raises:
            CapabilityError: The backend can't do what the spec asks for.
            ProvisionError: An image could not be built.
        """
        runtime = self._open()
        spec = await self._with_images(translation.spec)
        return replace(translation, spec=spec, report=self._checked(runtime, spec, translation.report))

    @asynccontextmanager
    async def environment(
        self,
        source: Source | None = None,
        *,
        variables: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> AsyncIterator[Environment]:
        """Provision an environment for ``async with``; leaving the block destroys it, whatever happened in between."""
        environment = await self.provision(source, variables=variables, labels=labels, name=name)
        try:
            yield environment
        except BaseException as error:
            try:
                await environment.destroy()
            except Exception as failure:
                error.add_note(str(failure))
            raise
        await environment.destroy()

    async def provision(
        self,
        source: Source | None = None,
        *,
        variables: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        name: str | None = None,
        lease: float | None = None,
        keep: bool = False,
    ) -> Environment:
        """Create an environment and wait until every service is ready.

        Args:
            source: As for ``translate``; None: one service ``default`` with nothing in it.
            labels: Added to the session's and the spec's.
            name: In place of the spec's.
            lease: Seconds for which it is claimed; None: the session's.
            keep: It outlives the session, and its lease, counted from when it is ready, is not renewed.

        Raises:
            UsageError: The source or another argument is wrong. Nothing was created.
            CapabilityError: The backend can't do what the spec asks for. Nothing was created.
            ProvisionError: It could not be made ready; nothing is left, also when the awaiting task is cancelled.
        """
        runtime = self._open()
        translation = self.translate(source, variables=variables)
        spec = translation.spec if name is None else translation.spec.model_copy(update={"name": name})
        claim = self._claim(spec, labels, lease, keep=keep)
        with self._provision_span(spec, claim):
            spec = await self._with_images(spec)
            report = self._checked(runtime, spec, translation.report)
            ref = await runtime.make(spec, claim, keep=keep)
        environment = Environment(runtime, ref, report)
        if not keep:
            runtime.owned[environment.id] = environment
        return environment

    async def _provision_equal(self, translation: Translation, count: int) -> Sequence[Environment]:
        """Create so many environments of one spec, all or none."""
        runtime = self._open()
        claims = [self._claim(translation.spec, None, None) for _ in range(count)]
        with ExitStack() as spans:
            for claim in claims:
                spans.enter_context(self._provision_span(translation.spec, claim))
            spec = await self._with_images(translation.spec)
            report = self._checked(runtime, spec, translation.report)
            refs = await runtime.make_batch(spec, claims)
        environments = [Environment(runtime, ref, report) for ref in refs]
        runtime.owned |= {environment.id: environment for environment in environments}
        return environments

    def _provision_span(self, spec: EnvironmentSpec, claim: Claim) -> Span:
        return self._events.span("environment.provision", environment_id=claim.environment_id, services=list(spec.services))

    async def _with_images(self, spec: EnvironmentSpec) -> EnvironmentSpec:
        """Have the images of services found or built that say how, but have none."""
        if all(service.image is not None or service.build is None for service in spec.services.values()):
            return spec
        resolvers = self.plugins.image_resolvers(self.backend, self._config)
        try:
            return await resolve_images(spec, resolvers, required="images" in self.info.capabilities)
        finally:
            await close_all(resolvers)

    def _claim(
        self, spec: EnvironmentSpec, labels: Mapping[str, str] | None, lease: float | None, *, keep: bool = False
    ) -> Claim:
        return Claim(
            run_id=self.run_id,
            environment_id=new_environment_id(),
            owner=self.owner,
            lease=self.lease if lease is None else _seconds("lease", lease),
            labels={**spec.labels, **self.labels, **check_labels(labels)},
            timeout=self.timeout,
            keep=keep,
        )

    def _checked(self, runtime: Runtime, spec: EnvironmentSpec, report: TranslationReport) -> TranslationReport:
        """Add what the backend says of the spec, and refuse what can't be had."""
        report = report.extended(ask(self.backend, runtime.provisioner, spec))
        rejected = report.of(Loss.REJECT)
        if rejected:
            raise CapabilityError("\n".join(str(entry) for entry in rejected))
        return report

    async def provision_many(
        self, sources: Iterable[Source | None], *, max_in_flight: int | None = None
    ) -> AsyncGenerator[ProvisionOutcome, None]:
        """Provision many environments and yield each as it becomes ready, or fails; one failure never blocks another.

        Leaving the loop early undoes what is half-made, and destroys what is ready but was not yielded. Backends with the
        capability ``batch`` make equal ones together, all or none: there, ``sources`` is gone through before the first is made,
        and a failure is that of all that were made with it.

        Args:
            sources: Each as for ``provision``.
            max_in_flight: How many are made at once; None: what the backend takes, 32 where it does not say.
        """
        if max_in_flight is not None and max_in_flight < 1:
            raise UsageError(f"max_in_flight is a number above 0, not {max_in_flight!r}")
        at_once = max_in_flight or self._open().provisioner.max_in_flight or DEFAULT_IN_FLIGHT
        batch = Batch(self._together(sources, max_in_flight) if "batch" in self.info.capabilities else self._apart(sources))
        self._batches.append(batch)
        outcomes = batch.outcomes(at_once)
        try:
            async for outcome in outcomes:
                yield outcome
        finally:
            await outcomes.aclose()
            self._batches.remove(batch)

    def _apart(self, sources: Iterable[Source | None]) -> Iterator[Work]:
        async def alone(source: Source | None) -> Sequence[Environment]:
            return (await self.provision(source),)

        for index, source in enumerate(sources):
            yield Work(indices=(index,), make=partial(alone, source))

    def _together(self, sources: Iterable[Source | None], most: int | None) -> Iterator[Work]:
        """Gather equal specs; what can't be translated, or has no equal, goes the way of a single one."""
        given = list(sources)
        groups: list[tuple[Translation, list[int]]] = []
        for index, source in enumerate(given):
            try:
                translation = self.translate(source)
            except SandboxError:
                continue
            equal = next((indices for other, indices in groups if other.spec == translation.spec), None)
            if equal is None:
                groups.append((translation, [index]))
            else:
                equal.append(index)
        several = [(translation, indices) for translation, indices in groups if len(indices) > 1]
        gathered = {index for _, indices in several for index in indices}
        for work in self._apart(given):
            if gathered.isdisjoint(work.indices):
                yield work
        for translation, indices in several:
            size = most or len(indices)
            for start in range(0, len(indices), size):
                part = indices[start : start + size]
                yield Work(indices=part, make=partial(self._provision_equal, translation, len(part)))

    async def find(
        self, *, run_id: str | None = None, environment_id: str | None = None, labels: Mapping[str, str] | None = None
    ) -> list[Environment]:
        """List environments that any process made; what is given must all be true. They can be used at once.

        They stay their owner's: this session neither renews nor destroys them by itself.
        """
        selector = Selector(run_id=run_id, environment_id=environment_id, labels=check_labels(labels))
        return [self._known(ref) for ref in await self._open().find(selector)]

    async def attach(self, environment_id: str) -> Environment:
        """Find one environment by its id, by the beginning of its id if no other begins so, or by its name on the backend.

        Raises:
            EnvironmentNotFoundError: There is none, or more than one; the message lists the near ones.
        """
        if not environment_id:
            raise UsageError("the id of an environment can't be empty")
        runtime = self._open()
        found = await runtime.find(Selector(environment_id=environment_id))
        return self._known(found[0] if found else by_prefix(environment_id, await runtime.find(Selector())))

    async def cleanup(
        self,
        *,
        run_id: str | None = None,
        environment_id: str | None = None,
        expired: bool = False,
        everything: bool = False,
        dry_run: bool = False,
    ) -> list[EnvironmentRef]:
        """Destroy environments that any process made.

        What a live lease holds goes only by its id, by its run, or with ``everything``.

        Args:
            expired: Only those with a lease that has run out.
            everything: All there are; needs no other selection.
            dry_run: Destroy nothing.

        Returns:
            Those that were destroyed, or with ``dry_run`` would be.

        Raises:
            UsageError: Nothing says which.
            SandboxError: Some could not be destroyed; all others were.
        """
        if not (run_id or environment_id or expired or everything):
            raise UsageError("nothing says what to clean up", hint="give an environment id, a run id, expired or everything")
        runtime = self._open()
        found = await runtime.find(Selector(run_id=run_id, environment_id=environment_id))
        chosen = doomed(found, expired=expired, now=time.time())
        if dry_run:
            return chosen
        destroyed: list[EnvironmentRef] = []

        async def take_away(ref: EnvironmentRef) -> None:
            if await self._still_doomed(runtime, ref, expired=expired):
                await self._known(ref).destroy()
                destroyed.append(ref)

        failures = await each(chosen, take_away)
        if failures:
            raise _not_destroyed([(ref.environment_id, error) for ref, error in failures])
        return destroyed

    async def _still_doomed(self, runtime: Runtime, ref: EnvironmentRef, *, expired: bool) -> bool:
        """Look again before taking what an owner may have renewed while others were being destroyed."""
        if not expired:
            return True
        again = await runtime.find(Selector(environment_id=ref.environment_id))
        return bool(doomed(again, expired=True, now=time.time()))

    async def doctor(self) -> list[DoctorFinding]:
        """Check what the backend needs on this machine or cluster, and say the fix for what is missing."""
        return list(await self._open().provisioner.doctor())

    def _known(self, ref: EnvironmentRef) -> Environment:
        runtime = self._open()
        return runtime.owned.get(ref.environment_id) or Environment(runtime, ref)

    def _open(self) -> Runtime:
        if self._runtime is None:
            raise UsageError("the session is not open", hint="use it in 'async with sandboxcore.Session(...) as session'")
        if self._runtime.closing:
            raise UsageError("the session is closed", hint="make a new one")
        return self._runtime


def _seconds(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise UsageError(f"{name} is a number of seconds above 0, not {value!r}")
    return float(value)


async def _destroy(environment: Environment) -> None:
    await environment.destroy()


def _not_destroyed(failures: list[tuple[str, Exception]]) -> SandboxError:
    lines = [f"environment {name} could not be destroyed: {error}" for name, error in failures]
    return SandboxError("\n".join(lines), hint=f"sandboxcore down {failures[0][0]}")
