"""Images: loaded from an archive, built by the engine, looked up once; and what the doctor says."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
import uuid
from pathlib import Path
from typing import Any

import pytest
from sandboxcore_docker._engine import Engine

from sandboxcore import Session
from sandboxcore.errors import ProvisionError
from sandboxcore.values import Event

from .conftest import BUSYBOX, STAYS, Opener, one, output

pytestmark = pytest.mark.timeout(400)


def renamed(folder: Path, name: str) -> Path:
    """Write the busybox archive under another name."""
    from tests.images import archive

    path = folder / "image.tar"
    with tarfile.open(archive("busybox")) as source, tarfile.open(path, "w") as target:
        for member in source.getmembers():
            content = source.extractfile(member)
            data = content.read() if content is not None else b""
            if member.name == "manifest.json":
                described = json.loads(data)
                described[0]["RepoTags"] = [name]
                data = json.dumps(described).encode()
                member.size = len(data)
            target.addfile(member, io.BytesIO(data))
    return path


async def test_an_image_is_loaded_from_an_archive(opened: Opener, engine: Engine, tmp_path: Path, events: list[Event]) -> None:
    name = f"sandboxcore.test/loaded-{uuid.uuid4().hex[:8]}:1"
    path = renamed(tmp_path, name)
    try:
        async with opened({"archives": {name: str(path)}}) as session, session.environment(one(image=name)) as environment:
            assert await output(environment, "echo here") == "here"
        assert [event.attributes["archive"] for event in events if event.name == "service.image.load"] == [str(path)]
    finally:
        await engine.attempt(engine.call("DELETE", f"/images/{name}", query={"force": True}))
    wrong = one(image="sandboxcore.test/not-in-there:1", options={"docker": {"archive": str(path)}})
    async with opened() as session:
        with pytest.raises(ProvisionError, match="holds no image"):
            await session.provision(wrong)
    await engine.attempt(engine.call("DELETE", f"/images/{name}", query={"force": True}))


async def remove_built(engine: Engine, project: str) -> None:
    for image in await engine.find("images", ["sandboxcore.dev/role=build"]):
        if any(project in tag for tag in image["RepoTags"] or ()):
            await engine.call("DELETE", f"/images/{image['Id']}", query={"force": True})


async def test_the_engine_builds_what_has_no_image(session: Session, engine: Engine, tmp_path: Path) -> None:
    project = f"p{uuid.uuid4().hex[:8]}"
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "kept").write_text("kept")
    (tmp_path / "app" / "dropped.log").write_text("dropped")
    (tmp_path / ".dockerignore").write_text("**/*.log\n")
    lines = [
        f"FROM {BUSYBOX} AS one",
        "ARG WORD=none",
        "COPY app /app",
        'RUN echo "$WORD" > /word',
        "FROM one AS two",
        "RUN touch /two",
    ]
    (tmp_path / "Dockerfile").write_text("\n".join(lines))
    build: dict[str, Any] = {"context": str(tmp_path), "args": {"WORD": "given"}, "target": "one"}
    inline = {"context": str(tmp_path), "dockerfile_inline": f"FROM {BUSYBOX}\nCOPY app/kept /inline\n"}
    services = {
        "default": {"build": build, "command": STAYS},
        "same": {"build": build, "command": STAYS},
        "inline": {"build": inline, "command": STAYS},
    }
    spec = {"name": project, "services": services}
    try:
        async with session.environment(spec) as environment:
            assert await output(environment, "cat /word /app/kept; ls /app; ls / | grep -c two || true") == "given\nkeptkept\n0"
            assert await output(environment, "cat /inline", "inline") == "kept"
            built = await engine.find("images", ["sandboxcore.dev/role=build"])
            stamps = {tag: image["Created"] for image in built for tag in image["RepoTags"] or () if project in tag}
            assert len(stamps) == 3
        # What is there already is not built again, by however many at once.
        made = await asyncio.gather(*(session.provision(spec) for _ in range(2)))
        again = await engine.find("images", ["sandboxcore.dev/role=build"])
        assert {tag for image in again for tag in image["RepoTags"] or () if project in tag} == set(stamps)
        for environment in made:
            await environment.destroy()
        (tmp_path / "Dockerfile").write_text(f"FROM {BUSYBOX}\nRUN echo before-the-end; exit 7\n")
        with pytest.raises(ProvisionError, match=r"service 'default' can't be built: .*7") as caught:
            await session.provision({"name": project, "services": {"default": {"build": {"context": str(tmp_path)}}}})
        assert "before-the-end" in str(caught.value)
        with pytest.raises(ProvisionError, match=r"there is no .*Nope"):
            await session.provision(
                {"name": project, "services": {"default": {"build": {"context": str(tmp_path), "dockerfile": "Nope"}}}}
            )
    finally:
        await remove_built(engine, project)


async def test_the_doctor_looks_at_the_real_thing(session: Session, engine: Engine) -> None:
    findings = {finding.check: finding for finding in await session.doctor()}
    assert set(findings) == {"engine", "api", "cgroups", "storage", "disk", "guest", "networks"}
    assert {finding.status for finding in findings.values()} <= {"ok", "warning"}
    for kind, more in (("containers", {"all": True}), ("networks", {})):
        assert await engine.find(kind, ["sandboxcore.dev/run-id=doctor"], **more) == []
