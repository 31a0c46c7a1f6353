"""The engine's way of putting stdout and stderr on one stream (``application/vnd.docker.multiplexed-stream``).

Each frame: one byte that names the stream (0 stdin, 1 stdout, 2 stderr, 3 an error of the engine itself), three of nothing,
the length in big endian, and so many bytes (Docker Engine API, ``ContainerAttach``; 3: ``pkg/stdcopy``).
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ("Demultiplexer",)

_HEADER = 8


class Demultiplexer:
    """Takes bytes apart, however they come."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._stream = 0
        self._left = 0

    def feed(self, data: memoryview) -> Iterator[tuple[int, memoryview]]:
        """Yield stream and piece for each piece of a frame that the data has.

        Raises:
            ValueError: It is no such stream.
        """
        while data:
            if not self._left:
                needed = _HEADER - len(self._header)
                self._header += data[:needed]
                data = data[needed:]
                if len(self._header) < _HEADER:
                    return
                self._stream, self._left = self._header[0], int.from_bytes(self._header[4:], "big")
                if self._stream > 3 or self._header[1:4] != b"\0\0\0":
                    raise ValueError("the engine's stream has no frames")
                self._header.clear()
                continue
            piece = data[: self._left]
            self._left -= len(piece)
            data = data[len(piece) :]
            yield self._stream, piece
