"""What is written down about an environment, and what is read from it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..values import EnvironmentRef, SandboxRef
from ._launch import Process
from ._state import EnvironmentFolder, read_small
from ._status import read_status

if TYPE_CHECKING:
    from ..spec import EnvironmentSpec
    from ..values import Claim

__all__ = ("BACKEND", "describe", "environment_ref")

BACKEND = "local"

SandboxState = Literal["starting", "ready", "completed", "failed"]


def describe(spec: EnvironmentSpec, claim: Claim) -> dict[str, Any]:
    """Write down the claim and the services' names; never their environment."""
    return {
        "version": 1,
        "run_id": claim.run_id,
        "environment_id": claim.environment_id,
        "owner": claim.owner,
        "created_at": time.time(),
        "labels": {**spec.labels, **claim.labels},
        "default": spec.default_service,
        "state": "creating",
        "services": [{"name": name, "exec_target": service.exec_target} for name, service in spec.services.items()],
    }


def environment_ref(folder: EnvironmentFolder) -> EnvironmentRef | None:
    """Describe the environment of a folder; None if the folder is gone."""
    found = folder.describe()
    if found is None:
        return _unfinished(folder) if folder.path.exists() else None
    sandboxes = [_sandbox(folder, found, index) for index in range(len(found["services"]))]
    sandboxes.sort(key=lambda sandbox: sandbox.service != found["default"])
    return EnvironmentRef(
        backend=BACKEND,
        environment_id=found["environment_id"],
        run_id=found["run_id"],
        owner=found["owner"],
        created_at=found["created_at"],
        expires_at=folder.expires_at,
        default=found["default"],
        sandboxes=tuple(sandboxes),
        labels=found["labels"],
        state=_state(folder, found),
        data={"folder": str(folder.path)},
    )


def _unfinished(folder: EnvironmentFolder) -> EnvironmentRef:
    """Describe a folder whose maker died before it could write anything."""
    return EnvironmentRef(
        backend=BACKEND,
        environment_id=folder.path.name,
        run_id="",
        owner="",
        created_at=folder.expires_at - 60,
        expires_at=folder.expires_at,
        default="",
        sandboxes=(),
        state="creating",
        data={"folder": str(folder.path)},
    )


def _state(folder: EnvironmentFolder, found: dict[str, Any]) -> Literal["creating", "ready", "failed"]:
    if found["state"] != "ready":
        return "creating"
    return "ready" if folder.holder and folder.holder.alive() else "failed"


def _sandbox(folder: EnvironmentFolder, found: dict[str, Any], index: int) -> SandboxRef:
    service = found["services"][index]
    state, code = _sandbox_state(folder.service(index), found["state"])
    return SandboxRef(
        backend=BACKEND,
        environment_id=found["environment_id"],
        run_id=found["run_id"],
        service=service["name"],
        data={"folder": str(folder.service(index)), "exec_target": service["exec_target"]},
        state=state,
        exit_code=code,
    )


def _sandbox_state(folder: Path, environment: str) -> tuple[SandboxState, int | None]:
    process = Process.parse(read_small(folder / "process") or "")
    if process is None:
        return "starting", None
    if process.alive():
        return "ready" if environment == "ready" else "starting", None
    code = read_status(folder).exit_code
    return "completed" if code == 0 else "failed", code
