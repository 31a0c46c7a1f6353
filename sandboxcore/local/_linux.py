"""The one thing that is asked of the machine before anything else is imported."""

from __future__ import annotations

import platform
import sys

from ..errors import CapabilityError

__all__ = ("require_linux",)


def require_linux() -> None:
    """Raise where this backend can't work at all.

    Raises:
        CapabilityError: This is not Linux.
    """
    if not sys.platform.startswith("linux"):
        raise CapabilityError(
            f"the local backend needs Linux and its namespaces; this is {platform.system()}",
            hint="use another backend, or run this inside a Linux virtual machine",
        )
