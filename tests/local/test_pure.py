"""The parts that decide without touching anything."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from sandboxcore.local import _ids, _logs
from sandboxcore.local._explain import explain
from sandboxcore.local._health import Schedule, probe_argv
from sandboxcore.local._launch import Process
from sandboxcore.local._logs import follow_log, tail_log
from sandboxcore.local._networks import hosts_file, plan_networks
from sandboxcore.local._plan import command, host_name
from sandboxcore.local._rights import capability_mask
from sandboxcore.local._status import parse_status
from sandboxcore.local._tree import ImageConfig, resolve_inside
from sandboxcore.spec import EnvironmentSpec, Healthcheck, NetworkSpec, ServiceSpec


@pytest.mark.parametrize(
    ("entrypoint", "arguments", "expected"),
    [
        (None, None, ("e", "c")),
        (None, ("x",), ("e", "x")),
        (None, (), ("e",)),
        (("y",), None, ("y",)),
        (("y",), ("x",), ("y", "x")),
        ((), ("x",), ("x",)),
    ],
)
def test_commands_follow_oci(
    entrypoint: tuple[str, ...] | None, arguments: tuple[str, ...] | None, expected: tuple[str, ...]
) -> None:
    image = ImageConfig(entrypoint=("e",), command=("c",))
    assert command(ServiceSpec(entrypoint=entrypoint, command=arguments), image) == expected


def test_image_configurations_are_read() -> None:
    document = {
        "config": {
            "Env": ["A=1=2", "B="],
            "Entrypoint": None,
            "Cmd": ["x"],
            "User": "",
            "WorkingDir": "/w",
            "Healthcheck": {"Test": ["CMD", "t"], "Interval": 2_000_000_000, "Timeout": 0, "Retries": 5},
        }
    }
    image = ImageConfig.from_oci(document)
    assert (image.env, image.entrypoint, image.command) == ((("A", "1=2"), ("B", "")), (), ("x",))
    assert (image.user, image.working_dir) == (None, "/w")
    assert image.healthcheck == Healthcheck(test=("CMD", "t"), interval=2, retries=5)
    assert ImageConfig.from_oci({}) == ImageConfig()


@pytest.mark.parametrize(
    ("lines", "state", "code"),
    [
        ([], "waiting", None),
        (["ready\n"], "waiting", None),
        (["ready\n", "start 3\n"], "running", None),
        (["start 3\n", "exit 0 0 0\n"], "ended", 0),
        (["start 3\n", "exit 137 9 2\n"], "ended", 137),
        (["start 3\n", "exit 13"], "running", None),
        (["failed 2 4\n"], "failed", 127),
        (["failed 13 4\n"], "failed", 126),
    ],
)
def test_status_files(lines: list[str], state: str, code: int | None) -> None:
    status = parse_status(lines)
    assert (status.state, status.exit_code) == (state, code)


def play(check: Healthcheck, takes: float, until: float) -> tuple[list[float], float | None]:
    """Let every probe fail after so many seconds; return when they began and when it was unhealthy."""
    now, began, schedule = 0.0, [], Schedule.of(check)
    while now < until:
        began.append(now)
        start, now = now, now + takes
        schedule = schedule.after_failure(start)
        if schedule.unhealthy:
            return began, now
        now = schedule.next_look(now)
    return began, None


def test_health_is_looked_for_early_but_only_docker_times_count() -> None:
    began, unhealthy = play(Healthcheck(test=("x",), interval=30, retries=3), 0.0, 1000)
    assert began[0] == 0.0
    assert sum(at < 2 for at in began) >= 4
    assert unhealthy == pytest.approx(90, abs=1)


def test_failures_in_the_start_period_do_not_count() -> None:
    began, unhealthy = play(Healthcheck(test=("x",), interval=10, retries=2, start_period=60, start_interval=1), 0.0, 1000)
    assert unhealthy == pytest.approx(70, abs=11)
    assert all(later - earlier <= 10.01 for earlier, later in pairwise(began))


def test_no_retries_is_one() -> None:
    assert play(Healthcheck(test=("x",), interval=1, retries=0), 0.0, 100)[1] == pytest.approx(1, abs=0.5)


def test_slow_probes_end_too() -> None:
    assert play(Healthcheck(test=("x",), interval=1, retries=3), 5.0, 1000)[1] is not None


@pytest.mark.parametrize(
    ("test", "argv"),
    [
        (("NONE",), None),
        (("CMD", "a", "b"), ("a", "b")),
        (("CMD-SHELL", "a | b"), ("/bin/sh", "-c", "a | b")),
        (("a", "b"), ("a", "b")),
    ],
)
def test_forms_of_healthchecks(test: tuple[str, ...], argv: tuple[str, ...] | None) -> None:
    assert probe_argv(test) == argv


def test_networks_become_groups() -> None:
    services = {
        "a": ServiceSpec(networks={"n": ("one",)}),
        "b": ServiceSpec(networks={"n": (), "m": ("two",)}, hostname="bee"),
        "c": ServiceSpec(networks=None),
        "d": ServiceSpec(networks={"o": ()}, network_policy={"internet": True}),
        "e": ServiceSpec(networks={}),
    }
    spec = EnvironmentSpec(services=services, networks={name: NetworkSpec() for name in "nmo"})
    plan = plan_networks(spec)
    assert plan.groups["a"] == plan.groups["b"]
    assert plan.groups["d"] == -1
    assert len({plan.groups[name] for name in "ace"}) == 3
    assert plan.count == 3
    assert plan.siblings("a") == ("b",)
    assert "127.0.1.2 b bee\n" in hosts_file(spec, plan, "a")
    assert "two" not in hosts_file(spec, plan, "a")
    assert "127.0.1.1 a one\n" in hosts_file(spec, plan, "b")


def test_addresses_are_distinct_for_many() -> None:
    plan = plan_networks(EnvironmentSpec(services={f"s{index}": ServiceSpec(networks=None) for index in range(600)}))
    assert len(set(plan.addresses.values())) == 600


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a/x", "/a/x"),
        ("/link/x", "/a/x"),
        ("/absolute/x", "/a/x"),
        ("/up/x", "/x"),
        ("/missing/x", "/missing/x"),
        ("/a/../../../etc", "/etc"),
    ],
)
def test_links_stay_in_the_tree(tmp_path: Path, path: str, expected: str) -> None:
    (tmp_path / "a").mkdir()
    for name, target in (("link", "a"), ("absolute", "/a"), ("up", "../../../..")):
        (tmp_path / name).symlink_to(target)
    assert resolve_inside(tmp_path, path) == expected


def test_a_circle_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to("x")
    resolve_inside(tmp_path, "/x/y")


def test_capabilities_by_name() -> None:
    assert capability_mask(("CHOWN",), ("cap_sys_admin",)) == 1 | 1 << 21
    assert capability_mask(("CHOWN", "KILL"), (), ("ALL",)) == 0
    assert capability_mask((), ("ALL",)) == (1 << 41) - 1


def test_host_names() -> None:
    assert host_name("target_env") == "target_env"
    assert host_name("a/b ü") == "a-b--"
    assert len(host_name("x" * 100)) == 63


@pytest.mark.parametrize("text", ["", "1", "1 x", "-1 2", "1 2 3"])
def test_what_is_no_process_is_none(text: str) -> None:
    assert Process.parse(text) is None


def test_a_process_is_not_another_with_its_pid() -> None:
    assert not Process(pid=os.getpid(), started=1).alive()
    assert Process(pid=os.getpid(), started=1).open() is None


def test_subordinate_ids_are_read(tmp_path: Path) -> None:
    path = tmp_path / "subuid"
    path.write_text("other:1:70000\n1234:100000:65536\n1234:1:5\nbroken\n")
    assert _ids._subordinate(str(path), 1234) == (100000, 65536)
    assert _ids._subordinate(str(path), 99) is None
    assert _ids._subordinate(str(tmp_path / "missing"), 1234) is None


def test_ids_need_the_capabilities_and_the_room() -> None:
    assert _ids._has_capabilities("CapEff:\t000001ffffffffff\n")
    assert not _ids._has_capabilities("CapEff:\t00000000a80425fb\n")
    assert _ids._covers("0 0 4294967295\n")
    assert not _ids._covers("0 1000 1\n1 100000 65536\n")


@pytest.mark.parametrize(
    ("errors", "words", "hint"),
    [
        ("launcher: userns: Operation not permitted (errno 1)", "user namespace", "seccomp|sysctl"),
        ("launcher: userns: No space left on device (errno 28)", "user namespace", ""),
        ("launcher: holder: No such process (errno 3)", "destroyed meanwhile", ""),
        ("bwrap: Can't mount proc on /newroot/proc: Operation not permitted", "proc", "systempaths"),
        ("bwrap: Can't make overlay mount on /newroot/: Invalid argument", "overlay", "SANDBOXCORE_STATE_DIR"),
        ("", "without a word", ""),
    ],
)
def test_messages_come_with_a_way_out(errors: str, words: str, hint: str) -> None:
    import re

    message, found = explain(errors)
    assert words in message
    assert re.search(hint, found or "")


def test_a_log_is_followed_from_where_it_was_read_to(tmp_path: Path) -> None:
    """However long it takes until the next part is asked for, and though the log is begun anew meanwhile."""
    log = tmp_path / "log"

    async def parts(*between: Callable[[], object], lines: int | None) -> list[bytes]:
        log.write_bytes(b"one\ntwo\n")
        (tmp_path / "log.old").write_bytes(b"")
        following = follow_log(tmp_path, lines)
        found = [await anext(following)]
        for step in between:
            step()
        return found + [data async for data in following]

    def more(data: bytes) -> None:
        with log.open("ab") as file:
            file.write(data)

    def rotate() -> None:
        (tmp_path / "log.old").write_bytes(log.read_bytes())
        log.write_bytes(b"")

    three, more_than_read = partial(more, b"three\n"), partial(more, b"4444 5555\n")
    assert asyncio.run(parts(three, lines=None)) == [b"one\ntwo\n", b"three\n"]
    assert asyncio.run(parts(three, lines=1)) == [b"two\n", b"three\n"]
    assert asyncio.run(parts(three, rotate, lines=1)) == [b"two\n", b"three\n"]
    assert asyncio.run(parts(three, rotate, partial(more, b"4\n"), lines=1)) == [b"two\n", b"three\n", b"4\n"]
    assert asyncio.run(parts(three, rotate, more_than_read, lines=1)) == [b"two\n", b"three\n", b"4444 5555\n"]
    assert asyncio.run(parts(rotate, partial(more, b"3\n"), lines=1)) == [b"two\n", b"3\n"]


def test_a_log_is_read_whole_while_it_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, old = tmp_path / "log", tmp_path / "log.old"
    log.write_bytes(b"one\n")

    def read(path: Path) -> bytes:
        data = content(path)
        if path == old and log.read_bytes() == b"one\n":
            old.write_bytes(b"one\n")
            log.write_bytes(b"two\n")
        return data

    content = _logs._content
    monkeypatch.setattr(_logs, "_content", read)
    assert tail_log(tmp_path, None) == [b"one\n", b"two\n"]
