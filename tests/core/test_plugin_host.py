"""The plugin host: isolated loading, clashes, switching off, guards, observers, configuration."""

from __future__ import annotations

import logging
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, field_validator

from sandboxcore import (
    BackendInfo,
    BackendNotFoundError,
    CapabilityError,
    Channel,
    Event,
    Executor,
    PluginError,
    PluginHost,
    SandboxRef,
    SpecError,
    Translator,
    UsageError,
    hookimpl,
)
from sandboxcore.guest import Guest

REF = SandboxRef(backend="mine", environment_id="e", run_id="r", service="s")


class Named:
    """A plugin that brings a backend of some name, and whatever else a test gives it."""

    def __init__(self, name: str, **hooks: Callable[..., Any]) -> None:
        self.__name__ = f"someone.{name}"
        self.info = BackendInfo(name=name, summary="")
        for hook, function in hooks.items():
            setattr(self, hook, hookimpl(function))

    @hookimpl
    def sandboxcore_backend_info(self) -> BackendInfo:
        return self.info


def load(*plugins: object, **arguments: Any) -> PluginHost:
    return PluginHost.load(**{"entry_points": False, "disabled": ["local"], "extra": plugins, **arguments})


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Put a module with its distribution's metadata on the path, as an installer would."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def put(distribution: str, source: str, *, name: str = "", module: str = "", points: str | None = None) -> None:
        module = module or f"installed_{distribution}"
        (tmp_path / f"{module}.py").write_text("import sandboxcore\n" + textwrap.dedent(source))
        info = tmp_path / f"{distribution}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(points or f"[sandboxcore]\n{name or distribution} = {module}\n")

    yield put
    for name in [name for name in sys.modules if name.startswith("installed_")]:
        del sys.modules[name]


BACKEND = """
@sandboxcore.hookimpl
def sandboxcore_backend_info():
    return sandboxcore.BackendInfo(name={name!r}, summary="")
"""


def test_an_installed_plugin_is_loaded_with_its_origin(install: Callable[..., None]) -> None:
    install("good", BACKEND.format(name="good_backend"))
    host = PluginHost.load(disabled=())
    (record,) = [record for record in host.plugins if record.name == "good"]
    assert (record.distribution, record.version, record.module, record.status) == ("good", "1.5", "installed_good", "loaded")
    assert record.backend == "good_backend"
    assert record.hooks == ("sandboxcore_backend_info",)
    assert "good_backend" in host.backends


def test_a_broken_one_stops_nobody_else(install: Callable[..., None]) -> None:
    install("aa", "import nothing_of_that_name")
    install("bb", "raise SystemExit(3)")
    install("cc", "def broken(:")
    install("dd", "raise RuntimeError('first line\\nsecond line')")
    install("ee", BACKEND.format(name="ee"))
    host = PluginHost.load(disabled=())
    problems = {problem.name: problem for problem in host.problems if problem.name in ("aa", "bb", "cc", "dd", "ee")}
    assert set(problems) == {"aa", "bb", "cc", "dd"}
    assert problems["aa"].fix == "install what is missing (nothing_of_that_name)"
    assert "SystemExit" in problems["bb"].problem
    assert "SyntaxError" in problems["cc"].problem
    assert problems["dd"].problem == "can't be imported: RuntimeError: first line"
    assert (problems["dd"].distribution, problems["dd"].version, problems["dd"].module) == ("dd", "1.5", "installed_dd")
    assert str(problems["aa"]).startswith("plugin 'aa' (aa 1.5): can't be imported: ModuleNotFoundError")
    assert "ee" in host.backends


def test_none_of_the_hooks_of_a_broken_plugin_is_called() -> None:
    seen: list[object] = []

    def sandboxcore_evnt(event: Any) -> None:
        """Misspelt."""

    plugin = Named("broken", sandboxcore_event=lambda event: seen.append(event), sandboxcore_evnt=sandboxcore_evnt)
    host = load(plugin)
    host.emit(Event(name="x", time=0))
    assert not seen
    assert not host.observed
    assert not host.backends
    assert [problem.fix for problem in host.problems] == ["rename it to 'sandboxcore_event'"]


