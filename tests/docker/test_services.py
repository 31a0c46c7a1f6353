"""What becomes of a spec on a real engine: networks, volumes, files, limits, users, order."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from sandboxcore_docker._engine import Engine

from sandboxcore import Session
from sandboxcore.environment import Environment
from sandboxcore.errors import ProvisionError, SandboxFileError
from sandboxcore.values import Event

from .conftest import BINARY, BUSYBOX, DEBIAN, NONROOT, STAYS, Leftovers, Opener, listens, one, output, several

pytestmark = pytest.mark.timeout(400)

CHECK = {"test": ["CMD", "test", "-e", "/tmp/up"], "interval": 0.2, "timeout": 10, "retries": 1000}


async def inspect(engine: Engine, environment: Environment, service: str | None = None) -> Mapping[str, Any]:
    sandbox = environment.default if service is None else environment[service]
    found: Mapping[str, Any] = await engine.call("GET", f"/containers/{sandbox.ref.data['id']}/json")
    return found


async def reaches(environment: Environment, source: str, name: str, *, serving: str = "") -> bool:
    """Try to connect; who serves is ready for it where it is named."""
    if serving:
        await listens(environment, serving)
    result = await environment[source].exec(["/bin/sh", "-c", f"echo | nc -w 3 {name} 7000"], timeout=30)
    return b"served" in result.stdout


async def test_siblings_meet_on_shared_networks_only_and_by_every_name(session: Session, engine: Engine) -> None:
    serving = ["/bin/sh", "-c", "while :; do echo served | nc -l -p 7000; done"]
    spec = several(
        web={"networks": {"front": ["other-name"], "back": []}, "aliases": ["www"], "hostname": "web-host", "command": serving},
        Odd_Name={"networks": {"front": []}, "network_policy": {"internet": True}},
        db={"networks": {"back": []}, "command": serving},
        apart={"networks": None},
        alone={"networks": {"single": []}, "aliases": ["myself"], "command": serving},
    )
    spec["networks"] = {"front": {}, "back": {}, "single": {}}
    async with session.environment(spec) as environment:
        for name in ("web", "www", "other-name", "web-host"):
            assert await reaches(environment, "Odd_Name", name, serving="web"), name
        assert await reaches(environment, "web", "db", serving="db")
        assert await reaches(environment, "db", "web", serving="web")
        assert await reaches(environment, "alone", "myself", serving="alone")
        assert not await reaches(environment, "Odd_Name", "db")
        for other in ("web", "alone"):
            assert not await reaches(environment, "apart", other)
        assert await output(environment, "hostname", "web") == "web-host"
        assert "eth0" not in await output(environment, "cat /proc/net/dev", "apart")
        # Only who may use the internet has a way out, and no sibling is on it.
        networks = await engine.find("networks", [f"sandboxcore.dev/environment-id={environment.id}"])
        assert sorted(network["Internal"] for network in networks) == [False, True, True]
        way_out = next(network["Name"] for network in networks if not network["Internal"])
        attached = {name: (await inspect(engine, environment, name))["NetworkSettings"]["Networks"] for name in environment.names}
        assert [name for name, found in attached.items() if way_out in found] == ["Odd_Name"]


async def test_who_has_no_way_out_does_not_reach_the_engines_machine_either(session: Session, engine: Engine) -> None:
    listener = socket.create_server(("0.0.0.0", 0))
    port = listener.getsockname()[1]
    with listener:
        async with session.environment(several(default={}, other={})) as environment:
            network = (await engine.find("networks", [f"sandboxcore.dev/environment-id={environment.id}"]))[0]
            gateway = (await engine.call("GET", f"/networks/{network['Id']}"))["IPAM"]["Config"][0]
            address = gateway.get("Gateway") or str(next(iter(__import__("ipaddress").ip_network(gateway["Subnet"]).hosts())))
            tried = await environment.default.exec(["/bin/sh", "-c", f"nc -w 4 {address} {port} </dev/null"], timeout=30)
            assert not tried.ok
            looked = await environment.default.exec(["/bin/sh", "-c", "nslookup sandboxcore.example"], timeout=30)
            assert not looked.ok


async def test_two_environments_never_see_each_other(session: Session) -> None:
    serving = {"command": ["/bin/sh", "-c", "while :; do echo served | nc -l -p 7000; done"]}
    spec = several(default={}, web={**serving, "network_policy": {"internet": True}})
    async with session.environment(spec) as first, session.environment(spec) as second:
        address = (await output(second, "hostname -i", "web")).split()[0]
        assert await reaches(first, "default", "web", serving="web")
        await listens(second, "web")
        mine = (await output(first, "hostname -i", "web")).split()
        assert address not in mine
        assert not await reaches(first, "default", address)
        # Nor over the machine that both may reach.
        assert not await reaches(first, "web", address)


async def test_files_are_there_before_the_command_and_belong_to_whom_they_should(session: Session, tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "host-file").write_text("of this machine")
    files = {
        "/etc/app/conf": {"content": b"secret words", "mode": 0o640, "uid": 1000, "gid": 7},
        "/data/file": {"content": b"on the volume"},
        "/etc/fixed": {"content": b"fixed", "mode": 0o666, "read_only": True},
    }
    volumes: list[dict[str, Any]] = [
        {"source": "shared", "target": "/data"},
        {"source": "parts", "target": "/part", "subpath": "a/b"},
        {"target": "/anonymous"},
        {"type": "tmpfs", "target": "/small", "size_bytes": 65536, "mode": 0o700},
        {"type": "bind", "source": str(tmp_path), "target": "/host", "read_only": True, "subpath": "inside"},
        {"type": "bind", "source": str(tmp_path / "made" / "new"), "target": "/new", "create": True},
    ]
    script = "cat /etc/app/conf > /tmp/seen; : > /tmp/up; exec sleep 300"
    first = {"files": files, "volumes": volumes, "command": ["/bin/sh", "-c", script], "healthcheck": CHECK}
    second = {"volumes": [{**volumes[0], "read_only": True}, {**volumes[1], "target": "/same"}]}
    spec = several(default=first, other=second) | {"volumes": {"shared": {}, "parts": {}}}
    async with session.environment(spec) as environment:
        assert await output(environment, "cat /tmp/seen") == "secret words"
        assert await output(environment, "stat -c '%a %u %g' /etc/app/conf") == "640 1000 7"
        assert await output(environment, "stat -c %a /etc/fixed") == "444"
        assert await output(environment, "cat /data/file", "other") == "on the volume"
        with pytest.raises(SandboxFileError):
            await environment["other"].write_file("/data/more", b"")
        await environment.default.write_file("/part/of", b"the part")
        assert await environment["other"].read_file("/same/of") == b"the part"
        await environment.default.write_file("/anonymous/file", b"")
        assert await output(environment, "stat -c %a /small; df -k /small | tail -n 1 | awk '{print $2}'") == "700\n64"
        assert await output(environment, "cat /host/host-file") == "of this machine"
        assert not (await environment.default.exec(["touch", "/host/no"])).ok
        await environment.default.write_file("/new/file", b"back")
    assert (tmp_path / "made" / "new" / "file").read_bytes() == b"back"


async def test_a_read_only_tree_takes_files_too_and_leaves_no_image(opened: Opener, leftovers: Leftovers) -> None:
    spec = one(read_only=True, files={"/etc/app/conf": {"content": b"words", "mode": 0o604}}, env={"MARK": "m4rk"})
    async with opened() as session:
        async with session.environment(spec) as environment:
            assert await output(environment, "stat -c %a /etc/app/conf; cat /etc/app/conf; echo $MARK") == "604\nwordsm4rk"
            assert not (await environment.default.exec(["touch", "/etc/x"])).ok
            assert any(thing.startswith("images") for thing in await leftovers(session.run_id))
        assert await leftovers(session.run_id) == []


async def test_an_external_volume_is_used_and_kept(session: Session, engine: Engine) -> None:
    name = f"sandboxcore-test-{uuid.uuid4().hex[:8]}"
    spec = one(volumes=[{"source": name, "target": "/kept"}]) | {"volumes": {name: {"external": True}}}
    with pytest.raises(ProvisionError, match=f"{name}.*external"):
        await session.provision(spec)
    await engine.call("POST", "/volumes/create", json_body={"Name": name})
    try:
        async with session.environment(spec) as environment:
            await environment.default.write_file("/kept/file", b"stays")
        async with session.environment(spec) as environment:
            assert await environment.default.read_file("/kept/file") == b"stays"
    finally:
        await engine.call("DELETE", f"/volumes/{name}")


async def test_limits_and_rights_are_the_engines(session: Session, engine: Engine) -> None:
    spec = one(
        resources={
            "cpus": 0.5,
            "memory_bytes": 64 << 20,
            "memory_request_bytes": 32 << 20,
            "cpus_request": 0.25,
            "pids": 99,
            "shm_bytes": 8 << 20,
            "ulimits": {"nofile": (1234, 2345)},
        },
        cap_drop=["ALL"],
        cap_add=["NET_ADMIN"],
        security_opt=["no-new-privileges"],
        sysctls={"net.ipv4.ip_unprivileged_port_start": "77"},
        init=True,
        labels={"mine": "label"},
        extra_hosts={"far": ["192.0.2.7"]},
        stop_signal="SIGINT",
        env={"GREETING": "hello world"},
        working_dir="/var/there",
        options={"docker": {"devices": ["/dev/null:/dev/mine:r"]}},
    )
    async with session.environment(spec) as environment:
        assert (
            await output(environment, "ulimit -n; ulimit -Hn; cat /proc/sys/net/ipv4/ip_unprivileged_port_start")
            == "1234\n2345\n77"
        )
        assert (
            await output(environment, "grep -E 'CapEff|NoNewPrivs' /proc/self/status")
            == "CapEff:\t0000000000001000\nNoNewPrivs:\t1"
        )
        assert await output(environment, "grep far /etc/hosts; echo $GREETING; pwd") == "192.0.2.7\tfar\nhello world\n/var/there"
        assert await output(environment, "test -c /dev/mine; df -k /dev/shm | tail -n 1 | awk '{print $2}'") == "8192"
        found = await inspect(engine, environment)
        host = found["HostConfig"]
        assert (host["NanoCpus"], host["CpuShares"], host["PidsLimit"]) == (500_000_000, 256, 99)
        assert (host["Memory"], host["MemorySwap"], host["MemoryReservation"]) == (64 << 20, 64 << 20, 32 << 20)
        assert host["Init"]
        labels = found["Config"]["Labels"]
        assert labels["mine"] == "label"
        assert {name for name in labels if name.startswith("sandboxcore.dev/")} >= {
            f"sandboxcore.dev/{name}" for name in ("run-id", "environment-id", "owner", "service", "created-at", "expires-at")
        }


async def test_commands_run_as_the_services_user_and_as_any_other(session: Session) -> None:
    spec = several(
        default={"image": NONROOT, "env": {"HOME": "/somewhere"}, "volumes": [{"target": "/mine"}]},
        plain={"image": NONROOT},
        named={"user": "agent"},
        locked={"user": "1000", "cap_drop": ["ALL"]},
        grouped={"user": "1000", "groups": ["7"]},
    )
    async with session.environment(spec) as environment:
        assert await output(environment, "id -u; echo $HOME; touch /mine/file") == "1000\n/somewhere"
        assert await output(environment, "id -u; echo $HOME; pwd", "plain") == "1000\n/home/agent\n/home/agent"
        assert await output(environment, "id -u", "plain", user="root") == "0"
        assert await output(environment, "id -u; id -g", "named", user="4711:12") == "4711\n12"
        assert await output(environment, "id -un", "named") == "agent"
        assert await output(environment, "id -u", "locked") == "1000"
        assert "7" in (await output(environment, "id -G", "grouped")).split()


async def test_services_start_in_order_and_one_shots_complete(session: Session, events: list[Event]) -> None:
    late = ["/bin/sh", "-c", "sleep 0.5; : > /tmp/up; exec sleep 300"]
    spec = several(
        default={"depends_on": {"job": {"condition": "completed"}, "db": {"condition": "healthy"}, "gone": {"required": False}}},
        job={"command": ["/bin/sh", "-c", "sleep 0.3"], "exec_target": False, "depends_on": {"db": {"condition": "started"}}},
        db={"command": late, "healthcheck": CHECK},
    )
    async with session.environment(spec) as environment:
        states = {sandbox.name: (sandbox.ref.state, sandbox.ref.exit_code) for sandbox in environment}
        assert states == {"default": ("ready", None), "job": ("completed", 0), "db": ("ready", None)}
        assert environment["job"].ref.data["exec_target"] is False
        happened = [(event.name, event.service) for event in events if event.name in ("service.starting", "service.ready")]
        assert happened.index(("service.starting", "db")) < happened.index(("service.starting", "job"))
        assert happened.index(("service.ready", "db")) < happened.index(("service.starting", "default"))


async def test_an_image_of_nothing_but_a_program_works(session: Session) -> None:
    spec = several(default={"image": BINARY}, empty={"image": BINARY, "entrypoint": [], "command": []})
    async with session.environment(spec) as environment:
        for sandbox in environment:
            assert (await sandbox.exec(["/no/such"])).exit_code == 127
            await sandbox.write_file("/written/here", b"words")
            assert await sandbox.read_file("/written/here") == b"words"


async def test_a_bare_shell_stays(session: Session) -> None:
    async with session.environment({"services": {"default": {"image": DEBIAN}}}) as environment:
        assert await output(environment, "cat /proc/1/comm") == "bash"


async def test_ports_are_published_where_there_is_a_way_out_and_forwarded_everywhere(session: Session) -> None:
    script = "while :; do echo served | nc -l -p 7000; done"
    service = {"command": ["/bin/sh", "-c", script], "ports": [{"container_port": 7000}]}
    spec = several(default=service, online={**service, "network_policy": {"internet": True}})
    async with session.environment(spec) as environment:
        assert environment.default.ref.data["ports"] == []
        [published] = environment["online"].ref.data["ports"]
        assert (published["container_port"], published["protocol"], published["address"]) == (7000, "tcp", "127.0.0.1")
        await listens(environment, "online")
        with socket.create_connection((published["address"], published["host_port"]), timeout=30) as stream:
            assert stream.recv(6) == b"served"


async def test_the_engine_is_told_what_image_and_platform(session: Session, engine: Engine) -> None:
    spec = one(platform="linux/amd64", tty=True, stdin_open=True, restart={"name": "on-failure", "max_retries": 3})
    async with session.environment(spec) as environment:
        found = await inspect(engine, environment)
        assert found["Config"]["Tty"]
        assert found["Config"]["OpenStdin"]
        assert found["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
        assert found["Config"]["Image"] == BUSYBOX
        assert [found["Path"], *found["Args"]] == STAYS
        assert json.loads(found["Config"]["Labels"]["sandboxcore.dev/about"])["machine"] == "x86_64"
