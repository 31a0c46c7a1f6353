"""Files that are committed: no paths of a machine, no registry's host, and docs that name what there is."""

from __future__ import annotations

import ast
import re
import subprocess

import pytest

from sandboxcore import hookspecs
from sandboxcore.local._config import LocalConfig

from .conftest import ROOT

# Put together here, so that this file does not match itself.
HOSTS = [
    ".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("crates", "io"), ("golang", "org"))
]
PATHS = ["/work/" + name for name in ("main", "shared", "brief", ".library")] + ["/root/" + name for name in (".pyenv", ".cache")]


def committed() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("this is not a git checkout")
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("kind", ["registry hosts", "machine paths"])
def test_no_committed_file_names(kind: str) -> None:
    words = HOSTS if kind == "registry hosts" else PATHS
    pattern = re.compile("|".join(map(re.escape, words)).encode())
    # A Go module is named after a host, its own.
    names = [name for name in committed() if not name.endswith(("go.mod", "go.sum"))]
    found = [name for name in names if pattern.search((ROOT / name).read_bytes())]
    assert found == []


def test_no_built_file_is_committed() -> None:
    built = re.compile(r"(^|/)(uv\.lock|__pycache__/|.*\.egg-info/)|sandboxcore/(guest|local)/bin/|^(dist|docs/_build)/")
    assert [name for name in committed() if built.search(name)] == []


@pytest.mark.parametrize("hook", hookspecs.__all__)
def test_docs_name_every_hook(hook: str) -> None:
    assert f"`{hook}`" in (ROOT / "docs" / "explanation" / "hooks.md").read_text()


@pytest.mark.parametrize("key", LocalConfig.model_fields)
def test_docs_name_every_setting_of_the_local_backend(key: str) -> None:
    assert f"| `{key}` |" in (ROOT / "docs" / "how-to" / "images-without-docker.md").read_text()


def test_clauses_are_numbered_without_gap_or_double() -> None:
    ids = re.findall(
        r"^(EXEC|FILE|PROV|DISC|CAP)-(\d+)$", (ROOT / "docs" / "explanation" / "contract.md").read_text(), re.MULTILINE
    )
    assert len(ids) > 30
    for section in ("EXEC", "FILE", "PROV", "DISC", "CAP"):
        numbers = [int(number) for name, number in ids if name == section]
        assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize(
    "page", sorted(str(path.relative_to(ROOT)) for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
)
def test_python_in_the_docs_is_python(page: str) -> None:
    for block in re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL):
        compile(block, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
