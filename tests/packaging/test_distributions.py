"""What is in the wheels and sdists, and that a stranger can install and use them."""

from __future__ import annotations

import configparser
import os
import platform
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from .conftest import ROOT, Built, run

PROGRAMS = [
    f"sandboxcore/{folder}/bin/{name}-{machine}"
    for folder, name in (("guest", "guest"), ("local", "launcher"))
    for machine in ("x86_64", "aarch64")
]
ELF_MACHINES = {"x86_64": 0x3E, "aarch64": 0xB7}

pytestmark = pytest.mark.timeout(600)


def entry_points(wheel: Path) -> dict[str, dict[str, str]]:
    """Read a wheel's entry points; a library of plugins has none."""
    parser = configparser.ConfigParser()
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith("entry_points.txt"):
                parser.read_string(archive.read(name).decode())
    return {section: dict(parser[section]) for section in parser.sections()}


def test_wheel_is_for_any_machine_and_says_that_it_is_typed(core: Built) -> None:
    assert core.wheel.name.endswith("-py3-none-any.whl")
    assert "sandboxcore/py.typed" in zipfile.ZipFile(core.wheel).namelist()


@pytest.mark.parametrize("program", PROGRAMS)
def test_wheel_carries_an_executable_static_program(core: Built, program: str) -> None:
    with zipfile.ZipFile(core.wheel) as archive:
        assert archive.getinfo(program).external_attr >> 16 & 0o777 == 0o755
        content = archive.read(program)
    assert content[:4] == b"\x7fELF"
    assert int.from_bytes(content[18:20], "little") == ELF_MACHINES[program.rsplit("-", 1)[1]]
    assert b"/lib/ld-" not in content, "a static program names no loader"
    assert len(content) < 256 * 1024, "it has to fit a ConfigMap with room to spare"


def test_wheel_holds_neither_sources_nor_stamps_of_the_programs(core: Built) -> None:
    in_bin = [name for name in zipfile.ZipFile(core.wheel).namelist() if "/bin/" in name]
    assert sorted(in_bin) == sorted(PROGRAMS)
    assert not [name for name in zipfile.ZipFile(core.wheel).namelist() if name.endswith((".c", ".h"))]


def test_programs_name_no_path_of_the_machine_that_built_them(core: Built) -> None:
    with zipfile.ZipFile(core.wheel) as archive:
        for program in PROGRAMS:
            content = archive.read(program)
            assert os.fsencode(Path.home()) + b"/" not in content
            assert os.fsencode(Path(__file__).parents[2]) not in content


def test_sdist_carries_sources_and_no_binaries(core: Built) -> None:
    with tarfile.open(core.sdist) as archive:
        names = [name.split("/", 1)[1] for name in archive.getnames()]
    assert {"hatch_build.py", "pyproject.toml", "LICENSE", "README.md", "sandboxcore/local/launcher.c"} <= set(names)
    assert [name for name in names if name.startswith("sandboxcore/guest/") and name.endswith(".c")]
    assert not [name for name in names if "/bin/" in name]


def test_entry_points(core: Built, compose: Built) -> None:
    assert entry_points(core.wheel) == {"console_scripts": {"sandboxcore": "sandboxcore.cli:main"}}
    assert entry_points(compose.wheel) == {"sandboxcore": {"compose": "sandboxcore_compose.plugin"}}


PLUGINS = sorted(path.parent.name for path in ROOT.glob("plugins/*/pyproject.toml"))


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_is_typed_and_its_entry_points_lead_somewhere(plugins: dict[str, Built], name: str) -> None:
    contents = zipfile.ZipFile(plugins[name].wheel).namelist()
    [package] = {entry.partition("/")[0] for entry in contents if not entry.partition("/")[0].endswith(".dist-info")}
    assert f"{package}/py.typed" in contents
    for section in entry_points(plugins[name].wheel).values():
        for module in section.values():
            path = module.replace(".", "/")
            assert {f"{path}.py", f"{path}/__init__.py"} & set(contents), module


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_is_of_the_cores_version_and_needs_just_that(name: str) -> None:
    core = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    plugin = tomllib.loads((ROOT / "plugins" / name / "pyproject.toml").read_text())["project"]
    assert plugin["version"] == core["version"]
    ours = [need for need in plugin["dependencies"] if need.startswith("sandboxcore")]
    assert ours
    assert all(need.endswith(f"=={core['version']}") for need in ours)


def test_extras_name_every_plugin() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {need.partition("==")[0] for needs in extras.values() for need in needs}
    distributions = {
        tomllib.loads((ROOT / "plugins" / name / "pyproject.toml").read_text())["project"]["name"] for name in PLUGINS
    }
    assert distributions - {"sandboxcore-kubernetes"} <= named


def test_the_helm_plugin_carries_its_chart(plugins: dict[str, Built]) -> None:
    contents = zipfile.ZipFile(plugins["helm_backend"].wheel).namelist()
    chart = "sandboxcore_helm/chart"
    assert {f"{chart}/Chart.yaml", f"{chart}/values.yaml", f"{chart}/values.schema.json"} <= set(contents)
    assert [entry for entry in contents if entry.startswith(f"{chart}/templates/")]


@pytest.fixture(scope="module")
def installed(core: Built, compose: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a fresh virtual environment with both wheels, installed as a user does."""
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    run([sys.executable, "-m", "venv", folder])
    run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", core.wheel, compose.wheel])
    return folder / "bin"


def test_installed_command_line_runs_and_sees_its_plugins(installed: Path, tmp_path: Path) -> None:
    assert "Usage: sandboxcore" in run([installed / "sandboxcore", "--help"], cwd=tmp_path)
    listed = run([installed / "sandboxcore", "plugins"], cwd=tmp_path)
    assert "compose" in listed
    assert "local" in listed


def test_installed_programs_are_executable(installed: Path, tmp_path: Path) -> None:
    [package] = installed.parent.glob("lib/python*/site-packages/sandboxcore")
    for program in PROGRAMS:
        assert os.access(package.parent / program, os.X_OK)
    run([package / "guest" / "bin" / f"guest-{platform.machine()}", "version"], cwd=tmp_path)


@pytest.mark.tier("local")
def test_installed_command_line_runs_a_command_in_a_sandbox(installed: Path, tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    said = run([installed / "sandboxcore", "run", "--", "echo", "in a sandbox"], cwd=tmp_path, SANDBOXCORE_STATE_DIR=state)
    assert said == "in a sandbox\n"
