"""The user's own terminal: raw while a command has it, and always given back as it was."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("raw_terminal", "terminal_size")

_FALLBACK = (80, 24)


@contextlib.contextmanager
def raw_terminal(descriptor: int, *, keys: bool) -> Iterator[None]:
    """Leave output untouched inside the block, and with ``keys`` every key too, Ctrl-C among them.

    The terminal is restored however the block ends.
    """
    import termios
    import tty

    before = termios.tcgetattr(descriptor)
    if keys:
        tty.setraw(descriptor, termios.TCSADRAIN)
    else:
        now = termios.tcgetattr(descriptor)
        now[1] &= ~termios.OPOST
        termios.tcsetattr(descriptor, termios.TCSADRAIN, now)
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):  # it hung up: there is nothing left to restore
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def terminal_size(*descriptors: int) -> tuple[int, int]:
    """Tell columns and rows of the first of them that is a terminal; 80 by 24 where none is."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(descriptor)
            if size.columns and size.lines:
                return size.columns, size.lines
    return _FALLBACK
