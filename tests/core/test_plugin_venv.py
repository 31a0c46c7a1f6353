"""A plugin for each way of being wrong, installed in a real virtual environment with real entry points, all at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import textwrap
import venv
from pathlib import Path
from typing import Any

import pytest

import sandboxcore

INFO = """
import sandboxcore
@sandboxcore.hookimpl
def sandboxcore_backend_info():
    return sandboxcore.BackendInfo(name="{name}", summary="", config_model=globals().get("Config"))
"""

GOOD = (
    INFO.format(name="good")
    + """
import time
from sandboxcore import Discoverer, EnvironmentRef, Provisioner, SandboxRef

FOUND = {}

class GoodProvisioner(Provisioner):
    async def provision(self, spec, claim, emit):
        one = SandboxRef(backend="good", environment_id=claim.environment_id, run_id=claim.run_id, service="default")
        FOUND[claim.environment_id] = EnvironmentRef(
            backend="good", environment_id=claim.environment_id, run_id=claim.run_id, owner=claim.owner,
            created_at=time.time(), expires_at=time.time() + claim.lease, default="default", sandboxes=(one,))
        return FOUND[claim.environment_id]

    async def destroy(self, environment):
        FOUND.pop(environment.environment_id, None)

    async def renew(self, environments, lease):
        pass

class GoodDiscoverer(Discoverer):
    async def find(self, selector):
        return [ref for ref in FOUND.values() if selector.matches(ref)]

@sandboxcore.hookimpl
def sandboxcore_provisioner(backend):
    return GoodProvisioner() if backend == "good" else None

@sandboxcore.hookimpl
def sandboxcore_discoverer(backend):
    return GoodDiscoverer() if backend == "good" else None
"""
)

HOOK = """
import sandboxcore
@sandboxcore.hookimpl
{async_}def {name}({parameters}):
    raise AssertionError("no hook of a broken plugin is ever called")
@sandboxcore.hookimpl
def sandboxcore_event(event):
    print("no hook of a broken plugin is ever called")
"""


def hook(name: str, parameters: str, *, asynchronous: bool = False) -> str:
    return HOOK.format(name=name, parameters=parameters, async_="async " if asynchronous else "")


#: Distribution to source of its module and, for those that are refused, the problem and its fix.
PLUGINS: dict[str, tuple[str, str, str]] = {
    "good": (GOOD, "", ""),
    "observer": (
        "import sandboxcore\nSEEN = []\n@sandboxcore.hookimpl\ndef sandboxcore_event(event):\n    SEEN.append(event.name)\n",
        "",
        "",
    ),
    "slow": ("import time\ntime.sleep(0.6)\n" + INFO.format(name="slow"), "", ""),
    "missing": ("import nothing_of_that_name", "can't be imported: ModuleNotFoundError", "install what is missing"),
    "syntax": ("def broken(:", "can't be imported: SyntaxError", "reinstall it"),
    "exits": ("raise SystemExit(0)", "can't be imported: SystemExit", "reinstall it"),
    "misspelt": (
        hook("sandboxcore_executer", "sandbox"),
        "no hook 'sandboxcore_executer'",
        "rename it to 'sandboxcore_executor'",
    ),
    "asynchronous": (hook("sandboxcore_executor", "sandbox", asynchronous=True), "is 'async def'", "make it 'def'"),
    "keywords": (hook("sandboxcore_executor", "*, sandbox"), "'sandbox' is keyword-only", "remove the '*'"),
    "parameter": (hook("sandboxcore_executor", "sandbx"), "'sandbx' is unknown (did you mean 'sandbox'?)", "sandbox, config"),
    "unknown": (hook("sandboxcore_teleport_everything", "x"), "no hook 'sandboxcore_teleport_everything'", "the hooks are"),
    "future": (
        "SANDBOXCORE_HOOK_API = 99\n" + hook("sandboxcore_teleport_everything", "x"),
        "was written for hook API 99; this sandboxcore has 1",
        "pip install --upgrade sandboxcore",
    ),
    "takes_good": (
        INFO.format(name="good"),
        "backend 'good' is taken by plugin 'good' (good 1.5)",
        "SANDBOXCORE_DISABLE_PLUGINS",
    ),
    "takes_local": (
        INFO.format(name="local"),
        "backend 'local' is taken by plugin 'local' (sandboxcore",
        "uninstall one of them",
    ),
    "raising_info": (
        "import sandboxcore\n@sandboxcore.hookimpl\ndef sandboxcore_backend_info():\n    raise RuntimeError('boom')\n",
        "sandboxcore_backend_info raised RuntimeError: boom",
        "report it to its author",
    ),
    "raising_hook": (
        INFO.format(name="raising") + "@sandboxcore.hookimpl\ndef sandboxcore_provisioner(backend):\n"
        "    if backend == 'raising':\n        raise OSError('boom')\n",
        "",
        "",
    ),
    "raising_observer": (
        "import sandboxcore\n@sandboxcore.hookimpl\ndef sandboxcore_event(event):\n    raise ValueError('boom')\n",
        "",
        "",
    ),
    "raising_translators": (
        "import sandboxcore\n@sandboxcore.hookimpl\ndef sandboxcore_translators():\n    raise ImportError('boom')\n",
        "",
        "",
    ),
    "wrong_type": (
        INFO.format(name="wrong") + "@sandboxcore.hookimpl\ndef sandboxcore_provisioner(backend):\n"
        "    return 'x' if backend == 'wrong' else None\n",
        "",
        "",
    ),
    "refusing_config": (
        "import pydantic\nclass Config(pydantic.BaseModel):\n    model_config = {'extra': 'forbid'}\n"
        "    rootfs: str = ''\n    @pydantic.field_validator('rootfs')\n"
        "    @classmethod\n    def _no(cls, value):\n        raise RuntimeError('boom')\n" + INFO.format(name="refusing"),
        "",
        "",
    ),
}
REFUSED = {name for name, (_, problem, _) in PLUGINS.items() if problem}

PROBE = """
import asyncio, dataclasses, json, logging, sandboxcore

