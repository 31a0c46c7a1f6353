"""The hooks of the OpenSandbox backend. Nothing heavy is imported before a hook is asked about this backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sandboxcore import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    import click
    from sandboxcore.abc import Channel, Discoverer, Executor, FileStore, Provisioner
    from sandboxcore.values import BackendInfo, SandboxRef

NAME = "opensandbox"


@hookimpl
def sandboxcore_backend_info() -> BackendInfo:
    """Tell what can be done in all modes together; ``capabilities_under`` says what in the configured one."""
    from sandboxcore.values import BackendInfo

    from ._config import ALL_CAPABILITIES, OpenSandboxConfig, capabilities_under

    return BackendInfo(
        name=NAME,
        summary="OpenSandbox on Kubernetes: BatchSandboxes, warm pools and batches, or opensandbox-server",
        capabilities=ALL_CAPABILITIES,
        config_model=OpenSandboxConfig,
        capabilities_under=capabilities_under,
    )


@hookimpl
def sandboxcore_provisioner(backend: str, config: Any) -> Provisioner | None:
    """Make environments of BatchSandboxes, or through the server."""
    if backend != NAME:
        return None
    if config.mode == "server":
        from ._server_provisioner import ServerProvisioner

        return ServerProvisioner(config)
    from ._provisioner import CrdProvisioner

    return CrdProvisioner(config)


@hookimpl
def sandboxcore_discoverer(backend: str, config: Any, provisioner: Provisioner) -> Discoverer | None:
    """Find them by what is written on them."""
    if backend != NAME:
        return None
    if config.mode == "server":
        from ._server_discoverer import ServerDiscoverer
        from ._server_provisioner import ServerProvisioner

        if isinstance(provisioner, ServerProvisioner):
            return ServerDiscoverer(provisioner)
        return ServerDiscoverer(ServerProvisioner(config), own=True)
    from ._discoverer import CrdDiscoverer
    from ._provisioner import CrdProvisioner

    if isinstance(provisioner, CrdProvisioner):
        return CrdDiscoverer(provisioner)
    return CrdDiscoverer(CrdProvisioner(config), own=True)  # another plugin has wrapped ours


@hookimpl
def sandboxcore_channel(sandbox: SandboxRef, config: Any, provisioner: Provisioner) -> Channel | None:
    """Run programs in the pod: through the API server, or through execd."""
    if sandbox.backend != NAME:
        return None
    if config.mode == "server":
        from ._server_channel import ExecdChannel
        from ._server_connection import ServerConnection
        from ._server_provisioner import ServerProvisioner

        if isinstance(provisioner, ServerProvisioner):
            return ExecdChannel(sandbox.data["sandbox_id"], provisioner.connection)
        return ExecdChannel(sandbox.data["sandbox_id"], ServerConnection(config), own=True)
    from ._connection import Connection
    from ._pod_channel import BatchChannel
    from ._provisioner import CrdProvisioner

    if isinstance(provisioner, CrdProvisioner):
        return BatchChannel(sandbox, provisioner.connection)
    return BatchChannel(sandbox, Connection(config), own=True)


@hookimpl(wrapper=True)
def sandboxcore_executor(
    sandbox: SandboxRef, config: Any, provisioner: Provisioner
) -> Generator[None, Executor | None, Executor | None]:
    """Give commands what their service has and a pod that was made in advance has not: its environment, directory and user."""
    executor = yield
    if executor is None or sandbox.backend != NAME:
        return executor
    from ._settings import with_settings

    return with_settings(executor, sandbox, config, provisioner)


@hookimpl(wrapper=True)
def sandboxcore_file_store(
    sandbox: SandboxRef, config: Any, provisioner: Provisioner
) -> Generator[None, FileStore | None, FileStore | None]:
    """Begin relative paths at the service's directory, as its user."""
    files = yield
    if files is None or sandbox.backend != NAME:
        return files
    from ._settings import files_with_settings

    if config.mode == "server":
        from ._execd_files import over_execd

        files = over_execd(files, sandbox, provisioner)
    return files_with_settings(files, sandbox)


@hookimpl
def sandboxcore_commands() -> Mapping[str, Callable[[], click.Command]]:
    """Bring ``sandboxcore opensandbox``: pools, installation, and what was once named otherwise."""

    def opensandbox() -> click.Command:
        """Manage OpenSandbox: pools, installation, old manifests."""
        from ._commands import opensandbox

        return opensandbox

    return {"opensandbox": opensandbox}
