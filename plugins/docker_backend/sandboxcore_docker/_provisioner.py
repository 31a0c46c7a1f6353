"""Make environments on an engine, and take them away."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Any

from sandboxcore._at_once import together
from sandboxcore.abc import Provisioner
from sandboxcore.errors import ProvisionError, ProvisionTimeoutError, SandboxError, SandboxUnavailableError

from . import _check
from ._describe import environments
from ._engine import Engine, refused, to_the_end
from ._errors import provision_error
from ._guest_volume import GuestVolume
from ._http import HttpError
from ._images import Images
from ._labels import selecting
from ._leases import Leases
from ._making import Maker
from ._orchestra import Orchestra, Teller
from ._removal import Remover

if TYPE_CHECKING:
    from sandboxcore.abc import Emit
    from sandboxcore.report import ReportEntry
    from sandboxcore.spec import EnvironmentSpec
    from sandboxcore.values import Claim, DoctorFinding, EnvironmentRef

    from ._config import DockerConfig

__all__ = ("DockerProvisioner",)


class _Waiting:
    """What an environment in the making waits for, for when its time is up."""

    def __init__(self, services: Sequence[str]) -> None:
        self._services = services
        self.orchestra: Orchestra | None = None

    def __str__(self) -> str:
        if self.orchestra is None:
            return ", ".join(f"service {name!r} to be made" for name in self._services)
        return ", ".join(f"service {name!r} {what}" for name, what in self.orchestra.waiting.items())


class DockerProvisioner(Provisioner):
    """Environments of containers, found by their labels."""

    def __init__(self, config: DockerConfig) -> None:
        self.engine = Engine(config)
        self.max_in_flight = config.max_in_flight
        self._config = config
        self._images = Images(self.engine)
        self._guest = GuestVolume(self.engine)
        self._leases = Leases(self.engine)
        self._remover = Remover(self.engine, self._leases)

    async def aclose(self) -> None:
        """Close the connections. Idempotent."""
        await self.engine.aclose()

    def check(self, spec: EnvironmentSpec) -> Sequence[ReportEntry]:
        """Tell what becomes of each field.

        Raises:
            CapabilityError: The backend can't do what the spec asks for.
            SpecError: The spec names what does not exist.
        """
        return _check.check(spec, self._config, local=self.engine.endpoint.is_local, version=self.engine.peek_version())

    async def doctor(self) -> Sequence[DoctorFinding]:
        """Check the engine by asking it and by using it."""
        from ._doctor import diagnose

        return await diagnose(self.engine, self._guest)

    # -- making

    async def provision(self, spec: EnvironmentSpec, claim: Claim, emit: Emit) -> EnvironmentRef:
        """Create the environment and wait until every service is ready.

        Raises:
            CapabilityError: The backend can't do what the spec asks for. Nothing was created.
            ProvisionError: With its cause. Nothing is left.
        """
        self.check(spec)
        waiting = _Waiting(list(spec.services))
        try:
            async with asyncio.timeout(claim.timeout):
                return await self._build(spec, claim, Teller(claim, emit), waiting)
        except BaseException as error:
            await self._undo(claim, error)
            if isinstance(error, TimeoutError) and not isinstance(error, SandboxError):
                raise ProvisionTimeoutError(
                    f"environment {claim.environment_id!r} was not ready after {claim.timeout:g} s; it still waited for {waiting}"
                ) from error
            if isinstance(error, SandboxUnavailableError):
                raise ProvisionError(error.message, hint=error.hint) from error
            if isinstance(error, HttpError):
                raise provision_error(error) from error
            raise

    async def _build(self, spec: EnvironmentSpec, claim: Claim, tell: Teller, waiting: _Waiting) -> EnvironmentRef:
        events = self.engine.events(claim.run_id)
        maker = Maker(spec, claim, tell, engine=self.engine, config=self._config, images=self._images, guest=self._guest)
        _make_binds(spec)
        works: list[Awaitable[Any]] = [events.ready(), maker.make()]
        _, parts = await together(works)
        waiting.orchestra = Orchestra(spec, tell, self.engine, events, parts)
        await waiting.orchestra.play()
        containers = await self.engine.find("containers", selecting(environment_id=claim.environment_id), all=True)
        found = environments(containers, (), (), self.engine.endpoint)
        if not found or len(found[0].sandboxes) < len(spec.services):
            raise ProvisionError(f"environment {claim.environment_id!r} was destroyed while it was being made")
        # The engine's list may be a moment behind its events.
        sandboxes = tuple(
            dataclasses.replace(sandbox, state=waiting.orchestra.state(sandbox.service)) for sandbox in found[0].sandboxes
        )
        return dataclasses.replace(found[0], sandboxes=sandboxes, state="ready")

    async def _undo(self, claim: Claim, error: BaseException) -> None:
        """Remove what was made. A cancellation meanwhile changes nothing: the failure that is being undone comes out."""
        try:
            await to_the_end(self._remover.remove(claim.environment_id, claim.run_id))
        except (SandboxError, HttpError) as failure:
            error.add_note(f"environment {claim.environment_id} may be left behind: {failure}")
        except asyncio.CancelledError:
            if not isinstance(error, Exception):
                raise

    # -- keeping and taking away

    async def renew(self, environments: Sequence[EnvironmentRef], lease: float) -> None:
        """Move the end of the leases; environments that are gone are passed over."""
        try:
            await self._leases.renew(environments, lease)
        except HttpError as error:
            raise refused(error, "the leases could not be renewed") from error

    async def destroy(self, environment: EnvironmentRef) -> None:
        """Kill all that runs in the environment at once, and remove its containers, networks and volumes. Idempotent."""
        try:
            await self._remover.remove(environment.environment_id, environment.run_id)
        except HttpError as error:
            raise refused(error, f"environment {environment.environment_id} could not be removed") from error

    async def pause(self, environment: EnvironmentRef) -> None:
        """Freeze the processes of all services."""
        await self._each(environment, "pause")

    async def resume(self, environment: EnvironmentRef) -> EnvironmentRef:
        """Let them go on."""
        await self._each(environment, "unpause")
        return environment

    async def _each(self, environment: EnvironmentRef, what: str) -> None:
        async def one(container: str) -> Any:
            # 409: it is so already, or has ended.
            return await self.engine.attempt(self.engine.call("POST", f"/containers/{container}/{what}"), fine=(404, 409, 500))

        await together(one(sandbox.data["id"]) for sandbox in environment.sandboxes)


def _make_binds(spec: EnvironmentSpec) -> None:
    from pathlib import Path

    for service in spec.services.values():
        for mount in service.volumes:
            if mount.type == "bind" and mount.create:
                Path(mount.source, mount.subpath).mkdir(parents=True, exist_ok=True)
