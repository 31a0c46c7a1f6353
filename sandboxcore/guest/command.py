"""The client's side of one command: what it has sent, what has come back, and who waits for it."""

from __future__ import annotations

import asyncio
import io
from collections import deque
from typing import TYPE_CHECKING, Literal

from . import protocol
from .protocol import End

if TYPE_CHECKING:
    from ..errors import SandboxError, Started

__all__ = ("Command",)

_EXEC_WINDOW = 192 * 1024
_FILE_WINDOW = 3 << 19
#: Of a file that nothing else is in flight beside. A long way through an API server holds more than the above; the guest takes
#: twice its own window, and many files at once must not fill its memory.
_FILE_WINDOW_ALONE = 7 << 19
_EXEC_PIECE = 64 * 1024


class Command:
    """A command in flight. It knows nothing of links; ``Connection`` moves its frames.

    Args:
        command_id: Unique on its connection, counting up.
        frame: The SPAWN or FILE frame.
        is_file: It is a file operation, which has larger windows.
        live: Somebody reads the output as it comes, and holds the command up by not reading.
    """

    __slots__ = (
        "_acked",
        "_eof_at",
        "_eof_sent",
        "_kept",
        "_stdin",
        "_stdin_base",
        "_stdin_next",
        "_window",
        "abandoned",
        "chunks",
        "done",
        "feeding",
        "frame",
        "held",
        "id",
        "is_file",
        "kill_wanted",
        "live",
        "pid",
        "received",
        "sent",
        "started",
        "stdin_closed",
        "waiters",
    )

    def __init__(self, command_id: int, frame: bytes, *, is_file: bool = False, live: bool = False) -> None:
        loop = asyncio.get_running_loop()
        self.id = command_id
        self.frame = frame
        self.is_file = is_file
        self.live = live
        self.sent = False
        self.started = False
        self.pid: int | None = None
        self.done: asyncio.Future[End] = loop.create_future()
        self.received = [0, 0]
        self.chunks: deque[tuple[int, bytes]] = deque()
        self.abandoned = False
        self.kill_wanted = False
        self.held: list[bytes] = []  # frames for the next link
        self.stdin_closed = False
        self.feeding = False  # it waits for its turn to send standard input
        self.waiters: list[asyncio.Future[None]] = []
        self._acked = [0, 0]
        self._window = _FILE_WINDOW if is_file else _EXEC_WINDOW
        self._kept: list[io.BytesIO | None] = [None, None]
        self._stdin: list[memoryview] = []
        self._stdin_base = 0  # offset of the first byte in _stdin: all before is with the command
        self._stdin_next = 0  # offset of the next byte to send
        self._eof_at: int | None = None
        self._eof_sent = False

    # --- output ---

    def take_output(self, stream: int, offset: int, data: memoryview) -> bool:
        """Keep what is new of a piece of output; True when it is time to acknowledge."""
        received = self.received[stream]
        if offset > received:
            raise protocol.ProtocolError(f"output of command {self.id} jumps from {received} to {offset}")
        if offset < received:
            data = data[received - offset :]
        if not data:
            return False
        self.received[stream] = received + len(data)
        if self.abandoned:
            pass
        elif self.live:
            self.chunks.append((stream, bytes(data)))
            self.wake()
        else:
            self._keep(stream).write(data)
        return not self.live and self.received[stream] - self._acked[stream] >= self._window // 3

    def _keep(self, stream: int) -> io.BytesIO:
        kept = self._kept[stream]
        if kept is None:
            kept = self._kept[stream] = io.BytesIO()
        return kept

    def consumed(self, stream: int, total: int) -> bytes:
        """Note that the reader has taken so many bytes of a stream; the frame that tells the guest, or nothing yet."""
        if total - self._acked[stream] < self._window // 3:
            return b""
        return self.acknowledge(stream, total)

    def acknowledge(self, stream: int, total: int) -> bytes:
        """Build the frame that lets the guest forget output."""
        self._acked[stream] = total
        return protocol.ack(self.id, stream, total)

    def output(self, stream: int) -> bytes:
        """Return what came of a stream that nobody reads as it comes."""
        kept = self._kept[stream]
        return b"" if kept is None else kept.getvalue()  # which copies nothing

    def drop_output(self) -> None:
        """Forget what came: nobody will ask for it."""
        self.abandoned = True
        self.chunks.clear()
        self._kept = [None, None]

    # --- standard input ---

    @property
    def stdin_room(self) -> bool:
        """Whether more may be given without piling up here."""
        return self.stdin_closed or self._stdin_total - self._stdin_base < self._window

    @property
    def _stdin_total(self) -> int:
        return self._stdin_base + sum(map(len, self._stdin))

    def give_stdin(self, data: bytes | memoryview) -> None:
        """Append to what is to be sent."""
        if data and not self.stdin_closed:
            self._stdin.append(memoryview(data))

    def end_stdin(self) -> None:
        """Nothing more will be given."""
        if self._eof_at is None:
            self._eof_at = self._stdin_total

    def next_stdin(self, file_piece: int, *, alone: bool = False) -> list[bytes | memoryview]:
        """Build the next frame that the window allows, with the end if it is the last; in parts, so that nothing is copied.

        Args:
            file_piece: Bytes of a file that may go in one frame, before which the frames of other commands have to wait.
            alone: Nothing else is in flight.
        """
        parts: list[bytes | memoryview] = []
        window = _FILE_WINDOW_ALONE if alone and self.is_file else self._window
        data = self._next_piece(file_piece if self.is_file else _EXEC_PIECE, window)
        if data:
            parts += (protocol.stdin_head(self.id, self._stdin_next, len(data)), data)
            self._stdin_next += len(data)
        if self._eof_at is not None and not self._eof_sent and self._stdin_next == self._eof_at:
            parts.append(protocol.stdin_eof(self.id, self._eof_at))
            self._eof_sent = True
        return parts

    def _next_piece(self, most: int, window: int) -> memoryview | None:
        most = min(most, self._stdin_base + window - self._stdin_next)
        at = self._stdin_base
        for held in self._stdin:
            if self._stdin_next < at + len(held):
                start = self._stdin_next - at
                return held[start : start + most] if most > 0 else None
            at += len(held)
        return None

    def stdin_taken(self, offset: int) -> None:
        """Forget what the guest has passed on."""
        if offset == protocol.STDIN_CLOSED:
            self.stdin_closed = True
            self._stdin.clear()
            self._eof_at, self._eof_sent = None, True
        while self._stdin and self._stdin_base < offset:
            held = self._stdin[0]
            n = min(len(held), offset - self._stdin_base)
            self._stdin_base += n
            if n == len(held):
                del self._stdin[0]
            else:
                self._stdin[0] = held[n:]
        self._stdin_next = max(self._stdin_next, self._stdin_base)
        self.wake()

    def resume_stdin(self, offset: int) -> None:
        """Continue where the guest has come to, after a broken link."""
        self._stdin_next = max(offset, self._stdin_base)
        self._eof_sent = self.stdin_closed

    # --- who waits ---

    def wake(self) -> None:
        """Let everybody who waits look again."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)
        self.waiters.clear()

    async def changed(self) -> None:
        """Wait until something has happened to the command."""
        waiter = asyncio.get_running_loop().create_future()
        self.waiters.append(waiter)
        await waiter

    def finish(self, end: End) -> None:
        """Note the end."""
        if not self.done.done():
            self.done.set_result(end)
        self.wake()

    def fail(self, error: SandboxError) -> None:
        """Note that the outcome will not be known."""
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # whoever waits gets it; nobody waiting is no news for the log
        self.wake()

    @property
    def has_started(self) -> Started:
        """What is known of its having started."""
        state: Literal["yes", "no", "unknown"] = "yes" if self.started else "unknown" if self.sent else "no"
        return state
