"""Whatever happens to a secret in a sandbox, nobody who watches ever sees it: events, spans, metrics, logs, errors."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from observers import Heard

from sandboxcore import Event, ExecRequest, Session, hookimpl
from sandboxcore.environment import Environment, Sandbox

pytestmark = pytest.mark.tier("local")

SERVICE_ENV = "marker-service-env"
COMMAND_ENV = "marker-command-env"
STDIN = "marker-stdin"
CONTENT = "marker-content"
ARGUMENT = "marker-argument"
OUTPUT = "marker-output"
MARKERS = (SERVICE_ENV, COMMAND_ENV, STDIN, CONTENT, ARGUMENT, OUTPUT)
ENV = {"TOKEN": COMMAND_ENV}
#: Says its output without the word being an argument, so that each marker has one way in.
SAY = ["sh", "-c", f"printf 'marker-%s' output; : {ARGUMENT}"]


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Everything at DEBUG, asyncio's own debugging included."""
    names = [None, *(name for name in logging.root.manager.loggerDict if name.startswith(("sandboxcore", "asyncio")))]
    for name in names:
        caplog.set_level(logging.DEBUG, logger=name)
    return caplog


class Broken:
    """An observer whose failure is logged, with whatever the core says of it."""

    @hookimpl
    def sandboxcore_event(self, event: Event) -> None:
        if event.name == "exec.start":
            raise RuntimeError("an observer's own trouble")


async def trouble(call: Callable[[], Awaitable[object]]) -> BaseException | None:
    try:
        await call()
    except Exception as error:
        return error
    return None


def ways_to_fail(sandbox: Sandbox) -> dict[str, Callable[[], Awaitable[object]]]:
    """Name everything that goes wrong with a command or a file, each with secrets in all places that take one."""

    def run(argv: list[str], **options: Any) -> Callable[[], Awaitable[object]]:
        return lambda: sandbox.exec([*argv, ARGUMENT], **{"env": ENV, "stdin": STDIN, **options})

    return {
        "timeout": run(["sh", "-c", "printf 'marker-%s' output; sleep 9"], timeout=0.1),
        "output limit": run(["sh", "-c", "while printf 'marker-%s' output; do :; done"], output_limit_bytes=1000),
        "no such folder": run(["true"], cwd="/nowhere"),
        "no such user": run(["true"], user="nobody-of-that-name"),
        "NUL in argv": run(["a\0b"]),
        "NUL in env": run(["true"], env={"TOKEN": f"{COMMAND_ENV}\0"}),
        "no name in env": run(["true"], env={"": COMMAND_ENV}),
        "wrong type in env": run(["true"], env={"TOKEN": [COMMAND_ENV]}),
        "wrong type of stdin": run(["true"], stdin=[STDIN]),
        "argv as a line": lambda: sandbox.exec(f"echo {ARGUMENT}", env=ENV),
        "no timeout": run(["true"], timeout=-1),
        "a folder in the way": lambda: sandbox.write_file("/tmp", CONTENT),
        "a device that is full": lambda: sandbox.write_file("/dev/full", CONTENT),
        "NUL in a path": lambda: sandbox.write_file("/tmp/\0", CONTENT),
        "content of a wrong type": lambda: sandbox.write_file("/tmp/x", [CONTENT]),  # type: ignore[arg-type]
        "broken pipe": lambda: _broken_pipe(sandbox),
    }


async def _broken_pipe(sandbox: Sandbox) -> None:
    async with sandbox.start(["sh", "-c", "exec <&-; sleep 9", ARGUMENT], env=ENV) as process:
        while True:
            await process.stdin.write(STDIN * 10_000)


async def use(sandbox: Sandbox) -> None:
    """Do everything with secrets that goes well."""
    result = await sandbox.exec([*SAY], env=ENV, stdin=STDIN)
    assert result.text() == OUTPUT
    result = await sandbox.exec(["sh", "-c", 'cat; printf %s "$TOKEN$SERVICE"'], env=ENV, stdin=STDIN)
    assert result.text() == STDIN + COMMAND_ENV + SERVICE_ENV, "the secrets are where they belong"
    assert (await sandbox.exec(["no-such-program", ARGUMENT], env=ENV)).exit_code == 127
    async with sandbox.start(["cat"], env=ENV, stdin=STDIN) as process:
        assert (await process.communicate(STDIN)).text() == 2 * STDIN
    async with sandbox.start(["cat", "-", ARGUMENT], env=ENV, pty=True) as process:
        await process.stdin.write(STDIN)
    await sandbox.write_file("f", CONTENT)
    assert await sandbox.read_file("f") == CONTENT.encode()
    async with await sandbox.open_write("g") as writer:
        await writer.write(CONTENT.encode())
    async with await sandbox.open_read("g") as reader:
        assert await reader.read() == CONTENT.encode()


