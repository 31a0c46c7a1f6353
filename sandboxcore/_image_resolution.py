"""Gives every service of a spec an image, before anything is created."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .errors import SpecError

if TYPE_CHECKING:
    from .abc import ImageResolver
    from .spec import EnvironmentSpec, ServiceSpec

__all__ = ("resolve_images",)


async def resolve_images(spec: EnvironmentSpec, resolvers: Sequence[ImageResolver], *, required: bool) -> EnvironmentSpec:
    """Return the spec with an image for each service that says how it is built and has none.

    Args:
        resolvers: Asked in this order; the first that names an image is taken.
        required: The backend runs images only; False leaves a service without one as it is.

    Raises:
        SpecError: No resolver knows an image that is required. Every such service is named.
        ProvisionError: A build failed.
    """
    services: dict[str, ServiceSpec] = {}
    missing: list[str] = []
    for name, service in spec.services.items():
        image = None
        if service.image is None and service.build is not None:
            image = await _first(spec.name, name, service, resolvers)
            if image is None and required:
                missing.append(f"services.{name}.build: nobody built the image of this service")
        services[name] = service if image is None else service.model_copy(update={"image": image})
    if missing:
        raise SpecError(
            problems=missing,
            hint="give the service an image, name it with the translator option images (a mapping, or a template such as "
            "'registry/{project}-{service}:{digest}'), or install a plugin that builds images",
        )
    return spec.model_copy(update={"services": services})


async def _first(project: str, name: str, service: ServiceSpec, resolvers: Sequence[ImageResolver]) -> str | None:
    assert service.build is not None
    for resolver in resolvers:
        image = await resolver.resolve(project, name, service.build)
        if image is not None:
            return image
    return None
