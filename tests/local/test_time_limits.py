"""What is told when the time for provisioning is over before a service was started."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxcore.errors import ProvisionTimeoutError
from sandboxcore.spec import EnvironmentSpec, ServiceSpec

from .conftest import Backend


async def test_the_time_limit_names_what_waits_to_be_started(make_backend: Callable[..., Backend]) -> None:
    """PROV-2, as where a machine is busy with other starts."""
    backend = make_backend(starts_at_once=1)
    async with backend.provisioner._starts:
        task = asyncio.ensure_future(backend.make(timeout=0.1))
        await asyncio.sleep(1)  # removing waits for its turn, too
    with pytest.raises(ProvisionTimeoutError, match=r"0\.1 s; it still waited for service 'default' for .* to be started"):
        await task
    assert await backend.all() == []


async def test_the_time_limit_names_whose_image_is_unpacked(make_backend: Callable[..., Backend], image: Path) -> None:
    """PROV-2."""
    backend = make_backend(rootfs={"two": image})
    spec = EnvironmentSpec(services={"default": ServiceSpec(), "two": ServiceSpec()})
    with pytest.raises(ProvisionTimeoutError, match=r"'default' to be started, service 'two' for its image to be unpacked$"):
        await backend.make(spec, timeout=0.001)
    assert await backend.all() == []
