"""Evals as their users run them: Inspect's command line, a mock model, real tools in real sandboxes."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandboxcore import EnvironmentRef

from .evals import Evals, answers, tool_results, until
from .places import namespace

pytestmark = pytest.mark.timeout(600)
BACKENDS = [pytest.param("local", marks=pytest.mark.tier("local")), pytest.param("docker", marks=pytest.mark.tier("docker"))]


@pytest.fixture(params=BACKENDS)
def evals(request: pytest.FixtureRequest, tmp_path: Path) -> Evals:
    """Evals on each of these backends."""
    return Evals(tmp_path, request.param)


@pytest.fixture
def local_evals(tmp_path: Path) -> Evals:
    """Evals on the local backend, for what is the same on all."""
    return Evals(tmp_path, "local")


def expected(flavour: str, home: str = "/root") -> list[tuple[str, str]]:
    """What the tools give in a sample of ``capture``."""
    return [
        ("bash", f"flavour={flavour}\na note on {flavour}\nmade by setup\n{home}"),
        ("python", "the flag of victim"),
        ("bash", "ls: cannot access '/nonexistent': No such file or directory"),
    ]


def check_capture(log: dict[str, Any]) -> None:
    """Look at the log of ``capture``: three samples, two epochs, and what each tool gave."""
    seen = {(sample["id"], sample["epoch"]) for sample in log["samples"]}
    assert seen == {(f"sample {flavour}", epoch) for flavour in ("sweet", "sour", "salty") for epoch in (1, 2)}
    for sample in log["samples"]:
        flavour = sample["metadata"]["flavour"]
        assert [(name, text.strip()) for name, text in tool_results(sample)] == expected(flavour)
        assert not any(message.get("error") for message in sample["messages"])
        assert sample["scores"]["includes"]["value"] == "C"
    assert len(answers(log)) == 6


def test_a_task_for_docker_runs_unchanged(evals: Evals) -> None:
    with evals.running("capture.py", "--sandbox", "sandboxcore") as process:
        assert process.wait(timeout=240) == 0, evals.printed()
    check_capture(evals.log())
    assert evals.left(process.pid) == []
    assert not list((evals.folder / "data").rglob("sandboxcore/*.json"))
    assert evals.traced().count("[sandboxcore] environment.provision.end") == 6


@pytest.mark.tier("local")
def test_sandboxes_are_given_in_other_forms(local_evals: Evals) -> None:
    tasks = [f"forms.py@{name}" for name in ("compose_object", "of_sample", "nothing")]
    printed = local_evals.command("inspect", "eval", *tasks, "--sandbox", "sandboxcore", "--max-tasks", "3", cwd="forms")
    logs = [json.loads(path.read_text()) for path in (local_evals.folder / "logs").glob("*.json")]
    assert sorted(answer for log in logs for answer in answers(log)) == ["42", "I am main", "flavour=bitter"], printed
    assert local_evals.left() == []


@pytest.mark.tier("docker")
def test_a_dockerfile_is_built_once(tmp_path: Path) -> None:
    evals = Evals(tmp_path, "docker")
    log = evals.eval("forms.py@dockerfile", "--sandbox", "sandboxcore", "--epochs", "3", cwd="forms")
    assert answers(log) == ["built for the eval"] * 3


@pytest.mark.tier("local")
def test_a_dockerfile_is_refused_where_nothing_can_be_built(local_evals: Evals) -> None:
    printed = local_evals.command("inspect", "eval", "forms.py@dockerfile", "--sandbox", "sandboxcore", cwd="forms", check=False)
    assert "services.default.build: the local backend builds no images" in printed
    assert "Traceback" not in printed


@pytest.mark.tier("local")
def test_a_wrong_file_is_told_in_a_line_with_its_place(local_evals: Evals) -> None:
    file = local_evals.folder / "capture" / "compose.yaml"
    file.write_text(file.read_text().replace("init: true", "initial: true"))
    printed = local_evals.command("inspect", "eval", "capture.py", "--sandbox", "sandboxcore", check=False)
    assert "compose.yaml:5:5: services.default.initial: " in printed.replace("\n", "")
    assert "Traceback" not in printed
    assert local_evals.left() == []


@pytest.mark.tier("local")
def test_a_retry_completes_what_had_failed(local_evals: Evals) -> None:
    printed = local_evals.command("inspect", "eval", "flaky.py", "--no-fail-on-error", UNLUCKY="1")
    first = local_evals.log()
    assert [bool(sample.get("error")) for sample in first["samples"]] == [False, True], printed
    config = first["eval"]["sandbox"]["config"]
    assert config["spec"]["services"]["main"]["env"] == {"GREETING": "hello"}
    (file,) = (local_evals.folder / "logs").glob("*.json")
    local_evals.command("inspect", "eval-retry", str(file))
    second = local_evals.log()
    assert second["status"] == "success"
    assert answers(second) == ["hello, I am agent"] * 2
    assert local_evals.left() == []


@pytest.mark.tier("local")
def test_sandboxes_that_are_kept_can_be_entered_and_removed(local_evals: Evals) -> None:
    printed = local_evals.command("inspect", "eval", "flaky.py", "--no-sandbox-cleanup")
    kept = [ref.environment_id for ref in local_evals.left()]
    assert len(kept) == 2
    for name in kept:
        assert f"inspect sandbox cleanup sandboxcore {name}" in printed
    assert f"destroyed {kept[0]}" in local_evals.command("inspect", "sandbox", "cleanup", "sandboxcore", kept[0])
    assert [ref.environment_id for ref in local_evals.left()] == kept[1:]
    assert "1 environments destroyed" in local_evals.command("inspect", "sandbox", "cleanup", "sandboxcore")
    assert local_evals.left() == []


def _ready(evals: Evals, pid: int) -> list[EnvironmentRef]:
    return [ref for ref in evals.left(pid) if ref.state == "ready"]


def test_nothing_stays_of_evals_that_were_killed(evals: Evals) -> None:
    """One has a lease that runs out soon; the other's is still long, which makes no difference to Inspect's own command."""
    with evals.running("slow.py", "-T", "lease=5") as short, evals.running("slow.py") as long:
        for process in (short, long):
            until(lambda: len(_ready(evals, process.pid)) == 3 or process.poll() is not None, "three sandboxes")  # noqa: B023
            assert process.poll() is None, evals.printed()
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=60)
    assert len(evals.left(long.pid)) == 3

    def gone() -> bool:
        evals.command("sandboxcore", "cleanup", "--expired", "--yes")
        return evals.left(short.pid) == []

    until(gone, "leases to run out")
    assert len(evals.left(long.pid)) == 3
    printed = evals.command("inspect", "sandbox", "cleanup", "sandboxcore")
    assert evals.left(long.pid) == [], printed
    assert not list((evals.folder / "data").rglob("sandboxcore/*.json"))


@pytest.mark.tier("local")
def test_an_interrupt_leaves_nothing(local_evals: Evals) -> None:
    with local_evals.running("slow.py") as process:
        until(lambda: len(_ready(local_evals, process.pid)) == 3 or process.poll() is not None, "three sandboxes")
        process.send_signal(signal.SIGINT)
        process.wait(timeout=120)
    assert local_evals.left() == [], local_evals.printed()


@pytest.mark.tier("local")
def test_one_sample_that_fails_leaves_the_others_alone(local_evals: Evals) -> None:
    file = local_evals.folder / "capture" / "capture.py"
    file.write_text(file.read_text().replace('setup="echo', 'setup="false" if flavour == "sour" else "echo'))
    log = local_evals.eval("capture.py", "--sandbox", "sandboxcore", "--no-fail-on-error", "--epochs", "1")
    failed = {sample["id"]: sample["error"]["message"] for sample in log["samples"] if sample.get("error")}
    assert list(failed) == ["sample sour"]
    assert "Failed to execute setup script" in failed["sample sour"]
    assert local_evals.left() == []


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Evals]:
    """Evals on the Helm backend, in a namespace of their own that they find as people's programs do."""
    from tests.cluster import kubectl

    with namespace() as options:
        kubeconfig = tmp_path / "kubeconfig"
        shutil.copy(options["kubeconfig"], kubeconfig)
        kubectl("--kubeconfig", str(kubeconfig), "config", "set-context", "--current", "--namespace", options["namespace"])
        programs = tmp_path / "bin"
        programs.mkdir()
        (programs / "helm").symlink_to(options["helm"])
        variables = {
            "KUBECONFIG": str(kubeconfig),
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "HELM_OPTIONS": json.dumps(options),
        }
        yield Evals(tmp_path, "helm", config=dict(options), variables=variables)


@pytest.mark.tier("kubernetes")
def test_a_task_for_docker_runs_on_a_cluster(cluster: Evals) -> None:
    check_capture(cluster.eval("capture.py", "--sandbox", "sandboxcore"))
    assert cluster.left() == []


@pytest.mark.tier("kubernetes")
def test_a_chart_of_ones_own_gets_the_sample(cluster: Evals) -> None:
    log = cluster.eval("charted.py", cwd="chart")
    flavours = ["sweet", "sour, {a,b}=c"]
    wanted = [f"default {flavour} yes charted\nvictim {flavour} yes charted" for flavour in flavours]
    assert sorted(answers(log)) == sorted(wanted * 2)
    assert cluster.left() == []
