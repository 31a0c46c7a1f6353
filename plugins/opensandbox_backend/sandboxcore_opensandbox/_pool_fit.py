"""Whether a pool's pods will do for a service, before any is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sandboxcore.errors import CapabilityError, ProvisionError, UsageError
from sandboxcore_kubernetes import GUEST_PATH, ApiError
from sandboxcore_kubernetes.guest_mount import GUEST_FOLDER

from ._contest import PoolRoom
from ._names import API_VERSION, CONTAINER
from ._pool_template import GUEST_HINT, TASK_LINES, TASK_PORT

if TYPE_CHECKING:
    from sandboxcore.spec import EnvironmentSpec, ServiceSpec
    from sandboxcore_kubernetes import Cluster

__all__ = ("PoolFit", "fit", "is_idle", "look_at_pools", "no_pool", "room", "service_argv")

POOL = f"{API_VERSION}/Pool"
#: Commands that do nothing but keep a container alive: a pool's pods do so by themselves.
_IDLE = (
    ("sleep", "infinity"),
    ("sleep", "inf"),
    ("tail", "-f", "/dev/null"),
    ("cat",),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolFit:
    """What a pool has for us.

    Args:
        guest_path: Where its template mounts the guest; empty: it is carried in.
        writable: Whether there may be a place to carry it to.
        container: Name of the container that commands run in.
        recycle: What becomes of pods that come back.
        tasks: Whether its pods have a task-executor.
        argv: What the container runs; None: what its image says.
    """

    name: str
    image: str
    container: str
    recycle: str = "Delete"
    guest_path: str = ""
    writable: bool = True
    tasks: bool = False
    argv: tuple[str, ...] | None = None
    room: PoolRoom = field(default_factory=PoolRoom)


def room(pool: Mapping[str, Any]) -> PoolRoom:
    """Read what a pool has free."""
    status = pool.get("status") or {}
    return PoolRoom(
        total=int(status.get("total") or 0),
        allocated=int(status.get("allocated") or 0),
        available=int(status.get("available") or 0),
        maximum=int(((pool.get("spec") or {}).get("capacitySpec") or {}).get("poolMax") or 0),
    )


def fit(pool: Mapping[str, Any]) -> PoolFit:
    """Read what a pool's template has; the container is the one called ``sandbox``, else the first.

    Raises:
        CapabilityError: It has no template, or one without a container.
    """
    name, spec = pool["metadata"]["name"], pool["spec"]
    body = (spec.get("template") or {}).get("spec") or {}
    containers = body.get("containers") or []
    if not containers:
        hint = "sandboxcore opensandbox pool template prints a good one"
        raise CapabilityError(f"pool {name!r} has no containers in spec.template.spec", hint=hint)
    chosen = next((each for each in containers if each.get("name") == CONTAINER), containers[0])
    mounts = chosen.get("volumeMounts") or ()
    read_only = (chosen.get("securityContext") or {}).get("readOnlyRootFilesystem")
    argv = [*(chosen.get("command") or ()), *(chosen.get("args") or ())]
    return PoolFit(
        name=name,
        image=chosen.get("image", ""),
        container=chosen["name"],
        recycle=(spec.get("recycleStrategy") or {}).get("type") or "Delete",
        guest_path=GUEST_PATH if any(mount.get("mountPath") == GUEST_FOLDER for mount in mounts) else "",
        writable=not read_only or any(not mount.get("readOnly") for mount in mounts),
        tasks=any(_is_executor(each) for each in containers),
        argv=tuple(argv) or None,
        room=room(pool),
    )


def _is_executor(container: Mapping[str, Any]) -> bool:
    """Tell whether a container runs the task-executor: by its command, its image or the port that it listens on."""
    words = [*(container.get("command") or ()), *(container.get("args") or ()), container.get("image", ""), container["name"]]
    ports = [port.get("containerPort") for port in container.get("ports") or ()]
    return TASK_PORT in ports or any("task-executor" in str(word) or "taskexecutor" in str(word) for word in words)


def service_argv(service: ServiceSpec) -> tuple[str, ...]:
    """Return what a service wants to run; empty: nothing of its own."""
    return (*(service.entrypoint or ()), *(service.command or ()))


def is_idle(service: ServiceSpec, pool: PoolFit | None = None) -> bool:
    """Tell whether the pool's own command does for a service: it wants none, one that only waits, or the very same."""
    argv = service_argv(service)
    plain = tuple(word.rpartition("/")[2] if index == 0 else word for index, word in enumerate(argv))
    return not argv or plain in _IDLE or (pool is not None and argv == pool.argv)


async def look_at_pools(
    cluster: Cluster, spec: EnvironmentSpec, groups: Mapping[str, Sequence[str]], environments: int
) -> dict[str, PoolFit]:
    """Look at every pool that services come from.

    Args:
        groups: Pool to the services that come from it.
        environments: How many of them are wanted.

    Raises:
        UsageError: There is no such pool; the message has those that there are.
        CapabilityError: Its pods won't do; the message says why.
        ProvisionError: It may never have so many.
    """

    async def look(pool: str, services: Sequence[str]) -> PoolFit:
        try:
            found = fit(await cluster.get(POOL, pool))
        except ApiError as error:
            if error.status == 404:
                raise await no_pool(cluster, pool) from error
            raise
        for service in services:
            _check(found, service, spec.services[service])
        wanted = len(services) * environments
        if wanted > found.room.maximum:
            what = f"pool {pool!r} may have {found.room.maximum} pods (poolMax) and {wanted} are needed"
            raise ProvisionError(what, hint=f"sandboxcore opensandbox pool scale {pool} --pool-max {wanted}")
        return found

    fits = await asyncio.gather(*(look(pool, services) for pool, services in groups.items()))
    return {found.name: found for found in fits}


async def no_pool(cluster: Cluster, name: str) -> UsageError:
    """Say which pools there are instead."""
    from sandboxcore._validation import did_you_mean

    pools = (await cluster.list(POOL))["items"]
    known = {pool["metadata"]["name"]: room(pool) for pool in pools}
    listed = ", ".join(f"{pool} ({has.available} of {has.maximum} free)" for pool, has in sorted(known.items()))
    there = f"there are {listed}" if listed else "there are none"
    where = f"namespace {cluster.namespace!r}"
    hint = "sandboxcore opensandbox pool template > pool.yaml; sandboxcore opensandbox pool create -f pool.yaml"
    return UsageError(f"no pool {name!r} in {where}{did_you_mean(name, known)}; {there}", hint=hint)


def _check(pool: PoolFit, name: str, service: ServiceSpec) -> None:
    if service.image is not None and service.image != pool.image:
        raise CapabilityError(
            f"services.{name}.image: pool {pool.name!r} has {pool.image!r}, not {service.image!r}",
            hint=f"leave the image out, or make a pool with it: sandboxcore opensandbox pool template --image {service.image}",
        )
    if not pool.guest_path and not pool.writable:
        what = f"services.{name}: the pods of pool {pool.name!r} can't run commands: their root is read-only, and has no guest"
        raise CapabilityError(what, hint=GUEST_HINT)
    if not is_idle(service, pool) and not pool.tasks:
        raise CapabilityError(
            f"services.{name}.command: the pods of pool {pool.name!r} run already, and have no task-executor to start a command",
            hint=f"leave the command out, or add this to the pool's template:\n{TASK_LINES}",
        )
