"""What is told about a plugin's functions before any of them is registered."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sandboxcore import hookimpl, hookspecs
from sandboxcore._plugin_checks import HOOKS, Fault, faults, hook_functions


def module(**names: Any) -> types.ModuleType:
    made = types.ModuleType("someone")
    vars(made).update(names)
    return made


def only(plugin: object) -> Fault:
    (fault,) = faults(plugin)
    return fault


@hookimpl
def sandboxcore_provisioner(backend: str, config: Any) -> None:
    return None


@hookimpl
def sandboxcore_event(event: Any) -> None:
    pass


def test_what_is_right_has_no_faults() -> None:
    @hookimpl
    def sandboxcore_executor(sandbox: Any) -> None:
        return None

    @hookimpl(wrapper=True)
    def sandboxcore_file_store(provisioner: Any, sandbox: Any) -> Iterator[None]:
        return (yield)

    @hookimpl(specname="sandboxcore_channel", tryfirst=True)
    def my_channel(sandbox: Any) -> None:
        return None

    plugin = module(a=sandboxcore_executor, b=sandboxcore_file_store, c=my_channel, SANDBOXCORE_HOOK_API=1)
    assert faults(module(sandboxcore_executor=sandboxcore_executor, sandboxcore_event=sandboxcore_event)) == ()
    assert {function.hook for function in hook_functions(module(c=my_channel))} == {"sandboxcore_channel"}
    assert faults(module(sandboxcore_file_store=sandboxcore_file_store)) == ()
    assert len(hook_functions(plugin)) == 3


def test_methods_of_an_object_are_hooks_without_their_self() -> None:
    class Plugin:
        @hookimpl
        def sandboxcore_provisioner(self, backend: str) -> None:
            return None

        @property
        def explodes(self) -> None:
            raise RuntimeError("properties are not to be run")

    assert faults(Plugin()) == ()


def misspelt() -> Callable[..., Any]:
    @hookimpl
    def sandboxcore_executer(sandbox: Any) -> None:
        return None

    return sandboxcore_executer


def asynchronous() -> Callable[..., Any]:
    @hookimpl
    async def sandboxcore_executor(sandbox: Any) -> None:
        return None

    return sandboxcore_executor


def asynchronous_and_decorated() -> Callable[..., Any]:
    async def sandboxcore_executor(sandbox: Any) -> None:
        return None

    @hookimpl
    @functools.wraps(sandboxcore_executor)
    def decorated(*arguments: Any) -> Any:
        return sandboxcore_executor(*arguments)

    return decorated


def keyword_only() -> Callable[..., Any]:
    @hookimpl
    def sandboxcore_executor(*, sandbox: Any) -> None:
        return None

    return sandboxcore_executor


def unknown_parameter() -> Callable[..., Any]:
    @hookimpl
    def sandboxcore_executor(sandbx: Any) -> None:
        return None

    return sandboxcore_executor


def default_value() -> Callable[..., Any]:
    @hookimpl
    def sandboxcore_executor(sandbox: Any, config: Any = None) -> None:
        return None

    return sandboxcore_executor


def everything() -> Callable[..., Any]:
    @hookimpl
    def sandboxcore_executor(sandbox: Any, **others: Any) -> None:
        return None

    return sandboxcore_executor


def unmarked() -> Callable[..., Any]:
    def sandboxcore_executor(sandbox: Any) -> None:
        return None

    return sandboxcore_executor


def unknown_hook() -> Callable[..., Any]:
    @hookimpl
    def sandboxcore_frobnicate_the_whole_cluster(sandbox: Any) -> None:
        return None

    return sandboxcore_frobnicate_the_whole_cluster


def old_wrapper() -> Callable[..., Any]:
    @hookimpl(hookwrapper=True)
    def sandboxcore_executor(sandbox: Any) -> Iterator[None]:
        yield

    return sandboxcore_executor


def generator() -> Callable[..., Any]:
    @hookimpl
    def sandboxcore_translators() -> Iterator[Any]:
        yield None

    return sandboxcore_translators


def wrapper_without_yield() -> Callable[..., Any]:
    @hookimpl(wrapper=True)
    def sandboxcore_executor(sandbox: Any) -> None:
        return None

    return sandboxcore_executor


def wrapped_info() -> Callable[..., Any]:
    @hookimpl(wrapper=True)
    def sandboxcore_backend_info() -> Iterator[None]:
        return (yield)

    return sandboxcore_backend_info


WRONG = [
    (misspelt, "no hook 'sandboxcore_executer'", "rename it to 'sandboxcore_executor'"),
    (asynchronous, "is 'async def'", "make it 'def'"),
    (asynchronous_and_decorated, "is 'async def'", "make it 'def'"),
    (keyword_only, "parameter 'sandbox' is keyword-only", "remove the '*'"),
    (unknown_parameter, "parameter 'sandbx' is unknown (did you mean 'sandbox'?)", "sandbox, config, provisioner"),
    (default_value, "parameter 'config' has a default", "remove the default"),
    (everything, "parameter 'others' takes what is never passed", "sandbox, config, provisioner"),
    (unmarked, "is not marked as a hook", "@sandboxcore.hookimpl"),
    (unknown_hook, "no hook 'sandboxcore_frobnicate_the_whole_cluster'", "the hooks are sandboxcore_backend_info"),
    (old_wrapper, "old-style", "wrapper=True"),
    (generator, "is a generator", "return the value"),
    (wrapper_without_yield, "does not yield", "yield once"),
    (wrapped_info, "can't be a wrapper", "without wrapper=True"),
]


@pytest.mark.parametrize(("make", "problem", "fix"), WRONG, ids=lambda value: getattr(value, "__name__", ""))
def test_what_is_wrong_is_named_with_its_fix(make: Callable[[], Callable[..., Any]], problem: str, fix: str) -> None:
    function = make()
    fault = only(module(**{function.__name__: function}))
    assert problem in fault.problem
    assert fix in fault.fix


def test_every_fault_is_told() -> None:
    assert len(faults(module(sandboxcore_executer=misspelt(), sandboxcore_executor=keyword_only()))) == 2


@pytest.mark.parametrize(
    ("stated", "problem"), [(2, "hook API 2; this sandboxcore has 1"), ("1", "not a number"), (True, "not a number")]
)
def test_the_hook_api_that_it_was_written_for(stated: object, problem: str) -> None:
    # Of a plugin from the future nothing else can be judged.
    assert problem in only(module(SANDBOXCORE_HOOK_API=stated, sandboxcore_executer=misspelt())).problem


def test_a_plugin_without_hooks() -> None:
    assert "no hook implementations" in only(module(x=1)).problem


def test_hook_specs_that_a_module_imported_are_not_its_hooks() -> None:
    plugin = module(sandboxcore_channel=hookspecs.sandboxcore_channel, sandboxcore_provisioner=sandboxcore_provisioner)
    assert faults(plugin) == ()


def test_the_table_of_hooks_is_that_of_the_specs() -> None:
    assert set(HOOKS) == {name for name in vars(hookspecs) if name.startswith("sandboxcore_")} == set(hookspecs.__all__)
    for name, parameters in HOOKS.items():
        function = getattr(hookspecs, name)
        assert not inspect.iscoroutinefunction(function)
        assert tuple(inspect.signature(function).parameters) == parameters
