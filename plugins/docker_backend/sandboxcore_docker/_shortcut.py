"""To a socket in a container without the engine in between: by the way that the kernel shows of its file tree.

It takes a client on the engine's own machine that may look there (root, or the user whose engine is rootless). The tree
is the sandbox's, so no link in it is followed, and nothing but a socket is connected to.
"""

from __future__ import annotations

import os
import socket
import stat

__all__ = ("connect_inside",)

_PASS = os.O_PATH | os.O_CLOEXEC if hasattr(os, "O_PATH") else 0


def connect_inside(pid: int, path: str) -> socket.socket:
    """Connect to a socket by its absolute path in the file tree of a process.

    Raises:
        OSError: There is none, its way has a link, or this process may not look there. Nothing is left open.
    """
    *folders, name = path.strip("/").split("/")
    place = os.open(f"/proc/{pid}/root", _PASS | os.O_DIRECTORY)
    try:
        for folder in folders:
            place = _enter(place, folder, os.O_DIRECTORY)
        place = _enter(place, name, 0)
        if not stat.S_ISSOCK(os.fstat(place).st_mode):
            raise FileNotFoundError(f"{path} is no socket")
        return _connect(place)
    finally:
        os.close(place)


def _enter(place: int, name: str, flags: int) -> int:
    """Go one step on; the place that is left is closed."""
    further = os.open(name, _PASS | os.O_NOFOLLOW | flags, dir_fd=place)
    os.close(place)
    return further


def _connect(place: int) -> socket.socket:
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        stream.setblocking(False)
        # By the descriptor, so that what was looked at is what is connected to. A local socket answers at once.
        stream.connect(f"/proc/self/fd/{place}")
    except BaseException:
        stream.close()
        raise
    return stream
