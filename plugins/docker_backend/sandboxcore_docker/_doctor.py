"""What the backend needs of an engine, found out by asking it and by using it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from sandboxcore.errors import SandboxError
from sandboxcore.values import DoctorFinding

from ._errors import explain
from ._http import HttpError
from ._labels import label
from ._networks import PlannedNetwork, check_pool, network_body, pick_subnet

if TYPE_CHECKING:
    from ._engine import Engine
    from ._guest_volume import GuestVolume

__all__ = ("diagnose",)

_OLDEST = (1, 40)
_LITTLE_BYTES = 5 << 30
_TRIES = 20
_SECONDS = 60.0


async def diagnose(engine: Engine, guest: GuestVolume) -> list[DoctorFinding]:
    """Check the engine; what can't be checked for want of it is left out."""
    endpoint = engine.endpoint
    try:
        about = await engine.about()
        info = await engine.call("GET", "/info")
    except SandboxError as error:
        return [DoctorFinding(check="engine", status="error", detail=error.message, fix=error.hint or "")]
    except HttpError as error:
        return [DoctorFinding(check="engine", status="error", detail=f"{endpoint.url} is no Docker engine: {error.message}")]
    where = f"{about.get('Version', '?')} at {endpoint.url}" + (f" ({endpoint.source})" if endpoint.source else "")
    findings = [
        DoctorFinding(check="engine", status="ok", detail=where),
        await _api(engine),
        _cgroups(info),
        _storage(info),
        _disk(info),
    ]
    findings.append(await _guest(engine, guest))
    findings.append(await _network(engine))
    return findings


async def _api(engine: Engine) -> DoctorFinding:
    version = await engine.version()
    text = ".".join(map(str, version))
    if version < _OLDEST:
        return DoctorFinding(check="api", status="error", detail=f"version {text}", fix="install Docker Engine 20.10 or later")
    if version < (1, 44):
        return DoctorFinding(
            check="api", status="ok", detail=f"version {text}; a healthcheck's start_interval needs 1.44 (Engine 25)"
        )
    return DoctorFinding(check="api", status="ok", detail=f"version {text}")


def _cgroups(info: dict[str, Any]) -> DoctorFinding:
    driver, version = info.get("CgroupDriver", ""), info.get("CgroupVersion", "1")
    missing = [
        name
        for name, key in (("memory", "MemoryLimit"), ("pids", "PidsLimit"), ("cpus", "CpuCfsQuota"))
        if info.get(key) is False
    ]
    if driver == "none" or missing:
        what = "no limits at all" if driver == "none" else f"no limits of {', '.join(missing)}"
        fix = "rootless engines need cgroup v2 with delegation: see docs.docker.com/engine/security/rootless"
        return DoctorFinding(check="cgroups", status="warning", detail=f"version {version}, driver {driver}: {what}", fix=fix)
    return DoctorFinding(check="cgroups", status="ok", detail=f"version {version}, driver {driver}")


def _storage(info: dict[str, Any]) -> DoctorFinding:
    driver = str(info.get("Driver", ""))
    if driver == "vfs":
        fix = "each container copies its whole image; use overlay2"
        return DoctorFinding(check="storage", status="warning", detail=driver, fix=fix)
    return DoctorFinding(check="storage", status="ok", detail=driver)


def _disk(info: dict[str, Any]) -> DoctorFinding:
    """Look at the engine's own folder, where it is on this machine; there is no call that would tell of another."""
    import shutil

    folder = str(info.get("DockerRootDir", ""))
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return DoctorFinding(check="disk", status="ok", detail=f"{folder} is not on this machine: free space is not known")
    detail = f"{free / (1 << 30):.1f} GiB free in {folder}"
    if free < _LITTLE_BYTES:
        return DoctorFinding(check="disk", status="warning", detail=detail, fix="docker system df; docker system prune")
    return DoctorFinding(check="disk", status="ok", detail=detail)


def _claim() -> dict[str, str]:
    """Label what is made for a moment, so that cleaning up finds it should this process die just then."""
    now = time.time()
    about = {"environment-id": f"doctor-{secrets.token_hex(4)}", "run-id": "doctor", "owner": "sandboxcore doctor"}
    return {label(name): value for name, value in {**about, "created-at": repr(now), "expires-at": repr(now + _SECONDS)}.items()}


async def _guest(engine: Engine, guest: GuestVolume) -> DoctorFinding:
    images = await engine.call("GET", "/images/json")
    reference = next((image["Id"] for image in images or ()), None)
    if reference is None:
        return DoctorFinding(check="guest", status="ok", detail="will be put onto the engine with the first image")

    async def use() -> str:
        return await guest.ensure(reference, _claim())

    return await _tried("guest", use, lambda name: f"volume {name}")


async def _network(engine: Engine) -> DoctorFinding:
    """Make an internal network and remove it: that takes iptables and the right to use it."""

    async def use() -> str:
        name = f"sandboxcore-doctor-{secrets.token_hex(4)}"
        plan = PlannedNetwork(key="network:doctor", internal=True, members={})
        for left in range(_TRIES, 0, -1):
            subnet = pick_subnet(check_pool(engine.config.address_pool), 2)
            try:
                made = await engine.change("POST", "/networks/create", json_body=network_body(name, plan, subnet, _claim()))
            except HttpError as error:
                if left > 1 and "overlap" in error.message:
                    continue
                raise
            await asyncio.shield(engine.call("DELETE", f"/networks/{made['Id']}"))
            return str(subnet)
        return ""

    return await _tried("networks", use, lambda subnet: f"internal ones can be made (tried {subnet})")


async def _tried(check: str, use: Callable[[], Awaitable[str]], describe: Callable[[str], str]) -> DoctorFinding:
    try:
        return DoctorFinding(check=check, status="ok", detail=describe(await use()))
    except HttpError as error:
        text, hint = explain(error.message)
        return DoctorFinding(check=check, status="error", detail=text, fix=hint or "see the engine's own log")
    except SandboxError as error:
        return DoctorFinding(check=check, status="error", detail=error.message, fix=error.hint or "")
