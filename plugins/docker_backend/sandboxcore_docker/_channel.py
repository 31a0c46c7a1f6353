"""The way into a container: the engine's exec, whose stream is spoken here asynchronously."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sandboxcore.abc import Channel
from sandboxcore.errors import GuestUnavailableError, SandboxUnavailableError

from ._container import GUEST_FOLDER
from ._endings import describe_end
from ._engine import shared_engine
from ._errors import explain, unreachable
from ._hijack import hijack
from ._http import HttpError
from ._shortcut import connect_inside

if TYPE_CHECKING:
    from sandboxcore.abc import Provisioner
    from sandboxcore.values import SandboxRef

    from ._config import DockerConfig
    from ._engine import Engine

__all__ = ("DockerChannel", "guest_path", "open_exec")

_KEEPALIVE = 25.0
#: Seconds that what a container wrote before it died may still be on its way.
_LAST_WORDS = 0.5
_LOG_HINT = "`sandboxcore logs` shows what its command wrote"


def guest_path(data: Any) -> str:
    """Tell where the guest for a container's machine is mounted."""
    return f"{GUEST_FOLDER}/guest-{data.get('machine') or 'x86_64'}"


class DockerChannel(Channel):
    """Opens streams into one container."""

    def __init__(self, sandbox: SandboxRef, config: DockerConfig, provisioner: Provisioner) -> None:
        self._sandbox = sandbox
        self._engine = shared_engine(config, provisioner)
        self._owns_engine = self._engine is not getattr(provisioner, "engine", None)
        self.machine = str(sandbox.data.get("machine") or "")
        self.guest_path = guest_path(sandbox.data)
        # A socket of this machine ends when its other end does; a connection over a network may not.
        self.keepalive = None if self._engine.endpoint.path else _KEEPALIVE
        self._events = self._engine.events(sandbox.run_id)
        self._events.listen(sandbox.data["id"], self._hear)
        self._streams: weakref.WeakSet[asyncio.Transport] = weakref.WeakSet()
        self._deaths = 0
        self._looking: set[asyncio.Task[None]] = set()

    async def open(self, argv: Sequence[str], protocol: asyncio.BaseProtocol) -> asyncio.Transport:
        """Run the argv in the container with the stream as its stdin and stdout.

        Raises:
            GuestUnavailableError: The container is gone or has ended; the message says how.
            SandboxUnavailableError: It is paused or restarting, or the engine can't be reached.
        """
        data = self._sandbox.data
        user = ""
        if data.get("user") and argv and argv[0] == self.guest_path:
            # Root's guest becomes the service's user for each command: it can become others too, and they can't touch it.
            argv, user = (*argv, "--user", data["user"], *(("--home", data["home"]) if data.get("home") else ())), "0:0"
        await self._events.ready()
        deaths = self._deaths

        def connected(transport: asyncio.Transport) -> None:
            self._streams.add(transport)
            if deaths != self._deaths:
                _abort((transport,))

        return await open_exec(self._engine, self._sandbox, argv, protocol, user=user, connected=connected)

    async def shortcut(self, sockets: Sequence[str], protocol: asyncio.BaseProtocol) -> asyncio.Transport | None:
        """Connect to the guest's own socket, without the engine in between, where this process may do that.

        Raises:
            OSError: It can't be reached so.
            SandboxUnavailableError: The engine can't be reached.
        """
        if not self._engine.endpoint.path:
            return None
        where = f"/containers/{self._sandbox.data['id']}/json"
        try:
            state = (await self._engine.call("GET", where))["State"]
        except HttpError:
            return None
        if not state.get("Running") or state.get("Paused") or not state.get("Pid"):
            return None
        for path in sockets:
            with contextlib.suppress(FileNotFoundError):
                stream = connect_inside(state["Pid"], path)
                transport, _ = await asyncio.get_running_loop().create_unix_connection(lambda: protocol, sock=stream)
                self._streams.add(transport)
                return transport
        return None

    def _hear(self, action: str, attributes: Mapping[str, str]) -> None:
        """End the streams into a container that has died: an engine may forget those that were just being opened."""
        if action in ("die", "destroy"):
            self._deaths += 1
            asyncio.get_running_loop().call_later(_LAST_WORDS, _abort, tuple(self._streams))
        elif action == "resync" and self._streams:
            task = asyncio.ensure_future(self._look(tuple(self._streams)))
            self._looking.add(task)
            task.add_done_callback(self._looking.discard)

    async def _look(self, streams: Sequence[asyncio.Transport]) -> None:
        """Find out what was missed while events were."""
        with contextlib.suppress(SandboxUnavailableError, HttpError):
            where = f"/containers/{self._sandbox.data['id']}/json"
            found = await self._engine.attempt(self._engine.call("GET", where))
            if found is None or not found["State"].get("Running"):
                _abort(streams)

    async def aclose(self) -> None:
        """Let go of the engine where it is not the session's."""
        self._events.forget(self._sandbox.data["id"], self._hear)
        for task in tuple(self._looking):
            task.cancel()
        if self._owns_engine:
            await self._engine.aclose()


def _abort(streams: Sequence[asyncio.Transport]) -> None:
    for stream in streams:
        stream.abort()


async def open_exec(
    engine: Engine,
    sandbox: SandboxRef,
    argv: Sequence[str],
    protocol: asyncio.BaseProtocol,
    *,
    user: str = "",
    connected: Callable[[asyncio.Transport], None] | None = None,
) -> asyncio.Transport:
    """Run a program in a container and connect its stdin and stdout to a protocol. Raises as ``DockerChannel.open`` does.

    The mounted guest always speaks first; what else is run may wait for an input.
    """
    container = sandbox.data["id"]
    body = {"AttachStdin": True, "AttachStdout": True, "AttachStderr": True, "Tty": False, "Cmd": list(argv), "User": user}
    try:
        made = await engine.call("POST", f"/containers/{container}/exec", json_body=body)
        where = await engine.path(f"/exec/{made['Id']}/start")
        speaks_first = tuple(argv[:1]) == (guest_path(sandbox.data),)
        return await hijack(engine.http, where, protocol, speaks_first=speaks_first, connected=connected)
    except HttpError as error:
        raise await _why_not(engine, sandbox, error) from error
    except OSError as error:
        if isinstance(error, SandboxUnavailableError):
            raise
        raise unreachable(engine.endpoint, error) from error


async def _why_not(engine: Engine, sandbox: SandboxRef, error: HttpError) -> SandboxUnavailableError:
    """Tell whether a container that refuses an exec is gone for good, and why."""
    name = sandbox.service
    if error.status not in (404, 409, 500):
        return SandboxUnavailableError(f"service {name!r}: {explain(error.message)[0]}", started="no")
    found = await engine.attempt(engine.call("GET", f"/containers/{sandbox.data['id']}/json"))
    if found is None:
        return GuestUnavailableError(f"service {name!r} is gone: its container was removed")
    state = found["State"]
    if state.get("Paused"):
        return SandboxUnavailableError(f"service {name!r} is paused", started="no", hint="resume the environment")
    if state.get("Restarting") or state.get("Running"):
        return SandboxUnavailableError(f"service {name!r}: {explain(error.message)[0]}", started="no")
    return GuestUnavailableError(f"service {name!r} is not running: it {describe_end(found)}", hint=_LOG_HINT)
