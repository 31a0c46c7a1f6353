"""``translate``: documents in, specs and reports out, nothing created."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import CommandLine

DOCUMENT = """\
name: shown
services:
  default:
    image: busybox:${TAG:-1}
    command: ["sleep", "infinity"]
    mem_limit: 64m
  extra:
    image: busybox
    profiles: [more]
"""


@pytest.fixture
def line(tmp_path: Path) -> CommandLine:
    (tmp_path / "compose.yaml").write_text(DOCUMENT)
    return CommandLine(state=tmp_path / "state")


@pytest.fixture
def document(tmp_path: Path, line: CommandLine) -> str:
    return str(tmp_path / "compose.yaml")


def test_the_spec_is_json_of_the_neutral_values(line: CommandLine, document: str) -> None:
    from sandboxcore.spec import EnvironmentSpec

    spec = json.loads(line.ok("translate", "-q", document, "--var", "TAG=9"))
    assert spec["services"]["default"]["image"] == "busybox:9"
    assert list(EnvironmentSpec.model_validate(spec).services) == ["default"]


def test_profiles_and_env_files_reach_the_translator(line: CommandLine, document: str, tmp_path: Path) -> None:
    (tmp_path / "dev.env").write_text("TAG=7\n")
    found = line.json("translate", document, "--profile", "more", "--env-file", str(tmp_path / "dev.env"))
    assert list(found["spec"]["services"]) == ["default", "extra"]
    assert found["spec"]["services"]["default"]["image"] == "busybox:7"
    assert found["report"]
    assert all(set(one) == {"loss", "key", "service", "reason", "option", "file", "line", "column"} for one in found["report"])


def test_the_canonical_form_is_dockers(line: CommandLine, document: str) -> None:
    found = json.loads(line.ok("translate", document, "--to", "compose", "--project-name", "other"))
    assert found["name"] == "other"
    assert found["services"]["default"]["command"] == ["sleep", "infinity"]
    assert found["services"]["default"]["mem_limit"] == "67108864"


def test_values_are_for_the_helm_chart(line: CommandLine, document: str) -> None:
    found = line.json("translate", document, "--to", "values")
    assert set(found) == {"values", "report"}
    service = found["values"]["services"]["default"]
    assert service["image"] == "busybox:1"
    assert json.loads(line.ok("translate", "-q", document, "--to", "values")) == found["values"]


def test_the_report_is_a_table(line: CommandLine, document: str) -> None:
    head, _, *rows = line.ok("translate", document, "--report").decode().splitlines()
    assert head.split() == ["CLASS", "WHERE", "KEY", "WHAT", "HAPPENS", "OPTION"]
    reported = line.json("translate", document, "--report")["report"]
    assert len(rows) == len(reported) > 0
    assert [row.split()[0] for row in rows] == [one["loss"] for one in reported]


def test_losses_are_warned_of_and_strict_refuses_them(line: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "x" / "compose.yaml"
    path.parent.mkdir()
    path.write_text("services:\n  default:\n    image: busybox\n    cpu_shares: 50\n    oom_score_adj: 5\n")
    approximated = f"{path}:4:5: services.default.cpu_shares: APPROX: "
    warned = line("translate", str(path)).stderr.decode()
    assert f"sandboxcore: warning: {approximated}" in warned
    assert "oom_score_adj" not in warned  # nothing is lost by it
    assert line("translate", "-q", str(path)).stderr == b""
    result = line("translate", "--strict", str(path))
    assert (result.returncode, result.stdout) == (2, b"")
    assert f"sandboxcore: error: {approximated}" in result.stderr.decode()


def test_many_losses_are_summed_up(line: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "x" / "compose.yaml"
    path.parent.mkdir()
    services = "".join(f"  s{number}: {{image: busybox, cpu_shares: 50, network_mode: none}}\n" for number in range(13))
    path.write_text(f"services:\n{services}")
    lines = line("translate", str(path)).stderr.decode().splitlines()
    assert len(lines) == 11
    assert lines[-1] == "sandboxcore: warning: and 3 more; see: sandboxcore translate --report"


#: What no engine, cluster or server can be reached by.
NOWHERE = {"DOCKER_HOST": "unix:///nonexistent.sock", "KUBECONFIG": "/nonexistent", "HOME": "/nonexistent"}


@pytest.mark.parametrize(
    ("backend", "loss", "key", "reason"),
    [
        ("local", "APPROX", "services.default.image", "is not used"),
        ("docker", "REJECT", "services.default.network_policy.allow_domains", "use the helm backend"),
        ("helm", "APPROX", "services.default.resources.pids", "Kubernetes has no limit"),
        ("opensandbox", "REJECT", "services.default.network_policy.allow_domains", "use a cluster with Cilium"),
    ],
)
def test_what_the_backend_keeps_is_told_without_it(tmp_path: Path, backend: str, loss: str, key: str, reason: str) -> None:
    line = CommandLine(state=tmp_path / "state", extra=NOWHERE)
    domains = ", x-sandboxcore: {allow_domains: [a.org]}" if loss == "REJECT" else ""
    path = tmp_path / "compose.yaml"
    path.write_text(f"services: {{default: {{image: busybox, pids_limit: 50{domains}}}}}")
    (said,) = [one for one in line.json("translate", "-b", backend, str(path))["report"] if one["key"] == key]
    assert (said["loss"], said["service"]) == (loss, "default")
    assert reason in said["reason"]
    assert f"warning: {key}: {loss}: " in line("translate", "-b", backend, str(path)).stderr.decode()
    assert line("translate", "-b", backend, "--strict", str(path)).returncode == 2


def test_values_are_helms_whatever_the_backend_is(line: CommandLine, document: str) -> None:
    assert line.json("translate", "-b", "docker", document, "--to", "values") == line.json(
        "translate", "-b", "local", document, "--to", "values"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.yaml"], "missing.yaml: no such file"),
        (["--to", "compose", "--report", "x.yaml"], "no report"),
        (["--to", "nonsense", "x.yaml"], "'nonsense' is not one of"),
        (["--translator", "nope", "compose.yaml"], "no translator is called 'nope'"),
        ([], "Missing argument 'FILE...'"),
    ],
)
def test_bad_input_is_one_line_and_2(line: CommandLine, tmp_path: Path, arguments: list[str], message: str) -> None:
    result = line("translate", *arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout == b""
    assert message in result.stderr.decode().splitlines()[0]


def test_nothing_was_created(line: CommandLine, document: str, tmp_path: Path) -> None:
    line.ok("translate", "-q", document)
    assert not (tmp_path / "state").exists()
