"""The adapter by itself: its configuration, its errors, and how samples share sessions. On the local backend."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.util import (
    OutputLimitExceededError,
    SandboxEnvironment,
    SandboxEnvironmentSpec,
    SandboxUnavailableError,
    SandboxUserUnsupportedError,
    override_sandbox_output_limit,
)
from inspect_ai.util._sandbox.lifecycle import SandboxLifecycleState, sandbox_lifecycle_scope
from pydantic import ValidationError
from sandboxcore_inspect import SandboxcoreConfig, SandboxcoreEnvironment, _cleanup, _errors, _source
from sandboxcore_inspect._connection import connection_of
from sandboxcore_inspect._records import Record, owner_is_gone, records
from sandboxcore_inspect._session import Shared, current_eval

from sandboxcore import EnvironmentRef, EnvironmentSpec, ProvisionError, SandboxRef, ServiceSpec, Session, SpecError, errors

ROOT = Path(__file__).parents[2]
local = pytest.mark.tier("local")
pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def scope(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxLifecycleState]:
    """What an eval surrounds its tasks with."""
    monkeypatch.setenv("SANDBOXCORE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("SANDBOXCORE_BACKEND", raising=False)
    with sandbox_lifecycle_scope() as state:
        yield state


@pytest.fixture
async def sandbox(scope: SandboxLifecycleState) -> AsyncIterator[SandboxEnvironment]:
    """One sandbox of a sample."""
    await SandboxcoreEnvironment.task_init("startup", None)
    found = await init()
    yield next(iter(found.values()))
    await SandboxcoreEnvironment.task_cleanup("shutdown", None, True)
    assert await existing() == []


async def init(config: Any = None, **metadata: Any) -> dict[str, SandboxEnvironment]:
    """Make a sample's sandboxes."""
    return await SandboxcoreEnvironment.sample_init("task", config, {"__sample_id__": 1, **metadata})


async def existing() -> list[str]:
    """List what there is on the local backend."""
    async with Session("local") as session:
        return [environment.id for environment in await session.find()]


