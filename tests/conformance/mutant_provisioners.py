"""Provisioners and discoverers that are broken in one way each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import ClassVar

from sandboxcore.abc import Discoverer, Emit, Provisioner
from sandboxcore.errors import CapabilityError, ProvisionError, SandboxError
from sandboxcore.report import ReportEntry
from sandboxcore.spec import EnvironmentSpec, ServiceSpec
from sandboxcore.values import Claim, DoctorFinding, EnvironmentRef, SandboxRef, Selector


class Decorated(Provisioner):
    """Does as the real one; a mutant overrides what it breaks."""

    def __init__(self, inner: Provisioner) -> None:
        self.inner = inner

    def check(self, spec: EnvironmentSpec) -> Sequence[ReportEntry]:
        return self.inner.check(spec)

    async def provision(self, spec: EnvironmentSpec, claim: Claim, emit: Emit) -> EnvironmentRef:
        return await self.inner.provision(spec, claim, emit)

    async def destroy(self, environment: EnvironmentRef) -> None:
        await self.inner.destroy(environment)

    async def renew(self, environments: Sequence[EnvironmentRef], lease: float) -> None:
        await self.inner.renew(environments, lease)

    async def doctor(self) -> Sequence[DoctorFinding]:
        return await self.inner.doctor()

    async def aclose(self) -> None:
        await self.inner.aclose()


class Early(Decorated):
    async def provision(self, spec: EnvironmentSpec, claim: Claim, emit: Emit) -> EnvironmentRef:
        hasty = {
            name: service.model_copy(update={"healthcheck": None, "depends_on": {}}) for name, service in spec.services.items()
        }
        return await self.inner.provision(spec.model_copy(update={"services": hasty}), claim, emit)


class AnyDefault(Decorated):
    async def provision(self, spec: EnvironmentSpec, claim: Claim, emit: Emit) -> EnvironmentRef:
        ref = await self.inner.provision(spec, claim, emit)
        names = sorted(sandbox.service for sandbox in ref.sandboxes)
        return replace(ref, default=names[-1])


class NoCause(Decorated):
    async def provision(self, spec: EnvironmentSpec, claim: Claim, emit: Emit) -> EnvironmentRef:
        try:
            return await self.inner.provision(spec, claim, emit)
        except ProvisionError as error:
            raise ProvisionError("the environment could not be made ready", service=error.service) from None


class TellsSecrets(Decorated):
    async def provision(self, spec: EnvironmentSpec, claim: Claim, emit: Emit) -> EnvironmentRef:
        try:
            return await self.inner.provision(spec, claim, emit)
        except ProvisionError as error:
            secrets = [service.env for service in spec.services.values()]
            raise type(error)(f"{error}\n{secrets}", service=error.service) from None


def _another(claim: Claim) -> Claim:
    return replace(claim, environment_id=f"{claim.environment_id[:-1]}0")


PLAIN = EnvironmentSpec(services={"default": ServiceSpec()})


class LeaksOnFailure(Decorated):
    async def provision(self, spec: EnvironmentSpec, claim: Claim, emit: Emit) -> EnvironmentRef:
        try:
            return await self.inner.provision(spec, claim, emit)
        except ProvisionError:
            await self.inner.provision(PLAIN, _another(claim), emit)
            raise


class LeaksOnCancel(Decorated):
    async def provision(self, spec: EnvironmentSpec, claim: Claim, emit: Emit) -> EnvironmentRef:
        try:
            return await self.inner.provision(spec, claim, emit)
        except asyncio.CancelledError:
            await asyncio.shield(asyncio.ensure_future(self.inner.provision(PLAIN, _another(claim), emit)))
            raise


class DestroysOnce(Decorated):
    destroyed: ClassVar[set[str]] = set()

    async def destroy(self, environment: EnvironmentRef) -> None:
        if environment.environment_id in self.destroyed:
            raise SandboxError("there is no such environment")
        self.destroyed.add(environment.environment_id)
        await self.inner.destroy(environment)


class DestroysLater(Decorated):
    def __init__(self, inner: Provisioner) -> None:
        super().__init__(inner)
        self.later: list[asyncio.Future[None]] = []

    async def destroy(self, environment: EnvironmentRef) -> None:
        self.later.append(asyncio.ensure_future(self._in_a_while(environment)))

    async def _in_a_while(self, environment: EnvironmentRef) -> None:
        await asyncio.sleep(0.3)
        await self.inner.destroy(environment)

    async def aclose(self) -> None:
        await asyncio.gather(*self.later, return_exceptions=True)
        await self.inner.aclose()


class NoRenewal(Decorated):
    async def renew(self, environments: Sequence[EnvironmentRef], lease: float) -> None:
        pass


class Careless(Decorated):
    def check(self, spec: EnvironmentSpec) -> Sequence[ReportEntry]:
        try:
            self.inner.check(spec)
        except CapabilityError:
            return ()
        return ()

    async def provision(self, spec: EnvironmentSpec, claim: Claim, emit: Emit) -> EnvironmentRef:
        known = {name: ServiceSpec(env=service.env) for name, service in spec.services.items()}
        return await self.inner.provision(spec.model_copy(update={"services": known}), claim, emit)


class Finder(Discoverer):
    """Does as the real one; a mutant overrides what it breaks."""

    def __init__(self, inner: Discoverer) -> None:
        self.inner = inner

    def seen(self, ref: EnvironmentRef) -> EnvironmentRef:
        return ref

    async def find(self, selector: Selector) -> Sequence[EnvironmentRef]:
        return [self.seen(ref) for ref in await self.inner.find(selector)]

    async def logs(self, sandbox: SandboxRef, *, tail: int | None = None, follow: bool = False) -> AsyncIterator[bytes]:
        async for data in self.inner.logs(sandbox, tail=tail, follow=follow):
            yield data

    async def aclose(self) -> None:
        await self.inner.aclose()


class NoOwner(Finder):
    def seen(self, ref: EnvironmentRef) -> EnvironmentRef:
        return replace(ref, owner="somebody")


class AllExpired(Finder):
    def seen(self, ref: EnvironmentRef) -> EnvironmentRef:
        return replace(ref, expires_at=ref.created_at)


class NeverExpired(Finder):
    def seen(self, ref: EnvironmentRef) -> EnvironmentRef:
        return replace(ref, expires_at=ref.expires_at + 1e6)


class IgnoresRun(Finder):
    async def find(self, selector: Selector) -> Sequence[EnvironmentRef]:
        found = await self.inner.find(replace(selector, run_id=None))
        return [replace(ref, run_id=selector.run_id or ref.run_id) for ref in found]


class NoLabels(Finder):
    def seen(self, ref: EnvironmentRef) -> EnvironmentRef:
        return replace(ref, labels={})

    async def find(self, selector: Selector) -> Sequence[EnvironmentRef]:
        return [self.seen(ref) for ref in await self.inner.find(replace(selector, labels={}))]


class WrongAddress(Finder):
    def seen(self, ref: EnvironmentRef) -> EnvironmentRef:
        wrong = {"folder": "/nowhere"}
        return replace(ref, sandboxes=tuple(replace(one, data={**one.data, **wrong}) for one in ref.sandboxes))


class EmptyLog(Finder):
    async def logs(self, sandbox: SandboxRef, *, tail: int | None = None, follow: bool = False) -> AsyncIterator[bytes]:
        yield b""