logged = []
class Keep(logging.Handler):
    def emit(self, record):
        logged.append(record.getMessage())
logging.getLogger("sandboxcore").addHandler(Keep())
logging.getLogger("sandboxcore").propagate = False
host = sandboxcore.PluginHost.load()
attempts = {}

def attempt(name, function):
    try:
        attempts[name] = function()
    except sandboxcore.SandboxError as error:
        attempts[name] = [type(error).__name__, str(error)]

async def use_good():
    async with sandboxcore.Session("good", plugins=host) as session:
        async with session.environment() as env:
            return [env.names, len(await session.find())]

async def use(backend):
    async with sandboxcore.Session(backend, plugins=host):
        return "opened"

attempt("good", lambda: asyncio.run(use_good()))
for backend in ("raising", "wrong", "slow", "missing", "goood"):
    attempt(backend, lambda: asyncio.run(use(backend)))
attempt("unknown key", lambda: host.configure("refusing", {"rootf": ""}))
attempt("refused value", lambda: host.configure("refusing", {"rootfs": ""}))
attempt("document", lambda: sandboxcore.Session("good", plugins=host).translate(__file__))
import observer_module
print(json.dumps({
    "problems": [dataclasses.asdict(problem) for problem in host.problems],
    "plugins": [dataclasses.asdict(record) for record in host.plugins],
    "backends": sorted(host.backends),
    "attempts": attempts,
    "seen": observer_module.SEEN,
    "logged": logged,
}))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build an environment that sees this one's packages and has the plugins installed."""
    home = tmp_path_factory.mktemp("plugins") / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(home), "platbase": str(home)}))
    here = [path for path in sys.path if path.endswith("site-packages")]
    # Not just paths: what is installed there as editable has .pth files of its own, which have to be followed.
    lines = [f"import site; site.addsitedir({path!r})" for path in here] + [str(Path(sandboxcore.__file__).parent.parent)]
    (site / "running.pth").write_text("\n".join(lines) + "\n")
    for name, (source, _, _) in PLUGINS.items():
        install(site, name, source)
    install(site, "zz_duplicate", INFO.format(name="duplicate"), point="good")
    return home / "bin" / "python"


def install(site: Path, name: str, source: str, point: str = "") -> None:
    (site / f"{name}_module.py").write_text(textwrap.dedent(source))
    info = site / f"{name}-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(f"[sandboxcore]\n{point or name} = {name}_module\n")


