"""The embedded backend: sandboxes on this machine with bubblewrap, without a daemon and without root."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._markers import hookimpl

if TYPE_CHECKING:
    from ..abc import Channel, Discoverer, Provisioner
    from ..values import BackendInfo, SandboxRef

NAME = "local"


@hookimpl
def sandboxcore_backend_info() -> BackendInfo:
    """Tell what can be done here; ``user`` depends on the ids that this user may map."""
    import sys

    from ..values import BackendInfo
    from ._config import LocalConfig

    capabilities = {"stdin", "pty", "files", "logs", "multi_service", "siblings", "internet", "volumes", "healthcheck", "rootfs"}
    if sys.platform.startswith("linux"):
        from ._ids import choose_mapping

        if choose_mapping().several_users:
            capabilities.add("user")
    return BackendInfo(
        name=NAME,
        summary="bubblewrap sandboxes on this Linux machine: no daemon, no root",
        capabilities=frozenset(capabilities),
        config_model=LocalConfig,
    )


@hookimpl
def sandboxcore_provisioner(backend: str, config: Any) -> Provisioner | None:
    """Make environments on this machine."""
    if backend != NAME:
        return None
    from ._linux import require_linux

    require_linux()
    from ._provisioner import LocalProvisioner

    return LocalProvisioner(config)


@hookimpl
def sandboxcore_discoverer(backend: str, config: Any) -> Discoverer | None:
    """Find them in the state folder."""
    if backend != NAME:
        return None
    from ._linux import require_linux

    require_linux()
    from ._discoverer import LocalDiscoverer
    from ._state import State, state_path

    return LocalDiscoverer(State(state_path(config.state_dir)))


@hookimpl
def sandboxcore_channel(sandbox: SandboxRef) -> Channel | None:
    """Connect to the socket that the sandbox's guest listens on."""
    if sandbox.backend != NAME:
        return None
    from pathlib import Path

    from ._channel import LocalChannel

    return LocalChannel(Path(sandbox.data["folder"]), sandbox.service)
