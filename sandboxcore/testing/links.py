"""A plugin that cuts the links to sandboxes, as a network would."""

from __future__ import annotations

import weakref
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from sandboxcore._markers import hookimpl
from sandboxcore.abc import Channel

if TYPE_CHECKING:
    import asyncio

    from sandboxcore.values import SandboxRef

__all__ = ("LinkCutter",)


class LinkCutter:
    """Remembers every stream that a channel opens, and can abort them all.

    Args:
        opened: How many streams were opened so far.
    """

    def __init__(self) -> None:
        self._transports: weakref.WeakSet[asyncio.Transport] = weakref.WeakSet()
        self.opened = 0

    @hookimpl(wrapper=True)
    def sandboxcore_channel(self, sandbox: SandboxRef) -> Generator[None, Channel | None, Channel | None]:
        """Put a recorder around the backend's own channel."""
        channel = yield
        return None if channel is None else _RecordedChannel(channel, self)

    def remember(self, transport: asyncio.Transport) -> None:
        """Note a stream that was opened."""
        self.opened += 1
        self._transports.add(transport)

    def cut(self) -> int:
        """Abort every open stream, without a word to the other end; returns how many there were."""
        open_ones = [transport for transport in self._transports if not transport.is_closing()]
        self._transports.clear()
        for transport in open_ones:
            transport.abort()
        return len(open_ones)


class _RecordedChannel(Channel):
    def __init__(self, inner: Channel, cutter: LinkCutter) -> None:
        self._inner = inner
        self._cutter = cutter
        self.lands_in = inner.lands_in
        self.guest_path = inner.guest_path

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def open(self, argv: Sequence[str], protocol: asyncio.BaseProtocol) -> asyncio.Transport:
        transport = await self._inner.open(argv, protocol)
        self._cutter.remember(transport)
        return transport

    async def shortcut(self, sockets: Sequence[str], protocol: asyncio.BaseProtocol) -> asyncio.Transport | None:
        transport = await self._inner.shortcut(sockets, protocol)
        if transport is not None:
            self._cutter.remember(transport)
        return transport

    async def aclose(self) -> None:
        await self._inner.aclose()
