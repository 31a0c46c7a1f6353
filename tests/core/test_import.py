"""``import sandboxcore`` costs next to nothing, and every public name is there when it is used."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import sandboxcore

PUBLIC_MODULES = (
    "abc",
    "environment",
    "errors",
    "hookspecs",
    "plugins",
    "process",
    "report",
    "session",
    "spec",
    "sync",
    "values",
)


def modules_after(code: str) -> set[str]:
    """Run code in a new interpreter and return the modules that it has loaded then."""
    script = f"{code}\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    root = Path(sandboxcore.__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_importing_the_package_loads_nothing_of_others() -> None:
    heavy = {"pydantic", "pluggy", "asyncio", "inspect", "importlib.metadata", "dataclasses", "re"}
    assert not (modules_after("import sandboxcore") - modules_after("")) & heavy


def test_loading_plugins_loads_no_command_line_and_no_guest_client() -> None:
    loaded = modules_after("import sandboxcore; sandboxcore.PluginHost.load(entry_points=False)")
    assert not {"click", "rich", "yaml", "sandboxcore.cli", "sandboxcore.guest.connection"} & loaded


def test_errors_alone_need_no_third_party() -> None:
    loaded = modules_after("import sandboxcore; sandboxcore.SandboxError")
    assert not {"pydantic", "pluggy"} & loaded


@pytest.mark.parametrize("name", sandboxcore.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(sandboxcore, name) is not None
    assert name in dir(sandboxcore)


@pytest.mark.parametrize("name", PUBLIC_MODULES)
def test_public_modules_name_what_is_public(name: str) -> None:
    module = getattr(sandboxcore, name)
    assert isinstance(module.__all__, tuple)
    assert list(module.__all__) == sorted(module.__all__, key=lambda word: (not word.isupper(), not word[0].isupper(), word))
    for public in module.__all__:
        assert getattr(module, public) is not None


def test_all_errors_and_values_are_public_at_the_top() -> None:
    for module in ("errors", "spec"):
        for name in importlib.import_module(f"sandboxcore.{module}").__all__:
            if name not in ("Started", "file_error"):
                assert name in sandboxcore.__all__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Sesion'"):
        sandboxcore.Sesion  # noqa: B018


def test_the_version_is_text_and_kept() -> None:
    assert isinstance(sandboxcore.__version__, str)
    assert sandboxcore.__version__
    assert vars(sandboxcore)["__version__"] == sandboxcore.__version__
