"""The same, as a user who has no rights at all: one id, no real root anywhere."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NOBODY = 65534

#: What differs without root: ids, folders, capabilities, overlays, removing.
SELECTED = (
    "test_isolation.py::test_files_of_the_host_can_not_be_read",
    "test_isolation.py::test_the_places_to_write_are_the_sandboxes_own",
    "test_isolation.py::test_siblings_reach_each_other_by_name_and_strangers_do_not",
    "test_isolation.py::test_a_read_only_root_leaves_volumes_writable",
    "test_isolation.py::test_only_loopback_exists",
    "test_isolation.py::test_pids_are_bounded",
    "test_services.py::test_a_crash_names_its_exit_code_and_last_lines",
    "test_services.py::test_killing_the_environment_kills_every_process",
    "test_life.py::test_the_end_of_a_lease_kills_without_any_client",
    "test_life.py::test_what_a_sandbox_left_is_removed_however_it_looks",
    "test_life.py::test_volumes_are_shared_in_an_environment_and_go_with_it",
    "test_rootfs.py::test_an_image_runs_as_it_says",
    "test_rootfs.py::test_sandboxes_of_one_image_do_not_see_each_others_changes",
    "test_check.py::test_binds_are_this_machines_own",
    "test_check.py::test_limits_and_shared_memory_arrive",
    "test_unprivileged.py::test_there_is_one_user_only",
)


def interpreter() -> tuple[str, str] | None:
    """Find a Python of this version that anybody may run, and the PYTHONPATH with which it has what this one has."""
    own = [path for path in sys.path if not path.startswith((sys.base_prefix, sysconfig.get_path("stdlib")))]
    packages = os.pathsep.join([*own, sysconfig.get_path("purelib"), str(HERE.parent.parent)])
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        argv = [candidate, "-c", "import pytest, pytest_asyncio, sandboxcore.local._provisioner"]
        environment = {"PYTHONPATH": packages, "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.defpath}
        with contextlib.suppress(OSError):
            done = subprocess.run(
                argv, env=environment, user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, check=False
            )
            if done.returncode == 0:
                return candidate, packages
    return None


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder of nobody's own, below folders that it may search."""
    path = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="sandboxcore-"))
    os.chown(path, NOBODY, NOBODY)
    yield path
    shutil.rmtree(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="these tests run without root already")
@pytest.mark.timeout(180)
def test_everything_that_matters_works_without_any_rights(home: Path) -> None:
    found = interpreter()
    if found is None:
        pytest.skip("neither this Python nor the system's can be run by nobody with these packages")
    python, packages = found
    names = [str(HERE / name) for name in SELECTED]
    argv = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={home}/tests", f"--rootdir={HERE.parent.parent}"]
    environment = {
        "PYTHONPATH": packages,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": os.defpath,
        "HOME": str(home),
        "TMPDIR": str(home),
    }
    done = subprocess.run(
        [*argv, *names],
        env=environment,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(SELECTED)} passed" in done.stdout


@pytest.mark.skipif(os.geteuid() == 0, reason="run by the test above as nobody")
async def test_there_is_one_user_only(backend: object) -> None:
    from sandboxcore.errors import SandboxUserUnsupportedError

    from .conftest import Backend

    assert isinstance(backend, Backend)
    if backend.provisioner.mapping.several_users:
        pytest.skip("this user has subordinate ids")
    made = await backend.make(command=("sleep", "1000"))
    assert await made.output("id", "-u") == "0"
    with pytest.raises(SandboxUserUnsupportedError):
        await made.run("id", user="agent")
    findings = {finding.check: finding for finding in await backend.provisioner.doctor()}
    assert findings["users"].status == "warning"
    assert "subuid" in findings["users"].fix
    assert [name for name, finding in findings.items() if finding.status == "error"] == []
