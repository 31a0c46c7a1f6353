"""Leases that can be renewed though labels can't: one tiny volume a run says until when its environments are claimed.

Labels of containers are fixed when they are made. So a renewal makes a new, empty volume whose labels list the environments
and the time, and removes the one before: a few calls for any number of environments, legible for every other process. The newest
record counts; without any it is the expiry on the environment's own labels.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._engine import Engine, to_the_end
from ._labels import label

if TYPE_CHECKING:
    from sandboxcore.values import EnvironmentRef

__all__ = ("LeaseRecord", "Leases", "read_lease")


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaseRecord:
    """A renewal. Times are seconds since the epoch."""

    volume: str
    run_id: str
    owner: str
    environments: frozenset[str]
    renewed_at: float
    expires_at: float


def read_lease(volume: dict[str, Any]) -> LeaseRecord | None:
    """Read a volume's labels; None if it is no record."""
    labels = volume.get("Labels") or {}
    try:
        return LeaseRecord(
            volume=volume["Name"],
            run_id=labels[label("run-id")],
            owner=labels.get(label("owner"), ""),
            environments=frozenset(json.loads(labels[label("environments")])),
            renewed_at=float(labels[label("renewed-at")]),
            expires_at=float(labels[label("expires-at")]),
        )
    except (KeyError, ValueError, TypeError):
        return None


class Leases:
    """Writes and reads the records."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._mine: list[LeaseRecord] = []

    async def renew(self, environments: Sequence[EnvironmentRef], lease: float) -> None:
        """Claim environments for ``lease`` seconds from now: one record for those of a run."""
        by_run: dict[str, list[EnvironmentRef]] = {}
        for environment in environments:
            by_run.setdefault(environment.run_id, []).append(environment)
        for run_id, members in by_run.items():
            await to_the_end(self._renew_run(run_id, members, lease))

    async def _renew_run(self, run_id: str, members: Sequence[EnvironmentRef], lease: float) -> None:
        now = time.time()
        record = LeaseRecord(
            volume=f"sandboxcore-lease-{secrets.token_hex(8)}",
            run_id=run_id,
            owner=members[0].owner,
            environments=frozenset(member.environment_id for member in members),
            renewed_at=now,
            expires_at=now + lease,
        )
        await self._engine.call("POST", "/volumes/create", json_body={"Name": record.volume, "Labels": _labels(record)})
        # Looked for afterwards: who destroys the last environment in between removes the records after it, and we see none.
        if not await self._exists(record):
            await self._remove(record.volume)
            return
        superseded = [old for old in self._mine if old.run_id == run_id and old.environments <= record.environments]
        self._mine = [record, *(old for old in self._mine if old not in superseded)]
        for old in superseded:
            await self._remove(old.volume)

    async def _exists(self, record: LeaseRecord) -> bool:
        found = [await self._engine.find(kind, _of_run(record.run_id), **more) for kind, more in _KINDS]
        ids = {(thing.get("Labels") or {}).get(label("environment-id")) for things in found for thing in things}
        return bool(ids & record.environments)

    async def read(self, run_id: str | None = None) -> list[LeaseRecord]:
        """List the records, of a run or all."""
        labels = [f"{label('role')}=lease", *([f"{label('run-id')}={run_id}"] if run_id else [])]
        records = (read_lease(volume) for volume in await self._engine.find("volumes", labels))
        return [record for record in records if record is not None]

    async def settle(self, run_id: str) -> None:
        """Remove the records of a run that has no environment any more."""
        records = await self.read(run_id)
        if not records:
            return
        found = [await self._engine.find(kind, _of_run(run_id), **more) for kind, more in _KINDS]
        if not any(found):
            for record in records:
                await self._remove(record.volume)
            self._mine = [record for record in self._mine if record.run_id != run_id]

    async def _remove(self, volume: str) -> None:
        await self._engine.attempt(self._engine.call("DELETE", f"/volumes/{volume}", query={"force": True}))


_KINDS: tuple[tuple[str, dict[str, Any]], ...] = (("containers", {"all": True}), ("networks", {}), ("volumes", {}))


def _of_run(run_id: str) -> list[str]:
    return [label("environment-id"), f"{label('run-id')}={run_id}"]


def _labels(record: LeaseRecord) -> dict[str, str]:
    return {
        label("role"): "lease",
        label("run-id"): record.run_id,
        label("owner"): record.owner,
        label("environments"): json.dumps(sorted(record.environments)),
        label("renewed-at"): repr(record.renewed_at),
        label("expires-at"): repr(record.expires_at),
    }
