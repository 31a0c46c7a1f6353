"""Services that have to be built get their image from a resolver, or are refused before anything is made."""

from __future__ import annotations

import pytest

from sandboxcore._image_resolution import resolve_images
from sandboxcore.abc import ImageResolver
from sandboxcore.errors import SpecError
from sandboxcore.spec import BuildSpec, EnvironmentSpec, ServiceSpec

SPEC = EnvironmentSpec(
    name="demo",
    services={
        "web": ServiceSpec(build=BuildSpec(context="/src/web")),
        "db": ServiceSpec(image="postgres"),
        "job": ServiceSpec(build=BuildSpec(context="/src/job")),
    },
)


class Known(ImageResolver):
    def __init__(self, **images: str) -> None:
        self.images = images

    async def resolve(self, project: str, service: str, build: BuildSpec) -> str | None:
        return self.images.get(service)


async def test_the_first_resolver_that_knows_an_image_is_taken() -> None:
    resolvers = [Known(web="first/web"), Known(web="second/web", job="second/job", db="never asked")]
    found = await resolve_images(SPEC, resolvers, required=True)
    assert [service.image for service in found.services.values()] == ["first/web", "postgres", "second/job"]


async def test_every_service_without_an_image_is_named() -> None:
    with pytest.raises(SpecError) as refused:
        await resolve_images(SPEC, [], required=True)
    assert [problem.partition(":")[0] for problem in refused.value.problems] == ["services.web.build", "services.job.build"]
    assert "images" in str(refused.value.hint)


async def test_a_backend_that_needs_no_images_gets_the_spec_as_it_is() -> None:
    assert await resolve_images(SPEC, [], required=False) == SPEC
