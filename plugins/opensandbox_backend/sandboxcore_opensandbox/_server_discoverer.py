"""Find environments by what is written on the server's sandboxes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from sandboxcore.abc import Discoverer
from sandboxcore.errors import CapabilityError
from sandboxcore_kubernetes.naming import ENVIRONMENT_ID, MANAGED_BY, RUN_ID

from ._notes import MANAGER
from ._server_describe import described

if TYPE_CHECKING:
    from sandboxcore.values import EnvironmentRef, SandboxRef, Selector

    from ._server_provisioner import ServerProvisioner

__all__ = ("ServerDiscoverer",)


class ServerDiscoverer(Discoverer):
    """Asks the server; what it finds is anybody's who has its key.

    Args:
        own: The provisioner is nobody else's, and is closed with this.
    """

    def __init__(self, provisioner: ServerProvisioner, *, own: bool = False) -> None:
        self._provisioner = provisioner
        self._own = own

    async def aclose(self) -> None:
        """Close the connection, if it is this one's own."""
        if self._own:
            await self._provisioner.aclose()

    async def find(self, selector: Selector) -> Sequence[EnvironmentRef]:
        """List the environments that the selector matches, also half-made and expired ones.

        Raises:
            SandboxError: The server can't be asked.
        """
        wanted = {MANAGED_BY: MANAGER}
        if selector.run_id is not None:
            wanted[RUN_ID] = selector.run_id
        if selector.environment_id is not None:
            wanted[ENVIRONMENT_ID] = selector.environment_id
        found = await self._provisioner.find(wanted)
        refs = [ref for info in found if (ref := described(info)) is not None]
        return [ref for ref in refs if selector.matches(ref)]

    async def logs(self, sandbox: SandboxRef, *, tail: int | None = None, follow: bool = False) -> AsyncIterator[bytes]:
        """Refuse: the server's diagnostics mix what the service wrote with what execd did.

        Raises:
            CapabilityError: Always.
        """
        raise CapabilityError(
            "opensandbox-server keeps no log of a service's own command apart from execd's",
            hint="write to a file and read that, or use mode crd",
        )
        yield b""
