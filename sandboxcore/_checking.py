"""Ask a backend what becomes of a spec."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ._closing import close_all
from .errors import CapabilityError, PluginError, SandboxError, SpecError
from .report import Loss, ReportEntry

if TYPE_CHECKING:
    from .abc import Provisioner
    from .plugins import PluginHost
    from .spec import EnvironmentSpec
    from .values import BackendInfo

__all__ = ("ask", "asked_of")


def ask(backend: str, provisioner: Provisioner, spec: EnvironmentSpec) -> Sequence[ReportEntry]:
    """Return what the backend says of the spec.

    Raises:
        CapabilityError: It can't do what the spec asks for.
        SpecError: The spec is wrong.
        PluginError: The backend itself failed.
    """
    try:
        return tuple(provisioner.check(spec))
    except SandboxError:
        raise
    except Exception as error:
        raise PluginError(f"backend {backend!r}: check raised {type(error).__name__}: {error}") from error


async def asked_of(host: PluginHost, info: BackendInfo, config: Any, spec: EnvironmentSpec) -> Sequence[ReportEntry]:
    """Ask a backend that nobody has opened; what it refuses is in the answer, too.

    Raises:
        UsageError: The configuration can't be used.
        PluginError: The backend itself failed.
    """
    try:
        provisioner = host.provisioner(info.name, config)
        try:
            return ask(info.name, provisioner, await _as_if_built(host, info, config, spec))
        finally:
            await close_all((provisioner,))
    except (CapabilityError, SpecError) as error:
        return tuple(_refusals(info.name, spec, error))


async def _as_if_built(host: PluginHost, info: BackendInfo, config: Any, spec: EnvironmentSpec) -> EnvironmentSpec:
    """Give services an image that somebody would find or build for them."""
    if "images" not in info.capabilities or not any(service.build for service in spec.services.values()):
        return spec
    resolvers = host.image_resolvers(info.name, config)
    await close_all(resolvers)
    if not resolvers:
        return spec
    services = {
        name: service.model_copy(update={"image": "to-be-built"}) if service.image is None and service.build else service
        for name, service in spec.services.items()
    }
    return spec.model_copy(update={"services": services})


def _refusals(backend: str, spec: EnvironmentSpec, error: CapabilityError | SpecError) -> Iterator[ReportEntry]:
    for line in error.problems if isinstance(error, SpecError) else error.message.splitlines():
        key, _, reason = line.partition(": ")
        if not reason or " " in key:
            key, reason = f"backend {backend}", line
        service = max((name for name in spec.services if key.startswith(f"services.{name}.")), key=len, default="")
        yield ReportEntry(loss=Loss.REJECT, key=key, reason=f"{reason}; {error.hint}" if error.hint else reason, service=service)
