"""``run`` and ``exec``: what a command prints, returns and leaves behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from .conftest import CommandLine

pytestmark = pytest.mark.tier("local")

NEVER_HEALTHY = (
    "services:\n  default:\n    image: busybox\n    command: [sleep, '1000']\n"
    "    healthcheck: {test: [CMD, 'false'], interval: 1s, retries: 1000, start_period: 600s}\n"
)
ALL_BYTES = bytes(range(256)) * 300


def until(condition: object, *, seconds: float = 30) -> None:
    """Wait until a callable returns something true."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


def test_run_provisions_runs_and_destroys(cli: CommandLine, compose: Path) -> None:
    result = cli("run", "-q", "-f", str(compose), "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (result.returncode, result.stdout, result.stderr) == (7, b"out\n", b"err\n")
    assert cli.environments() == []


def test_run_needs_no_document(cli: CommandLine) -> None:
    assert cli.ok("run", "--", "printf", r"\377\r\n\0") == b"\xff\r\n\0"


@pytest.mark.parametrize(
    ("argv", "code"),
    [(["sh", "-c", "kill -9 $$"], 137), (["no-such-program"], 127), (["/etc/passwd"], 126), (["sh", "-c", "exit 124"], 124)],
)
def test_exit_codes_are_passed_on(cli: CommandLine, environment: str, argv: list[str], code: int) -> None:
    assert cli("exec", environment, "--", *argv).returncode == code


def test_exec_selects_service_directory_and_variables(cli: CommandLine, environment: str) -> None:
    script = 'echo "$A|$GREETING"; pwd'
    out = cli.ok("exec", environment, "-w", "/tmp", "-e", "A=1=2", "--", "sh", "-c", script)
    assert out == b"1=2|hello\n/tmp\n"
    out = cli.ok("exec", "-s", "store", environment, "sh", "-c", 'echo "$A|$GREETING"')
    assert out == b"|\n"


def test_exec_runs_as_another_user(cli: CommandLine, environment: str) -> None:
    assert cli.ok("exec", environment, "-u", "agent", "--", "id", "-un") == b"agent\n"


def test_a_variable_by_name_takes_its_value_from_here(cli: CommandLine, environment: str) -> None:
    here = CommandLine(state=cli.state, extra={"TOKEN": "s3cret"})
    assert here.ok("exec", environment, "-e", "TOKEN", "--", "printenv", "TOKEN") == b"s3cret\n"


def test_standard_input_is_passed_on_only_when_asked(cli: CommandLine, environment: str) -> None:
    assert cli.ok("exec", environment, "-i", "--", "cat", stdin=ALL_BYTES) == ALL_BYTES
    assert cli.ok("exec", environment, "--", "cat", stdin=ALL_BYTES) == b""


def test_much_output_and_input_stream_through(cli: CommandLine, environment: str) -> None:
    data = os.urandom(1 << 20) * 24
    result = cli("exec", environment, "-i", "--", "sh", "-c", "tee /dev/stderr", stdin=data)
    assert result.returncode == 0
    assert result.stdout == data
    assert result.stderr == data


def test_a_command_that_reads_nothing_ends_all_the_same(cli: CommandLine, environment: str) -> None:
    assert cli("exec", environment, "-i", "--", "true", stdin=ALL_BYTES * 100).returncode == 0


def test_output_is_live(cli: CommandLine, environment: str) -> None:
    with cli.start("exec", environment, "-i", "--", "sh", "-c", "echo first; read x; echo $x") as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"first\n"
        process.stdin.write(b"second\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"second\n"
        assert process.wait(20) == 0


def test_a_timeout_shows_the_partial_output_and_124(cli: CommandLine, environment: str) -> None:
    began = time.monotonic()
    result = cli("exec", environment, "--timeout", "3", "--", "sh", "-c", "echo partial; setsid sleep 4713 & sleep 4713")
    assert time.monotonic() - began < 30
    assert result.returncode == 124
    assert result.stdout == b"partial\n"
    assert result.stderr.startswith(b"sandboxcore: error: ")
    assert b"timeout" in result.stderr
    assert len(result.stderr.splitlines()) <= 2
    words = "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -o '[s]leep 4713' | wc -l"
    assert cli.ok("exec", environment, "--", "sh", "-c", words).strip() == b"0", "the whole tree has to be gone"


def test_nobody_reading_is_quiet(cli: CommandLine, environment: str) -> None:
    with cli.start("exec", environment, "--", "yes") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(2) == b"y\n"
        process.stdout.close()
        assert process.wait(30) == 128 + signal.SIGPIPE
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-s", "stroe"], "no service is called 'stroe' (did you mean 'store'?)"),
        (["-b", "lokal"], "no backend is called 'lokal'"),
        (["--config", "no_such_key=1"], "no_such_key"),
        (["-w", "/no/such/directory"], "/no/such/directory"),
    ],
)
def test_bad_input_is_one_line_and_nothing_stays(cli: CommandLine, compose: Path, arguments: list[str], message: str) -> None:
    result = cli("run", "-q", "-f", str(compose), *arguments, "--", "true")
    first = result.stderr.decode().splitlines()[0]
    assert first.startswith("sandboxcore: error: ")
    assert message in first
    assert result.stdout == b""
    assert result.returncode == (1 if "-w" in arguments else 2)


