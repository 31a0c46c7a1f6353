"""Samples that are in the middle of a long command when something happens to the eval."""

from __future__ import annotations

import json
import os

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.solver import generate, use_tools
from inspect_ai.tool import bash
from inspect_ai.util import SandboxEnvironmentSpec
from model import obedient
from sandboxcore_inspect import SandboxcoreConfig


@task
def slow(lease: float = 300.0) -> Task:
    """Wait for something that does not come."""
    calls = [("bash", {"command": "touch /tmp/begun; sleep 600"})]
    config = SandboxcoreConfig(spec="compose.yaml", lease=lease, translator={"internet": False})
    return Task(
        dataset=[Sample(id=number, input=json.dumps(calls)) for number in range(3)],
        solver=[use_tools(bash()), generate()],
        model=obedient(),
        sandbox=SandboxEnvironmentSpec("sandboxcore", config),
        version=os.getpid(),
    )
