"""A backend in use: its strategies, its environments and the bindings to their sandboxes, until all is closed."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ._closing import close_all, finish
from ._lease import LeaseKeeper
from ._making import Making, make, make_batch
from .errors import SandboxError, SandboxUnavailableError, UsageError
from .values import Claim, EnvironmentRef, SandboxRef, Selector

if TYPE_CHECKING:
    from ._events import EventSink
    from .abc import Discoverer, Provisioner, Strategy
    from .environment import Environment
    from .plugins import Binding, PluginHost
    from .spec import EnvironmentSpec

__all__ = ("DESTROY_SECONDS", "Runtime")

#: Seconds that a backend gets for taking an environment away.
DESTROY_SECONDS = 120.0


class Runtime:
    """What a session and its environments share. Made in a running event loop, and used in no other."""

    def __init__(
        self,
        host: PluginHost,
        config: Any,
        events: EventSink,
        provisioner: Provisioner,
        discoverer: Discoverer,
        *,
        lease: float,
    ) -> None:
        self.backend = events.backend
        self.events = events
        self.provisioner = provisioner
        self.discoverer = discoverer
        self.capabilities = host.info(self.backend).under(config).capabilities
        self.closing = False
        self.closed = False
        #: Environments that go when the session does.
        self.owned: dict[str, Environment] = {}
        #: What the backend is at.
        self.provisioning: set[Making] = set()
        self._in_flight: set[asyncio.Future[None]] = set()
        self._host = host
        self._config = config
        self._lease = lease
        self._bindings: dict[tuple[str, str], tuple[SandboxRef, Binding]] = {}
        self._gone: set[str] = set()
        self.leases = LeaseKeeper(self.provisioner.renew, self._find_mine)

    async def make(self, spec: EnvironmentSpec, claim: Claim, *, keep: bool) -> EnvironmentRef:
        """Provision an environment and look after its lease; with ``keep`` only until it is ready.

        Raises:
            CapabilityError: The backend can't do what the spec asks for. Nothing is left.
            ProvisionError: With the cause. Nothing is left, also when the awaiting task is cancelled.
        """
        with self._noted():
            return await self._make(spec, claim, keep=keep)

    async def make_batch(self, spec: EnvironmentSpec, claims: Sequence[Claim]) -> Sequence[EnvironmentRef]:
        """Provision one environment a claim, all or none, and look after their leases. Raises as ``make`` does."""
        with self._noted():
            for claim in claims:
                self.leases.claim(claim.environment_id, claim.lease)
            try:
                refs = await make_batch(self, spec, claims)
            except BaseException:
                for claim in claims:
                    self.leases.drop(claim.environment_id)
                raise
            for ref in refs:
                self.leases.ready(ref)
            return refs

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """Let ``settle`` know until when something is being made, or undone."""
        ended = asyncio.get_running_loop().create_future()
        self._in_flight.add(ended)
        try:
            yield
        finally:
            self._in_flight.discard(ended)
            ended.set_result(None)

    async def _make(self, spec: EnvironmentSpec, claim: Claim, *, keep: bool) -> EnvironmentRef:
        lease = claim.lease
        if keep:
            # One that is meant for its use may be too short for its making.
            claim = dataclasses.replace(claim, lease=max(lease, self._lease))
        self.leases.claim(claim.environment_id, claim.lease)
        began = time.monotonic()
        try:
            ref = await make(self, spec, claim)
        except BaseException:
            self.leases.drop(claim.environment_id)
            raise
        if not keep:
            self.leases.ready(ref)
            return ref
        self.leases.drop(claim.environment_id)
        if lease == claim.lease and time.monotonic() - began < lease / 20:
            return ref
        return await self._handed_over(ref, lease)

    async def _handed_over(self, ref: EnvironmentRef, lease: float) -> EnvironmentRef:
        """Let the lease count from now, and be what it was meant to be."""
        try:
            await self.leases.settled()
            return await self.renew(ref, lease)
        except BaseException:
            await finish(self.provisioner.destroy(ref), seconds=DESTROY_SECONDS, what=f"destroying {ref.environment_id}")
            raise

    async def settle(self) -> None:
        """Begin to close: stop what is being made by tasks that still run, and wait until it is undone."""
        self.closing = True
        for task in self.provisioning:
            task.cancel()
        if self._in_flight:
            await asyncio.wait(set(self._in_flight))

    async def find(self, selector: Selector) -> Sequence[EnvironmentRef]:
        """List environments, those that anybody made."""
        return await self.discoverer.find(selector)

    async def renew(self, ref: EnvironmentRef, lease: float) -> EnvironmentRef:
        """Claim an environment for ``lease`` seconds from now."""
        now = time.time()
        await self.provisioner.renew((ref,), lease)
        return dataclasses.replace(ref, expires_at=now + lease)

    async def pause(self, ref: EnvironmentRef) -> None:
        """Close what leads into an environment and have the backend pause it."""
        await self.provisioner.pause(ref)
        await self._release(ref.environment_id)

    async def resume(self, ref: EnvironmentRef) -> EnvironmentRef:
        """Have the backend resume an environment, and say where it is now."""
        resumed = await self.provisioner.resume(ref)
        self.leases.ready(resumed)
        return resumed

    async def keep(self, ref: EnvironmentRef, lease: float) -> EnvironmentRef:
        """Claim an environment for the last time, and let it be nobody's."""
        # From here on no round of renewals, which would shorten what is claimed now, begins with it.
        self.leases.drop(ref.environment_id)
        await self.leases.settled()
        kept = await self.renew(ref, lease)
        self.owned.pop(ref.environment_id, None)
        return kept

    async def destroy(self, ref: EnvironmentRef) -> None:
        """Close what leads into an environment and take it away, also when the awaiting task is cancelled.

        Raises:
            SandboxError: The backend could not; then the environment is found again by discovery, and its lease runs out.
        """
        self.leases.drop(ref.environment_id)
        # From here on nothing is bound to it, or else that would outlive it.
        self._gone.add(ref.environment_id)
        span = self.events.span("environment.destroy", environment_id=ref.environment_id)
        try:
            await finish(self._destroy(ref), seconds=DESTROY_SECONDS, what=f"destroying environment {ref.environment_id}")
        except BaseException as error:
            self._gone.discard(ref.environment_id)
            span.failed(error)
            raise
        self.owned.pop(ref.environment_id, None)
        span.end()

    async def _destroy(self, ref: EnvironmentRef) -> None:
        await self._release(ref.environment_id)
        try:
            await self.provisioner.destroy(ref)
        except SandboxError:
            raise
        except Exception as error:
            message = f"environment {ref.environment_id} could not be destroyed: {type(error).__name__}: {error}"
            raise SandboxError(message) from error

    def bind(self, sandbox: SandboxRef) -> Binding:
        """Return what commands and files of a sandbox go through; one and the same while the sandbox is.

        Raises:
            UsageError: The session is closed.
            SandboxUnavailableError: This session destroyed the environment.
        """
        if self.closed:
            raise UsageError(f"the session is closed, and with it the way to sandbox {sandbox.service!r}")
        if sandbox.environment_id in self._gone:
            raise SandboxUnavailableError(f"environment {sandbox.environment_id} was destroyed", started="no")
        key = (sandbox.environment_id, sandbox.service)
        known = self._bindings.get(key)
        if known is not None and known[0].data == sandbox.data:
            return known[1]
        binding = self._host.bind(sandbox, self._config, self.provisioner, lease=self._lease)
        self._bindings[key] = (sandbox, binding)
        return binding

    async def _release(self, environment_id: str) -> None:
        keys = [key for key in self._bindings if key[0] == environment_id]
        await close_all(self._strategies(keys))

    async def aclose(self) -> None:
        """Close bindings, then strategies. Idempotent."""
        self.closed = True
        await self.leases.aclose()
        await close_all(self._strategies(list(self._bindings)))
        await close_all((self.discoverer,))
        await close_all((self.provisioner,))

    def _strategies(self, keys: Sequence[tuple[str, str]]) -> list[Strategy]:
        taken = [self._bindings.pop(key)[1] for key in keys]
        for binding in taken:
            binding.close()
        return [strategy for binding in taken for strategy in binding.strategies]

    async def _find_mine(self) -> Sequence[EnvironmentRef]:
        return await self.discoverer.find(Selector(run_id=self.events.run_id))
