"""The one progress renderer, under the name that the commands import."""

from __future__ import annotations

from ..observe.progress import Progress, describe

__all__ = ("Progress", "describe")
