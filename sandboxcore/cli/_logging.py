"""What libraries log becomes lines for people; tracebacks are for those who ask for them."""

from __future__ import annotations

import logging

from ._output import warn

__all__ = ("log_in_lines",)


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        head = (record.getMessage().splitlines() or [""])[0]
        error = record.exc_info[1] if record.exc_info else None
        reason = f": {type(error).__name__}: {error}".splitlines()[0] if error else ""
        more = " (--debug shows more)" if error else ""
        try:
            warn(f"{head}{reason}{more}")
        except OSError:
            self.handleError(record)


def log_in_lines() -> None:
    """Show warnings and errors that are logged, one line each. Does nothing where logging was set up already."""
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(_Lines(logging.WARNING))
