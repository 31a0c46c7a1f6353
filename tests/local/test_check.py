"""Every field of a service is honoured, reported or refused; none is passed over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sandboxcore.errors import CapabilityError, SandboxError, SandboxUserUnsupportedError, SpecError
from sandboxcore.local._check import check
from sandboxcore.local._config import LocalConfig
from sandboxcore.local._ids import IdMapping
from sandboxcore.local._userland import Userland
from sandboxcore.report import Loss, ReportEntry
from sandboxcore.spec import EnvironmentSpec, Resources, ServiceSpec, VolumeMount

SINGLE = IdMapping(kind="single", uid_map="0 1000 1", gid_map="0 1000 1")
ROOT = IdMapping(kind="root", uid_map="0 1879048192 65536", gid_map="0 1879048192 65536")


def checked(
    mapping: IdMapping = ROOT, config: LocalConfig | None = None, rootfs: Path | None = None, **service: Any
) -> tuple[ReportEntry, ...]:
    spec = EnvironmentSpec(services={"s": ServiceSpec(**service), "t": ServiceSpec(networks=None)}, volumes={"v": {}})
    return check(spec, config or LocalConfig(), Userland(), mapping, {"s": rootfs, "t": None})


#: Honoured; the name is the test that shows it.
HONOURED = {
    "entrypoint": "test_the_spec_overrides_the_image_by_the_rules_of_oci",
    "command": "test_one_shots_complete_in_order",
    "env": "test_secrets_are_not_in_the_arguments_of_any_process",
    "working_dir": "test_the_spec_overrides_the_image_by_the_rules_of_oci",
    "user": "test_owners_and_users_are_the_images",
    "healthcheck": "test_unhealthy_fails_when_it_is_certain",
    "depends_on": "test_one_shots_complete_in_order",
    "restart": "test_restarts_follow_the_policy",
    "volumes": "test_volumes_are_shared_in_an_environment_and_go_with_it",
    "files": "test_files_are_put_over_the_image",
    "networks": "test_siblings_reach_each_other_by_name_and_strangers_do_not",
    "hostname": "test_network_files_are_the_sandboxes",
    "aliases": "test_siblings_reach_each_other_by_name_and_strangers_do_not",
    "extra_hosts": "test_network_files_are_the_sandboxes",
    "tty": "test_tty_and_stdin_open_reach_the_command",
    "stdin_open": "test_tty_and_stdin_open_reach_the_command",
    "read_only": "test_a_read_only_root_leaves_volumes_writable",
    "cap_drop": "test_capabilities_can_be_added_and_dropped",
    "exec_target": "test_a_job_is_no_target",
    "options": "test_an_oci_layout_and_a_directory_work_too",
}

#: Said in the report: a value and the key of the entry.
REPORTED = {
    "image": ("debian:12", "image"),
    "groups": (("video",), "groups"),
    "resources": (Resources(memory_bytes=1 << 30), "resources.memory_bytes"),
    "network_policy": ({"internet": True}, "network_policy.internet"),
    "ports": (({"container_port": 80},), "ports.0"),
    "labels": ({"a": "b"}, "labels"),
    "init": (True, "init"),
    "cap_add": (("SYS_PTRACE",), "cap_add"),
    "security_opt": (("seccomp:unconfined",), "security_opt"),
    "sysctls": ({"net.core.somaxconn": "1"}, "sysctls.net.core.somaxconn"),
    "pull_policy": ("always", "pull_policy"),
    "stop_signal": ("SIGINT", "stop_signal"),
    "stop_grace_period": (3.0, "stop_grace_period"),
}

#: Refused.
REFUSED = {"build": {"context": "/x"}, "platform": "linux/s390x", "privileged": True, "runtime": "runsc"}


@pytest.mark.parametrize("field", sorted(ServiceSpec.model_fields))
def test_no_field_is_passed_over(field: str) -> None:
    if field in REFUSED:
        with pytest.raises(CapabilityError, match=f"services.s.{field}"):
            checked(**{field: REFUSED[field]})
    elif field in REPORTED:
        value, key = REPORTED[field]
        entries = [entry for entry in checked(**{field: value}) if entry.key == f"services.s.{key}"]
        assert len(entries) == 1
        assert entries[0].service == "s"
        assert entries[0].reason
    else:
        source = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
        assert f"def {HONOURED[field]}(" in source


@pytest.mark.parametrize("field", sorted(set(Resources.model_fields) - {"shm_bytes", "gpus", "ulimits"}))
def test_resources_that_are_not_enforced_are_reported(field: str) -> None:
    entries = checked(resources={field: 5})
    assert [entry.key for entry in entries] == [f"services.s.resources.{field}"]
    assert entries[0].loss in (Loss.APPROX, Loss.NOOP)


@pytest.mark.parametrize(
    ("service", "words"),
    [
        ({"resources": {"gpus": 1}}, "GPU"),
        ({"network_policy": {"allow_domains": ("example.org",)}}, "allow_domains"),
        ({"network_policy": {"allow_cidrs": ("10.0.0.0/8",)}}, "allow_cidrs"),
        ({"network_policy": {"allow_entities": ("world",)}}, "allow_entities"),
        ({"volumes": ({"source": "", "target": "/usr/share/not/there"},)}, "read-only"),
        ({"working_dir": "/usr/not/there"}, "read-only"),
        ({"files": {"/usr/bin/x": {"content": b""}}}, "read-only"),
    ],
)
def test_what_can_not_be_done_is_refused(service: dict[str, Any], words: str) -> None:
    with pytest.raises(CapabilityError, match=words):
        checked(**service)


@pytest.mark.parametrize(
    ("service", "words"),
    [
        ({"volumes": ({"type": "bind", "source": "/not/there", "target": "/x"},)}, "does not exist"),
        ({"volumes": ({"type": "bind", "source": "relative", "target": "/x"},)}, "absolute"),
        ({"volumes": ({"source": "v", "target": "/x", "subpath": "../up"},)}, "subpath"),
        ({"resources": {"ulimits": {"nofiles": (1, 1)}}}, "not a limit"),
        ({"cap_add": ("SYS_PTRAC",)}, "SYS_PTRACE"),
        ({"user": ""}, "user"),
        ({"files": {"relative": {"content": b""}}}, "absolute"),
    ],
)
def test_bad_input_is_named(service: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        checked(**service)


def test_every_field_of_a_mount_is_known() -> None:
    """A new one has to be looked at here."""
    used = {"type", "source", "target", "read_only", "subpath", "size_bytes", "mode", "no_copy", "create"}
    assert set(VolumeMount.model_fields) == used


def test_a_userland_can_be_forbidden() -> None:
    with pytest.raises(CapabilityError, match="switched off") as caught:
        checked(config=LocalConfig(host_userland=False), image="debian:12")
    assert "rootfs" in (caught.value.hint or "")


def test_a_rootfs_makes_the_image_exact(tmp_path: Path) -> None:
    assert checked(rootfs=tmp_path, image="debian:12") == ()


def test_users_need_ids() -> None:
    with pytest.raises(SandboxUserUnsupportedError) as caught:
        checked(SINGLE, user="agent")
    assert "subuid" in (caught.value.hint or "")
    assert checked(SINGLE, user="root") == ()
    assert checked(ROOT, user="agent") == ()


def test_what_the_guest_keeps_is_said() -> None:
    (entry,) = checked(cap_drop=("ALL",))
    assert entry.key == "services.s.cap_drop"
    assert "SETUID" in entry.reason


@pytest.mark.parametrize(
    ("networks", "words"),
    [
        ({"a": ("n1",), "b": ("n1", "n2"), "c": ("n2",)}, "'a' and 'c' share no network but both reach 'b'"),
        ({"a": ("n1",), "b": ("n1", "n2"), "c": ("n2", "n3"), "d": ("n3",)}, "share no network"),
    ],
)
def test_a_chain_of_networks_is_refused_with_its_services(networks: dict[str, tuple[str, ...]], words: str) -> None:
    services = {name: ServiceSpec(networks=dict.fromkeys(names, ())) for name, names in networks.items()}
    spec = EnvironmentSpec(services=services, networks={"n1": {}, "n2": {}, "n3": {}})
    with pytest.raises(CapabilityError, match=words):
        check(spec, LocalConfig(), Userland(), ROOT, dict.fromkeys(services))


def test_internet_for_one_of_two_neighbours_is_refused() -> None:
    services = {"a": ServiceSpec(network_policy={"internet": True}), "b": ServiceSpec()}
    with pytest.raises(CapabilityError, match="'a' has it and 'b'"):
        check(EnvironmentSpec(services=services), LocalConfig(), Userland(), ROOT, dict.fromkeys(services))


def test_external_volumes_are_refused() -> None:
    spec = EnvironmentSpec(services={"s": ServiceSpec()}, volumes={"v": {"external": True}})
    with pytest.raises(CapabilityError, match="external"):
        check(spec, LocalConfig(), Userland(), ROOT, {"s": None})


async def test_a_job_is_no_target(backend: Any) -> None:
    spec = EnvironmentSpec(services={"default": ServiceSpec(), "job": ServiceSpec(exec_target=False, command=("true",))})
    made = await backend.make(spec)
    assert made.sandbox("job").data["exec_target"] is False
    assert made.sandbox("default").data["exec_target"] is True


async def test_unknown_options_are_refused_with_the_nearest(backend: Any) -> None:
    with pytest.raises(SandboxError, match=r"'rootf'.*did you mean 'rootfs'"):
        await backend.make(options={"local": {"rootf": "/x"}})
    await backend.make(options={"docker": {"anything": 1}})
    with pytest.raises(SandboxError, match=r"options\.local: unknown key 'rootfs'"):
        await backend.make(EnvironmentSpec(services={"default": ServiceSpec()}, options={"local": {"rootfs": "/x"}}))


async def test_limits_and_shared_memory_arrive(backend: Any) -> None:
    made = await backend.make(resources={"ulimits": {"nofile": (64, 128), "core": (0, 0)}, "shm_bytes": 8 << 20})
    assert await made.output("sh", "-c", "ulimit -Sc; ulimit -Hn; ulimit -n") == "0\n128\n64"
    assert (await made.output("df", "-k", "--output=size", "/dev/shm")).split()[-1] == "8192"


async def test_a_file_mounted_where_every_sandbox_has_one_stays_what_it_is(backend: Any, tmp_path: Path) -> None:
    mounts = []
    for name in ("hosts", "hostname", "passwd"):
        (tmp_path / name).write_text(f"root:x:0:0:{name}:/root:/bin/sh\n")
        mounts.append(VolumeMount(type="bind", source=str(tmp_path / name), target=f"/etc/{name}"))
    made = await backend.make(volumes=mounts)
    for name in ("hosts", "hostname", "passwd"):
        wanted = f"root:x:0:0:{name}:/root:/bin/sh"
        assert await made.output("cat", f"/etc/{name}") == wanted
        assert (tmp_path / name).read_text() == wanted + "\n"


async def test_binds_are_this_machines_own(backend: Any, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("host")
    mounts = (
        VolumeMount(type="bind", source=str(tmp_path), target="/rw"),
        VolumeMount(type="bind", source=str(tmp_path / "there"), target="/ro/file", read_only=True),
        VolumeMount(type="bind", source=str(tmp_path / "made/new"), target="/new", create=True),
    )
    made = await backend.make(volumes=mounts)
    assert await made.output("cat", "/ro/file", "/rw/there") == "hosthost"
    assert not (await made.run("sh", "-c", "echo x > /ro/file")).ok
    await made.output("sh", "-c", "echo back > /rw/back; touch /new/x")
    assert (tmp_path / "back").read_text() == "back\n"
    assert (tmp_path / "back").stat().st_uid == tmp_path.stat().st_uid
    assert (tmp_path / "made/new/x").exists()
