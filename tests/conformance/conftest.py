"""Options of ``pytest tests/conformance``, and the target that they describe."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from sandboxcore.testing import Target, clauses_of

from .leftovers import LEFTOVERS

HERE = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance")
    group.addoption("--backend", default="local", help="name of the installed backend to check (local)")
    group.addoption("--backend-config", default="{}", help="its configuration, as JSON")
    group.addoption("--spec", default=None, help="document whose sandboxes are used; without it, one empty service")
    group.addoption("--stream-bytes", type=int, default=64 << 20, help="size of the big file (64 MiB)")
    group.addoption("--slack", type=float, default=10.0, help="seconds granted above each limit of time (10)")
    group.addoption("--patience", type=float, default=60.0, help="seconds after which a test is given up (60)")
    group.addoption("--hurry", type=float, default=0.0, help="the same, for tests of --hurry-clauses")
    group.addoption("--hurry-clauses", default="", help="clauses whose tests get less patience, as EXEC-1,FILE-3")
    group.addoption("--no-shell", action="store_true", help="the spec's sandboxes have one program, /app, and nothing else")
    group.addoption("--lacks", default="", help="capabilities that the spec's sandboxes have not, as user,pty")
    group.addoption("--scratch", default="/tmp", help="directory in the sandbox where everybody may write (/tmp)")
    group.addoption("--lease", type=float, default=4.0, help="seconds of a short lease (4)")
    group.addoption("--clauses", default="", help="run only tests of these clauses, as EXEC-1,FILE-3")
    group.addoption("--mutant", default=None, help="break the backend in this way (see mutants.py)")
    group.addoption("--outcomes", type=Path, default=None, help="file for the outcome of each test, as JSON lines")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Everything in here runs on the local backend; on another one that is asked for, only the contract does."""
    ours = [item for item in items if HERE in item.path.parents]
    if config.getoption("--backend", "local") == "local":
        for item in ours:
            item.add_marker(pytest.mark.tier("local"))
    else:
        _keep_only(config, items, lambda item: item not in ours or item.path.name == "test_contract.py")
    wanted = _named(config, "--clauses")
    if wanted:
        _keep_only(config, items, lambda item: bool(wanted & set(_clauses(item))))


def _keep_only(config: pytest.Config, items: list[pytest.Item], keep: Callable[[pytest.Item], bool]) -> None:
    dropped = [item for item in items if not keep(item)]
    items[:] = [item for item in items if keep(item)]
    config.hook.pytest_deselected(items=dropped)


def _named(config: pytest.Config, option: str) -> set[str]:
    return set(filter(None, config.getoption(option, "").split(",")))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Let a test of which little is expected have less patience than the others with the same target."""
    if isinstance(item, pytest.Function) and _named(item.config, "--hurry-clauses") & set(_clauses(item)):
        target: Target = item.funcargs["target"]
        item.funcargs["target"] = dataclasses.replace(target, patience=item.config.getoption("--hurry"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note the outcome of each phase of a test, with its clauses."""
    report = yield
    outcomes: Path | None = item.config.getoption("--outcomes", None)
    if outcomes is not None:
        line = {"test": item.name, "phase": report.when, "clauses": _clauses(item), "outcome": report.outcome}
        line["text"] = report.longreprtext[-1500:]
        with outcomes.open("a") as file:
            file.write(json.dumps(line) + "\n")
    return report


def _clauses(item: pytest.Item) -> tuple[str, ...]:
    return clauses_of(item.function) if isinstance(item, pytest.Function) else ()


@pytest.fixture(scope="session")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keep the local backend's state apart from the user's own."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="session")
def chosen(pytestconfig: pytest.Config, state_dir: Path) -> Target:
    """Make the target that the options describe."""
    backend = pytestconfig.getoption("--backend", "local")
    config: dict[str, Any] = json.loads(pytestconfig.getoption("--backend-config", "{}"))
    if backend == "local":
        config.setdefault("state_dir", str(state_dir))
    return Target(
        backend=backend,
        config=config,
        spec=pytestconfig.getoption("--spec", None),
        plugins=_mutant(pytestconfig.getoption("--mutant", None)),
        shell=not pytestconfig.getoption("--no-shell", False),
        lacks=tuple(filter(None, pytestconfig.getoption("--lacks", "").split(","))),
        scratch=pytestconfig.getoption("--scratch", "/tmp"),
        lease=pytestconfig.getoption("--lease", 4.0),
        stream_bytes=pytestconfig.getoption("--stream-bytes", 64 << 20),
        slack=pytestconfig.getoption("--slack", 10.0),
        patience=pytestconfig.getoption("--patience", 60.0),
        leftovers=LEFTOVERS[backend](config) if backend in LEFTOVERS else None,
    )


def _mutant(name: str | None) -> list[object]:
    if name is None:
        return []
    import sys

    sys.path.insert(0, str(HERE))
    from mutants import MUTANTS

    return [MUTANTS[name].plugin()]
