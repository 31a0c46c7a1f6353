"""How a container ended, or why it is unhealthy, in the words of the engine's inspection."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ._errors import first_line
from ._multiplex import Demultiplexer

if TYPE_CHECKING:
    from ._engine import Engine

__all__ = ("describe_end", "describe_health", "log_tail", "refused_by_init")

_LINES = 20
_MEBIBYTE = 1 << 20


def describe_end(found: Mapping[str, Any]) -> str:
    """Say how a container ended: ``ended with exit code 3``, ``was killed: out of memory (limit 64 MiB)``."""
    state = found["State"]
    if state.get("OOMKilled"):
        limit = (found.get("HostConfig") or {}).get("Memory") or 0
        return f"was killed: out of memory{f' (limit {limit / _MEBIBYTE:.4g} MiB)' if limit else ''}"
    code = int(state.get("ExitCode") or 0)
    if state.get("Error"):
        return f"could not be started: {first_line(state['Error'])}"
    return f"ended with exit code {code}" + (f" (signal {code - 128})" if 128 < code < 193 else "")


def describe_health(found: Mapping[str, Any]) -> str:
    """Say how the last of the failing healthchecks ended, with the end of its output."""
    log = (found["State"].get("Health") or {}).get("Log") or []
    if not log:
        return "its healthcheck fails"
    output = str(log[-1].get("Output", "")).strip()
    if log[-1].get("ExitCode") == -1 and "exceeded timeout" in output:
        return f"its healthcheck took too long ({output})"
    last = output.splitlines()[-1].strip() if output else "it wrote nothing"
    return f"its healthcheck ended with exit code {log[-1].get('ExitCode')}: {last}"


def refused_by_init(tail: str) -> str:
    """Read from a log's end why the engine's init (tini) could not start the command; empty where it says nothing of that."""
    found = re.search(r"^\[FATAL tini \(\d+\)\] exec (.+) failed: (.+)$", tail, re.MULTILINE)
    return f"{found[1]}: {found[2][:1].lower()}{found[2][1:]}" if found else ""


async def log_tail(engine: Engine, container: str, *, tty: bool) -> str:
    """Return the last lines that the service wrote; empty where the engine keeps none."""
    from sandboxcore.errors import SandboxError

    from ._http import HttpError

    query = {"stdout": True, "stderr": True, "tail": _LINES}
    try:
        async with engine.open("GET", f"/containers/{container}/logs", query=query) as answer:
            data = await answer.read()
    except (HttpError, SandboxError):
        return ""
    if not tty:
        data = b"".join(bytes(piece) for _, piece in Demultiplexer().feed(memoryview(data)))
    return "\n".join(data.decode(errors="replace").splitlines()[-_LINES:])
