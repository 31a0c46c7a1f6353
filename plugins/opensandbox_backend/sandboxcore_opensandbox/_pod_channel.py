"""The way into a pod of a BatchSandbox."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sandboxcore.abc import Channel
from sandboxcore.errors import GuestUnavailableError, SandboxUnavailableError

if TYPE_CHECKING:
    from sandboxcore.values import SandboxRef

    from ._connection import Connection

__all__ = ("BatchChannel",)


class BatchChannel(Channel):
    """The API server's exec, once there is a connection to the API server.

    Args:
        own: The connection is nobody else's, and is closed with this.
    """

    keepalive = 25.0

    def __init__(self, sandbox: SandboxRef, connection: Connection, *, own: bool = False) -> None:
        self._sandbox = sandbox
        self._connection = connection
        self._own = own
        self._inner: Channel | None = None
        self._template: str = sandbox.data.get("guest") or ""

    @property
    def guest_path(self) -> str:  # type: ignore[override]
        """Path of the mounted guest, as the channel within has it; it puts the pod's own machine type in."""
        inner = self._inner
        return inner.guest_path if inner is not None else self._template.replace("{machine}", "x86_64")

    async def open(self, argv: Sequence[str], protocol: asyncio.BaseProtocol) -> asyncio.Transport:
        """Open a stream.

        Raises:
            SandboxUnavailableError: With ``started="no"``.
            GuestUnavailableError: The pod is gone, or is another one.
        """
        if self._inner is None:
            self._inner = await self._connect()
        if self._sandbox.data.get("recycle") in ("Noop", "Restart"):
            await self._check_it_is_ours()
        return await self._inner.open(argv, protocol)

    async def _check_it_is_ours(self) -> None:
        """Ask whether the pod is still the environment's: such a pool gives the very same pod to the next one."""
        from sandboxcore_kubernetes import ApiError

        from ._batch_watch import KIND
        from ._errors import mapped
        from ._notes import live_environments, read

        data = self._sandbox.data
        try:
            cluster = await self._connection.cluster()
            found = await cluster.get(KIND, data["batch"], namespace=data["namespace"])
        except ApiError as error:
            if error.status == 404:
                raise GuestUnavailableError(f"the environment of pod {data['pod']} is gone") from error
            told = mapped(error, f"look whose pod {data['pod']} is")
            raise SandboxUnavailableError(told.message, started="no", hint=told.hint) from error
        notes = read(found)
        if notes is None or self._sandbox.environment_id not in live_environments(found, notes):
            raise GuestUnavailableError(f"pod {data['pod']} is no longer that of environment {self._sandbox.environment_id}")

    async def _connect(self) -> Channel:
        from sandboxcore_kubernetes import PodChannel, sandbox_error

        from ._pool_template import GUEST_HINT

        data = self._sandbox.data
        try:
            cluster = await self._connection.cluster()
        except Exception as error:
            found = sandbox_error(error, "reach the cluster")
            raise SandboxUnavailableError(found.message, started="no", hint=found.hint) from error
        return PodChannel(
            cluster,
            namespace=data["namespace"],
            pod=data["pod"],
            container=data.get("container"),
            uid=data.get("uid"),
            guest_path=self._template,
            machine=self.machine,
            mount_hint=GUEST_HINT,
        )

    async def aclose(self) -> None:
        """Let go of the streams; the connection to the cluster stays the session's."""
        if self._inner is not None:
            await self._inner.aclose()
        if self._own:
            await self._connection.aclose()
