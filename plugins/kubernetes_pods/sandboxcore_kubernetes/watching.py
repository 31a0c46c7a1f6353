"""A watch that goes on: bookmarks, expiry, lost connections and restarts of the API server are dealt with in here."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .errors import ApiError

if TYPE_CHECKING:
    from .cluster import Cluster

__all__ = ("Lines", "WatchEvent", "watch")

_BACKOFF = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
#: The server ends a watch after that many seconds, a little different each time.
_LIFE = 280
#: Silence after which a watch is opened again; servers send bookmarks about once a minute.
_SILENCE = 150.0
#: Statuses that asking again does not change.
_FINAL = frozenset({400, 401, 403, 404, 405, 406, 422})
#: Of those, what an API server that starts also says until it has read who may do what (kubernetes/kubernetes#121635), and the
#: seconds that this is believed of one which gave its answers before.
_UNTIL_READ = frozenset({401, 403})
_READING = 60.0


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """A change. With ``RELIST``, ``object`` is a whole list: what is not in it is gone."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "RELIST"]
    object: dict[str, Any]


class Lines:
    """Cuts a stream of bytes into lines, however long."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes and return the lines that they complete."""
        *whole, rest = data.split(b"\n")
        if whole:
            whole[0] = b"".join([*self._parts, whole[0]])
            self._parts = []
        if rest:
            self._parts.append(rest)
        return whole


async def watch(
    cluster: Cluster,
    path: str,
    *,
    label_selector: str | None = None,
    field_selector: str | None = None,
    resource_version: str | None = None,
) -> AsyncIterator[WatchEvent]:
    """Yield what is there (``RELIST``) and then each change, for ever.

    Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes

    Raises:
        ApiError: The server refuses for good (no such path, no right).
    """
    query = {"labelSelector": label_selector, "fieldSelector": field_selector}
    chosen = {name: value for name, value in query.items() if value}
    version, failures = resource_version, 0
    admitted, refused_since = False, None
    while True:
        try:
            if version is None:
                document = await cluster.list_path(path, query=chosen)
                version, admitted = document["metadata"]["resourceVersion"], True
                yield WatchEvent("RELIST", document)
            async for kind, body in _changes(cluster, path, chosen, version):
                failures = 0
                version, admitted = body["metadata"]["resourceVersion"], True
                if kind != "BOOKMARK":
                    yield WatchEvent(kind, body)
            failures += 1  # a server that ends watches at once is not asked in a loop
            refused_since = None
        except ApiError as error:
            now = asyncio.get_running_loop().time()
            refused_since = (refused_since or now) if admitted and error.status in _UNTIL_READ else None
            if error.status == 410 or error.reason in ("Expired", "Gone"):
                version = None
            elif error.status in _FINAL and (refused_since is None or now - refused_since > _READING):
                raise
            failures += 1
        pause = _BACKOFF[min(failures, len(_BACKOFF)) - 1] if failures else 0
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))


async def _changes(
    cluster: Cluster, path: str, query: dict[str, str], version: str
) -> AsyncIterator[tuple[Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"], dict[str, Any]]]:
    life = str(_LIFE + random.randrange(20))
    asked = query | {"watch": "1", "allowWatchBookmarks": "true", "resourceVersion": version, "timeoutSeconds": life}
    lines = Lines()
    async with cluster.read_stream(path, query=asked, silence=_SILENCE) as chunks:
        async for chunk in chunks:
            for line in lines.feed(chunk):
                change = json.loads(line)
                if change["type"] == "ERROR":
                    status = change["object"]
                    raise ApiError(status.get("message", ""), status=status.get("code", 0), reason=status.get("reason", ""))
                yield change["type"], change["object"]
