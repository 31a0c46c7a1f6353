"""One engine: its version, its limits on what is done at once, and calls that return what it said."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from sandboxcore.errors import SandboxError

from ._endpoint import find_endpoint
from ._errors import explain, unreachable
from ._events import EventStream
from ._http import Body, HttpClient, HttpError, Response, target

if TYPE_CHECKING:
    from ._config import DockerConfig

__all__ = ("Engine", "Version", "refused", "shared_engine", "to_the_end")

#: The newest version of the API that this was written for; newer engines still speak it.
_NEWEST = (1, 47)
_AT_ONCE = 0.5

Version = tuple[int, int]
T = TypeVar("T")


class Engine:
    """Calls to one engine, for as long as a strategy is open."""

    def __init__(self, config: DockerConfig) -> None:
        self.config = config
        self.endpoint = find_endpoint(config)
        self._http = HttpClient(self.endpoint)
        self._about: dict[str, Any] | None = None
        self._asking = asyncio.Lock()
        self._streams: dict[str, EventStream] = {}
        self.busy = asyncio.Semaphore(config.at_once)

    def events(self, run_id: str) -> EventStream:
        """Share the one stream of a run's events."""
        return self._streams.setdefault(run_id, EventStream(self, run_id))

    async def aclose(self) -> None:
        """Close the connections. Idempotent."""
        streams, self._streams = list(self._streams.values()), {}
        for stream in streams:
            await stream.aclose()
        await self._http.aclose()

    async def about(self) -> dict[str, Any]:
        """Ask once who the engine is (``GET /version``)."""
        async with self._asking:
            if self._about is None:
                async with self._answer("GET", "/version") as response:
                    self._about = json.loads(await response.read())
                    self._about["Date"] = response.headers.get("date", "")
        return self._about

    async def version(self) -> Version:
        """Decide which version of the API to speak."""
        if self._about is None:
            await self.about()
        version = self.peek_version()
        assert version is not None
        return version

    def peek_version(self) -> Version | None:
        """Tell the version of the API, if it is known by now or the engine's socket is at hand."""
        if self._about is None and self.endpoint.path:
            self._about = _ask_at_once(self.endpoint.path)
        if self._about is None:
            return None
        return max(min(_version(self._about["ApiVersion"]), _NEWEST), _version(self._about.get("MinAPIVersion") or "1.12"))

    async def path(self, path: str, query: Mapping[str, Any] | None = None) -> str:
        """Write path and query with the version of the API."""
        major, minor = await self.version()
        return target(f"/v{major}.{minor}{path}", query)

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        json_body: Any = None,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Make a call and return its answer from JSON; None where it has none.

        Raises:
            HttpError: The engine refused.
            SandboxUnavailableError: The engine can't be reached.
        """
        async with self.open(method, path, query=query, json_body=json_body, body=body, headers=headers) as response:
            data = await response.read()
        return json.loads(data) if data and "json" in response.headers.get("content-type", "json") else None

    async def change(self, method: str, path: str, **more: Any) -> Any:
        """Make a call that changes something. A cancellation takes effect when the engine has answered, not before.

        Else nobody would know whether there is something to be undone: an engine goes on with what it has begun.
        """
        return await to_the_end(self.call(method, path, **more))

    @asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        json_body: Any = None,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Response]:
        """Make a call and give its answer as it comes. Raises as ``call`` does."""
        given = dict(headers or {})
        if json_body is not None:
            body, given["Content-Type"] = json.dumps(json_body).encode(), "application/json"
        where = await self.path(path, query)
        async with self._answer(method, where, body=body, headers=given) as response:
            yield response

    @asynccontextmanager
    async def _answer(self, method: str, where: str, **more: Any) -> AsyncIterator[Response]:
        try:
            async with self._http.stream(method, where, **more) as response:
                yield response
        except (OSError, EOFError) as error:
            if isinstance(error, SandboxError):
                raise
            raise unreachable(self.endpoint, error if isinstance(error, OSError) else ConnectionResetError(str(error))) from error

    async def find(self, kind: str, labels: list[str], **query: Any) -> list[dict[str, Any]]:
        """List objects with all these labels. ``kind``: containers, networks, volumes or images."""
        filters = {"label": labels}
        path = {"containers": "/containers/json", "images": "/images/json"}.get(kind, f"/{kind}")
        found = await self.call("GET", path, query={"filters": filters, **query})
        if kind == "volumes":
            found = found.get("Volumes")
        return found or []

    @staticmethod
    async def attempt(work: Coroutine[Any, Any, Any], *, fine: tuple[int, ...] = (404,)) -> Any:
        """Do something whose refusal with one of these statuses is as good as success; that gives None."""
        try:
            return await work
        except HttpError as error:
            if error.status not in fine:
                raise
        return None

    @property
    def http(self) -> HttpClient:
        """For streams that are not HTTP any more."""
        return self._http


def refused(error: HttpError, what: str) -> SandboxError:
    """Say what the refusal means outside of the making of an environment."""
    text, hint = explain(error.message)
    return SandboxError(f"{what}: {text}", hint=hint)


def shared_engine(config: DockerConfig, owner: object) -> Engine:
    """Take the engine of the session's provisioner, or make one where the provisioner is decorated or another's."""
    engine = getattr(owner, "engine", None)
    return engine if isinstance(engine, Engine) else Engine(config)


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Wait for the work's end though this task is cancelled meanwhile; the cancellation comes out afterwards."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()
        raise cancelled
    return task.result()


def _ask_at_once(path: str) -> dict[str, Any] | None:
    """Ask over the socket without an event loop, as ``check`` has to: a matter of a millisecond, and of half a second at most."""
    import http.client
    import socket

    connection = http.client.HTTPConnection("docker", timeout=_AT_ONCE)
    try:
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(_AT_ONCE)
        connection.sock.connect(path)
        connection.request("GET", "/version")
        answer = connection.getresponse()
        about = json.loads(answer.read())
        return {**about, "Date": answer.headers.get("Date", "")} if "ApiVersion" in about else None
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _version(text: str) -> Version:
    major, _, minor = text.partition(".")
    return int(major), int(minor)
