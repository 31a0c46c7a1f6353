"""WebSocket frames (RFC 6455), as far as the API server uses them. Pure.

A library's own reader queues whole messages; here a frame's bytes go on as they come, so that memory stays bounded and one
copy does.
"""

from __future__ import annotations

import base64
import hashlib
import os
import struct

__all__ = ("BINARY", "CLOSE", "PING", "PONG", "FrameError", "Frames", "accept_key", "frame", "new_key")

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KNOWN = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})


class FrameError(ValueError):
    """The server broke the rules; the stream can't be understood any more."""


def new_key() -> str:
    """Make the key of a handshake."""
    return base64.b64encode(os.urandom(16)).decode()


def accept_key(key: str) -> str:
    """Compute what the server must answer to a key."""
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()


def _mask_slowly(mask: bytes, data: bytearray) -> None:
    size = len(data)
    pattern = (mask * (size // 4 + 1))[:size]
    data[:] = (int.from_bytes(data, "little") ^ int.from_bytes(pattern, "little")).to_bytes(size, "little")


def _masker() -> object:
    try:
        from aiohttp._websocket.helpers import websocket_mask  # a C loop where it was built
    except ImportError:
        return _mask_slowly
    return websocket_mask


_mask = None


def frame(opcode: int, *parts: bytes | bytearray | memoryview) -> bytes:
    """Build a masked frame of the joined parts, the only one of its message."""
    global _mask
    if _mask is None:
        _mask = _masker()
    payload = bytearray().join(parts)
    size, first = len(payload), 0x80 | opcode
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 65536:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    mask = os.urandom(4)
    _mask(mask, payload)  # type: ignore[operator]
    return b"".join((head, mask, payload))


class Frames:
    """Cuts what a server sends into pieces of messages: ``(opcode, bytes, whether the message ends with them)``."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._opcode = 0
        self._final = True
        self._left = 0

    def feed(self, data: memoryview) -> list[tuple[int, memoryview, bool]]:
        """Take bytes; the pieces are views of them.

        Raises:
            FrameError: They are no frames of a server.
        """
        pieces: list[tuple[int, memoryview, bool]] = []
        at, end = 0, len(data)
        while at < end:
            if self._left:
                taken = min(self._left, end - at)
                self._left -= taken
                pieces.append((self._opcode, data[at : at + taken], self._final and not self._left))
                at += taken
                continue
            at = self._take_head(data, at, end)
            if not self._head and not self._left:
                pieces.append((self._opcode, data[at:at], self._final))
        return pieces

    def _take_head(self, data: memoryview, at: int, end: int) -> int:
        """Read a head, or what there is of it; ``_head`` is empty afterwards if it was whole."""
        head = self._head
        while True:
            need = 2 if len(head) < 2 else 2 + {126: 2, 127: 8}.get(head[1], 0)
            if len(head) >= need and len(head) >= 2:
                break
            if at == end:
                return at
            taken = min(need - len(head), end - at)
            head += data[at : at + taken]
            at += taken
        first, size = head[0], head[1]
        if first & 0x70 or (first & 0x0F) not in _KNOWN or size & 0x80:
            raise FrameError(f"a frame that begins with {bytes(head[:2]).hex()}")
        self._opcode = first & 0x0F
        self._final = bool(first & 0x80)
        self._left = size if size < 126 else int.from_bytes(head[2:], "big")
        if self._opcode >= CLOSE and (self._left > 125 or not self._final):
            raise FrameError(f"a control frame of {self._left} bytes")
        head.clear()
        return at
