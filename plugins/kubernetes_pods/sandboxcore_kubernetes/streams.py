"""Byte streams through the API server: channels of one of its WebSockets as an asyncio transport.

Each message's first byte is its channel. Source: k8s.io/apimachinery/pkg/util/remotecommand/constants.go and
k8s.io/kubelet/pkg/cri/streaming/portforward/websocket.go.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from . import _websocket as ws
from .errors import ApiError, UnreachableError, api_error, connection_error

if TYPE_CHECKING:
    import aiohttp

    from .cluster import Cluster

__all__ = ("ChannelStream", "Layout", "open_port", "open_stream")

STDIN, STDOUT, STDERR, ERROR = 0, 1, 2, 3
_CLOSE_CHANNEL = 255  # v5
_CLOSED_NORMALLY = (1000).to_bytes(2, "big")
_READ_BYTES = 256 * 1024
_TEXT_KEPT = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Which channel is what."""

    protocols: tuple[str, ...]
    send: int
    receive: int
    error: int
    text: int | None = None
    #: Bytes that come before the data of each channel.
    preamble: int = 0
    #: Payload of a frame. The far end gathers a whole frame before it passes it on, in a buffer that grows in steps.
    frame_bytes: int = 64 * 1024


#: v4 goes through the API server as it is; a client that names v5 gets a translation to SPDY there, which costs about a third
#: of the throughput and 1 ms a command, for an end of standard input that the guest does not need.
EXEC = {
    name: Layout(protocols=(f"{name}.channel.k8s.io",), send=STDIN, receive=STDOUT, error=ERROR, text=STDERR)
    for name in ("v4", "v5")
}
#: One port: a data and an error channel, each of which begins with the port's number.
PORT = Layout(protocols=("v4.channel.k8s.io",), send=0, receive=0, error=1, preamble=2)

OnEnd = Callable[["ChannelStream"], "BaseException | None"]


