"""Tasks that give their sandbox in other forms."""

from __future__ import annotations

import json
from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, use_tools
from inspect_ai.tool import bash
from inspect_ai.util import ComposeConfig, ComposeService, SandboxEnvironmentSpec
from model import obedient

DEBIAN = "sandboxcore.test/debian:1"


def _task(provider: object, command: str, target: str, **sample: object) -> Task:
    calls = json.dumps([("bash", {"command": command})])
    return Task(
        dataset=[Sample(input=calls, target=target, **sample)],  # type: ignore[arg-type]
        solver=[use_tools(bash()), generate()],
        scorer=includes(),
        model=obedient(),
        sandbox=provider,  # type: ignore[arg-type]
    )


@task
def compose_object() -> Task:
    """Give Inspect's own object, whose default service has another name."""
    idle = {"image": DEBIAN, "command": "tail -f /dev/null"}
    other = ComposeService(**idle)
    main = ComposeService(**idle, environment={"WHO": "main"}, **{"x-default": True})
    config = ComposeConfig(services={"other": other, "main": main})
    return _task(SandboxEnvironmentSpec("docker", config), "echo I am $WHO", "I am main")


@task
def of_sample() -> Task:
    """Give it with the sample."""
    spec = SandboxEnvironmentSpec("docker", str(Path(__file__).parent.parent / "capture" / "compose.yaml"))
    return _task("docker", "echo flavour=$FLAVOUR", "flavour=bitter", metadata={"flavour": "bitter"}, sandbox=spec)


@task
def dockerfile() -> Task:
    """Give a Dockerfile."""
    return _task(("docker", "built/Dockerfile"), "cat /built", "built for the eval")


@task
def nothing() -> Task:
    """Give nothing but the provider."""
    return _task("sandboxcore", "echo $((6 * 7))", "42")
