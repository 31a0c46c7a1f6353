"""One stream to a guest: bytes in, lines while the way in is made, then frames out."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import cast

from .protocol import HEADER, MAX_FRAME, ProtocolError

__all__ = ("Link",)

_BUFFER_FIRST = 16 * 1024
_BUFFER = 256 * 1024
_LARGE = 32 * 1024
_SOCKET_BUFFER = 1 << 20  # far more than Linux grants
_LINES_MAX = 64 * 1024
_FILE_PIECE, _FILE_PIECE_HERE = 256 * 1024, 512 * 1024
#: Seconds that what nobody waits for may wait for company.
_LATER = 0.02

OnFrame = Callable[[int, int, memoryview], None]
OnLost = Callable[["Link", BaseException | None], None]


class Link(asyncio.BufferedProtocol, asyncio.Protocol):
    """The protocol object of a channel's stream.

    It is a ``BufferedProtocol`` for transports that fill a buffer, and takes ``data_received`` from those that don't.
    """

    def __init__(self, on_frame: OnFrame, on_lost: OnLost) -> None:
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._buffer = bytearray()
        self._resting = False
        self._start = self._end = 0
        self._lines: asyncio.Future[None] | None = None
        self._frames = False
        self._out: list[bytes | memoryview] = []
        self._flushing = False
        self._later: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._error: BaseException | None = None
        self.transport: asyncio.Transport | None = None
        #: What the channel said of the stream's end, once it has ended.
        self.reason: BaseException | None = None
        #: Bytes of a file in one frame: more where the other end is on this machine, and none waits long behind them.
        self.file_piece = _FILE_PIECE
        self.paused = False
        self.on_resume: Callable[[], None] | None = None
        self.heard = self._loop.time()

    # --- asyncio's side ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self.transport = cast(asyncio.Transport, transport)
        stream = transport.get_extra_info("socket")
        if stream is not None and stream.family == socket.AF_UNIX:  # TCP is better at this than we are
            self.file_piece = _FILE_PIECE_HERE
            with contextlib.suppress(OSError):
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner, once."""
        self.transport = None
        self.reason = exc
        self._wake()
        on_lost, self._on_lost = self._on_lost, _ignore
        on_lost(self, self._error or exc)

    def pause_writing(self) -> None:
        """Remember that the transport has enough."""
        self.paused = True

    def resume_writing(self) -> None:
        """Let the owner go on."""
        self.paused = False
        if self.on_resume is not None:
            self.on_resume()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Offer the free end of the buffer."""
        if not self._buffer:
            self._buffer = bytearray(_BUFFER_FIRST)
        return memoryview(self._buffer)[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was put into the buffer."""
        if self._error is not None:  # the stream is past understanding
            return
        self._end += nbytes
        self.heard = self._loop.time()
        if self._frames:
            self._take_frames()
        else:
            self._wake()
        self._make_room()

    def data_received(self, data: bytes) -> None:
        """Take bytes from a transport that has its own buffer."""
        view = memoryview(data)
        while view:
            space = self.get_buffer(len(view))
            n = min(len(space), len(view))
            space[:n] = view[:n]
            space.release()
            self.buffer_updated(n)
            view = view[n:]

    def eof_received(self) -> bool:
        """Close: a guest never half-closes."""
        return False

    # --- the owner's side ---

    async def line(self) -> str | None:
        """Wait for the next line of text; None when the stream has ended."""
        while True:
            at = self._buffer.find(b"\n", self._start, self._end)
            if at >= 0:
                text = self._buffer[self._start : at].decode(errors="replace").strip("\r")
                self._start = at + 1
                return text
            if self.transport is None or self._end - self._start > _LINES_MAX:
                return None
            self._lines = self._loop.create_future()
            await self._lines

    def begin_frames(self) -> None:
        """From here on the stream has frames."""
        self._frames = True
        self._take_frames()
        self._make_room()

    def write(self, data: bytes | memoryview) -> None:
        """Queue bytes; what is small and queued in one turn of the event loop leaves in one piece."""
        self._resting = False
        self._out.append(data)
        if len(data) >= _LARGE:
            self._flush()
        elif not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def write_later(self, data: bytes) -> None:
        """Queue bytes that nobody waits for: they leave with the next ones, or by themselves in a moment."""
        self._out.append(data)
        if self._later is None and not self._flushing:
            self._later = self._loop.call_later(_LATER, self._flush_rest)

    def rest(self) -> None:
        """Hold no buffer while nothing is expected; the next ``write`` ends that."""
        self._resting = True
        if self._start == self._end:
            self._buffer = bytearray()
            self._start = self._end = 0

    def rebind(self, on_frame: OnFrame, on_lost: OnLost) -> None:
        """Give the link to another owner; the next frame goes there."""
        self._on_frame = on_frame
        self._on_lost = on_lost

    def close(self) -> None:
        """Send what is queued, then close. The owner hears no more of it."""
        self._on_lost = _ignore
        self._flush()
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Cut the stream at once. The owner hears no more of it."""
        self._on_lost = _ignore
        self._on_frame = _ignore_frame
        if self.transport is not None:
            self.transport.abort()

    # --- inside ---

    def _flush_rest(self) -> None:
        self._later = None
        self._flush()

    def _flush(self) -> None:
        self._flushing = False
        out, self._out = self._out, []
        if not out or self.transport is None or self.transport.is_closing():
            return
        large = out.pop() if len(out[-1]) >= _LARGE else b""
        if out:
            self.transport.write(out[0] if len(out) == 1 else b"".join(out))
        if large:
            self.transport.write(large)

    def _wake(self) -> None:
        if self._lines is not None and not self._lines.done():
            self._lines.set_result(None)

    def _take_frames(self) -> None:
        at, end = self._start, self._end
        with memoryview(self._buffer) as view:
            try:
                while end - at >= 4:
                    length = int.from_bytes(view[at : at + 4], "little")
                    after = at + 4 + length
                    if length < 5 or length > MAX_FRAME:  # before room is made for it
                        raise ProtocolError(f"a frame of {length} bytes")
                    if after > end:
                        break
                    _, kind, command_id = HEADER.unpack_from(view, at)
                    self._on_frame(kind, command_id, view[at + 9 : after])
                    at = after
            except ProtocolError as error:
                self._error = error
                at = end
                if self.transport is not None:
                    self.transport.abort()
        self._start = at

    def _make_room(self) -> None:
        """Keep what is incomplete at the front, in a buffer that its frame fits into, and that grows while it fills up."""
        held, room = self._end - self._start, len(self._buffer)
        wanted = room if self._end < room else min(4 * room, _BUFFER)
        if self._frames and held >= 4:
            # With some to spare, so that a frame alone does not pass for a stream that fills all it is given.
            wanted = max(wanted, _BUFFER_FIRST + int.from_bytes(self._buffer[self._start : self._start + 4], "little"))
        elif held == room:
            wanted = 2 * room
        if not held:
            wanted = min(wanted, _BUFFER)
        if not held and self._resting:
            self._buffer = bytearray()
        elif wanted != room or (held and self._start):
            with memoryview(self._buffer) as view:
                if wanted != room:
                    self._buffer = bytearray(wanted)
                with memoryview(self._buffer) as roomy:
                    roomy[:held] = view[self._start : self._end]  # which may overlap
        self._start, self._end = 0, held


def _ignore(link: Link, error: BaseException | None) -> None:
    """Hear nothing."""


def _ignore_frame(kind: int, command_id: int, payload: memoryview) -> None:
    """Hear nothing."""
