"""A task whose first run fails for one sample, and an environment that is written in Python."""

from __future__ import annotations

import json
import os

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import Generate, TaskState, generate, solver, use_tools
from inspect_ai.tool import bash
from inspect_ai.util import SandboxEnvironmentSpec
from model import obedient
from sandboxcore_inspect import SandboxcoreConfig


@solver
def unlucky():  # type: ignore[no-untyped-def]
    """Fail the second sample where the environment says so."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        if os.environ.get("UNLUCKY") and state.sample_id == 2:
            raise RuntimeError("bad luck")
        return state

    return solve


@task
def flaky() -> Task:
    """Ask the sandbox for a variable."""
    service = {
        "env": {"GREETING": "hello"},
        "image": "sandboxcore.test/debian:1",
        "command": ["tail", "-f", "/dev/null"],
    }
    config = SandboxcoreConfig(spec={"services": {"main": service}}, user="agent", timeout=300)
    calls = json.dumps([("bash", {"command": "echo $GREETING, I am $(whoami)"})])
    return Task(
        dataset=[Sample(id=number, input=calls, target="hello, I am agent") for number in (1, 2)],
        solver=[unlucky(), use_tools(bash()), generate()],
        scorer=includes(),
        model=obedient(),
        sandbox=SandboxEnvironmentSpec("sandboxcore", config),
    )
