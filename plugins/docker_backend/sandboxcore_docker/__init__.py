"""Docker Engine as a backend: networks, volumes, healthchecks and limits by the engine; commands and files by the guest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sandboxcore import hookimpl

if TYPE_CHECKING:
    from sandboxcore.abc import Channel, Discoverer, ImageResolver, Provisioner
    from sandboxcore.values import BackendInfo, SandboxRef

NAME = "docker"
_CAPABILITIES = (
    *("stdin", "pty", "user", "files", "logs", "multi_service", "siblings", "internet", "volumes", "resources"),
    *("healthcheck", "images", "binds", "ports", "pause"),
)


@hookimpl
def sandboxcore_backend_info() -> BackendInfo:
    """Tell what Docker Engine can do."""
    from sandboxcore.values import BackendInfo

    from ._config import DockerConfig

    return BackendInfo(
        name=NAME,
        summary="containers of a Docker Engine, on this machine or another",
        capabilities=frozenset(_CAPABILITIES),
        config_model=DockerConfig,
    )


@hookimpl
def sandboxcore_provisioner(backend: str, config: Any) -> Provisioner | None:
    """Make environments of containers."""
    if backend != NAME:
        return None
    from ._provisioner import DockerProvisioner

    return DockerProvisioner(config)


@hookimpl
def sandboxcore_discoverer(backend: str, config: Any, provisioner: Provisioner) -> Discoverer | None:
    """Find them by their labels."""
    if backend != NAME:
        return None
    from ._discoverer import DockerDiscoverer

    return DockerDiscoverer(config, provisioner)


@hookimpl
def sandboxcore_channel(sandbox: SandboxRef, config: Any, provisioner: Provisioner) -> Channel | None:
    """Open streams by the engine's exec."""
    if sandbox.backend != NAME:
        return None
    from ._channel import DockerChannel

    return DockerChannel(sandbox, config, provisioner)


@hookimpl
def sandboxcore_image_resolver(backend: str, config: Any) -> ImageResolver | None:
    """Have the engine build images."""
    if backend != NAME:
        return None
    from ._build import EngineBuilder

    return EngineBuilder(config)
