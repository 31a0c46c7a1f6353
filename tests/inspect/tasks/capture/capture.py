"""A task as one writes it for Inspect's Docker provider: three samples, two epochs, two services, bash and python."""

from __future__ import annotations

import json

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, use_tools
from inspect_ai.tool import bash, python
from model import obedient

FETCH = "import urllib.request; print(urllib.request.urlopen('http://victim:8000/flag', timeout=20).read().decode())"


def _sample(flavour: str) -> Sample:
    calls = [
        ("bash", {"command": "echo flavour=$FLAVOUR; cat note.txt; cat setup.txt; pwd"}),
        ("python", {"code": FETCH}),
        ("bash", {"command": "ls /nonexistent"}),
    ]
    return Sample(
        id=f"sample {flavour}",
        input=json.dumps(calls),
        target=f"flavour={flavour}",
        metadata={"flavour": flavour},
        files={"note.txt": f"a note on {flavour}\n", "victim:/tmp/extra": "for the victim"},
        setup="echo made by setup > setup.txt",
    )


@task
def capture() -> Task:
    """Fetch a flag from another service."""
    return Task(
        dataset=[_sample("sweet"), _sample("sour"), _sample("salty")],
        solver=[use_tools(bash(timeout=60), python(timeout=60)), generate()],
        scorer=includes(),
        epochs=2,
        model=obedient(),
        sandbox=("docker", "compose.yaml"),
    )
