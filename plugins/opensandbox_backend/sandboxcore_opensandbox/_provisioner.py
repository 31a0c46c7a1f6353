"""Environments of BatchSandboxes: made, renewed, and taken away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sandboxcore.abc import Provisioner
from sandboxcore.errors import CapabilityError

from ._connection import Connection

if TYPE_CHECKING:
    from sandboxcore.abc import Emit
    from sandboxcore.report import ReportEntry
    from sandboxcore.spec import EnvironmentSpec
    from sandboxcore.values import Claim, DoctorFinding, EnvironmentRef

    from ._config import OpenSandboxConfig
    from ._removal import Remover

__all__ = ("CrdProvisioner",)

_NO_PAUSE = (
    "OpenSandbox does not stop and go on: it commits one container's file system to a snapshot registry, deletes the pod, and "
    "starts another one later, without the processes; this backend does not use that, whether or not the controller has a "
    "registry (--snapshot-registry)"
)


class CrdProvisioner(Provisioner):
    """Mode ``crd``: one BatchSandbox for the services of an environment, or of many, and one for each pool they come from."""

    max_in_flight = 64

    def __init__(self, config: OpenSandboxConfig) -> None:
        self.config = config
        self.connection = Connection(config)
        self._remover: Remover | None = None

    async def aclose(self) -> None:
        """Close the connection to the cluster."""
        await self.connection.aclose()

    def check(self, spec: EnvironmentSpec) -> Sequence[ReportEntry]:
        """Tell what becomes of the spec in pods that are made, or were made in advance.

        Raises:
            CapabilityError: It can't be had.
        """
        from ._check import check

        return check(spec, self.config)

    async def provision(self, spec: EnvironmentSpec, claim: Claim, emit: Emit) -> EnvironmentRef:
        """Create one environment and wait until every service is ready.

        Raises:
            CapabilityError: It can't be had. Nothing was created.
            ProvisionError: With the cause. Nothing is left.
        """
        [made] = await self.provision_batch(spec, (claim,), emit)
        return made

    async def provision_batch(self, spec: EnvironmentSpec, claims: Sequence[Claim], emit: Emit) -> Sequence[EnvironmentRef]:
        """Create one environment a claim, all or none.

        Raises:
            CapabilityError: They can't be had. Nothing was created.
            ProvisionError: Names which failed and why. Nothing is left of any of them.
        """
        from ._making import make

        self.check(spec)
        return await make(self.connection, self.remover, spec, claims, emit)

    @property
    def remover(self) -> Remover:
        """What takes environments away; one a session, so that those of one batch go together."""
        if self._remover is None:
            from ._removal import Remover

            self._remover = Remover(self.connection)
        return self._remover

    async def destroy(self, environment: EnvironmentRef) -> None:
        """Take the environment away and wait until it is gone. Idempotent.

        Raises:
            ProvisionError: Something keeps it; the message says what, and what to do.
        """
        await self.remover.destroy(environment)

    async def renew(self, environments: Sequence[EnvironmentRef], lease: float) -> None:
        """Move the end of the leases, with one change an object however many environments it holds."""
        from ._leasing import renew

        await renew(self.connection, environments, lease)

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
        """Check the resources' definitions, the controller, the rights, and what each pool has free."""
        from ._doctor import diagnose_cluster

        return await diagnose_cluster(self.connection)
