"""Requests to one API server: sent again where that is safe, counted, and bounded in number."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ._access import Access, open_access
from .errors import ApiError, UnreachableError, api_error, connection_error

if TYPE_CHECKING:
    import aiohttp

    from .config import ClusterConfig
    from .streams import ChannelStream

__all__ = ("Transport",)

_PAGE = 500
_BACKOFF = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_CLOSING = 2.0
#: Seconds after which a server that does not say whether it is ready is taken for one that never says so to this user.
_SILENCE = 10.0
#: Who refuses: the admission plugins of a server that starts, which are asked before anything is done.
_STARTS = re.compile(r"not yet ready to handle request")
#: Who refuses: the authorizer, for it knows no such right.
_NO_RIGHT = re.compile(r'User ".*" cannot \S+ (resource|path) ')


class Transport:
    """The part of a client that speaks HTTP."""

    def __init__(self, access: Access, config: ClusterConfig) -> None:
        self._access = access
        self._retired: list[Access] = []
        self._config = config
        self._gate = asyncio.Semaphore(config.requests_at_once)
        self._login = asyncio.Lock()
        self._buffer = bytearray()
        self._clock: tuple[float, float] | None = None
        #: Streams whose connection is there, also those that are closing.
        self.streams: set[ChannelStream] = set()
        #: Since when the server does not say whether it is ready (monotonic).
        self._silent_since: float | None = None
        #: How many requests were sent, watches and streams included.
        self.requests = 0

    @property
    def config(self) -> ClusterConfig:
        """What it was connected with."""
        return self._config

    @property
    def server(self) -> str:
        """URL of the API server."""
        return self._access.server

    async def close_connections(self) -> None:
        """End all streams and close all connections."""
        for stream in tuple(self.streams):
            stream.abort()
        until = time.monotonic() + _CLOSING
        while self.streams and time.monotonic() < until:  # noqa: ASYNC110  TLS takes a few turns of the loop to let go
            await asyncio.sleep(0.001)
        for access in (*self._retired, self._access):
            await access.aclose()

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        timeout: float | None = None,
        patience: float | None = None,
    ) -> dict[str, Any]:
        """Send a request and return the JSON that answers it.

        While the server can't be reached or sends requests away (429, 503 with ``Retry-After``) they are sent again, as far
        as it is certain that they did nothing (or that doing them twice is no different), for ``patience`` seconds. So are
        those that it refuses because it starts, and has not read yet who may do what (kubernetes/kubernetes#121635).

        Args:
            timeout: Seconds for one attempt; None: as configured.
            patience: Seconds for further attempts; None: as configured.

        Raises:
            UnreachableError: No answer.
            ApiError: An answer of 400 or more.
        """
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        until = time.monotonic() + (self._config.patience if patience is None else patience)
        renewed = known = False
        attempt = 0
        while True:
            try:
                async with self._gate:
                    return await self._send(method, path, query, data, content_type, timeout or self._config.request_timeout)
            except ApiError as error:
                if error.status == 401 and not renewed:
                    renewed = True
                    await self._log_in_again(self._access)
                    continue
                pause = _pause(error, method, attempt)
                if pause is None and _is_no_right(error) and not known and time.monotonic() < until:
                    known = await self._knows_rights(error)  # now, which it may not have when it refused: once more
                    pause = 0.0 if known else _backoff(attempt)
                if pause is None or time.monotonic() + pause > until:
                    raise
            attempt += 1
            await asyncio.sleep(pause)

    async def _knows_rights(self, refusal: ApiError) -> bool:
        """Tell whether the server has read who may do what: it is not ready before, and does not even say so to some."""
        import aiohttp

        access = self._access
        # With credentials that it does not know it says nothing.
        headers = [] if refusal.status == 401 else await access.headers()
        self.requests += 1
        try:
            async with access.session.get(
                f"{access.server}/readyz",
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=self._config.request_timeout),
                **access.arguments(),
            ) as response:
                if response.status != 403:
                    self._silent_since = None
                    return response.status not in (429, 500, 503)
                # Some clusters never tell everybody: then it is the first refusal that takes its time, and no other.
                self._silent_since = self._silent_since or time.monotonic()
                return time.monotonic() - self._silent_since > _SILENCE
        except Exception as error:
            connection_error(error)
            return False

    async def _send(
        self, method: str, path: str, query: Mapping[str, str] | None, data: bytes | None, content_type: str, timeout: float
    ) -> dict[str, Any]:
        import aiohttp

        access = self._access
        headers = await access.headers()
        if data is not None:
            headers.append(("Content-Type", content_type))
        self.requests += 1
        try:
            async with access.session.request(
                method,
                access.server + path,
                params=query,
                data=data,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=timeout),
                **access.arguments(),
            ) as response:
                answer = await response.read()
                self._set_clock(response.headers.get("Date"))
        except Exception as error:
            raise connection_error(error, access.server) from error
        if response.status >= 400:
            raise api_error(response.status, answer, response.headers.get("Retry-After"))
        found: dict[str, Any] = json.loads(answer) if answer else {}
        return found

    async def _log_in_again(self, refused: Access) -> None:
        async with self._login:
            if self._access is refused:  # nobody else was quicker
                self._access = await open_access(self._config)
                self._retired.append(refused)  # streams on its connections go on until they end by themselves

    async def raw_get(
        self, path: str, query: Sequence[tuple[str, str]], headers: Sequence[tuple[str, str]]
    ) -> aiohttp.ClientResponse:
        """Send a GET and return the answer as it is, its body unread; the caller closes it.

        Raises:
            UnreachableError: No answer.
        """
        import aiohttp

        for attempt in (1, 2):
            access = self._access
            self.requests += 1
            try:
                async with asyncio.timeout(self._config.request_timeout):
                    response = await access.session.get(
                        access.server + path,
                        params=query,
                        headers=[*headers, *await access.headers()],
                        timeout=aiohttp.ClientTimeout(total=None),
                        read_until_eof=False,
                        allow_redirects=False,
                        **access.arguments(),
                    )
            except Exception as error:
                raise connection_error(error, access.server) from error
            if response.status != 401 or attempt == 2:
                break
            response.close()
            await self._log_in_again(access)
        return response

    def read_buffer(self, size: int) -> bytearray:
        """Return the buffer that all streams of this client read into."""
        if len(self._buffer) < size:
            self._buffer = bytearray(size)
        return self._buffer

    @contextlib.asynccontextmanager
    async def read_stream(
        self, path: str, *, query: Mapping[str, str] | None = None, silence: float | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open an answer that comes bit by bit (a watch, a log that is followed).

        Args:
            silence: Seconds without a byte after which it counts as lost; None: never.

        Raises:
            UnreachableError: The connection broke, or was never made.
            ApiError: An answer of 400 or more.
        """
        import aiohttp

        access = self._access
        self.requests += 1
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._config.request_timeout, sock_read=silence)
        try:
            async with access.session.get(
                access.server + path, params=query, headers=await access.headers(), timeout=timeout, **access.arguments()
            ) as response:
                if response.status == 401:
                    await self._log_in_again(access)
                    raise UnreachableError("the API server no longer accepts the credentials; they were renewed")
                if response.status >= 400:
                    raise api_error(response.status, await response.read(), response.headers.get("Retry-After"))
                yield response.content.iter_any()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise connection_error(error, access.server) from error

    async def list_path(self, path: str, *, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Read a whole list, page by page, as of one moment."""
        found: dict[str, Any] = {}
        items: list[Any] = []
        asked = dict(query or {}) | {"limit": str(_PAGE)}
        while True:
            page = await self.request("GET", path, query=asked)
            items += page.get("items") or ()
            found = page
            onward = (page.get("metadata") or {}).get("continue")
            if not onward:
                found["items"] = items
                return found
            asked["continue"] = onward

    def _set_clock(self, date: str | None) -> None:
        if date:
            from email.utils import parsedate_to_datetime

            with contextlib.suppress(ValueError):
                self._clock = (parsedate_to_datetime(date).timestamp(), time.monotonic())

    async def server_time(self) -> float:
        """Return the server's time, seconds since the epoch, to within a second: leases are judged by one clock."""
        if self._clock is None:
            await self.request("GET", "/version")
        if self._clock is None:
            return time.time()
        said, then = self._clock
        return said + time.monotonic() - then

    async def clock_ahead(self) -> float:
        """Return how many seconds this machine's clock is ahead of the server's: what turns the server's times into ours."""
        return time.time() - await self.server_time()


def _backoff(attempt: int) -> float:
    return _BACKOFF[min(attempt, len(_BACKOFF) - 1)]


def _is_no_right(error: ApiError) -> bool:
    return error.status == 401 or (error.status == 403 and _NO_RIGHT.search(error.message) is not None)


def _pause(error: ApiError, method: str, attempt: int) -> float | None:
    """Decide after how many seconds a request is sent again; None: not at all."""
    backoff = _backoff(attempt)
    if error.status in (429, 503) and error.retry_after is not None:
        return max(error.retry_after, backoff)
    idempotent = method in ("GET", "DELETE", "PUT")
    if isinstance(error, UnreachableError):
        return backoff if idempotent or not error.sent else None
    if error.status == 429 or (idempotent and error.status in (500, 502, 503, 504)):
        return backoff
    if error.status == 403 and _STARTS.search(error.message):
        return backoff
    return None
