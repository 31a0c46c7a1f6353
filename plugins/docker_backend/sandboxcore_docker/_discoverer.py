"""Find environments on an engine, what their services wrote, and their ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from sandboxcore.abc import Discoverer
from sandboxcore.errors import CapabilityError, SandboxUnavailableError

from ._channel import guest_path, open_exec
from ._describe import environments, ghosts
from ._engine import Engine, refused, shared_engine
from ._hijack import feed
from ._http import HttpError
from ._labels import label, read_facts, selecting
from ._leases import Leases
from ._multiplex import Demultiplexer

if TYPE_CHECKING:
    from sandboxcore.abc import Provisioner
    from sandboxcore.values import EnvironmentRef, SandboxRef, Selector

    from ._config import DockerConfig

__all__ = ("DockerDiscoverer",)


class DockerDiscoverer(Discoverer):
    """Asks the engine; keeps nothing."""

    def __init__(self, config: DockerConfig, provisioner: Provisioner) -> None:
        self._engine: Engine = shared_engine(config, provisioner)
        self._owns_engine = self._engine is not getattr(provisioner, "engine", None)

    async def aclose(self) -> None:
        """Let go of the engine where it is not the session's."""
        if self._owns_engine:
            await self._engine.aclose()

    async def find(self, selector: Selector) -> Sequence[EnvironmentRef]:
        """List the environments that the selector matches, also half-made and expired ones.

        Raises:
            SandboxUnavailableError: The engine can't be reached.
        """
        labels = selecting(run_id=selector.run_id, environment_id=selector.environment_id)
        engine = self._engine
        try:
            containers, networks, volumes, images, records = await asyncio.gather(
                engine.find("containers", labels, all=True),
                engine.find("networks", labels),
                engine.find("volumes", labels),
                engine.find("images", labels),
                Leases(engine).read(selector.run_id),
            )
            found = environments(containers, (*networks, *volumes, *images), records, engine.endpoint)
            orphans = [record for record in records if not any(one.run_id == record.run_id for one in found)]
            if orphans:
                found.extend(ghosts(orphans, await self._runs()))
        except HttpError as error:
            raise refused(error, "environments can't be listed") from error
        return [environment for environment in found if selector.matches(environment)]

    async def _runs(self) -> set[str]:
        """List the runs that have anything at all."""
        labels = [label("environment-id")]
        kinds: tuple[tuple[str, dict[str, Any]], ...] = (("containers", {"all": True}), ("networks", {}), ("volumes", {}))
        things = [thing for kind, more in kinds for thing in await self._engine.find(kind, labels, **more)]
        facts = (read_facts(thing.get("Labels") or {}) for thing in things)
        return {found.run_id for found in facts if found is not None}

    async def logs(self, sandbox: SandboxRef, *, tail: int | None = None, follow: bool = False) -> AsyncIterator[bytes]:
        """Yield what the service's own command wrote, as the engine keeps it.

        Args:
            tail: Begin with this many of the last lines; None: with all that is kept.
            follow: Go on until the service ends.

        Raises:
            CapabilityError: The engine's logging driver can't be read.
            SandboxUnavailableError: The container is gone, or the engine can't be reached.
        """
        query = {"stdout": True, "stderr": True, "follow": follow, "tail": "all" if tail is None else tail}
        demultiplexer = Demultiplexer()
        try:
            async with self._engine.open("GET", f"/containers/{sandbox.data['id']}/logs", query=query) as answer:
                async for data in answer.pieces():
                    if sandbox.data.get("tty"):
                        yield data
                        continue
                    for _, piece in demultiplexer.feed(memoryview(data)):
                        yield bytes(piece)
        except HttpError as error:
            if error.status == 404:
                raise SandboxUnavailableError(f"service {sandbox.service!r} is gone", started="no") from error
            raise CapabilityError(f"the engine keeps no logs that can be read: {error.message}") from error

    async def open_port(self, sandbox: SandboxRef, port: int, protocol: asyncio.BaseProtocol) -> asyncio.Transport:
        """Open a byte stream to a TCP port that something in the sandbox listens on, by a guest that connects there.

        Works wherever the engine is and whatever networks the sandbox is on.

        Raises:
            SandboxUnavailableError: Nothing listens there, or the sandbox is gone.
        """
        answered = _Answered(protocol)
        transport = await open_exec(self._engine, sandbox, (guest_path(sandbox.data), "connect", str(port)), answered)
        try:
            await answered.answer
        except ConnectionRefusedError as error:
            transport.abort()
            message = f"nothing can be reached at port {port} of service {sandbox.service!r}: {error}"
            raise SandboxUnavailableError(message, started="no") from error
        except BaseException:
            transport.abort()
            raise
        return transport


class _Answered(asyncio.Protocol):
    """Waits for the guest's first byte (``+``, or ``-`` and why not), then stands aside."""

    def __init__(self, inner: asyncio.BaseProtocol) -> None:
        self._inner = inner
        self._connected = False
        self._said = b""
        self._transport: asyncio.BaseTransport | None = None
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.answer.add_done_callback(lambda future: future.cancelled() or future.exception())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._connected:
            feed(self._inner, memoryview(data))
            return
        self._said += data
        if self._said.startswith(b"+") and not self.answer.done():
            self._connected = True
            assert self._transport is not None
            self._inner.connection_made(self._transport)
            self.answer.set_result(None)
            feed(self._inner, memoryview(self._said[1:]))

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        if self._connected:
            self._inner.connection_lost(error)
        elif not self.answer.done():
            why = self._said[1:].decode(errors="replace").strip() or str(error or "the stream ended")
            self.answer.set_exception(ConnectionRefusedError(why))
