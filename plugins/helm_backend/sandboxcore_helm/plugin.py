"""The plugin's hooks: light, so that loading it costs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sandboxcore import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from click import Command
    from sandboxcore.abc import Channel, Discoverer, Provisioner, Translator
    from sandboxcore.values import BackendInfo, SandboxRef

SANDBOXCORE_HOOK_API = 1
NAME = "helm"
#: ``network_policy`` has names in it, which need Cilium: ``capabilities_under`` leaves it only where the configuration says that
#: it is there. Where nobody says so, the cluster decides when an environment is made: the rules are enforced, or refused.
CAPABILITIES = frozenset(
    (
        "stdin",
        "pty",
        "user",
        "files",
        "logs",
        "multi_service",
        "siblings",
        "internet",
        "volumes",
        "resources",
        "healthcheck",
        "images",
        "ports",
        "network_policy",
    )
)


def capabilities_under(config: Any) -> frozenset[str]:
    """Tell what is had whatever the cluster is like. Values that are a file are not read for that."""
    policy = config.values.get("networkPolicy") if isinstance(config.values, dict) else None
    has_cilium = isinstance(policy, dict) and policy.get("cilium") is True
    return CAPABILITIES if has_cilium else CAPABILITIES - {"network_policy"}


@hookimpl
def sandboxcore_backend_info() -> BackendInfo:
    """Tell what Helm releases can do."""
    from sandboxcore.values import BackendInfo

    from ._config import HelmConfig

    return BackendInfo(
        name=NAME,
        summary="Helm releases on a Kubernetes cluster: a built-in chart, or your own",
        capabilities=CAPABILITIES,
        config_model=HelmConfig,
        capabilities_under=capabilities_under,
    )


@hookimpl
def sandboxcore_provisioner(backend: str, config: Any) -> Provisioner | None:
    """Make releases."""
    if backend != NAME:
        return None
    from ._provisioner import HelmProvisioner

    return HelmProvisioner(config)


@hookimpl
def sandboxcore_discoverer(backend: str, config: Any, provisioner: Provisioner) -> Discoverer | None:
    """Find releases by their records."""
    if backend != NAME:
        return None
    from ._discoverer import HelmDiscoverer
    from ._provisioner import HelmProvisioner

    # The session's provisioner may be wrapped by a plugin; then a connection of our own it is.
    if isinstance(provisioner, HelmProvisioner):
        return HelmDiscoverer(provisioner)
    return HelmDiscoverer(HelmProvisioner(config), own=True)


@hookimpl
def sandboxcore_channel(sandbox: SandboxRef, config: Any, provisioner: Provisioner) -> Channel | None:
    """Open streams into the sandbox's pod."""
    if sandbox.backend != NAME:
        return None
    from ._channel import HelmChannel
    from ._provisioner import HelmProvisioner

    if isinstance(provisioner, HelmProvisioner):
        return HelmChannel(provisioner, sandbox)
    return HelmChannel(HelmProvisioner(config), sandbox, own=True)


@hookimpl
def sandboxcore_translators() -> Sequence[Translator]:
    """Bring the translator of values files."""
    from ._values import ValuesTranslator

    return [ValuesTranslator()]


@hookimpl
def sandboxcore_commands() -> Mapping[str, Callable[[], Command]]:
    """Bring ``sandboxcore helm``."""
    return {NAME: helm_commands}


def helm_commands() -> Command:
    """Work with the Helm backend's releases on a cluster."""
    from ._commands import commands

    return commands()
