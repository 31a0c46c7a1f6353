"""Causes: in the first line, as soon as they are certain, and nothing is left."""

from __future__ import annotations

import contextlib
import random
import socket
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from sandboxcore import Session
from sandboxcore.errors import ProvisionError, SandboxError, ServiceFailedError, UsageError

from .conftest import BUSYBOX, Leftovers, Opener, one, several

pytestmark = pytest.mark.timeout(400)

ONLINE = {"network_policy": {"internet": True}}
OOM = "x=a; while :; do x=$x$x$x; done"

NEVER = {"healthcheck": {"test": ["CMD", "false"], "interval": 0.1, "timeout": 10, "retries": 9999}}

CAUSES: dict[str, tuple[dict[str, Any], str]] = {
    "no-image": ({"image": "sandboxcore.test/nope:1", "pull_policy": "never"}, r"'sandboxcore.test/nope:1' is not on the engine"),
    "not-pulled": ({"image": "registry.invalid/nope:1"}, r"image 'registry.invalid/nope:1' can't be pulled: the registry"),
    "bad-name": ({"image": "Not A Name"}, r"image 'Not A Name': that is no legal name"),
    "no-command": ({"command": ["/no/such"]}, r"its command can't be started: /no/such: no such file"),
    "no-command-of-init": ({"command": ["/no/such"], "init": True}, r"its command can't be started: /no/such: no such file"),
    "no-user": ({"user": "nobody-here"}, r"no user 'nobody-here'|no matching entries"),
    "no-runtime": ({"runtime": "nope"}, r"no runtime nope"),
    "no-device": ({"options": {"docker": {"devices": ["/dev/nope"]}}}, r"no /dev/nope"),
    "bad-capability": ({"cap_add": ["NOPE"]}, r"CAP_NOPE"),
    "exited": ({"command": ["/bin/sh", "-c", "echo last-words; sleep 0.2; exit 43"], **NEVER}, r"ended with exit code 43"),
    "completed": ({"command": ["/bin/true"], **NEVER}, r"ended with exit code 0"),
    "oom": (
        {"command": ["/bin/sh", "-c", OOM], "resources": {"memory_bytes": 16 << 20}, **NEVER},
        # On a machine with much to do an engine may not tell why a container was killed.
        r"killed: out of memory \(limit 16 MiB\)|exit code 137",
    ),
    "unhealthy": (
        {"healthcheck": {"test": ["CMD-SHELL", "echo the-check-said; exit 3"], "interval": 0.1, "timeout": 10, "retries": 2}},
        r"unhealthy: .*exit code 3: the-check-said",
    ),
}


@pytest.mark.parametrize("cause", CAUSES)
async def test_the_first_line_has_the_cause(opened: Opener, leftovers: Leftovers, cause: str) -> None:
    service, words = CAUSES[cause]
    async with opened() as session:
        with pytest.raises(ProvisionError, match=words) as caught:
            await session.provision(several(fine={}, broken=service) | {"default": "broken"})
        first = str(caught.value).splitlines()[0]
        assert "'broken'" in first or "image" in first
        if cause in ("exited", "completed", "oom", "unhealthy"):
            assert isinstance(caught.value, ServiceFailedError)
            assert caught.value.service == "broken"
        if cause == "exited":
            assert "last-words" in str(caught.value)
        assert await leftovers(session.run_id) == []


def listener_below_the_ephemeral() -> socket.socket:
    """Listen on a port that no outgoing connection gets by chance once it is free again."""
    for _ in range(100):
        with contextlib.suppress(OSError):
            return socket.create_server(("127.0.0.1", random.randrange(20000, 30000)))
    raise OSError("no port is free")


async def test_a_port_that_is_taken_is_named(session: Session) -> None:
    with listener_below_the_ephemeral() as listener:
        port = listener.getsockname()[1]
        ports = [{"container_port": 80, "host_port": port, "host_address": "127.0.0.1"}]
        with pytest.raises(ProvisionError, match=f"port {port} of the engine's machine is in use"):
            await session.provision(one(ports=ports, **ONLINE))
    async with session.environment(one(ports=ports, **ONLINE)):
        with pytest.raises(ProvisionError, match=f"port {port} of the engine's machine is taken by another container"):
            await session.provision(one(ports=ports, **ONLINE))


async def test_an_engine_that_does_not_answer_is_named_with_what_to_do(tmp_path: Path) -> None:
    cases: list[tuple[str, str]] = [(f"unix://{tmp_path}/none.sock", "there is no such socket")]
    dead = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(dead))
    assert stat.S_ISSOCK(dead.stat().st_mode)
    cases.append((f"unix://{dead}", "nobody listens"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    cases.append((f"tcp://127.0.0.1:{port}", "nobody listens"))
    for url, words in cases:
        async with Session("docker", config={"host": url}) as session:
            for work in (session.provision(one()), session.find()):
                with pytest.raises(SandboxError) as caught:
                    await work
                assert url in str(caught.value).splitlines()[0]
                assert words in str(caught.value)
                assert caught.value.hint
            assert [finding.status for finding in await session.doctor()] == ["error"]


async def test_time_that_runs_out_names_who_is_waited_for(opened: Opener, leftovers: Leftovers) -> None:
    check = {"test": ["CMD", "false"], "interval": 0.5, "retries": 9999}
    spec = several(default={"depends_on": {"db": {"condition": "healthy"}}}, db={"healthcheck": check})
    async with opened() as session:
        begin = time.monotonic()
        await (await session.provision(one())).destroy()
        took = time.monotonic() - begin
    async with opened(timeout=20 + 5 * took) as session:
        begin = time.monotonic()
        with pytest.raises(TimeoutError, match=r"'default' for 'db' to be healthy.*'db' to be healthy"):
            await session.provision(spec)
        assert time.monotonic() - begin < 90 + 5 * took
        assert await leftovers(session.run_id) == []


async def test_no_image_at_all_is_bad_input_unless_there_is_a_default(opened: Opener) -> None:
    async with opened() as session:
        with pytest.raises(UsageError, match=r"services\.default\.image") as caught:
            await session.provision()
        assert "default_image" in (caught.value.hint or "")
    async with opened({"default_image": BUSYBOX}) as session, session.environment() as environment:
        assert (await environment.default.exec(["true"])).ok
        assert [entry.key for entry in environment.report.entries] == ["services.default.image"]