def test_a_wrong_document_is_told_with_line_and_column(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services:\n  default:\n    image: busybox\n    comand: [x]\n")
    result = cli("run", "-f", "compose.yaml", "--", "true", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith(b"sandboxcore: error: compose.yaml:4:5: services.default")
    assert b"did you mean" in result.stderr
    result = cli("run", "-f", "conpose.yaml", "--", "true", cwd=tmp_path)
    assert result.returncode == 2
    assert b"conpose.yaml: no such file (did you mean 'compose.yaml'?)" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_destroys_the_environment(cli: CommandLine, number: signal.Signals) -> None:
    with cli.start("run", "--", "sh", "-c", "echo running; sleep 1000") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"running\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert out == b""
    assert err.decode().split() == f"sandboxcore: {number.name}: cleaning up".split()
    assert cli.environments() == []


def test_a_signal_kills_the_command_in_an_environment_that_stays(cli: CommandLine, environment: str) -> None:
    with cli.start("exec", environment, "--", "sh", "-c", "echo $$; sleep 1000; true") as process:
        assert process.stdout is not None
        pid = process.stdout.readline().decode().strip()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 130
    assert cli("exec", environment, "--", "test", "-e", f"/proc/{pid}").returncode == 1


def test_a_signal_while_provisioning_leaves_nothing(cli: CommandLine, tmp_path: Path) -> None:
    document = tmp_path / "compose.yaml"
    document.write_text(NEVER_HEALTHY)
    with cli.start("up", "-q", "-f", str(document)) as process:
        until(cli.environments)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == b""
    assert cli.environments() == []


def test_a_service_that_crashes_is_told_with_its_last_words(cli: CommandLine, tmp_path: Path) -> None:
    document = tmp_path / "compose.yaml"
    document.write_text(
        "services:\n  default:\n    image: busybox\n    command: [sh, -c, 'echo last words >&2; exit 3']\n"
        "    healthcheck: {test: [CMD, 'false'], interval: 1s}\n"
    )
    result = cli("run", "-q", "-f", str(document), "--", "true")
    first, *rest = result.stderr.decode().splitlines()
    assert result.returncode == 1
    assert first.startswith("sandboxcore: error: ")
    assert "default" in first
    assert any("last words" in line for line in (first, *rest))
    assert all(line.startswith(("  ", "hint: ")) for line in rest)
    assert cli.environments() == []


def test_a_killed_client_leaves_what_cleanup_finds(cli: CommandLine) -> None:
    with cli.start("run", "--", "sh", "-c", "echo running; sleep 1000") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"running\n"
        process.kill()
    [left] = cli.environments()
    assert cli.json("cleanup", "--expired", "--yes")["destroyed"] == []  # its lease is not over yet
    assert [one["id"] for one in cli.json("cleanup", "--run", left["run_id"], "--yes")["destroyed"]] == [left["id"]]
    assert cli.environments() == []


def test_a_client_killed_while_provisioning_leaves_what_cleanup_finds(cli: CommandLine, tmp_path: Path) -> None:
    """However short a life it was meant for: until it is there, it has the session's lease."""
    document = tmp_path / "compose.yaml"
    document.write_text(NEVER_HEALTHY)
    with cli.start("up", "-q", "-f", str(document), "--ttl", "4s") as process:
        until(cli.environments)
        [made] = cli.environments()
        process.kill()
    assert cli.json("cleanup", "--expired", "--yes")["destroyed"] == []
    assert [one["id"] for one in cli.json("cleanup", "--run", made["run_id"], "--yes")["destroyed"]] == [made["id"]]
    assert cli.environments() == []
    until(lambda: not processes_naming(made["id"]))


def processes_naming(text: str) -> list[str]:
    """List the command lines on this machine that have the text in them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in found if text in line]


def test_environment_values_never_show_in_messages(cli: CommandLine) -> None:
    result = subprocess.run(
        [*cli.argv("--debug", "run", "-e", "TOKEN=hunter2", "--", "sh", "-c", 'test "$TOKEN" = hunter2')],
        capture_output=True,
        env=cli.environ,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert b"hunter2" not in result.stderr.replace(b'test "$TOKEN" = hunter2', b"")