def test_two_distributions_with_one_entry_point_name(install: Callable[..., None]) -> None:
    install("one", BACKEND.format(name="first"), name="same")
    install("two", BACKEND.format(name="second"), name="same")
    host = PluginHost.load(disabled=())
    (problem,) = [problem for problem in host.problems if problem.name == "same"]
    assert "'same' (one 1.5)" in problem.problem
    assert "'same' (two 1.5)" in problem.problem
    assert problem.fix == "uninstall one of one and two"
    assert "first" in host.backends
    assert "second" not in host.backends


def test_entry_points_that_cannot_be_read(install: Callable[..., None]) -> None:
    install("good", BACKEND.format(name="fine"))
    install("odd", "", points="[sandboxcore]\nno equals sign\n")
    host = PluginHost.load(disabled=())
    assert "fine" in host.backends
    (problem,) = [problem for problem in host.problems if problem.distribution == "odd"]
    assert "entry_points.txt can't be read" in problem.problem


def test_two_plugins_with_one_backend_name() -> None:
    first, second = Named("docker"), Named("docker", sandboxcore_provisioner=lambda backend: 1 / 0)
    second.__name__ = "another"
    host = load(first, second)
    (problem,) = host.problems
    assert problem.name == "another"
    assert "'docker' (someone.docker)" in problem.problem
    assert "'another' (another)" in problem.problem
    assert [record.status for record in host.plugins if record.name != "local"] == ["loaded", "broken"]


def test_nobody_takes_the_name_of_the_embedded_backend() -> None:
    host = load(Named("local", sandboxcore_event=lambda event: None), disabled=())
    if "local" not in host.backends:
        pytest.skip("the embedded backend can't be loaded: " + "; ".join(map(str, host.problems)))
    (problem,) = host.problems
    assert "taken" in problem.problem or "same name" in problem.problem
    assert "sandboxcore" in problem.problem
    assert not host.observed


def test_switching_off(monkeypatch: pytest.MonkeyPatch, install: Callable[..., None]) -> None:
    install("off", "raise RuntimeError('must not be imported')")
    install("on", BACKEND.format(name="on"))
    monkeypatch.setenv("SANDBOXCORE_DISABLE_PLUGINS", " off, local ,offf,")
    host = PluginHost.load()
    status = {record.name: record.status for record in host.plugins}
    assert (status["off"], status["local"], status["on"]) == ("disabled", "disabled", "loaded")
    (problem,) = [problem for problem in host.problems if problem.name == "offf"]
    assert "did you mean 'off'?" in problem.problem
    with pytest.raises(BackendNotFoundError, match="'local' is disabled"):
        host.info("local")


