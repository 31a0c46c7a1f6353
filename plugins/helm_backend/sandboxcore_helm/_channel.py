"""A way into a sandbox's pod, which begins to be one when the first stream is opened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sandboxcore.abc import Channel

if TYPE_CHECKING:
    import asyncio

    from sandboxcore.values import SandboxRef

    from ._provisioner import HelmProvisioner

__all__ = ("HelmChannel",)


class HelmChannel(Channel):
    """Connects to the cluster when it has to: a sandbox that another process made is bound before this one knows the cluster.

    Args:
        own: The provisioner is nobody else's, and is closed with this.
    """

    keepalive = 25.0

    def __init__(self, provisioner: HelmProvisioner, sandbox: SandboxRef, *, own: bool = False) -> None:
        self._provisioner = provisioner
        self._own = own
        self._data = sandbox.data
        self._channel: Channel | None = None
        self._guest: str = sandbox.data.get("guest", "")

    @property
    def guest_path(self) -> str:  # type: ignore[override]
        """Path of the mounted guest for the machine, as far as that is known."""
        return self._channel.guest_path if self._channel is not None else self._guest.replace("{machine}", "x86_64")

    async def open(self, argv: Sequence[str], protocol: asyncio.BaseProtocol) -> asyncio.Transport:
        """Open a stream; see ``Channel.open``."""
        if self._channel is None:
            from sandboxcore_kubernetes.channel import PodChannel

            self._channel = PodChannel(
                await self._provisioner.cluster(),
                namespace=self._data["namespace"],
                pod=self._data["pod"],
                container=self._data["container"] or None,
                uid=self._data["uid"],
                guest_path=self._guest,
            )
        user = self._data.get("user")
        if user and argv and argv[0] == self.guest_path:
            # A user by name, which Kubernetes does not look up: the guest does, in the image's own list.
            argv = (*argv, "--user", user)
        return await self._channel.open(argv, protocol)

    async def aclose(self) -> None:
        """Let go of the pod."""
        if self._channel is not None:
            await self._channel.aclose()
        if self._own:
            await self._provisioner.aclose()
