"""The command line. Importing it costs nothing; each command loads what it needs when it runs."""

from __future__ import annotations

import sys
from typing import NoReturn

__all__ = ("main",)


def main() -> NoReturn:
    """Run the command line with the process's arguments and end the process."""
    try:
        from ._main import main_code

        code = main_code(sys.argv[1:])
    except KeyboardInterrupt:
        # Before the command began, so there is nothing to clean up and nothing to say.
        code = 130
    sys.exit(code)