async def until(look: Callable[[], Awaitable[Any]], enough: Callable[[Any], bool]) -> None:
    """Look again and again, until what is seen is enough."""
    async with asyncio.timeout(60):
        while not enough(await look()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


# --- configuration ---


def test_a_configuration_is_a_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = SandboxcoreConfig(backend="helm", spec="values.yaml", options={"namespace": "evals", "values": {"a": [1]}})
    assert config.spec == str(tmp_path / "values.yaml")
    again = SandboxcoreEnvironment.config_deserialize(json.loads(config.model_dump_json()))
    assert again == config
    assert hash(again) == hash(config)
    assert len({config, again, SandboxcoreConfig()}) == 2
    spec = SandboxEnvironmentSpec("sandboxcore", config)
    assert SandboxEnvironmentSpec.model_validate(spec.model_dump()) == spec
    with pytest.raises(ValidationError, match="frozen"):
        config.backend = "local"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        SandboxcoreConfig(bakend="local")  # type: ignore[call-arg]


def test_files_that_no_log_can_hold_are_refused() -> None:
    service = {"files": {"/blob": {"content": b"\xff\xfe"}}}
    with pytest.raises(ValidationError, match="must be UTF-8 text"):
        SandboxcoreConfig.model_validate({"spec": {"services": {"default": service}}})


def test_files_beside_a_task_are_looked_for_as_inspects_own_providers_do(monkeypatch: pytest.MonkeyPatch) -> None:
    docker = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml", "Dockerfile"]
    monkeypatch.delenv("SANDBOXCORE_BACKEND", raising=False)
    assert SandboxcoreEnvironment.config_files() == docker
    monkeypatch.setenv("SANDBOXCORE_BACKEND", "helm")
    assert SandboxcoreEnvironment.config_files() == ["values.yaml", "helm-values.yaml", *docker]
    assert SandboxcoreEnvironment.is_docker_compatible()


def test_sandboxes_at_once_are_bounded_where_they_use_up_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOXCORE_BACKEND", "docker")
    assert (SandboxcoreEnvironment.default_concurrency() or 0) >= 2
    monkeypatch.setenv("SANDBOXCORE_BACKEND", "helm")
    assert SandboxcoreEnvironment.default_concurrency() is None


def test_metadata_becomes_variables_that_the_document_mentions() -> None:
    metadata = {"Mem Limit": "1g", "other": 5, "unused": "x"}
    text = "${SAMPLE_METADATA_MEM_LIMIT} ${SAMPLE_METADATA_OTHER}"
    assert _source.variables_of(text, metadata) == {"SAMPLE_METADATA_MEM_LIMIT": "1g", "SAMPLE_METADATA_OTHER": "5"}


def test_metadata_becomes_values_that_the_chart_mentions() -> None:
    values = {"image": "{{ .Values.sampleMetadataMemLimit }}"}
    spec = EnvironmentSpec(services={"default": ServiceSpec()}, options={"helm": {"values": values}})
    found = _source.for_sample(spec, SandboxcoreConfig(), "my,task", "uuid", {"mem limit": 1, "unused": 2})
    assert found.options["helm"]["per_release"] == {
        "annotations": {"inspectTaskName": "my,task"},
        "labels": {"inspectSampleUUID": "uuid"},
        "sampleMetadataMemLimit": "1",
    }
    assert found.options["helm"]["values"] == values


def test_exec_has_exactly_the_parameters_that_inspect_counts() -> None:
    assert len(inspect.signature(SandboxcoreEnvironment(None, None, None, None).exec).parameters) == 8  # type: ignore[arg-type]


# --- errors ---


def test_every_error_has_its_place_in_the_table() -> None:
    named = {getattr(errors, name) for name in errors.__all__ if isinstance(getattr(errors, name), type)}
    for cls in named - {errors.SandboxError}:
        assert any(ancestor in _errors.TABLE for ancestor in cls.__mro__), cls


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (errors.ExecTimeoutError("late"), TimeoutError, "late"),
        (errors.SandboxUserUnsupportedError("no such user"), SandboxUserUnsupportedError, "no such user"),
        (errors.GuestUnavailableError("gone"), SandboxUnavailableError, "gone .the command had not started"),
        (errors.SandboxUnavailableError("lost"), SandboxUnavailableError, "lost .the command may have started"),
        (errors.file_error(2, "f"), FileNotFoundError, "f"),
        (errors.file_error(20, "f/g"), FileNotFoundError, "f/g"),
        (errors.file_error(21, "f"), IsADirectoryError, "directory: 'f'"),
        (errors.file_error(13, "f"), PermissionError, "f"),
        (errors.file_error(30, "f"), PermissionError, "Read-only file system: 'f'"),
        (errors.file_error(28, "f"), OSError, "No space left"),
        (errors.ProvisionError("x"), ProvisionError, "x"),
    ],
)
def test_errors_become_those_that_inspect_knows(error: errors.SandboxError, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        raise _errors.inspect_error(error)


# --- commands and files ---


@local
async def test_what_a_command_wrote_before_its_timeout_is_told(sandbox: SandboxEnvironment) -> None:
    with pytest.raises(TimeoutError) as caught:
        await sandbox.exec(["sh", "-c", "echo out; echo err >&2; sleep 600"], timeout=5)
    assert getattr(caught.value, "truncated_output", None) == "out\nerr\n"


@local
async def test_limits_are_read_when_a_command_or_a_file_is(sandbox: SandboxEnvironment) -> None:
    await sandbox.write_file("big", b"x" * 5000)
    with override_sandbox_output_limit(1024):
        with pytest.raises(OutputLimitExceededError, match="limit of 1 KiB") as caught:
            await sandbox.exec(["cat", "big"])
        assert caught.value.truncated_output == "x" * 1024
        with pytest.raises(OutputLimitExceededError, match="limit of 1 KiB"):
            await sandbox.read_file("big", text=False)
    assert (await sandbox.exec(["cat", "big"])).stdout == "x" * 5000
    assert await sandbox.read_file("big") == "x" * 5000


@local
async def test_what_a_model_may_ask_for_does_not_end_its_sample(sandbox: SandboxEnvironment) -> None:
    missing = await sandbox.exec(["no-such-program"])
    assert (missing.success, missing.returncode) == (False, 127)
    nowhere = await sandbox.exec(["pwd"], cwd="/no/such/folder")
    assert (nowhere.success, nowhere.returncode) == (False, 127)
    assert "/no/such/folder" in nowhere.stderr
    with pytest.raises(ValueError, match="embedded null byte"):
        await sandbox.exec(["echo", "a\0b"])
    with pytest.raises(UnicodeDecodeError):
        await sandbox.write_file("blob", b"\xff")
        await sandbox.read_file("blob")
    await sandbox.write_file("lines", "a\r\nb\n")
    assert await sandbox.read_file("lines") == "a\r\nb\n"
    forbidden = await sandbox.exec(["sh", "-c", "touch script; ./script"])
    assert forbidden.returncode == 126  # the shell's own answer is a result, not an error


@local
async def test_a_command_whose_sample_is_cancelled_ends(sandbox: SandboxEnvironment) -> None:
    running = asyncio.create_task(sandbox.exec(["sh", "-c", "touch begun; sleep 600 # to be cancelled"]))
    await until(lambda: sandbox.exec(["test", "-e", "begun"]), lambda result: result.success)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    shown = await sandbox.exec(["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"])
    assert "to be cancelled" not in shown.stdout


# --- sessions ---


@local
async def test_samples_with_one_configuration_share_a_session(scope: SandboxLifecycleState) -> None:
    other = SandboxcoreConfig(options={"host_paths": ["/usr"]})
    await SandboxcoreEnvironment.task_init("startup", None)
    await SandboxcoreEnvironment.task_init("startup", other)
    samples = [*await asyncio.gather(*(init() for _ in range(5))), await init(other)]
    assert len(current_eval().open) == 2
    runs = {next(iter(sample.values())).as_type(SandboxcoreEnvironment).environment.ref.run_id for sample in samples}
    assert len(runs) == 2
    assert len(await existing()) == 6
    for sample in samples[:3]:
        await SandboxcoreEnvironment.sample_cleanup("task", None, sample, False)
    assert len(await existing()) == 3
    await SandboxcoreEnvironment.task_cleanup("shutdown", None, True)
    await SandboxcoreEnvironment.task_cleanup("shutdown", other, True)
    assert await existing() == []
    assert records() == []


@local
async def test_samples_that_come_together_are_provisioned_together(
    scope: SandboxLifecycleState, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    provision_many = Session.provision_many

    def counting(self: Session, sources: Any, **options: Any) -> Any:
        given = list(sources)
        batches.append(len(given))
        return provision_many(self, given, **options)

    monkeypatch.setattr(Session, "provision_many", counting)
    bad = SandboxcoreConfig(spec={"services": {"default": {"command": ["/no/such/program"]}}})
    try:
        outcomes = await asyncio.gather(*(init(bad if number == 2 else None) for number in range(6)), return_exceptions=True)
        assert [isinstance(outcome, ProvisionError) for outcome in outcomes] == [number == 2 for number in range(6)]
        assert sum(batches) == 6
        assert len(batches) < 6
        assert len(await existing()) == 5
    finally:
        await SandboxcoreEnvironment.task_cleanup("shutdown", None, True)
    assert await existing() == []


@local
@pytest.mark.parametrize("delay", [0.0, 0.05, 0.3])
async def test_a_sample_that_is_cancelled_while_it_is_made_leaves_nothing(scope: SandboxLifecycleState, delay: float) -> None:
    await SandboxcoreEnvironment.task_init("startup", None)
    making = [asyncio.create_task(init()) for _ in range(3)]
    await asyncio.sleep(delay)
    for task in making[:2]:
        task.cancel()
    outcomes = await asyncio.gather(*making, return_exceptions=True)
    assert isinstance(outcomes[2], dict)
    (shared,) = current_eval().open.values()
    kept = set(shared.tenants)
    await until(existing, lambda found: set(found) == kept)
    await SandboxcoreEnvironment.task_cleanup("shutdown", None, True)
    assert await existing() == []


@local
async def test_a_cancelled_sample_frees_its_place_at_once_and_a_failed_one_at_the_end(scope: SandboxLifecycleState) -> None:
    await SandboxcoreEnvironment.task_init("startup", None)
    cancelled, failed = await init(), await init()
    for sample, error in ((cancelled, asyncio.CancelledError()), (failed, RuntimeError("setup"))):
        try:
            raise error
        except BaseException:
            await SandboxcoreEnvironment.sample_cleanup("task", None, sample, True)
    left = next(iter(failed.values())).as_type(SandboxcoreEnvironment).environment.id
    await until(existing, lambda found: found == [left])
    await SandboxcoreEnvironment.task_cleanup("shutdown", None, True)
    assert await existing() == []


@local
async def test_a_task_that_can_not_begin_leaves_no_session(scope: SandboxLifecycleState, tmp_path: Path) -> None:
    from inspect_ai._util.error import PrerequisiteError

    file = tmp_path / "compose.yaml"
    file.write_text("services:\n  default:\n    imag: x\n")
    with pytest.raises(PrerequisiteError, match="imag") as caught:
        await SandboxcoreEnvironment.task_init("startup", str(file))
    assert isinstance(caught.value.__cause__, SpecError)
    assert current_eval().open == {}
    assert records() == []


@local
async def test_cleaning_up_leaves_what_a_living_eval_holds(
    scope: SandboxLifecycleState, capsys: pytest.CaptureFixture[str]
) -> None:
    await SandboxcoreEnvironment.task_init("startup", None)
    (sandbox,) = (await init()).values()
    name = sandbox.as_type(SandboxcoreEnvironment).environment.id
    await SandboxcoreEnvironment.cli_cleanup(None)
    assert f"left: {name}" in capsys.readouterr().out
    assert await existing() == [name]
    with pytest.raises(SystemExit):
        await SandboxcoreEnvironment.cli_cleanup("nosuchid")
    assert "no environment or run 'nosuchid'" in capsys.readouterr().out
    await SandboxcoreEnvironment.cli_cleanup(name[:6])
    assert await existing() == []
    await SandboxcoreEnvironment.task_cleanup("shutdown", None, True)


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [("lab-1", True), ("abcd", True), ("run-1", True), ("lab", False), ("run", False), ("bcde", False), (None, False)],
)
def test_environments_are_cleaned_up_by_what_they_are_called(wanted: str | None, chosen: bool) -> None:
    """``sandboxcore ls``, to which those are sent who named nothing that there is, shows names as well."""
    times = {"created_at": 0.0, "expires_at": float("inf")}
    named: dict[str, Any] = {"backend": "helm", "environment_id": "abcdefgh", "run_id": "run-1", "name": "lab-1"}
    ref = EnvironmentRef(**named, **times, owner="me@elsewhere:1", default="a", sandboxes=())
    assert _cleanup._chosen(ref, wanted) is chosen


class _Refusing:
    """A session whose backend makes equal environments together, and fails them together; alone they succeed."""

    class info:
        capabilities = frozenset(("batch",))

    def __init__(self) -> None:
        self.alone = 0

    async def provision_many(self, specs: list[Any]) -> AsyncIterator[Any]:
        from sandboxcore import ProvisionOutcome

        for index in range(len(specs)):
            yield ProvisionOutcome(index=index, error=ProvisionError("one of them failed"))

    async def provision(self, spec: Any) -> Any:
        self.alone += 1
        if spec == "bad":
            raise ProvisionError("this one failed")
        return f"environment {spec}"


async def test_one_failure_of_a_batch_is_not_that_of_the_others() -> None:
    shared = Shared(SandboxcoreConfig())
    shared.session = session = _Refusing()  # type: ignore[assignment]
    outcomes = await asyncio.gather(*(shared.provision(spec) for spec in ("a", "bad", "b")), return_exceptions=True)  # type: ignore[arg-type]
    assert outcomes[0] == "environment a"
    assert str(outcomes[1]) == "this one failed"
    assert outcomes[2] == "environment b"
    assert session.alone == 3


# --- ways in, and notes ---


def test_the_ways_into_a_sandbox_are_told() -> None:
    port = {"container_port": 80, "host_port": 8080, "address": "127.0.0.1", "protocol": "tcp"}
    ref = SandboxRef(backend="docker", environment_id="env", run_id="run", service="web", data={"id": "abc", "ports": [port]})
    found = connection_of(ref, options={"host": "unix:///x y"}, user=None)
    assert found.command.startswith(
        "sandboxcore exec -it --backend docker --config 'host=unix:///x y' --service web env -- sh -c "
    )
    assert found.vscode_command == ["remote-containers.attachToRunningContainer", "abc"]
    assert found.ports is not None
    assert found.ports[0].mappings[0].host_port == 8080
    assert connection_of(ref, options={}, user="agent").vscode_command is None
    pod = SandboxRef(backend="helm", environment_id="e", run_id="r", service="s", data={"pod": "p", "namespace": "n"})
    assert connection_of(pod, options={}, user=None).vscode_command == [
        "remote-containers.attachToK8sContainer",
        {"name": "p", "namespace": "n"},
    ]


def test_notes_hold_no_secrets() -> None:
    options = {"api_key": "hush", "domain": "d", "headers": {"Authorization": "hush"}, "proxy": "http://me:hush@proxy"}
    record = Record(backend="opensandbox", run_id="r", owner="me@here:1", options=options)
    assert record.options == {"domain": "d"}
    assert "hush" not in repr(record)


def test_an_owner_is_gone_only_if_that_is_certain() -> None:
    import os
    import socket

    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True)
    assert owner_is_gone(f"me@{socket.gethostname()}:{ended.stdout.strip()}")
    assert not owner_is_gone(f"me@{socket.gethostname()}:{os.getpid()}")
    assert not owner_is_gone(f"me@elsewhere.invalid:{ended.stdout.strip()}")
    assert not owner_is_gone("someone")
    assert _cleanup.KEPT_SECONDS > 3600


def test_nothing_else_knows_of_inspect() -> None:
    """Session and the backends are without it; and naming the adapter's package does not load it."""
    sources = [*ROOT.glob("sandboxcore/**/*.py"), *ROOT.glob("plugins/*/*/**/*.py")]
    imports = re.compile(r"^\s*(import|from) inspect_ai", re.MULTILINE)
    users = {path.relative_to(ROOT).parts[1] for path in sources if imports.search(path.read_text(encoding="utf-8"))}
    assert users == {"inspect_adapter"}
    code = "import sys, sandboxcore_inspect; sandboxcore_inspect.SandboxcoreConfig; sys.exit('inspect_ai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
