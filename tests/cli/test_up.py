"""Environments that stay: ``up``, ``ls``, ``logs``, ``down`` and ``cleanup``, each in a process of its own."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from sandboxcore.cli._output import environment_data
from sandboxcore.cli.commands.ls import show
from sandboxcore.values import EnvironmentRef, SandboxRef

from .conftest import CommandLine

pytestmark = pytest.mark.tier("local")

KEYS = {
    "id", "backend", "run_id", "owner", "state", "created_at", "expires_at", "age", "lease_left", "expired", "default", "labels",
    "services", "name",
}  # fmt: skip


def test_up_prints_the_id_and_nothing_else(cli: CommandLine, environment: str) -> None:
    assert environment.isalnum()
    [found] = [one for one in cli.json("ls")["environments"] if one["id"] == environment]
    assert set(found) == KEYS
    assert found["default"] == "default"
    assert [service["name"] for service in found["services"]] == ["default", "store"]
    assert found["state"] == "ready"
    assert not found["expired"]
    assert 28800 - 120 < found["lease_left"] <= 28800
    assert 0 <= found["age"] < 120


def test_ls_selects_and_shows_a_table(cli: CommandLine, environment: str) -> None:
    assert [one["id"] for one in cli.json("ls", "--label", "shared=yes")["environments"]] == [environment]
    assert cli.json("ls", "--label", "shared=no")["environments"] == []
    run = cli.json("ls", "--label", "shared=yes")["environments"][0]["run_id"]
    assert [one["id"] for one in cli.json("ls", "--run", run)["environments"]] == [environment]
    head, _, *rows = cli.ok("ls").decode().splitlines()
    assert head.split() == ["ID", "STATE", "AGE", "LEASE", "LEFT", "OWNER", "RUN", "SERVICES"]
    [row] = [row for row in rows if row.startswith(environment)]
    assert row.rstrip().endswith("default, store")


def test_a_unique_beginning_of_the_id_is_enough(cli: CommandLine, environment: str) -> None:
    assert cli.ok("exec", environment[:6], "--", "echo", "hi") == b"hi\n"
    result = cli("exec", "nosuchthing", "--", "echo", "hi")
    assert result.returncode == 1
    assert result.stderr.startswith(b"sandboxcore: error: no environment 'nosuchthing'")
    assert environment.encode() in result.stderr


def test_logs_are_the_services_own(cli: CommandLine, environment: str) -> None:
    assert sorted(cli.ok("logs", environment).splitlines()) == [b"complaint", b"started"]
    lines = cli.ok("logs", environment, "store").splitlines()
    assert lines == [b"line %d" % number for number in range(30)]
    assert cli.ok("logs", environment, "store", "-n", "2").splitlines() == [b"line 28", b"line 29"]
    assert cli.ok("logs", environment, "store", "-n", "0") == b""
    result = cli("logs", environment, "stroe")
    assert result.returncode == 2
    assert b"no service is called 'stroe' (did you mean 'store'?)" in result.stderr


def test_logs_follow_until_interrupted(cli: CommandLine, environment: str) -> None:
    with cli.start("logs", environment, "store", "-n", "1", "--follow") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"line 29\n"
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(2)
        process.communicate(timeout=30)
    assert process.returncode == 130


def test_down_destroys_all_or_none(cli: CommandLine) -> None:
    one, other = (cli.ok("up", "--ttl", "1h").decode().strip() for _ in range(2))
    result = cli("down", one, "nosuchthing")
    assert result.returncode == 1
    assert result.stdout == b""
    assert {one, other} <= {found["id"] for found in cli.environments()}
    assert cli.json("down", one, other)["destroyed"] == [one, other]
    assert cli.environments() == []
    assert cli("down", one).returncode == 1


def test_ls_tells_how_commands_ended(capsys: pytest.CaptureFixture[str]) -> None:
    ended = [("web", "ready", None), ("job", "completed", 0), ("bad", "failed", 3), ("lost", "failed", None)]
    whose = {"backend": "mine", "environment_id": "e", "run_id": "r"}
    sandboxes = tuple(
        SandboxRef(**whose, service=name, state=cast("Any", state), exit_code=exit_code) for name, state, exit_code in ended
    )
    ref = EnvironmentRef(**whose, owner="", created_at=0, expires_at=0, default="web", sandboxes=sandboxes, state="failed")
    show([ref])
    assert capsys.readouterr().out.rstrip().endswith("web, job (completed), bad (failed, exit code 3), lost (failed)")
    assert environment_data(ref)["name"] == ""
    show([ref, replace(ref, environment_id="f", name="release")])
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in (head, rows[1])] == ["NAME", "release"]
    services = environment_data(ref)["services"]
    assert [(service["state"], service["exit_code"]) for service in services] == [(state, code) for _, state, code in ended]


def test_up_as_json_tells_what_ls_tells(cli: CommandLine) -> None:
    made = cli.json("up", "--ttl", "90s", "--label", "a=b", "--label", "c=d")
    assert set(made) == KEYS
    assert made["labels"] == {"a": "b", "c": "d"}
    assert 60 < made["lease_left"] < 95
    [found] = cli.environments()
    assert {key: made[key] for key in ("id", "run_id", "owner", "services")} == {
        key: found[key] for key in ("id", "run_id", "owner", "services")
    }
    cli.ok("down", made["id"])


def test_cleanup_takes_what_has_expired_and_spares_the_rest(cli: CommandLine, environment: str) -> None:
    short = cli.ok("up", "--ttl", "1s").decode().strip()
    deadline = time.monotonic() + 60
    while any(one["id"] == short and one["lease_left"] > 0 for one in cli.environments()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    # The backend may have reaped it by itself already.
    would = [one["id"] for one in cli.json("cleanup", "--dry-run")["would_destroy"]]
    assert would in ([short], [])
    gone = [one["id"] for one in cli.json("cleanup", "--expired", "--yes")["destroyed"]]
    assert gone in ([short], [])
    assert [one["id"] for one in cli.json("ls")["environments"]] == [environment]


def test_cleanup_without_a_terminal_has_to_be_told(cli: CommandLine, environment: str) -> None:
    result = cli("cleanup", "--all")
    assert result.returncode == 2
    assert b"--yes" in result.stderr
    assert environment in [one["id"] for one in cli.json("ls")["environments"]]


def test_cleanup_by_id_and_by_run(cli: CommandLine) -> None:
    made = [cli.json("up") for _ in range(2)]
    assert [one["id"] for one in cli.json("cleanup", made[0]["id"], "--yes")["destroyed"]] == [made[0]["id"]]
    assert cli.ok("cleanup", "--run", made[1]["run_id"], "--yes").decode().split() == [made[1]["id"]]
    assert cli.environments() == []
    result = cli("cleanup", "--yes")
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"nothing to clean up\n")


def test_warnings_of_the_translation_are_on_stderr_and_can_be_silenced(cli: CommandLine, compose: Path) -> None:
    loud = cli("run", "-f", str(compose), "--", "true")
    assert (loud.returncode, loud.stdout) == (0, b"")
    lines = loud.stderr.decode().splitlines()
    assert any(line.startswith("sandboxcore: warning: ") and ": APPROX: " in line for line in lines)
    assert all(line.startswith("sandboxcore: warning: ") for line in lines)
    assert cli("run", "-q", "-f", str(compose), "--", "true").stderr == b""


def test_doctor_finds_this_machine_fit(cli: CommandLine) -> None:
    report = cli.json("doctor")
    assert report["backend"] == "local"
    assert report["ok"] is True
    assert report["findings"]
    assert all(set(one) == {"check", "status", "detail", "fix"} for one in report["findings"])
    assert cli.ok("doctor").decode().splitlines()[0].startswith("ok ")


def test_plugins_are_listed(cli: CommandLine) -> None:
    listed = cli.json("plugins")
    assert listed["ok"] is True, listed["problems"]
    assert "local" in [backend["name"] for backend in listed["backends"]]
    assert "compose" in listed["translators"]
    local = next(one for one in listed["plugins"] if one["name"] == "local")
    assert local["status"] == "loaded"
    assert {"sandboxcore_backend_info", "sandboxcore_channel"} <= set(local["hooks"])
    assert b"local" in cli.ok("plugins")


def test_a_broken_plugin_is_named_with_its_fix(tmp_path: Path) -> None:
    folder = tmp_path / "broken-1.5.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.5\n")
    (folder / "entry_points.txt").write_text("[sandboxcore]\nbroken = surely_not_installed_anywhere\n")
    line = CommandLine(state=tmp_path, extra={"PYTHONPATH": str(tmp_path)})
    result = line("plugins")
    assert result.returncode == 1
    text = result.stdout.decode()
    assert "problem: plugin 'broken' (broken 1.5): " in text
    assert "fix: " in text
    document = json.loads(line("plugins", "--json").stdout)
    assert document["ok"] is False
    assert [problem["name"] for problem in document["problems"]] == ["broken"]
    assert line.ok("run", "--", "echo", "still works") == b"still works\n"
