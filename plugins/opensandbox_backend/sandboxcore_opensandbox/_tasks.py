"""Commands of services in pods that run already: OpenSandbox's tasks.

Source: ``TaskTemplate`` in kubernetes/apis/sandbox/v1alpha1/batchsandbox_types.go. An entry of ``shardTaskPatches`` is merged
into the template and takes the place of whole lists, but what it leaves out shows through from there. ``timeoutSeconds`` is the
template's for all (``getTaskSpec`` of the controller), so ``divide`` puts only services of one ``task_timeout`` together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sandboxcore.errors import ProvisionTimeoutError, ServiceFailedError

from ._config import task_timeout
from ._notes import Notes
from ._pool_fit import service_argv
from ._pool_template import TASK_PORT

if TYPE_CHECKING:
    from sandboxcore.spec import EnvironmentSpec

    from ._batch_watch import BatchWatch
    from ._making import Job

__all__ = ("task_spec", "tasks_running")

#: Seconds in which the controller looks at tasks again, with some to spare.
_LOOKS_AGAIN = 4.0


def task_spec(spec: EnvironmentSpec, notes: Notes, environments: int) -> dict[str, Any] | None:
    """Build ``taskTemplate`` and ``shardTaskPatches`` of a part; None where its services run nothing of their own."""
    if not notes.tasks:
        return None
    tasks = [_task(spec, service) for service in notes.part]
    made: dict[str, Any] = {"taskTemplate": tasks[0]}
    if any(task != tasks[0] for task in tasks):
        made["shardTaskPatches"] = [task for task in tasks for _ in range(environments)]
    return made


def _task(spec: EnvironmentSpec, name: str) -> dict[str, Any]:
    service = spec.services[name]
    env = [{"name": key, "value": value} for key, value in service.env.items()]
    process = {"command": list(service_argv(service)), "env": env, "workingDir": service.working_dir or ""}
    made: dict[str, Any] = {"spec": {"process": process}}
    timeout = task_timeout(service)
    if timeout is not None:
        made["spec"]["timeoutSeconds"] = max(1, int(timeout))
    return made


async def tasks_running(job: Job, watch: BatchWatch, name: str, notes: Notes) -> None:
    """Wait until every pod's task runs, or has ended well. The controller looks every 3 seconds.

    Raises:
        ServiceFailedError: One failed.
        ProvisionTimeoutError: They were not started in time.
    """
    if not notes.tasks:
        return
    wanted = len(notes.part) * len(job.claims)

    def outcome() -> Mapping[str, Any] | None:
        status: Mapping[str, Any] = (watch.get(name) or {}).get("status") or {}
        begun = sum(int(status.get(key) or 0) for key in ("taskRunning", "taskSucceed"))
        return status if begun >= wanted or status.get("taskFailed") else None

    def failure() -> Mapping[str, Any] | None:
        status: Mapping[str, Any] = (watch.get(name) or {}).get("status") or {}
        return status if status.get("taskFailed") else None

    left = job.deadline - asyncio.get_running_loop().time()
    status = await watch.wait_for((name,), outcome, timeout=max(0.1, left))
    if status is not None and not status.get("taskFailed"):
        # One that ends at once is told of as running until the controller looks again.
        status = await watch.wait_for((name,), failure, timeout=_LOOKS_AGAIN) or status
    which = ", ".join(notes.part)
    service = notes.part[0] if len(notes.part) == 1 else None
    if status is None:
        what = f"service {which!r}: its command was not started in time"
        raise ProvisionTimeoutError(what, service=service, hint=f"has the pool a task-executor that answers on port {TASK_PORT}?")
    if status.get("taskFailed"):
        said = status.get("taskLastErrorMessage") or "the controller does not say why"
        what = f"service {which!r}: its command failed in {status['taskFailed']} of {wanted} pods: {said}"
        raise ServiceFailedError(what, service=service, hint="what it wrote is in /var/lib/sandbox/tasks of the pod")
