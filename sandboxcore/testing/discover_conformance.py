"""Discovery: any process finds what any other made (DISC-1 to 3)."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

from sandboxcore.errors import CapabilityError, EnvironmentNotFoundError

from ._conformance import Conformance, needs, sh, shell_free
from .target import Target, changed

if TYPE_CHECKING:
    from sandboxcore.environment import Environment, Sandbox
    from sandboxcore.session import Session
    from sandboxcore.spec import EnvironmentSpec

__all__ = ("DiscoverConformance",)


class DiscoverConformance(Conformance):
    """Finding by run, id and label; using what was found; reading its logs."""

    @shell_free
    async def test_another_session_finds_it(self, target: Target, session: Session, base_spec: EnvironmentSpec) -> None:
        """DISC-1: by run, by id, by label, by all of them; and nothing that differs in one of them."""
        word = uuid.uuid4().hex
        async with session.environment(base_spec, labels={"word": word, "other": "1"}) as environment, target.session() as other:
            here: dict[str, Any] = {"run_id": session.run_id, "environment_id": environment.id, "labels": {"word": word}}
            selections: list[dict[str, Any]] = [*({key: value} for key, value in list(here.items())[1:]), here]
            for selection in selections:
                assert [found.id for found in await other.find(**selection)] == [environment.id]
            assert environment.id in {found.id for found in await other.find(run_id=session.run_id)}
            changes: list[dict[str, Any]] = [
                {"run_id": "another-run"},
                {"environment_id": "another-id"},
                {"labels": {"word": word, "other": "2"}},
            ]
            for change in changes:
                assert await other.find(**(here | change)) == []

    @shell_free
    async def test_it_looks_the_same(self, target: Target, environment: Environment) -> None:
        """DISC-1."""
        async with target.session() as other:
            [found] = await other.find(environment_id=environment.id)
            assert (found.names, found.default.name) == (environment.names, environment.default.name)
            assert (found.ref.run_id, found.ref.created_at) == (environment.ref.run_id, environment.ref.created_at)
            assert {sandbox.state for sandbox in found.ref.sandboxes} <= {"ready", "completed"}

    @shell_free
    async def test_what_is_not_there_is_not_found(self, target: Target) -> None:
        """DISC-1."""
        async with target.session() as other:
            assert await other.find(run_id=uuid.uuid4().hex) == []
            with pytest.raises(EnvironmentNotFoundError):
                await other.attach(uuid.uuid4().hex)

    async def test_finding_takes_nothing_over(self, target: Target, environment: Environment) -> None:
        """DISC-1: a session that only found an environment leaves it when it ends."""
        async with target.session() as other:
            await other.attach(environment.id)
        assert (await environment.default.exec(["true"])).exit_code == 0

    async def test_another_process_finds_and_uses_it(
        self, target: Target, session: Session, environment: Environment, sandbox: Sandbox, scratch: str
    ) -> None:
        """DISC-1, DISC-2: commands with input, files in both directions."""
        await sandbox.write_file(f"{scratch}/for-it", "written by the first process")
        seen = await _in_another_process(
            target,
            select={"environment_id": environment.id, "run_id": session.run_id},
            argv=sh('cat; echo "$CONFORMANCE_BASE"; exit 19'),
            path=f"{scratch}/from-it",
            read=f"{scratch}/for-it",
        )
        assert seen["ids"] == [environment.id]
        assert (tuple(seen["names"]), seen["default"]) == (environment.names, environment.default.name)
        assert (seen["exit_code"], seen["stdout"]) == (19, "from another process\nof the service\n")
        assert seen["read"] == "written by the first process"
        assert await sandbox.read_file(f"{scratch}/from-it") == b"written by another process"

    async def test_two_sessions_use_it_at_once(self, target: Target, environment: Environment, sandbox: Sandbox) -> None:
        """DISC-2: neither gets in the other's way."""
        async with target.session() as other:
            same = (await other.attach(environment.id)).default
            commands = [
                one.exec(sh('cat; echo "$1"', str(number)), stdin=b"in ") for number in range(10) for one in (sandbox, same)
            ]
            results = await asyncio.gather(*commands)
        assert [result.stdout for result in results] == [b"in %d\n" % number for number in range(10) for _ in range(2)]
        assert (await sandbox.exec(["true"])).exit_code == 0

    @needs("logs")
    async def test_logs_have_what_the_service_wrote(self, target: Target, session: Session, base_spec: EnvironmentSpec) -> None:
        """DISC-3: both streams, oldest first, the last lines where only they are wanted, and on as it comes."""
        # Runtimes copy the two streams apart: what is written before the last line was seen may change places with it.
        lines = ["echo one", "echo two >&2", "echo three", "echo four"]
        script = "; ".join(
            f"{line}; until [ -e /tmp/conformance-{number} ]; do sleep 0.05; done" for number, line in enumerate(lines)
        )
        spec = changed(base_spec, entrypoint=("/bin/sh", "-c", script), command=())
        async with session.environment(spec) as environment, target.session() as other:
            same = await other.attach(environment.id)
            for number, line in enumerate((b"one\n", b"two\n")):
                await _logs(same, line)
                await environment.default.write_file(f"/tmp/conformance-{number}", b"")
            assert await _logs(same, b"three\n") == b"one\ntwo\nthree\n"
            assert b"".join([data async for data in same.logs(tail=2)]) == b"two\nthree\n"
            following = asyncio.ensure_future(_follow(same, b"four\n"))
            await environment.default.write_file("/tmp/conformance-2", b"")
            assert await following == b"one\ntwo\nthree\nfour\n"

    @shell_free
    async def test_logs_are_there_or_refused(self, session: Session, environment: Environment) -> None:
        """DISC-3."""
        if "logs" in session.info.capabilities:
            assert isinstance(b"".join([data async for data in environment.logs()]), bytes)
        else:
            with pytest.raises(CapabilityError):
                [data async for data in environment.logs()]


async def _logs(environment: Environment, end: bytes) -> bytes:
    """Read the log until the service has come so far."""
    while not (data := b"".join([data async for data in environment.logs()])).endswith(end):  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    return data


async def _follow(environment: Environment, end: bytes) -> bytes:
    data = b""
    async for more in environment.logs(follow=True):
        data += more
        if data.endswith(end):
            break
    return data


async def _in_another_process(target: Target, **order: Any) -> Mapping[str, Any]:
    """Give the order to a new interpreter with the same modules, and nothing else of this one."""
    message = json.dumps({"backend": target.backend, "config": dict(target.config)} | order).encode()
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "sandboxcore.testing._other_process",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environ,
    )
    out, err = await process.communicate(message)
    assert process.returncode == 0, err.decode(errors="replace")
    seen: Mapping[str, Any] = json.loads(out)
    return seen