def run(python: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SANDBOXCORE"))}
    return subprocess.run(
        [python, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**kept, **environment},
        cwd=python.parent,
    )


@pytest.fixture(scope="module")
def report(python: Path) -> dict[str, Any]:
    done = run(python, "-c", f"__file__ = {str(python.parent.parent / 'pyvenv.cfg')!r}\n{PROBE}")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    return dict(json.loads(line))


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_broken_is_reported(report: dict[str, Any], name: str) -> None:
    _, problem, fix = PLUGINS[name]
    (found,) = [found for found in report["problems"] if found["name"] == name]
    assert problem in found["problem"]
    assert fix in found["fix"]
    assert (found["distribution"], found["version"], found["module"]) == (name, "1.5", f"{name}_module")
    (record,) = [record for record in report["plugins"] if record["name"] == name]
    assert record["status"] == "broken"


@pytest.mark.parametrize("name", sorted(set(PLUGINS) - REFUSED))
def test_what_is_whole_is_loaded(report: dict[str, Any], name: str) -> None:
    assert "loaded" in [record["status"] for record in report["plugins"] if record["name"] == name]


def test_a_name_that_two_distributions_have_is_the_firsts(report: dict[str, Any]) -> None:
    (found,) = [found for found in report["problems"] if found["distribution"] == "zz_duplicate"]
    assert (
        "plugin 'good' (good 1.5) was loaded under the same name; this one, 'good' (zz_duplicate 1.5), is not used"
        in found["problem"]
    )
    assert "duplicate" not in report["backends"]


def test_the_backends_that_remain(report: dict[str, Any]) -> None:
    assert set(report["backends"]) >= {"good", "local", "raising", "refusing", "slow", "wrong"}


def test_a_good_backend_goes_on_working(report: dict[str, Any]) -> None:
    assert report["attempts"]["good"] == [["default"], 1]
    assert report["attempts"]["slow"] == ["PluginError", report["attempts"]["slow"][1]]
    assert "no plugin answers sandboxcore_provisioner" in report["attempts"]["slow"][1]


def test_using_what_is_broken_names_it(report: dict[str, Any]) -> None:
    attempts = report["attempts"]
    assert attempts["raising"] == [
        "PluginError",
        "plugin 'raising_hook' (raising_hook 1.5): hook sandboxcore_provisioner raised OSError: boom",
    ]
    assert attempts["wrong"][1].endswith("returned str; it has to return Provisioner or None")
    assert attempts["missing"][0] == "BackendNotFoundError"
    assert "can't be imported" in attempts["missing"][1]
    assert "did you mean 'good'?" in attempts["goood"][1]
    assert attempts["unknown key"][1] == "config: unknown key 'rootf' for backend 'refusing' (did you mean 'rootfs'?)"
    assert "its config model raised RuntimeError: boom" in attempts["refused value"][1]
    assert attempts["document"][0] == "SpecError"


def test_observers_are_kept_apart(report: dict[str, Any]) -> None:
    assert report["seen"][0] == "environment.provision.start"
    assert report["seen"][-1] == "environment.destroy.end"
    assert [line for line in report["logged"] if "raising_observer" in line] == [
        "plugin 'raising_observer' (raising_observer 1.5): sandboxcore_event raised; further failures of it are not logged"
    ]


def test_translators_are_kept_apart(report: dict[str, Any]) -> None:
    (found,) = [found for found in report["problems"] if found["name"] == "raising_translators"]
    assert "sandboxcore_translators raised ImportError: boom" in found["problem"]


def test_a_slow_import_is_told(report: dict[str, Any]) -> None:
    (record,) = [record for record in report["plugins"] if record["name"] == "slow"]
    assert record["import_seconds"] >= 0.6
    assert "s to import" in record["warning"]


def test_the_command_line_shows_it_and_goes_on(python: Path) -> None:
    for_programs = run(python, "-m", "sandboxcore", "plugins", "--json")
    assert for_programs.returncode == 1
    assert "Traceback" not in for_programs.stderr
    shown = json.loads(for_programs.stdout)
    assert {problem["name"] for problem in shown["problems"]} >= REFUSED | {"raising_translators"}
    for_people = run(python, "-m", "sandboxcore", "plugins")
    assert for_people.returncode == 1
    assert all(name in for_people.stdout for name in PLUGINS)
    assert "rename it to 'sandboxcore_executor'" in for_people.stdout
    assert "Traceback" not in for_people.stdout + for_people.stderr


def test_switching_off_what_is_broken_makes_it_well(python: Path) -> None:
    off = ",".join([*REFUSED, "good", "raising_translators"])
    done = run(python, "-m", "sandboxcore", "plugins", "--json", SANDBOXCORE_DISABLE_PLUGINS=off)
    shown = json.loads(done.stdout)
    assert [problem for problem in shown["problems"] if problem["distribution"] != "zz_duplicate"] == []
    assert {record["name"] for record in shown["plugins"] if record["status"] == "disabled"} >= REFUSED
    assert done.returncode == 0
