"""Inspect's sandbox provider ``sandboxcore``: evals on every sandboxcore backend.

``SandboxcoreConfig`` is what a task gives as the configuration of its sandbox.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._config import SandboxcoreConfig
    from ._environment import SandboxcoreEnvironment

__all__ = ("SandboxcoreConfig", "SandboxcoreEnvironment")

_HOME = {"SandboxcoreConfig": "_config", "SandboxcoreEnvironment": "_environment"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
