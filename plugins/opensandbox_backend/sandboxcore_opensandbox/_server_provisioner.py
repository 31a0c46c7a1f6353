"""Environments through opensandbox-server: one sandbox each, created, renewed and killed with the official SDK."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sandboxcore._closing import each, finish
from sandboxcore.abc import Provisioner
from sandboxcore.errors import CapabilityError, ProvisionError, ProvisionTimeoutError, SandboxError
from sandboxcore.values import EnvironmentRef, Event
from sandboxcore_kubernetes.naming import ENVIRONMENT_ID

from ._server_channel import ExecdChannel
from ._server_connection import ServerConnection
from ._server_creation import Creation
from ._server_describe import environment_ref
from ._server_errors import is_missing, server_error
from ._server_notes import LEASE, READY, ServerNotes, metadata
from ._server_request import check, create_arguments, pool_of

if TYPE_CHECKING:
    from sandboxcore.abc import Emit
    from sandboxcore.report import ReportEntry
    from sandboxcore.spec import EnvironmentSpec, ServiceSpec
    from sandboxcore.values import Claim, DoctorFinding, SandboxRef

    from ._config import OpenSandboxConfig

__all__ = ("ServerProvisioner",)

#: Seconds that a sandbox of the server lives at least.
SHORTEST = 60.0
_UNDO_SECONDS = 60.0
_GONE_SECONDS = 60.0
_NO_PAUSE = (
    "OpenSandbox does not stop and go on: it commits the container's file system to a snapshot registry and starts another one "
    "later, without the processes; and where it has no registry the server says that it does, and loses the sandbox"
)


class ServerProvisioner(Provisioner):
    """Mode ``server``."""

    max_in_flight = 16

    def __init__(self, config: OpenSandboxConfig) -> None:
        self.config = config
        self.connection = ServerConnection(config)

    async def aclose(self) -> None:
        """Close the connections to the server and to sandboxes."""
        await self.connection.aclose()

    def check(self, spec: EnvironmentSpec) -> Sequence[ReportEntry]:
        """Tell what becomes of the spec in a sandbox of the server.

        Raises:
            CapabilityError: It can't be had.
        """
        return check(spec, self.config)

    async def provision(self, spec: EnvironmentSpec, claim: Claim, emit: Emit) -> EnvironmentRef:
        """Create a sandbox and wait until the guest answers in it.

        Raises:
            CapabilityError: It can't be had. Nothing was created.
            ProvisionError: With the cause. Nothing is left, also of a sandbox whose id was never heard.
        """
        self.check(spec)
        name = next(iter(spec.services))
        creation = Creation()
        began = time.monotonic()
        try:
            async with asyncio.timeout(claim.timeout):
                ref = await self._make(spec.services[name], name, pool_of(spec, name, self.config), claim, creation)
        except BaseException as error:
            over = isinstance(error, TimeoutError) and not isinstance(error, SandboxError)
            told = _too_late(creation.refused, name, claim.timeout) if over else error
            if creation.is_known:
                await self._undo(claim, creation, told)
            if told is error:
                raise
            raise told from error
        event = Event(name="service.ready", time=time.time(), service=name, duration=time.monotonic() - began)
        emit(event.replace(environment_id=claim.environment_id))
        return ref

    async def _make(self, service: ServiceSpec, name: str, pool: str, claim: Claim, creation: Creation) -> EnvironmentRef:
        config = await self.connection.sdk()
        now = time.time()
        notes = ServerNotes(
            environment_id=claim.environment_id,
            run_id=claim.run_id,
            service=name,
            owner=claim.owner,
            created=round(now, 3),
            labels=dict(claim.labels),
            user=service.user,
            working_dir=service.working_dir,
            path=service.env.get("PATH"),
        )
        end = now + claim.lease
        arguments = create_arguments(service, pool, metadata(notes, end))
        arguments["timeout"] = timedelta(seconds=max(SHORTEST, claim.lease + self.config.expire_grace))
        try:
            sandbox_id = await creation.run(config, arguments)
        except Exception as error:
            what = f"service {name!r}: create a sandbox of {pool or service.image!r}"
            raise _named(server_error(error, what), name) from error
        ref = environment_ref(notes, sandbox_id, end, ready=True)
        try:
            await self._prepare(ref.sandboxes[0], service)
            manager = await self.connection.manager()
            await manager.patch_sandbox_metadata(sandbox_id, {READY: "true"})
        except Exception as error:
            raise _named(server_error(error, f"service {name!r}: sandbox {sandbox_id}"), name) from error
        return ref

    async def _prepare(self, sandbox: SandboxRef, service: ServiceSpec) -> None:
        """Put the guest in, and with it the service's files and directory."""
        channel = ExecdChannel(sandbox.data["sandbox_id"], self.connection)
        await channel.prepare()
        if not (service.files or service.working_dir):
            await channel.aclose()
            return
        from sandboxcore.guest import Guest

        guest = Guest(channel)
        try:
            from ._preparing import fill

            await fill(guest, service, b"")
        finally:
            await guest.aclose()

    # -- taking away

    async def _undo(self, claim: Claim, creation: Creation, error: BaseException) -> None:
        """Kill what was created for a claim, also where its id was never heard: it is found by what is written on it.

        A cancellation meanwhile changes nothing: the failure that is being undone comes out.
        """

        async def is_listed() -> bool:
            return bool(await self.find({ENVIRONMENT_ID: claim.environment_id}))

        async def undo() -> None:
            await creation.settle(is_listed)
            await self._take_away(claim.environment_id)

        try:
            await finish(undo(), seconds=_UNDO_SECONDS, what=f"undoing environment {claim.environment_id}")
        except asyncio.CancelledError:
            pass
        except Exception as failure:
            error.add_note(f"environment {claim.environment_id} may be left behind: {failure}")

    async def find(self, wanted: dict[str, str]) -> list[Any]:
        """List the sandboxes with this metadata, page by page.

        Raises:
            SandboxError: The server refuses, or can't be reached.
        """
        from opensandbox.models.sandboxes import SandboxFilter

        found: list[Any] = []
        page = 1
        try:
            manager = await self.connection.manager()
            while True:
                answer = await manager.list_sandbox_infos(SandboxFilter(metadata=wanted, page=page, page_size=200))
                found += answer.sandbox_infos
                if not answer.pagination.has_next_page:
                    return found
                page += 1
        except Exception as error:
            raise server_error(error, "list sandboxes") from error

    async def _kill(self, sandbox_id: str) -> None:
        try:
            manager = await self.connection.manager()
            await manager.kill_sandbox(sandbox_id)
        except Exception as error:
            if not is_missing(error):
                raise server_error(error, f"kill sandbox {sandbox_id}") from error

    async def destroy(self, environment: EnvironmentRef) -> None:
        """Kill the sandbox and wait until the server knows it no more. Idempotent."""
        await self._take_away(environment.environment_id)

    async def _take_away(self, environment_id: str) -> None:
        """Kill all of an environment and wait until the server lists none; the SDK logs questions for what is gone as errors."""
        deadline = time.monotonic() + _GONE_SECONDS
        killed: set[str] = set()
        pause = 0.05
        while found := {info.id for info in await self.find({ENVIRONMENT_ID: environment_id})}:
            if time.monotonic() > deadline:
                what = f"sandbox {', '.join(sorted(found))} is still there after {_GONE_SECONDS:g} s"
                raise ProvisionError(what, hint="is the controller running?")
            for _, failure in await each(found - killed, self._kill):
                raise failure
            killed |= found
            await asyncio.sleep(pause)
            pause = min(1.0, pause * 2)

    async def renew(self, environments: Sequence[EnvironmentRef], lease: float) -> None:
        """Move the end of the leases, with two requests a sandbox: the server has none for many."""
        gate = asyncio.Semaphore(16)

        async def one(sandbox_id: str) -> None:
            end = time.time() + lease
            last = max(end + self.config.expire_grace, time.time() + SHORTEST)
            async with gate:
                try:
                    manager = await self.connection.manager()
                    await manager.patch_sandbox_metadata(sandbox_id, {LEASE: f"{end:.3f}"})
                    await manager.renew_sandbox(sandbox_id, timedelta(seconds=last - time.time()))
                except Exception as error:
                    if not is_missing(error):
                        raise server_error(error, f"renew sandbox {sandbox_id}") from error

        await asyncio.gather(*(one(ref.data["sandbox_id"]) for ref in environments))

    async def pause(self, environment: EnvironmentRef) -> None:
        """Refuse.

        Raises:
            CapabilityError: Always, with the reason.
        """
        raise CapabilityError(f"environment {environment.environment_id} can't be paused: {_NO_PAUSE}")

    async def resume(self, environment: EnvironmentRef) -> EnvironmentRef:
        """Refuse.

        Raises:
            CapabilityError: Always, with the reason.
        """
        raise CapabilityError(f"environment {environment.environment_id} can't be resumed: {_NO_PAUSE}")

    async def doctor(self) -> Sequence[DoctorFinding]:
        """Check the server's health, its version against the SDK's, and that the key is right."""
        from ._server_doctor import diagnose_server

        return await diagnose_server(self.connection, self)


def _too_late(refused: Exception | None, service: str, seconds: float) -> ProvisionTimeoutError:
    """Say that the time is over, with what the server said where it was at its limits all along."""
    what = f"service {service!r}: not ready after {seconds:g} s"
    if refused is None:
        return ProvisionTimeoutError(f"{what}; the server did not say why", service=service)
    said = server_error(refused, "the server is at its limits")
    return ProvisionTimeoutError(f"{what}; {said.message}", service=service, hint=said.hint)


def _named(error: SandboxError, service: str) -> SandboxError:
    """Say which service it is, where the error has a place for that."""
    if isinstance(error, ProvisionError):
        error.service = service
    return error