class ChannelStream(asyncio.BufferedProtocol, asyncio.Transport):
    """Both ends of the adaption: a protocol to the connection below, a transport to the protocol above.

    Args:
        above: Gets the data of the layout's ``receive`` channel.
        buffer: What is read into; it is empty between two calls, so streams may share it.
        streams: Has this one while its connection is there.
        on_end: Says, when the connection is gone, what ``above.connection_lost`` is told.
        on_first: Called once, with the first byte or the end.
    """

    def __init__(
        self,
        layout: Layout,
        above: asyncio.BaseProtocol,
        buffer: bytearray,
        streams: set[ChannelStream],
        on_end: OnEnd,
        on_first: Callable[[], None],
    ) -> None:
        super().__init__()
        self._owner = streams
        self._layout = layout
        self._above = above
        self._buffer = buffer
        self._on_end = on_end
        self._on_first: Callable[[], None] | None = on_first
        self._frames = ws.Frames()
        self._channel: int | None = None
        self._control = bytearray()
        self._skip: dict[int, int] = {layout.receive: layout.preamble, layout.error: layout.preamble}
        self._held: list[bytes] = []
        self._reading = True
        self._closing = False
        self._ended = False
        self._below: asyncio.Transport | None = None
        self._before: asyncio.BaseProtocol | None = None
        self._response: aiohttp.ClientResponse | None = None
        self.protocol = ""
        self.text = bytearray()  # the end of what the far side wrote to its error output
        self.status = bytearray()  # what the error channel said
        self.close_reason = ""
        self._said_goodbye = False  # by the far end: whatever breaks afterwards has no meaning
        self.error: BaseException | None = None

    def attach(self, response: aiohttp.ClientResponse, protocol: str) -> None:
        """Take the connection of an answered upgrade over, with all that has come on it already."""
        connection = response.connection
        if connection is None or connection.transport is None or connection.protocol is None:
            raise ConnectionResetError("the connection broke right after it was made")
        tail = _Tail()
        connection.protocol.set_parser(tail, None)  # hands over what it holds
        self._response = response
        self._below, self._before = connection.transport, connection.protocol
        self.protocol = protocol
        self._below.set_protocol(self)
        self._owner.add(self)
        self._above.connection_made(self)
        if tail.data:
            self._take(memoryview(bytes(tail.data)))

    # --- towards the connection below ---

    def get_buffer(self, sizehint: int) -> memoryview:
        """Offer the whole buffer."""
        return memoryview(self._buffer)

    def buffer_updated(self, nbytes: int) -> None:
        """Take all that was read."""
        self._take(memoryview(self._buffer)[:nbytes])

    def eof_received(self) -> bool:
        """Close: WebSockets are not half-closed."""
        return False

    def pause_writing(self) -> None:
        """Pass it on."""
        self._above.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._above.resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Tell the protocol above, once."""
        self._below = None
        self._owner.discard(self)
        if self._before is not None:
            # The session waits, when it is closed, for the end of every connection that it made.
            before, self._before = self._before, None
            before.connection_lost(cast("Exception | None", exc))
        if self._ended:
            return
        self._hand_over()
        self._ended = self._closing = True
        if not self._said_goodbye:
            self.error = self.error or exc
        self._first()
        if self._response is not None:
            self._response.close()
            self._response = None
        reason = self._on_end(self)
        self._above.connection_lost(cast("Exception | None", reason))

    def _first(self) -> None:
        if self._on_first is not None:
            on_first, self._on_first = self._on_first, None
            on_first()

    def _take(self, data: memoryview) -> None:
        try:
            pieces = self._frames.feed(data)
        except ws.FrameError as error:
            self.error = error
            self.abort()
            return
        for opcode, piece, last in pieces:
            if self._ended:
                return
            if opcode >= ws.CLOSE:
                self._control += piece
                if last:
                    self._on_control(opcode, bytes(self._control))
                    self._control.clear()
                continue
            if self._channel is None and len(piece):
                self._channel, piece = piece[0], piece[1:]
            if self._channel is not None and len(piece):
                self._on_data(self._channel, piece)
            if last:
                self._channel = None

    def _on_control(self, opcode: int, payload: bytes) -> None:
        below = self._below
        if below is None:
            return
        if opcode == ws.PING:
            below.write(ws.frame(ws.PONG, payload))
        elif opcode == ws.CLOSE:
            self.close_reason = payload[2:].decode(errors="replace")
            self._hand_over()
            self._said_goodbye = True
            if not self._closing:
                below.write(ws.frame(ws.CLOSE, payload[:2]))
            self._closing = True
            below.close()

    def _on_data(self, channel: int, data: memoryview) -> None:
        skip = self._skip.get(channel, 0)
        if skip:
            taken = min(skip, len(data))
            self._skip[channel] = skip - taken
            data = data[taken:]
        if not len(data):
            return
        if channel == self._layout.receive:
            self._first()
            if not self._closing:
                self._deliver(data)
        elif channel == self._layout.error:
            self._first()
            self.status += data[: max(0, 4 * _TEXT_KEPT - len(self.status))]
        elif channel == self._layout.text:
            self.text += data
            del self.text[:-_TEXT_KEPT]

    def _deliver(self, data: memoryview) -> None:
        above = self._above
        if not self._reading or self._held:
            self._held.append(bytes(data))
        elif isinstance(above, asyncio.BufferedProtocol):
            while len(data):
                space = memoryview(above.get_buffer(len(data)))
                room = min(len(space), len(data))
                space[:room] = data[:room]
                above.buffer_updated(room)
                data = data[room:]
        else:
            cast(asyncio.Protocol, above).data_received(bytes(data))

    def _hand_over(self) -> None:
        """Deliver what a pause has held back: the far end has said all, and nothing comes after its end."""
        if self._closing:
            return
        held, self._held = self._held, []
        for data in held:
            self._reading = True  # whoever pauses again has no more to wait for than this
            self._deliver(memoryview(data))

    # --- towards the protocol above ---

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Ask the connection below."""
        return default if self._below is None else self._below.get_extra_info(name, default)

    def is_closing(self) -> bool:
        """Tell whether it is closed, or about to be."""
        return self._closing

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Give the data to another protocol from now on."""
        self._above = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol above."""
        return self._above

    def is_reading(self) -> bool:
        """Tell whether data is delivered."""
        return self._reading and not self._closing

    def pause_reading(self) -> None:
        """Deliver nothing, and read nothing, so that the far end is held up in the end."""
        self._reading = False
        if self._below is not None:
            self._below.pause_reading()

    def resume_reading(self) -> None:
        """Go on, with what was held first."""
        self._reading = True
        held, self._held = self._held, []
        for at, data in enumerate(held):
            if not self._reading:
                self._held = held[at:]
                return
            self._deliver(memoryview(data))
        if self._below is not None:
            self._below.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Pass it on."""
        if self._below is not None:
            self._below.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Ask the connection below."""
        return 0 if self._below is None else self._below.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Ask the connection below."""
        return (0, 0) if self._below is None else self._below.get_write_buffer_limits()

    def write(self, data: Any) -> None:
        """Send bytes to the far program, in as few frames as possible."""
        below = self._below
        if below is None or self._closing:
            return
        channel, most = bytes((self._layout.send,)), self._layout.frame_bytes
        if len(data) <= most:
            below.write(ws.frame(ws.BINARY, channel, data))
            return
        view = memoryview(data)
        for at in range(0, len(view), most):
            below.write(ws.frame(ws.BINARY, channel, view[at : at + most]))

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        """Send them as one."""
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        """Tell whether the protocol can end one direction (v5 can)."""
        return self.protocol.startswith("v5")

    def write_eof(self) -> None:
        """End the far program's standard input."""
        if not self.can_write_eof():
            raise NotImplementedError("the API server speaks no protocol that can end standard input alone")
        if self._below is not None and not self._closing:
            self._below.write(ws.frame(ws.BINARY, bytes((_CLOSE_CHANNEL, self._layout.send))))

    def close(self) -> None:
        """Send what is queued, say goodbye, close."""
        if self._closing:
            return
        if self._below is not None:
            if self.can_write_eof():
                self.write_eof()
            self._below.write(ws.frame(ws.CLOSE, _CLOSED_NORMALLY))
            self._closing = True
            self._below.close()
        self._closing = True

    def abort(self) -> None:
        """Close at once; what is queued is lost."""
        self._closing = True
        if self._below is not None:
            self._below.abort()


