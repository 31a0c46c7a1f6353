"""The core's own answer to ``sandboxcore_executor`` and ``sandboxcore_file_store``: the guest over the backend's channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._markers import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

    from .abc import Channel, Executor, FileStore, Provisioner
    from .guest import Guest
    from .values import SandboxRef

    OpenChannel = Callable[[SandboxRef, Any, Provisioner], Channel | None]

__all__ = ("GuestHooks",)


class GuestHooks:
    """Answers last. Executor and file store of one sandbox share one guest while ``expect`` holds it."""

    def __init__(self, channel: OpenChannel) -> None:
        self._channel = channel
        self._leases: dict[int, float] = {}
        self._guests: dict[int, Guest] = {}

    def expect(self, sandbox: SandboxRef, lease: float) -> None:
        """Get ready for the two hooks to be called for this very object."""
        self._leases[id(sandbox)] = lease

    def take(self, sandbox: SandboxRef) -> Guest | None:
        """Hand over the guest that the hooks made, if they were asked and there is a channel."""
        self._leases.pop(id(sandbox), None)
        return self._guests.pop(id(sandbox), None)

    @hookimpl(trylast=True)
    def sandboxcore_executor(self, sandbox: SandboxRef, config: Any, provisioner: Provisioner) -> Executor | None:
        """Run commands through the guest."""
        guest = self._guest(sandbox, config, provisioner)
        return guest.executor if guest else None

    @hookimpl(trylast=True)
    def sandboxcore_file_store(self, sandbox: SandboxRef, config: Any, provisioner: Provisioner) -> FileStore | None:
        """Move files through the guest."""
        guest = self._guest(sandbox, config, provisioner)
        return guest.files if guest else None

    def _guest(self, sandbox: SandboxRef, config: Any, provisioner: Provisioner) -> Guest | None:
        key = id(sandbox)
        if key not in self._guests:
            channel = self._channel(sandbox, config, provisioner)
            if channel is None:
                return None
            from .guest import Guest

            self._guests[key] = Guest(channel, lease=self._leases.get(key, 300.0))
        return self._guests[key]