@pytest.mark.parametrize("value", ["", ",", " , "])
def test_an_empty_list_switches_nothing_off(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOXCORE_DISABLE_PLUGINS", value)
    host = PluginHost.load(entry_points=False)
    assert not [record for record in host.plugins if record.status == "disabled"]
    assert not [problem for problem in host.problems if "disabled" in problem.problem]


def test_a_slow_import_is_told_and_used(monkeypatch: pytest.MonkeyPatch, install: Callable[..., None]) -> None:
    monkeypatch.setattr("sandboxcore._plugin_registry.SLOW_IMPORT", 0.05)
    install("slow", "import time; time.sleep(0.1)\n" + BACKEND.format(name="slow"))
    host = PluginHost.load(disabled=())
    (record,) = [record for record in host.plugins if record.name == "slow"]
    assert record.import_seconds >= 0.1
    assert "to import" in record.warning
    assert "slow" in host.backends


class Refusing(BaseModel):
    model_config = ConfigDict(extra="forbid")
    rootfs: str = ""

    @field_validator("rootfs")
    @classmethod
    def _explode(cls, rootfs: str) -> str:
        if rootfs == "explode":
            raise RuntimeError("boom")
        return rootfs


@pytest.mark.parametrize(
    ("info", "problem"),
    [
        ("text", "returned str"),
        (BackendInfo(name="", summary=""), "can't be the name"),
        (BackendInfo(name="a b", summary=""), "can't be the name"),
        (BackendInfo(name="x", summary="", config_model=dict), "not a pydantic model"),  # type: ignore[arg-type]
        (ZeroDivisionError("boom"), "raised ZeroDivisionError: boom"),
    ],
)
def test_a_backend_info_that_is_wrong(info: object, problem: str) -> None:
    class Plugin:
        @hookimpl
        def sandboxcore_backend_info(self) -> object:
            if isinstance(info, Exception):
                raise info
            return info

        @hookimpl
        def sandboxcore_event(self, event: Event) -> None:
            raise AssertionError

    host = load(Plugin())
    assert problem in host.problems[0].problem
    assert not host.observed
    assert [record.status for record in host.plugins if record.name != "local"] == ["broken"]


def test_a_plugin_that_cannot_be_examined() -> None:
    class Plugin:
        def __dir__(self) -> list[str]:
            raise RuntimeError("no")

    host = load(Plugin(), Named("fine"))
    assert "can't be examined: RuntimeError: no" in host.problems[0].problem
    assert list(host.backends) == ["fine"]


def test_configuration() -> None:
    plugin = Named("mine")
    plugin.info = BackendInfo(name="mine", summary="", config_model=Refusing)
    host = load(plugin, Named("plain"))
    assert host.configure("mine", {"rootfs": "/x"}) == Refusing(rootfs="/x")
    assert host.configure("mine") == Refusing()
    assert host.configure("plain", {"a": 1}) == {"a": 1}
    with pytest.raises(SpecError) as unknown:
        host.configure("mine", {"rootf": "/x"})
    assert str(unknown.value) == "config: unknown key 'rootf' for backend 'mine' (did you mean 'rootfs'?)"
    with pytest.raises(PluginError, match=r"plugin 'mine' \(someone.mine\): its config model raised RuntimeError: boom"):
        host.configure("mine", {"rootfs": "explode"})
    with pytest.raises(UsageError, match="must be a mapping"):
        host.configure("mine", ["rootfs"])  # type: ignore[arg-type]


def test_a_backend_that_is_not_there(install: Callable[..., None]) -> None:
    install("helm", "import nothing_of_that_name")
    host = PluginHost.load(disabled=(), extra=[Named("docker")])
    with pytest.raises(
        BackendNotFoundError, match=r"no backend is called 'dokcer' \(did you mean 'docker'\?\); installed: .*docker"
    ):
        host.info("dokcer")
    with pytest.raises(BackendNotFoundError, match="'helm' can't be used: can't be imported") as caught:
        host.info("helm")
    assert caught.value.hint == "install what is missing (nothing_of_that_name)"


def test_a_hook_that_raises_is_named() -> None:
    def raises(backend: str) -> None:
        raise ValueError("boom")

    def refuses(backend: str) -> None:
        raise CapabilityError("no user namespaces")

    with pytest.raises(
        PluginError, match=r"plugin 'mine' \(someone.mine\): hook sandboxcore_provisioner raised ValueError: boom"
    ):
        load(Named("mine", sandboxcore_provisioner=raises)).provisioner("mine", {})
    with pytest.raises(CapabilityError, match="no user namespaces"):
        load(Named("mine", sandboxcore_provisioner=refuses)).provisioner("mine", {})


@pytest.mark.filterwarnings("error")
def test_a_hook_that_returns_what_it_must_not_is_named() -> None:
    async def later() -> None:
        """Make something that nobody awaits."""

    cases = {
        "sandboxcore_provisioner": (lambda backend: "x", "returned str; it has to return Provisioner or None"),
        "sandboxcore_discoverer": (lambda backend: later(), "returned coroutine; it has to return Discoverer or None"),
        "sandboxcore_channel": (lambda sandbox: 1, "returned int; it has to return Channel or None"),
    }
    for hook, (function, message) in cases.items():
        host = load(Named("mine", **{hook: function}))
        calls: dict[str, Callable[[], object]] = {
            "sandboxcore_provisioner": lambda host=host: host.provisioner("mine", {}),
            "sandboxcore_discoverer": lambda host=host: host.discoverer("mine", {}, None),
            "sandboxcore_channel": lambda host=host: host.channel(REF, {}, None),
        }
        with pytest.raises(PluginError, match=rf"hook {hook} {message}"):
            calls[hook]()


class Reader(Translator):
    def __init__(self, name: str) -> None:
        self.name = name

    def claims(self, path: Path) -> bool:
        return False

    def translate(self, paths: Any, *, variables: Any = None, backend: Any = None, options: Any = None) -> Any: ...


def test_translators_that_fail_stop_no_other() -> None:
    host = load(
        Named("a", sandboxcore_translators=lambda: ["x"]),
        Named("b", sandboxcore_translators=lambda: [Reader("yaml"), Reader("toml")]),
        Named("c", sandboxcore_translators=lambda: 1 / 0),
        Named("d", sandboxcore_translators=lambda: None),
        Named("e", sandboxcore_translators=lambda: (Reader("yaml"), Reader("json"))),
    )
    assert not host.problems
    for _ in range(2):
        assert [translator.name for translator in host.translators()] == ["yaml", "toml", "json"]
    assert [(problem.name, problem.problem.partition("sandboxcore_translators ")[2]) for problem in host.problems[:2]] == [
        ("a", "returned list; it has to return a list of Translator"),
        ("c", "raised ZeroDivisionError: division by zero"),
    ]
    assert host.problems[2].name == "e"
    assert "brings a translator 'yaml', of which there is one already" in host.problems[2].problem
    assert len(host.problems) == 3


def test_nobody_answers() -> None:
    host = load(Named("mine"))
    with pytest.raises(PluginError, match="names backend 'mine', but no plugin answers sandboxcore_provisioner"):
        host.provisioner("mine", {})
    with pytest.raises(PluginError, match="sandboxcore_discoverer"):
        host.discoverer("mine", {}, None)  # type: ignore[arg-type]
    with pytest.raises(PluginError, match="sandboxcore_channel"):
        host.bind(REF, {}, None)  # type: ignore[arg-type]


class Nowhere(Channel):
    async def open(self, argv: Any, protocol: Any) -> Any:
        raise AssertionError("binding must not connect")


async def test_the_core_answers_last_with_one_guest_for_both() -> None:
    asked: list[SandboxRef] = []

    def channel(sandbox: SandboxRef) -> Channel:
        asked.append(sandbox)
        return Nowhere()

    binding = load(Named("mine", sandboxcore_channel=channel)).bind(REF, {}, None, lease=7.0)  # type: ignore[arg-type]
    assert isinstance(binding.guest, Guest)
    assert binding.executor is binding.guest.executor
    assert binding.files is binding.guest.files
    assert asked == [REF]
    assert binding.guest in binding.strategies


async def test_each_binding_has_a_guest_of_its_own_and_none_is_kept() -> None:
    host = load(Named("mine", sandboxcore_channel=lambda sandbox: Nowhere()))
    first, second = (host.bind(REF, {}, None) for _ in range(2))  # type: ignore[arg-type]
    assert first.guest is not second.guest
    assert not host._guests._guests
    assert not host._guests._leases


class Brought(Executor):
    def __init__(self, inner: Executor | None = None) -> None:
        self.inner = inner

    async def exec(self, request: Any) -> Any: ...

    async def start(self, request: Any) -> Any: ...


async def test_a_plugin_may_bring_its_own_executor_and_leave_files_to_the_guest() -> None:
    mine = Brought()
    plugin = Named("mine", sandboxcore_channel=lambda sandbox: Nowhere(), sandboxcore_executor=lambda sandbox: mine)
    binding = load(plugin).bind(REF, {}, None)  # type: ignore[arg-type]
    assert binding.executor is mine
    assert isinstance(binding.guest, Guest)
    assert binding.files is binding.guest.files


async def test_a_plugin_may_decorate_what_another_brings() -> None:
    class Recorder:
        @hookimpl(wrapper=True)
        def sandboxcore_executor(self) -> Any:
            return Brought((yield))

    binding = load(Named("mine", sandboxcore_channel=lambda sandbox: Nowhere()), Recorder()).bind(REF, {}, None)  # type: ignore[arg-type]
    assert isinstance(binding.executor, Brought)
    assert isinstance(binding.guest, Guest)
    assert binding.executor.inner is binding.guest.executor


def test_an_error_passes_through_a_decorator_with_its_own_plugin_named() -> None:
    class Recorder:
        @hookimpl(wrapper=True)
        def sandboxcore_executor(self) -> Any:
            return (yield)

    def raises(sandbox: SandboxRef) -> None:
        raise OSError("boom")

    class Exploding:
        @hookimpl(wrapper=True)
        def sandboxcore_provisioner(self) -> Any:
            yield
            raise KeyError("mine")

    host = load(Named("mine", sandboxcore_executor=raises), Recorder(), Exploding())
    with pytest.raises(PluginError, match=r"plugin 'mine' .* sandboxcore_executor raised OSError: boom"):
        host.bind(REF, {}, None)  # type: ignore[arg-type]
    with pytest.raises(PluginError, match=r"plugin 'Exploding'.* sandboxcore_provisioner raised KeyError"):
        host.provisioner("mine", {})


@pytest.mark.parametrize(("times", "problem"), [(0, "did not yield"), (2, "yields more than once")])
def test_a_decorator_that_does_not_yield_once_is_named(times: int, problem: str) -> None:
    class Wrapper:
        @hookimpl(wrapper=True)
        def sandboxcore_provisioner(self) -> Any:
            for _ in range(times):
                yield

    with pytest.raises(PluginError, match=f"plugin 'Wrapper'.* sandboxcore_provisioner {problem}"):
        load(Named("mine"), Wrapper()).provisioner("mine", {})


def test_observers_that_fail_are_logged_once_and_stop_nobody(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    async def asynchronous() -> None: ...

    def fails(event: Event) -> None:
        raise ValueError("boom")

    plugins = [
        Named("first", sandboxcore_event=lambda event: seen.append("first")),
        Named("failing", sandboxcore_event=fails),
        Named("returning", sandboxcore_event=lambda event: asynchronous()),
        Named("last", sandboxcore_event=lambda event: seen.append("last")),
    ]
    host = load(*plugins)
    assert host.observed
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            host.emit(Event(name="x", time=time.time()))
    assert sorted(seen) == ["first"] * 3 + ["last"] * 3
    assert [record.getMessage() for record in caplog.records] == [
        "plugin 'failing' (someone.failing): sandboxcore_event raised; further failures of it are not logged"
    ]


def test_hosts_share_nothing() -> None:
    one, two = load(Named("one")), load(Named("two"))
    assert list(one.backends) == ["one"]
    assert list(two.backends) == ["two"]
    with pytest.raises(TypeError):
        one.backends["x"] = BackendInfo(name="x", summary="")  # type: ignore[index]


def test_abstract_bases_are_checked_not_guessed() -> None:
    class Duck:
        async def provision(self) -> None: ...

    with pytest.raises(PluginError, match="returned Duck; it has to return Provisioner or None"):
        load(Named("mine", sandboxcore_provisioner=lambda backend: Duck())).provisioner("mine", {})
