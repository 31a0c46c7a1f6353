"""What the suite is run against."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sandboxcore.spec import EnvironmentSpec, ServiceSpec

if TYPE_CHECKING:
    from sandboxcore.session import Session

__all__ = ("Target",)


@dataclass(frozen=True, kw_only=True)
class Target:
    """A backend, and what the suite has to know of it beyond its capabilities.

    Args:
        backend: Name of an installed backend.
        config: Its configuration, of JSON types (another process gets it too).
        spec: An ``EnvironmentSpec``, or the path of a document; every sandbox in it has ``/bin/sh`` and the usual small
            programs. None: one service ``default`` with nothing said about it.
        plugins: Plugin objects to load besides the installed ones.
        shell: Whether the default service has ``/bin/sh`` and the usual small programs; without them the tests that need
            them are skipped.
        program: The argv of a program in the default service that runs until it is killed, where there is no shell.
        lacks: Capabilities that the backend states and the sandboxes of this spec have not, as a change of user where a
            service is not run by root.
        scratch: A directory in the sandbox where every user may write.
        slack: Seconds that are granted above each limit of time, for a machine or cluster that is slow. Never below.
        lease: Seconds of a lease that is short, but long enough to be renewed in time.
        patience: Seconds after which a test is given up.
        stream_bytes: Size of the big file.
        bad_image: An image that can't be pulled, for backends with the capability ``images``.
        leftovers: Names what still exists of a run (its id is given), as the backend's own tools see it.
    """

    backend: str
    config: Mapping[str, Any] = field(default_factory=dict)
    spec: Any = None
    plugins: Sequence[object] = ()
    shell: bool = True
    program: Sequence[str] = ("/app",)
    lacks: Sequence[str] = ()
    scratch: str = "/tmp"
    slack: float = 1.0
    lease: float = 1.5
    patience: float = 60.0
    stream_bytes: int = 64 << 20
    bad_image: str = "registry.invalid/sandboxcore/no-such-image:none"
    leftovers: Callable[[str], Iterable[str]] | None = None

    def session(self, *plugins: object, **options: Any) -> Session:
        """Make a session on the backend; ``plugins`` are loaded besides the target's own."""
        from sandboxcore.plugins import PluginHost
        from sandboxcore.session import Session

        host = PluginHost.load(extra=[*self.plugins, *plugins])
        return Session(self.backend, config=dict(self.config), plugins=host, **options)

    def base_spec(self, session: Session) -> EnvironmentSpec:
        """Read the spec, whatever form it has."""
        if self.spec is None:
            return EnvironmentSpec(services={"default": ServiceSpec()})
        if isinstance(self.spec, EnvironmentSpec):
            return self.spec
        return session.translate(self.spec).spec


def changed(spec: EnvironmentSpec, **changes: Any) -> EnvironmentSpec:
    """Copy a spec with changes to its default service; the values are those that the spec has itself."""
    name = spec.default_service
    service = spec.services[name].model_copy(update=changes)
    return spec.model_copy(update={"services": {**spec.services, name: service}})
