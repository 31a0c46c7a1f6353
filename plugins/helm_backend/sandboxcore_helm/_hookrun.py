"""Runs a chart's hooks as Helm does: in the order of their weights, each to its end.

Source: https://github.com/helm/helm/blob/v3.17.0/pkg/action/hooks.go
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from sandboxcore.errors import ProvisionTimeoutError, SandboxError, ServiceFailedError
from sandboxcore_kubernetes.errors import ApiError, sandbox_error

from ._creating import Creator, dressed
from ._manifest import documents

if TYPE_CHECKING:
    from sandboxcore_kubernetes.cluster import Cluster

    from ._identity import Identity
    from ._release import Hook

__all__ = ("hooks_at", "run_delete_hooks", "run_hooks")

_logger = logging.getLogger("sandboxcore")

_DEFAULT_POLICIES = ("before-hook-creation",)
_LOOK_SECONDS = (0.1, 0.2, 0.5, 1.0)
_LOG_LINES = 20
#: Seconds for all hooks of one event of a deletion, which has less than two minutes as a whole.
_DELETE_HOOKS_SECONDS = 30.0


def hooks_at(hooks: Iterable[Hook], event: str) -> list[Hook]:
    """Select the hooks of an event, in the order in which they run."""
    return sorted((hook for hook in hooks if event in hook.events), key=lambda hook: (hook.weight, hook.name))


async def run_hooks(
    cluster: Cluster, creator: Creator, identity: Identity, hooks: Iterable[Hook], event: str, *, deadline: float
) -> None:
    """Create the hooks of an event one after the other and wait for each: for Jobs until complete, for Pods until they succeeded.

    Args:
        deadline: By the event loop's clock.

    Raises:
        ServiceFailedError: A hook failed; the message names it and ends with its last log lines.
        ProvisionTimeoutError: The deadline passed.
        ProvisionError: The server refuses a hook.
    """
    done: list[tuple[Hook, dict[str, Any]]] = []
    for hook in hooks_at(hooks, event):
        policies = hook.delete_policies or _DEFAULT_POLICIES
        for document in documents(hook.manifest):
            body = dressed(document.body, identity, hook=True)
            try:
                if "before-hook-creation" in policies:
                    await _delete(cluster, body, identity.namespace, deadline)
                await creator.post_all([body], identity.namespace)
                await _end(cluster, body, identity.namespace, event, deadline)
            except ServiceFailedError:
                if "hook-failed" in policies:
                    await _delete(cluster, body, identity.namespace, deadline)
                raise
            done.append((hook, body))
    for hook, body in done:
        if "hook-succeeded" in hook.delete_policies:
            await _delete(cluster, body, identity.namespace, deadline)


async def run_delete_hooks(cluster: Cluster, identity: Identity, hooks: Iterable[Hook], event: str) -> None:
    """Run the hooks of a deletion as ``run_hooks`` does. That one fails is logged, and keeps nothing from being deleted."""
    deadline = asyncio.get_running_loop().time() + _DELETE_HOOKS_SECONDS
    try:
        await run_hooks(cluster, Creator(cluster), identity, hooks, event, deadline=deadline)
    except SandboxError as error:
        _logger.warning("release %s goes, though its hooks did not do their work: %s", identity.release, error)


def _kind(body: Mapping[str, Any]) -> str:
    return f"{body['apiVersion']}/{body['kind']}"


async def _delete(cluster: Cluster, body: Mapping[str, Any], namespace: str, deadline: float) -> None:
    name, place = body["metadata"]["name"], body["metadata"].get("namespace") or namespace
    try:
        if not await cluster.delete(_kind(body), name, namespace=place):
            return
        async for _ in _moments(deadline, f"hook {name!r} to be gone"):
            await cluster.get(_kind(body), name, namespace=place)
    except ApiError as error:
        if error.status != 404:
            raise sandbox_error(error, f"delete hook {name!r}") from error


async def _end(cluster: Cluster, body: Mapping[str, Any], namespace: str, event: str, deadline: float) -> None:
    """Wait until a Job or a Pod has done its work; all other kinds have when they exist."""
    if body["kind"] not in ("Job", "Pod"):
        return
    name, place = body["metadata"]["name"], body["metadata"].get("namespace") or namespace
    async for _ in _moments(deadline, f"{event} hook {name!r}"):
        try:
            found = await cluster.get(_kind(body), name, namespace=place)
        except ApiError as error:
            raise sandbox_error(error, f"{event} hook {name!r}") from error
        outcome = _outcome(found)
        if outcome == "":
            return
        if outcome is not None:
            log = await _log(cluster, found, place)
            raise ServiceFailedError(f"{event} hook {name!r} failed: {outcome}" + (f"\n{log}" if log else ""))


def _outcome(found: Mapping[str, Any]) -> str | None:
    """Return why it failed; empty for one that went well, None for one that still runs."""
    status = found.get("status") or {}
    if found["kind"] == "Pod":
        if status.get("phase") == "Failed":
            return status.get("message") or status.get("reason") or "the pod failed"
        return "" if status.get("phase") == "Succeeded" else None
    for condition in status.get("conditions") or ():
        if condition.get("status") == "True" and condition.get("type") == "Complete":
            return ""
        if condition.get("status") == "True" and condition.get("type") == "Failed":
            return condition.get("message") or condition.get("reason") or "the job failed"
    return None


async def _log(cluster: Cluster, found: Mapping[str, Any], namespace: str) -> str:
    """Read the last lines of a failed hook, as far as they can be had."""
    try:
        pod = found["metadata"]["name"]
        if found["kind"] == "Job":
            pods = await cluster.list("Pod", namespace=namespace, label_selector=f"batch.kubernetes.io/job-name={pod}")
            pod = max(pods["items"], key=lambda one: one["metadata"]["creationTimestamp"])["metadata"]["name"]
        chunks = [chunk async for chunk in cluster.logs(pod, namespace=namespace, tail=_LOG_LINES)]
    except (ApiError, ValueError):
        return ""
    return b"".join(chunks).decode(errors="replace").rstrip()


async def _moments(deadline: float, what: str) -> Any:
    """Yield now and again until the deadline.

    Raises:
        ProvisionTimeoutError: It passed.
    """
    loop = asyncio.get_running_loop()
    count = 0
    while loop.time() < deadline:
        yield count
        await asyncio.sleep(_LOOK_SECONDS[min(count, len(_LOOK_SECONDS) - 1)])
        count += 1
    raise ProvisionTimeoutError(f"time ran out; it still waited for {what}")