class _Tail:
    """Takes, in the place of a parser, what came right behind the answer to an upgrade."""

    def __init__(self) -> None:
        self.data = bytearray()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Keep it."""
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        """Do nothing: the transport will tell."""


async def open_stream(
    cluster: Cluster,
    path: str,
    query: Sequence[tuple[str, str]],
    layout: Layout,
    above: asyncio.BaseProtocol,
    on_end: OnEnd,
    on_first: Callable[[], None] = lambda: None,
) -> ChannelStream:
    """Open a WebSocket and connect one of its channels to a protocol.

    Raises:
        UnreachableError: The API server can't be reached, or is no API server.
        ApiError: It refuses.
    """
    stream = ChannelStream(layout, above, cluster.read_buffer(_READ_BYTES), cluster.streams, on_end, on_first)
    response, protocol = await _upgrade(cluster, path, query, layout.protocols)
    try:
        stream.attach(response, protocol)
    except BaseException as error:
        response.close()
        raise connection_error(error, cluster.server) from error
    return stream


async def _upgrade(
    cluster: Cluster, path: str, query: Sequence[tuple[str, str]], protocols: Sequence[str]
) -> tuple[aiohttp.ClientResponse, str]:
    key = ws.new_key()
    headers = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", key),
        ("Sec-WebSocket-Protocol", ", ".join(protocols)),
    ]
    response = await cluster.raw_get(path, query, headers)
    try:
        if response.status != 101:
            async with asyncio.timeout(cluster.config.request_timeout):
                raise api_error(response.status, await response.read(), response.headers.get("Retry-After"))
        if response.headers.get("Sec-WebSocket-Accept", "") != ws.accept_key(key):
            raise UnreachableError(f"what answers at {cluster.server} speaks no WebSocket", sent=False)
        protocol = response.headers.get("Sec-WebSocket-Protocol", "")
        if protocol not in protocols:
            hint = "Kubernetes 1.4 and later speak v4.channel.k8s.io; a proxy may have dropped the header"
            raise ApiError(f"the API server offers no stream protocol of {', '.join(protocols)}", status=400, hint=hint)
    except ApiError:
        response.close()
        raise
    except BaseException as error:
        response.close()
        raise connection_error(error, cluster.server) from error
    return response, protocol


async def open_port(cluster: Cluster, namespace: str, pod: str, port: int, protocol: asyncio.BaseProtocol) -> asyncio.Transport:
    """Open a stream to a TCP port of a pod; see ``Cluster.port_forward``."""

    def on_end(stream: ChannelStream) -> BaseException | None:
        text = stream.status.decode(errors="replace").strip()
        if text:
            return ConnectionRefusedError(f"port {port} of pod {pod}: {text}")
        return stream.error

    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward"
    return await open_stream(cluster, path, [("ports", str(port))], PORT, protocol, on_end)


def read_status(stream: ChannelStream) -> dict[str, Any]:
    """Read what the error channel said; empty where it said nothing that is a ``Status``."""
    with contextlib.suppress(ValueError):
        document = json.loads(bytes(stream.status))
        if isinstance(document, dict):
            return document
    return {}
