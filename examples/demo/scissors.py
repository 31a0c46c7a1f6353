"""A plugin in thirty lines: it stands between the core and the backend's channel, and can cut the links that go through it."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence

from sandboxcore import Channel, hookimpl


class Scissors:
    """Knows the links to all sandboxes, and cuts them as a broken network would: without a word to either end."""

    def __init__(self) -> None:
        self.links: list[asyncio.Transport] = []

    @hookimpl(wrapper=True)
    def sandboxcore_channel(self) -> Generator[None, Channel | None, Channel | None]:
        """Decorate whatever channel the backend has."""
        channel = yield
        return channel and _Watched(channel, self.links)

    def cut(self) -> int:
        """Cut every link that is open, and tell how many there were."""
        open_links = [link for link in self.links if not link.is_closing()]
        for link in open_links:
            link.abort()
        return len(open_links)


class _Watched(Channel):
    def __init__(self, inner: Channel, links: list[asyncio.Transport]) -> None:
        self._inner, self._links = inner, links
        self.lands_in, self.guest_path = inner.lands_in, inner.guest_path

    async def open(self, argv: Sequence[str], protocol: asyncio.BaseProtocol) -> asyncio.Transport:
        link = await self._inner.open(argv, protocol)
        self._links.append(link)
        return link

    async def aclose(self) -> None:
        await self._inner.aclose()