async def die(env: Environment) -> BaseException | None:
    """Kill the sandbox below a running command."""
    running = asyncio.ensure_future(env.default.exec(["sleep", "60", ARGUMENT], env=ENV, stdin=STDIN))
    await asyncio.sleep(0.2)
    await env.destroy()
    return await trouble(lambda: running)


def seen_of(error: BaseException) -> str:
    """All that a program or a log would show of an error."""
    shown = [str(error), repr(error), *traceback.format_exception(error)]
    return "\n".join([*shown, *getattr(error, "__notes__", []), str(getattr(error, "hint", ""))])


def assert_clean(where: str, text: str) -> None:
    found = [marker for marker in MARKERS if marker in text]
    assert not found, f"{where} shows {found}: {text[:2000]}"


async def test_secrets_never_show(open_session: Callable[..., Session], heard: Heard, logged: pytest.LogCaptureFixture) -> None:
    asyncio.get_running_loop().set_debug(True)
    spec = {"services": {"default": {"env": {"SERVICE": SERVICE_ENV}, "command": ["sleep", "600"], "working_dir": "/tmp"}}}
    failures: dict[str, BaseException | None] = {}
    async with open_session(Broken()) as session, session.environment(spec) as env:
        await use(env.default)
        for name, call in ways_to_fail(env.default).items():
            failures[name] = await trouble(call)
        failures["the sandbox died"] = await die(env)
    missing = [name for name, error in failures.items() if error is None]
    assert missing in ([], ["the sandbox died"]), "each way to fail fails, or the test shows nothing"

    for name, error in failures.items():
        if error is not None:
            assert_clean(f"the error of {name!r}", seen_of(error))
    assert len(heard.events) > 40
    for event in heard.events:
        assert_clean(f"event {event.name}", repr(event))
    spans = heard.spans.get_finished_spans()
    assert len(spans) > 20
    for span in spans:
        assert_clean(f"span {span.name}", span.to_json())
    assert_clean("the metrics", str(heard.metrics.get_metrics_data()))
    assert any(record.exc_info for record in logged.records), "the observer's failure was logged, and this test listens"
    assert_clean("the log", logged.text)
    for record in logged.records:
        assert_clean("a log record", f"{record.getMessage()} {record.args!r}")


async def test_secrets_in_a_spec_never_show(
    open_session: Callable[..., Session], heard: Heard, logged: pytest.LogCaptureFixture
) -> None:
    wrong: list[dict[str, Any]] = [
        {"env": {"TOKEN": [SERVICE_ENV]}},
        {"env": [f"TOKEN={SERVICE_ENV}"]},
        {"env": {"A=B": SERVICE_ENV}},
        {"env": {"TOKEN": SERVICE_ENV}, "commnd": ["true"]},
        {"env": {"TOKEN": SERVICE_ENV}, "command": ["sh", "-c", "exit 3"]},
        {"env": {"TOKEN": SERVICE_ENV}, "command": ["/no/such/program"]},
        {"env": {"TOKEN": SERVICE_ENV}, "working_dir": "relative"},
        {"env": {"TOKEN": SERVICE_ENV}, "user": "nobody-of-that-name", "command": ["sleep", "9"]},
    ]
    async with open_session() as session:
        for service in wrong:
            error = await trouble(lambda service=service: session.provision({"services": {"default": service}}))  # type: ignore[misc]
            if error is not None:
                assert_clean(f"the error of {sorted(service)}", seen_of(error))
    assert any(event.name == "environment.provision.failed" for event in heard.events)
    assert_clean("an event", repr(heard.events))
    assert_clean("the spans", "".join(span.to_json() for span in heard.spans.get_finished_spans()))
    assert_clean("the log", logged.text)


def test_values_that_hold_secrets_do_not_show_them() -> None:
    request = ExecRequest(argv=["true"], env=ENV, stdin=STDIN.encode())
    assert_clean("repr of a request", repr(request))


def test_the_check_can_fail() -> None:
    with pytest.raises(AssertionError, match="marker-stdin"):
        assert_clean("this", f"... {STDIN} ...")
