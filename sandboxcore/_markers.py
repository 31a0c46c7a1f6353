"""The two decorators of the plugin system; importing them costs pluggy and nothing else."""

from __future__ import annotations

import pluggy

__all__ = ("HOOK_API", "PROJECT", "hookimpl", "hookspec")

PROJECT = "sandboxcore"

#: Version of the hook specifications. A plugin module may state the one that it was written for as ``SANDBOXCORE_HOOK_API``.
HOOK_API = 1

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
