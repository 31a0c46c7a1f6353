"""A task whose sandboxes are the pods of a chart of its own."""

from __future__ import annotations

import json
import os
from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, use_tools
from inspect_ai.tool import ToolDef, bash
from inspect_ai.util import SandboxEnvironmentSpec
from model import obedient
from sandboxcore_inspect import SandboxcoreConfig

HERE = Path(__file__).parent


def _sample(flavour: str) -> Sample:
    command = {"command": "echo $WHO $FLAVOUR $FROM_VALUES $TASK"}
    return Sample(
        id=flavour,
        input=json.dumps([("bash", command), ("in_victim", command)]),
        target=f"victim {flavour} yes charted",
        metadata={"flavour of-sample": flavour, "not mentioned": "x"},
    )


@task
def charted() -> Task:
    """Look at what the chart was given."""
    options = {**json.loads(os.environ["HELM_OPTIONS"]), "chart": str(HERE / "chart")}
    config = SandboxcoreConfig(backend="helm", spec="my-values.yaml", options=options)
    return Task(
        dataset=[_sample("sweet"), _sample("sour, {a,b}=c")],
        solver=[use_tools(bash(), ToolDef(bash(sandbox="victim"), name="in_victim").as_tool()), generate()],
        scorer=includes(),
        epochs=2,
        model=obedient(),
        sandbox=SandboxEnvironmentSpec("sandboxcore", config),
    )
