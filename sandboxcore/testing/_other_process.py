"""Another process: finds an environment by what it reads on stdin, uses it, and prints what it saw. Run with ``-m``."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from sandboxcore.plugins import PluginHost
from sandboxcore.session import Session


async def look(order: dict[str, Any]) -> dict[str, Any]:
    """Find and use the environments that the order selects."""
    async with Session(order["backend"], config=order["config"], plugins=PluginHost.load()) as session:
        found = await session.find(**order["select"])
        report: dict[str, Any] = {"ids": sorted(environment.id for environment in found), "run_id": session.run_id}
        if len(found) == 1 and order["argv"]:
            environment = found[0]
            result = await environment[environment.names[0]].exec(order["argv"], stdin=b"from another process\n")
            await environment.default.write_file(order["path"], b"written by another process")
            report |= {
                "names": environment.names,
                "default": environment.default.name,
                "exit_code": result.exit_code,
                "stdout": result.text(),
                "read": (await environment.default.read_file(order["read"])).decode(),
                "labels": dict(environment.ref.labels),
            }
        return report


if __name__ == "__main__":
    json.dump(asyncio.run(look(json.load(sys.stdin))), sys.stdout)
