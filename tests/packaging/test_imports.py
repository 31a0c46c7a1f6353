"""What importing costs, and which names are public."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sys

import pytest

import sandboxcore

from .conftest import ROOT, run

LIGHT = {"sandboxcore", "pluggy", "pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"}


def top_level_after(statement: str) -> set[str]:
    """Import in a fresh interpreter and name the packages beyond the standard library that it loaded."""
    code = f"import sys; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before))"
    loaded = {name.partition(".")[0] for name in run([sys.executable, "-c", code]).split()}
    return {name for name in loaded - sys.stdlib_module_names if not name.startswith("_sysconfigdata")}


def test_importing_the_package_loads_the_standard_library_only() -> None:
    assert top_level_after("import sandboxcore") == {"sandboxcore"}


def test_using_a_session_loads_pluggy_and_pydantic_only() -> None:
    assert top_level_after("import sandboxcore; sandboxcore.Session") <= LIGHT


def test_importing_the_command_line_loads_click_only() -> None:
    assert top_level_after("import sandboxcore.cli") <= {"sandboxcore", "click"}


def public_modules() -> list[str]:
    """Name the modules that the reference documents."""
    pages = [page.read_text() for page in sorted((ROOT / "docs" / "reference").glob("*.md"))]
    return ["sandboxcore", *re.findall(r"^.. automodule:: (\S+)$", "\n".join(pages), re.MULTILINE)]


def test_every_module_without_underscore_in_the_package_is_documented() -> None:
    internal = {"sandboxcore.cli", "sandboxcore.guest", "sandboxcore.local"}
    top = {f"sandboxcore.{info.name}" for info in pkgutil.iter_modules(sandboxcore.__path__) if not info.name.startswith("_")}
    assert top - internal <= set(public_modules())


@pytest.mark.parametrize("name", public_modules())
def test_all_is_a_tuple_that_names_everything_public(name: str) -> None:
    module = importlib.import_module(name)
    assert isinstance(module.__all__, tuple)
    assert len(set(module.__all__)) == len(module.__all__)
    for public in module.__all__:
        assert hasattr(module, public)
    own = {
        label
        for label, value in vars(module).items()
        if not label.startswith("_") and (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == name
    }
    assert own <= set(module.__all__)


@pytest.mark.parametrize("name", sandboxcore.__all__)
def test_public_name_is_there_and_listed(name: str) -> None:
    assert getattr(sandboxcore, name) is not None
    assert name in dir(sandboxcore)
