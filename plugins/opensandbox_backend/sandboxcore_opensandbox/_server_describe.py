"""From the server's sandboxes to environments. Pure."""

from __future__ import annotations

from typing import Any, Literal

from sandboxcore.values import EnvironmentRef, SandboxRef

from ._describe import BACKEND
from ._server_notes import READY, ServerNotes, lease_end, read

__all__ = ("described", "environment_ref", "state_of")

#: The server's states, lower case, to ours; what is not in here is on its way.
STATES: dict[str, Literal["starting", "ready", "completed", "failed"]] = {
    "running": "ready",
    "allocated": "ready",
    "paused": "starting",
    "failed": "failed",
    "terminated": "completed",
}


def environment_ref(notes: ServerNotes, sandbox_id: str, end: float, *, ready: bool, state: str = "running") -> EnvironmentRef:
    """Describe one sandbox as an environment of one service."""
    data = {"mode": "server", "sandbox_id": sandbox_id, "user": notes.user, "working_dir": notes.working_dir}
    data["path"] = notes.path
    sandbox = SandboxRef(
        backend=BACKEND,
        environment_id=notes.environment_id,
        run_id=notes.run_id,
        service=notes.service,
        data=data,
        state=STATES.get(state.lower(), "starting"),
    )
    return EnvironmentRef(
        backend=BACKEND,
        environment_id=notes.environment_id,
        run_id=notes.run_id,
        owner=notes.owner,
        created_at=notes.created,
        expires_at=end,
        default=notes.service,
        sandboxes=(sandbox,),
        labels=notes.labels,
        state=state_of(state, ready=ready),
        data={"mode": "server", "sandbox_id": sandbox_id},
    )


def state_of(state: str, *, ready: bool) -> Literal["creating", "ready", "failed", "destroying"]:
    """Put the server's word and ours together."""
    word = state.lower()
    if word in ("failed", "terminated"):
        return "failed"
    if word in ("stopping", "terminating", "deleting"):
        return "destroying"
    return "ready" if ready else "creating"


def described(info: Any) -> EnvironmentRef | None:
    """Describe what the SDK tells of a sandbox (``SandboxInfo``); None where it is none of ours."""
    notes = read(info.metadata)
    if notes is None:
        return None
    end = lease_end(info.metadata)
    if end is None:
        end = info.expires_at.timestamp() if info.expires_at else float("inf")
    return environment_ref(notes, info.id, end, ready=READY in info.metadata, state=info.status.state)
