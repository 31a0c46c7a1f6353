"""One exec path for every backend: a small static program in the sandbox, and this client of it over one stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..abc import Strategy

if TYPE_CHECKING:
    from ..abc import Channel, Executor, FileStore
    from ._bootstrap import guest_binary
    from .connection import Connection

__all__ = ("Guest", "guest_binary")


class Guest(Strategy):
    """The client of one sandbox's guest: its executor and its file store share one connection.

    Args:
        channel: The way into the sandbox; closed with this object.
        lease: Seconds that the guest keeps commands whose client is away.
    """

    def __init__(self, channel: Channel, *, lease: float = 300.0) -> None:
        from .connection import Connection
        from .executor import GuestExecutor
        from .files import GuestFileStore

        self.connection: Connection = Connection(channel, lease=lease)
        self.executor: Executor = GuestExecutor(self.connection)
        self.files: FileStore = GuestFileStore(self.connection)

    async def connect(self) -> None:
        """Open the link now and prove that the guest answers.

        Raises:
            SandboxUnavailableError: It does not, with ``started="no"``.
        """
        await self.connection.connect()

    async def aclose(self) -> None:
        """Kill what still runs, wait (bounded) until it is gone, and let go of the channel. Idempotent."""
        await self.connection.aclose()


def __getattr__(name: str) -> object:
    if name == "guest_binary":
        from ._bootstrap import guest_binary

        return guest_binary
    raise AttributeError(name)
