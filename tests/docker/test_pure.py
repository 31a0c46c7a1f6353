"""What is decided without an engine: frames, references, networks, commands, the table of errors."""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sandboxcore_docker._check import check
from sandboxcore_docker._config import DockerConfig, ServiceOptions
from sandboxcore_docker._container import ImageFacts, Placement, command_line, container_body, keeps_shell_open
from sandboxcore_docker._describe import _ports
from sandboxcore_docker._endings import refused_by_init
from sandboxcore_docker._endpoint import find_endpoint
from sandboxcore_docker._errors import RULES, explain
from sandboxcore_docker._images import split_reference
from sandboxcore_docker._keeper_user import keeper_user
from sandboxcore_docker._labels import environment_labels, read_facts
from sandboxcore_docker._multiplex import Demultiplexer
from sandboxcore_docker._networks import check_pool, pick_subnet, plan_networks
from sandboxcore_docker._shortcut import connect_inside

from sandboxcore.errors import CapabilityError, SpecError, UsageError
from sandboxcore.report import Loss
from sandboxcore.spec import EnvironmentSpec, ServiceSpec
from sandboxcore.values import Claim

pytestmark = pytest.mark.tier("none")

IMAGE = ImageFacts(id="sha256:1", reference="one", machine="x86_64", entrypoint=("/entry",), command=("default",))


def spec(**services: dict[str, Any]) -> EnvironmentSpec:
    networks = {name: {} for service in services.values() for name in service.get("networks") or ()}
    given_services = {name: {"image": "i", **service} for name, service in services.items()}
    return EnvironmentSpec.model_validate({"services": given_services, "networks": {"default": {}, **networks}})


def entries(described: EnvironmentSpec, **config: Any) -> dict[str, Loss]:
    found = check(described, DockerConfig(**config), local=True, version=(1, 41))
    return {entry.key: entry.loss for entry in found}


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=50))), st.data())
def test_frames_come_apart_however_they_arrive(frames: list[tuple[int, bytes]], data: st.DataObject) -> None:
    stream = b"".join(bytes([kind, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload for kind, payload in frames)
    demultiplexer, heard = Demultiplexer(), {1: b"", 2: b""}
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        for kind, piece in demultiplexer.feed(memoryview(stream[:size])):
            heard[kind] += bytes(piece)
        stream = stream[size:]
    assert heard == {kind: b"".join(payload for k, payload in frames if k == kind) for kind in (1, 2)}


def test_a_port_of_its_own_on_ipv6_is_not_taken_for_that_on_ipv4() -> None:
    """Engines choose two where the first is taken there; an address of IPv4 leads to one of them only."""
    told = {"PrivatePort": 7000, "Type": "tcp"}
    both = [{**told, "IP": "::", "PublicPort": 32769}, {**told, "IP": "0.0.0.0", "PublicPort": 32768}]
    found = {"container_port": 7000, "host_port": 32768, "address": "127.0.0.1", "protocol": "tcp"}
    here = find_endpoint(DockerConfig(host="unix:///run/docker.sock"))
    assert _ports(both, here) == [found]
    assert _ports(both[:1], here) == [{**found, "host_port": 32769}]


def test_what_has_no_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="frames"):
        list(Demultiplexer().feed(memoryview(b"OCI runtime exec failed")))


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("busybox", ("busybox", "latest")),
        ("busybox:1", ("busybox", "1")),
        ("localhost:5000/a/b", ("localhost:5000/a/b", "latest")),
        ("localhost:5000/a/b:c", ("localhost:5000/a/b", "c")),
        ("a/b@sha256:00", ("a/b", "sha256:00")),
    ],
)
def test_a_reference_has_always_a_tag(reference: str, parts: tuple[str, str]) -> None:
    assert split_reference(reference) == parts


def test_siblings_share_a_network_and_nobody_else_is_on_a_way_out() -> None:
    plan = plan_networks(
        spec(
            a={"networks": {"one": []}, "network_policy": {"internet": True}},
            b={"networks": {"one": [], "two": []}},
            c={"networks": {"two": []}},
            alone={"networks": {"three": []}},
            none={"networks": None},
        )
    )
    shown = [(network.key, network.internal, sorted(network.members)) for network in plan.networks]
    assert shown == [("network:one", True, ["a", "b"]), ("network:two", True, ["b", "c"]), ("egress:a", False, ["a"])]
    assert plan.is_online("a")
    assert not plan.is_online("b")
    assert plan.of("alone") == plan.of("none") == ()


