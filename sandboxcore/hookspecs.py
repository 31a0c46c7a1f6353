"""The hooks that a plugin may implement.

They are plain functions that return objects with coroutine methods: an ``async def`` hook could not decline (a coroutine
is never None), and a wrapper around it would end before the work begins. A module named in the entry-point group
``sandboxcore`` holds implementations marked with ``sandboxcore.hookimpl`` and takes only the arguments that it uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._markers import hookspec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from click import Command

    from .abc import Channel, Discoverer, Executor, FileStore, ImageResolver, Provisioner, Translator
    from .values import BackendInfo, Event, SandboxRef

__all__ = (
    "sandboxcore_backend_info",
    "sandboxcore_channel",
    "sandboxcore_commands",
    "sandboxcore_discoverer",
    "sandboxcore_event",
    "sandboxcore_executor",
    "sandboxcore_file_store",
    "sandboxcore_image_resolver",
    "sandboxcore_provisioner",
    "sandboxcore_translators",
)


@hookspec
def sandboxcore_backend_info() -> BackendInfo | None:
    """Name a backend, what it can do and the model of its configuration. Asked of every plugin, so keep it light."""


@hookspec(firstresult=True)
def sandboxcore_provisioner(backend: str, config: Any) -> Provisioner | None:
    """Return what makes and removes environments on this backend; None if it is another's.

    Args:
        backend: Name of the backend.
        config: An instance of its ``config_model``; a plain mapping where it has none.
    """


@hookspec(firstresult=True)
def sandboxcore_discoverer(backend: str, config: Any, provisioner: Provisioner) -> Discoverer | None:
    """Return what finds environments on this backend; None if it is another's."""


@hookspec(firstresult=True)
def sandboxcore_channel(sandbox: SandboxRef, config: Any, provisioner: Provisioner) -> Channel | None:
    """Return a way into the sandbox; None if it is another backend's.

    That is all most backends need: the core answers the next two hooks with the guest over this channel.

    Args:
        sandbox: Where it is.
        config: As for ``sandboxcore_provisioner``.
        provisioner: The session's own, for sharing connections.
    """


@hookspec(firstresult=True)
def sandboxcore_executor(sandbox: SandboxRef, config: Any, provisioner: Provisioner) -> Executor | None:
    """Return what runs commands in the sandbox; None leaves it to the next plugin, and at last to the guest."""


@hookspec(firstresult=True)
def sandboxcore_file_store(sandbox: SandboxRef, config: Any, provisioner: Provisioner) -> FileStore | None:
    """Return what moves files in and out of the sandbox; None leaves it to the next plugin, and at last to the guest."""


@hookspec
def sandboxcore_image_resolver(backend: str, config: Any) -> ImageResolver | None:
    """Return what finds or builds images for services that have none; None if it can't for this backend.

    All answers are tried, the plugin that was loaded last first, until one names an image.
    """


@hookspec
def sandboxcore_translators() -> Sequence[Translator] | None:
    """Return the translators that the plugin brings."""


@hookspec
def sandboxcore_commands() -> Mapping[str, Callable[[], Command]] | None:
    """Return the plugin's own commands of the command line, by name: ``sandboxcore NAME ...``.

    Each is made by calling the function when it is used; the first line of the function's docstring is what ``--help`` shows.
    """


@hookspec
def sandboxcore_event(event: Event) -> None:
    """Observe what happens. A failure in here is logged and reaches nobody else."""
