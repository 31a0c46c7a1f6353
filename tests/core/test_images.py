"""Services that say how their image is built, and the plugins that build it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from sandboxcore import BuildSpec, EnvironmentSpec, PluginHost, ServiceSpec, Session, SpecError, hookimpl
from sandboxcore.abc import ImageResolver, Provisioner

BUILT = EnvironmentSpec(
    name="project", services={"web": ServiceSpec(build=BuildSpec(context="/src")), "db": ServiceSpec(image="db:1")}
)


class Builder(ImageResolver):
    """Names images after what it is asked for, and counts how often it is closed."""

    def __init__(self, knows: bool = True) -> None:
        self.knows = knows
        self.asked: list[tuple[str, str, str]] = []
        self.closed = 0

    async def resolve(self, project: str, service: str, build: BuildSpec) -> str | None:
        self.asked.append((project, service, build.context))
        return f"built/{service}:1" if self.knows else None

    async def aclose(self) -> None:
        self.closed += 1


class BuilderPlugin:
    """Brings one builder."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    @hookimpl
    def sandboxcore_image_resolver(self, backend: str) -> Any:
        return self.builder if backend == "directory" else None


class LaterPlugin(BuilderPlugin):
    """Another one: plugins have names of their own."""


async def provisioned(world: Any, plugin: object, *plugins: object) -> EnvironmentSpec:
    """Provision BUILT with these plugins; return the spec that the backend got."""
    host = PluginHost.load(entry_points=False, extra=[plugin, *plugins])
    async with Session("directory", plugins=host) as session, session.environment(BUILT):
        spec: EnvironmentSpec = world.specs[-1]
        return spec


async def test_the_backend_gets_the_image_that_a_plugin_built(world: Any, plugin: object) -> None:
    builder = Builder()
    spec = await provisioned(world, plugin, BuilderPlugin(builder))
    assert {name: service.image for name, service in spec.services.items()} == {"web": "built/web:1", "db": "db:1"}
    assert builder.asked == [("project", "web", "/src")]
    assert builder.closed == 1


async def test_the_next_plugin_is_asked_when_one_does_not_know(world: Any, plugin: object) -> None:
    knows, does_not = Builder(), Builder(knows=False)
    spec = await provisioned(world, plugin, BuilderPlugin(knows), LaterPlugin(does_not))
    assert spec.services["web"].image == "built/web:1"
    assert len(does_not.asked) == 1


async def test_a_backend_of_images_refuses_what_nobody_builds(world: Any, plugin: object) -> None:
    host = PluginHost.load(entry_points=False, extra=[plugin])
    async with Session("directory", plugins=host) as session:
        session.info = dataclasses.replace(session.info, capabilities=session.info.capabilities | {"images"})
        with pytest.raises(SpecError, match=r"services\.web\.build"):
            await session.provision(BUILT)
    assert not world.environments


async def test_images_are_built_once_for_all_that_is_prepared(world: Any, plugin: object) -> None:
    builder = Builder()
    host = PluginHost.load(entry_points=False, extra=[plugin, BuilderPlugin(builder)])
    async with Session("directory", plugins=host) as session:
        prepared = await session.prepare(session.translate(BUILT))
        assert not world.specs
        outcomes = [outcome async for outcome in session.provision_many([prepared.spec] * 3)]
    assert [outcome.error for outcome in outcomes] == [None] * 3
    assert builder.asked == [("project", "web", "/src")]
    assert {spec.services["web"].image for spec in world.specs} == {"built/web:1"}


@pytest.mark.parametrize("plugins", [[], [BuilderPlugin(Builder())]])
async def test_a_check_takes_for_built_what_somebody_builds(
    plugin: object, plugins: list[BuilderPlugin], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[EnvironmentSpec] = []
    monkeypatch.setattr(Provisioner, "check", lambda _, spec: seen.append(spec) or ())
    session = Session("directory", plugins=PluginHost.load(entry_points=False, extra=[plugin, *plugins]))
    session.info = dataclasses.replace(session.info, capabilities=session.info.capabilities | {"images"})
    await session.check(session.translate(BUILT))
    assert [spec.services["db"].image for spec in seen] == ["db:1"]
    assert [spec.services["web"].image is not None for spec in seen] == [bool(plugins)]
    assert all((one.builder.asked, one.builder.closed) == ([], 1) for one in plugins)