def test_a_network_is_open_where_all_may_leave() -> None:
    online = {"network_policy": {"internet": True}}
    plan = plan_networks(spec(a=online, b=online))
    assert [(network.key, network.internal) for network in plan.networks] == [("network:default", False)]


def test_subnets_have_room() -> None:
    pool = check_pool("198.18.0.0/15")
    for members in (1, 5, 6, 200):
        subnet = pick_subnet(pool, members)
        assert subnet.num_addresses - 3 >= members
        assert subnet.subnet_of(pool)
    for wrong in ("10.0.0.0/30", "nowhere", "::/64"):
        with pytest.raises(SpecError):
            check_pool(wrong)


@pytest.mark.parametrize(
    ("service", "line"),
    [
        ({}, ("/entry", "default")),
        ({"command": ("x",)}, ("/entry", "x")),
        ({"command": ()}, ("/entry",)),
        ({"entrypoint": ("e",)}, ("e",)),
        ({"entrypoint": (), "command": ("x", "y")}, ("x", "y")),
        ({"entrypoint": (), "command": ()}, ()),
    ],
)
def test_commands_follow_the_rules_of_images(service: dict[str, Any], line: tuple[str, ...]) -> None:
    described = ServiceSpec(image="one", **service)
    assert command_line(described, IMAGE) == line
    body = container_body(described, IMAGE, Placement(labels={}, guest_volume="g"), ServiceOptions(), (1, 41))
    written = (*body["Entrypoint"], *body["Cmd"])
    assert written == (line or ("/.sandboxcore/guest-x86_64", "pause"))


def test_a_bare_shell_of_the_image_is_kept_open() -> None:
    shell = ImageFacts(id="1", reference="s", machine="x86_64", command=("bash",))
    assert keeps_shell_open(ServiceSpec(image="s"), shell)
    assert not keeps_shell_open(ServiceSpec(image="s", command=("bash",)), shell)
    assert not keeps_shell_open(ServiceSpec(image="s"), IMAGE)


@pytest.mark.parametrize(
    ("service", "user"),
    [
        ({}, "agent"),
        ({"user": "1000:1000"}, "1000:1000"),
        ({"user": "root"}, ""),
        ({"user": "0:5"}, ""),
        ({"groups": ("video",)}, ""),
        ({"cap_drop": ("ALL",)}, ""),
        ({"cap_drop": ("CAP_SETUID",)}, ""),
        ({"cap_drop": ("ALL",), "cap_add": ("SETUID", "SETGID", "KILL")}, "agent"),
        ({"cap_drop": ("NET_RAW",)}, "agent"),
    ],
)
def test_the_keeper_is_roots_where_root_can_become_others(service: dict[str, Any], user: str) -> None:
    image = ImageFacts(id="1", reference="i", machine="x86_64", user="agent", env={"HOME": "/there"})
    assert keeper_user(ServiceSpec(image="i", **service), image) == (user, "/there" if user else "")


