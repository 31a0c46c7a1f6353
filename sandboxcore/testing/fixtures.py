"""The fixtures of the suite; a test module gets them by a star import.

All of them begin with ``target``, of scope ``session``, which is the author's own. A session and an environment are shared by
the tests of one module, so all of them run on one event loop.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from sandboxcore.spec import EnvironmentSpec, VolumeMount

from ._conformance import sh
from .links import LinkCutter
from .target import Target, changed

if TYPE_CHECKING:
    from sandboxcore.environment import Environment, Sandbox
    from sandboxcore.session import Session

__all__ = (
    "base_spec",
    "capabilities",
    "cutter",
    "environment",
    "sandbox",
    "scratch",
    "session",
)

#: Where the shared environment has a file system of one MiB, on backends with the capability ``volumes``.
SMALL_DISK = "/conformance-small-disk"
SMALL_DISK_BYTES = 1 << 20


@pytest.fixture(scope="module")
def cutter() -> LinkCutter:
    """Cut the links of the shared session's sandboxes."""
    return LinkCutter()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session(target: Target, cutter: LinkCutter) -> AsyncIterator[Session]:
    """Open the session that the module's tests share."""
    async with target.session(cutter) as opened:
        yield opened


@pytest.fixture(scope="module")
def capabilities(session: Session, target: Target) -> frozenset[str]:
    """Tell what the backend says it can do, but for what the target's sandboxes lack."""
    return session.info.capabilities - set(target.lacks)


@pytest.fixture(scope="module")
def base_spec(target: Target, session: Session) -> EnvironmentSpec:
    """Read the target's spec."""
    return target.base_spec(session)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def environment(session: Session, base_spec: EnvironmentSpec, capabilities: frozenset[str]) -> AsyncIterator[Environment]:
    """Provision the environment that the module's tests share. Its default service has a variable and a small disk."""
    service = base_spec.services[base_spec.default_service]
    changes: dict[str, Any] = {"env": service.env | {"CONFORMANCE_BASE": "of the service"}}
    if "volumes" in capabilities:
        small = VolumeMount(type="tmpfs", target=SMALL_DISK, size_bytes=SMALL_DISK_BYTES)
        changes["volumes"] = (*service.volumes, small)
    async with session.environment(changed(base_spec, **changes)) as provisioned:
        yield provisioned


@pytest.fixture(scope="module")
def sandbox(environment: Environment) -> Sandbox:
    """Take the default sandbox of the shared environment."""
    return environment.default


@pytest_asyncio.fixture(loop_scope="module")
async def scratch(target: Target, sandbox: Sandbox) -> str:
    """Make a directory of the test's own, in the sandbox."""
    path = f"{target.scratch}/conformance-{uuid.uuid4().hex[:12]}"
    if not target.shell:
        await sandbox.make_dir(path, mode=0o777)
        return path
    result = await sandbox.exec(sh('mkdir "$1" && chmod 777 "$1"', path))
    assert result.exit_code == 0, result.stderr
    return path