def test_security_options_are_written_as_the_docker_command_does(tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text('{ "defaultAction" : "SCMP_ACT_ALLOW" }')
    options = (f"seccomp={profile}", "apparmor:unconfined", "no-new-privileges", "systempaths=unconfined")
    service = ServiceSpec(image="i", security_opt=options)
    host = container_body(service, IMAGE, Placement(labels={}, guest_volume="g"), ServiceOptions(), (1, 41))["HostConfig"]
    assert host["SecurityOpt"] == ['seccomp={"defaultAction":"SCMP_ACT_ALLOW"}', "apparmor=unconfined", "no-new-privileges"]
    assert host["MaskedPaths"] == host["ReadonlyPaths"] == []
    with pytest.raises(SpecError, match=r"services\.a\.security_opt: .*gone\.json"):
        entries(spec(a={"security_opt": ("seccomp=/gone.json",)}))


@pytest.mark.parametrize("policy", [{"allow_domains": ["x.org"]}, {"allow_cidrs": ["10.0.0.0/8"]}, {"allow_entities": ["world"]}])
def test_lists_of_what_may_be_reached_are_refused(policy: dict[str, Any]) -> None:
    with pytest.raises(CapabilityError, match=next(iter(policy))):
        entries(spec(a={"network_policy": policy}))


def test_what_is_wrong_is_said_with_its_place(tmp_path: Path) -> None:
    mounts: dict[str, Any] = {"type": "bind", "source": str(tmp_path / "missing"), "target": "/m"}
    for described, kind, words in (
        (EnvironmentSpec(services={"a": ServiceSpec()}), SpecError, r"services\.a\.image: is needed"),
        (spec(a={"volumes": [mounts]}), SpecError, r"services\.a\.volumes\.0\.source"),
        (spec(a={"volumes": [{"type": "tmpfs", "target": "/t"}], "files": {"/t/f": {"content": b""}}}), CapabilityError, "tmpfs"),
        (spec(a={"user": "a b"}), SpecError, r"services\.a\.user"),
        (spec(a={"labels": {"sandboxcore.dev/owner": "me"}}), SpecError, r"services\.a\.labels"),
        (spec(a={"options": {"docker": {"archiv": "x"}}}), SpecError, r"options\.docker.*archive"),
        (spec(a={"options": {"docker": {"archive": "/no/such.tar"}}}), SpecError, r"archive.*does not exist"),
    ):
        with pytest.raises(kind, match=words):
            entries(described)
    with pytest.raises(CapabilityError, match="binds"):
        entries(spec(a={"volumes": [mounts | {"source": str(tmp_path)}]}), binds="read_only")
    with pytest.raises(CapabilityError, match="engine on another"):
        check(spec(a={"volumes": [mounts | {"source": str(tmp_path)}]}), DockerConfig(), local=False, version=None)
    with pytest.raises(CapabilityError, match="internet"):
        entries(spec(a={"network_policy": {"internet": True}}), internet="never")


def test_parts_of_volumes_may_not_hold_each_other() -> None:
    def mounting(*subpaths: str) -> EnvironmentSpec:
        volumes = [{"source": "v", "target": f"/{index}", "subpath": subpath} for index, subpath in enumerate(subpaths)]
        return EnvironmentSpec.model_validate({"services": {"a": {"image": "i", "volumes": volumes}}, "volumes": {"v": {}}})

    assert entries(mounting("a", "b/c", "b/d")) == {}
    for wrong in (("", "a"), ("a", "a/b")):
        with pytest.raises(CapabilityError, match="subpath"):
            entries(mounting(*wrong))


def test_nothing_is_passed_over_in_silence() -> None:
    found = entries(
        spec(
            a={
                "resources": {"storage_bytes": 1, "cpus_request": 0.5},
                "ports": [{"container_port": 80, "host_port": 8080}, {"container_port": 81}],
                "stop_signal": "SIGINT",
                "healthcheck": {"test": ["CMD", "true"], "start_period": 3},
                "files": {"/f": {"content": b"", "read_only": True}},
            }
        )
    )
    assert found == {
        "services.a.resources.storage_bytes": Loss.APPROX,
        "services.a.resources.cpus_request": Loss.APPROX,
        "services.a.files./f": Loss.APPROX,
        "services.a.ports.0": Loss.APPROX,
        "services.a.ports.1": Loss.NOOP,
        "services.a.stop_signal": Loss.APPROX,
        "services.a.healthcheck.start_interval": Loss.APPROX,
    }


SAID = {
    "port-taken": "driver failed programming external connectivity: Bind for 0.0.0.0:8080 failed: port is already allocated",
    "port-in-use": "Error starting userland proxy: listen tcp4 0.0.0.0:8080: bind: address already in use",
    "no-command": 'OCI runtime create failed: exec: "/no/such": stat /no/such: no such file or directory: unknown',
    "no-user": "unable to find user nobody2: no matching entries in passwd file",
    "no-runtime": "Unknown runtime specified runsc",
    "no-gpu": 'could not select device driver "" with capabilities: [[gpu]]',
    "no-device": 'error gathering device information while adding custom device "/dev/nope": no such file or directory',
    "no-bind": 'invalid mount config for type "bind": bind source path does not exist: /nope',
    "no-addresses": "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network",
    "address-taken": "Pool overlaps with other one on this address space",
    "disk-full": "write /var/lib/docker/x: no space left on device",
    "resources": "Minimum memory limit allowed is 6MB",
    "security": "invalid CapAdd: unknown capability: CAP_NOPE",
    "sysctl": 'sysctl "kernel.nope" is not in a separate kernel namespace: unknown',
    "mount": "Duplicate mount point: /x",
    "platform": "no matching manifest for linux/arm64 in the manifest list entries",
    "pull-denied": "pull access denied for nope, repository does not exist or may require 'docker login'",
    "no-manifest": "manifest for busybox:nope not found: manifest unknown: manifest unknown",
    "no-registry": 'Get "https://registry.invalid/v2/": dial tcp: lookup registry.invalid: no such host',
    "too-many-pulls": "toomanyrequests: You have reached your pull rate limit",
    "bad-name": "invalid reference format",
    "no-image": "No such image: nope:latest",
    "unsupported": "mount option is not supported",
}


def test_the_table_of_errors_is_complete_and_each_rule_can_be_reached() -> None:
    assert set(SAID) == {rule.name for rule in RULES}
    for name, said in SAID.items():
        matched = next(rule for rule in RULES if rule.pattern.search(said))
        assert matched.name == name, said
        text, _ = explain(said)
        assert text
        assert "\n" not in text
        assert "{" not in text
    assert explain("Something new\nwith more lines") == ("Something new", None)


def test_labels_tell_whose_an_object_is() -> None:
    claim = Claim(run_id="r", environment_id="e", owner="me", lease=60.0, labels={"of": "the session"})
    described = spec(a={}, b={})
    found = read_facts(environment_labels(described, claim, 1000.5))
    assert found is not None
    assert (found.run_id, found.environment_id, found.owner, found.default, found.services) == ("r", "e", "me", "a", 2)
    assert (found.created_at, found.expires_at, dict(found.labels)) == (1000.5, 1060.5, {"of": "the session"})
    assert read_facts({"else": "1"}) is None
    broken = read_facts({"sandboxcore.dev/environment-id": "e", "sandboxcore.dev/expires-at": "never"})
    assert broken is not None
    assert broken.expires_at == 0


def test_the_engine_is_the_one_of_the_docker_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert find_endpoint(DockerConfig()).path == "/var/run/docker.sock"
    monkeypatch.setenv("DOCKER_HOST", "tcp://engine.example:1234")
    endpoint = find_endpoint(DockerConfig())
    assert (endpoint.host, endpoint.port, endpoint.tls, endpoint.is_local) == ("engine.example", 1234, None, False)
    endpoint = find_endpoint(DockerConfig(host="unix:///run/other.sock"))
    assert (endpoint.path, endpoint.is_local) == ("/run/other.sock", True)
    for wrong, words in (("ssh://somebody@engine", "ssh -nNT"), ("nonsense", "unix:///path")):
        with pytest.raises(UsageError) as caught:
            find_endpoint(DockerConfig(host=wrong))
        assert words in (caught.value.hint or "")


def test_contexts_are_those_of_the_docker_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    folder = tmp_path / "contexts" / "meta" / hashlib.sha256(b"far").hexdigest()
    folder.mkdir(parents=True)
    meta = {"Name": "far", "Metadata": {}, "Endpoints": {"docker": {"Host": "tcp://far.example:2375", "SkipTLSVerify": False}}}
    (folder / "meta.json").write_text(json.dumps(meta))
    (tmp_path / "config.json").write_text(json.dumps({"currentContext": "far"}))
    assert find_endpoint(DockerConfig()).host == "far.example"
    assert find_endpoint(DockerConfig(context="default")).path
    with pytest.raises(UsageError, match=r"no docker context 'nope'; there are far"):
        find_endpoint(DockerConfig(context="nope"))


def test_why_the_engines_init_could_not_start_the_command_is_read_from_the_log() -> None:
    tail = "before\n[FATAL tini (7)] exec /no such failed: No such file or directory\nafter"
    assert refused_by_init(tail) == "/no such: no such file or directory"
    assert refused_by_init("[WARN  tini (1)] exec\nexec /x failed: no") == ""


@pytest.mark.skipif(sys.platform != "linux", reason="the way is Linux's")
def test_a_socket_in_a_file_tree_is_reached_and_nothing_else() -> None:
    """No link is followed: the tree is the sandbox's, and a link in it would lead to a socket of this machine."""
    with tempfile.TemporaryDirectory() as name, socket.socket(socket.AF_UNIX) as listener:
        folder = Path(name).resolve()
        (folder / "real").mkdir()
        listener.bind(str(folder / "real" / "socket"))
        listener.listen()
        with connect_inside(os.getpid(), str(folder / "real" / "socket")) as stream:
            accepted, _ = listener.accept()
            with accepted:
                stream.send(b"x")
                assert accepted.recv(1) == b"x"
        (folder / "linked").symlink_to("real")
        (folder / "real" / "link").symlink_to("socket")
        (folder / "real" / "file").write_bytes(b"")
        open_ones = len(list(Path("/proc/self/fd").iterdir()))
        for path in ("linked/socket", "real/link", "real/file", "real/none", "real/file/socket"):
            with pytest.raises(OSError, match=r"."):
                connect_inside(os.getpid(), str(folder / path))
        with pytest.raises(FileNotFoundError):
            connect_inside(0, str(folder / "real" / "socket"))
        assert len(list(Path("/proc/self/fd").iterdir())) == open_ones
