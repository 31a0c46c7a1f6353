"""Decide whether a plugin's hook implementations can work, before any of them is registered.

pluggy takes a misspelt hook, an ``async def`` one and keyword-only parameters without a word, and then never calls it, or
fails in the middle of somebody's run. All of that can be told from the functions alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from . import hookspecs
from ._markers import HOOK_API, PROJECT
from ._validation import did_you_mean, nearest

__all__ = ("Fault", "HookFunction", "faults", "hook_functions")

_PREFIX = f"{PROJECT}_"
_MARK = f"{PROJECT}_impl"
_SPEC_MARK = f"{PROJECT}_spec"

#: These are asked of each plugin by itself.
_NEVER_WRAPPED = (f"{_PREFIX}backend_info", f"{_PREFIX}commands", f"{_PREFIX}event", f"{_PREFIX}translators")

#: Hook name to the names of its parameters.
HOOKS: Mapping[str, tuple[str, ...]] = {
    name: tuple(inspect.signature(getattr(hookspecs, name)).parameters) for name in hookspecs.__all__
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """What is wrong with a plugin, and what its author or user does about it."""

    problem: str
    fix: str


@dataclass(frozen=True, kw_only=True, slots=True)
class HookFunction:
    """A function of a plugin that implements a hook, or looks as if it should."""

    name: str
    hook: str
    function: Callable[..., Any]
    marks: Mapping[str, Any] | None

    @property
    def is_wrapper(self) -> bool:
        """Whether it runs around the other implementations."""
        return bool(self.marks and self.marks.get("wrapper"))


def hook_functions(plugin: object) -> tuple[HookFunction, ...]:
    """List the functions of a module, or the methods of an object, that implement hooks or are named like one."""
    return tuple(_hook_functions(plugin))


def _hook_functions(plugin: object) -> Iterator[HookFunction]:
    for name in dir(plugin):
        # getattr() would run properties and the module's own lazy __getattr__.
        static = inspect.getattr_static(plugin, name, None)
        if not inspect.isroutine(static) or hasattr(static, _SPEC_MARK):
            continue
        function = getattr(plugin, name)
        marks = getattr(function, _MARK, None)
        if isinstance(marks, dict):
            yield HookFunction(name=name, hook=marks.get("specname") or name, function=function, marks=marks)
        elif name.startswith(_PREFIX):
            yield HookFunction(name=name, hook=name, function=function, marks=None)


def faults(plugin: object) -> tuple[Fault, ...]:
    """Find everything that would keep the plugin's hooks from being called, or from working when they are."""
    future = _future_api(plugin)
    if future:
        return (future,)
    functions = hook_functions(plugin)
    if not functions:
        return (Fault(problem="has no hook implementations", fix=f"mark its hook functions with @{PROJECT}.hookimpl"),)
    return tuple(fault for function in functions for fault in _function_faults(function))


def _future_api(plugin: object) -> Fault | None:
    wanted = getattr(plugin, "SANDBOXCORE_HOOK_API", HOOK_API)
    if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 1:
        return Fault(problem="SANDBOXCORE_HOOK_API is not a number", fix=f"set it to the one it was written for ({HOOK_API})")
    if wanted > HOOK_API:
        return Fault(
            problem=f"was written for hook API {wanted}; this sandboxcore has {HOOK_API}",
            fix="upgrade sandboxcore (pip install --upgrade sandboxcore), or install an older version of the plugin",
        )
    return None


def _function_faults(function: HookFunction) -> Iterator[Fault]:
    if function.hook not in HOOKS:
        yield _unknown_hook(function)
        return
    if function.marks is None:
        yield Fault(problem=f"{function.name} is not marked as a hook", fix=f"put @{PROJECT}.hookimpl on it")
        return
    shape = _wrong_shape(function)
    if shape:
        yield shape
    yield from _parameter_faults(function)


def _unknown_hook(function: HookFunction) -> Fault:
    # With the prefix, which all have, every name would be like some other.
    near = nearest(function.hook.removeprefix(_PREFIX), (name.removeprefix(_PREFIX) for name in HOOKS))
    if near:
        return Fault(problem=f"there is no hook {function.hook!r}", fix=f"rename it to {_PREFIX + near!r}")
    return Fault(problem=f"there is no hook {function.hook!r}", fix=f"remove it; the hooks are {', '.join(sorted(HOOKS))}")


def _wrong_shape(function: HookFunction) -> Fault | None:
    plain = inspect.unwrap(function.function)
    marks = function.marks or {}
    if inspect.iscoroutinefunction(plain) or inspect.isasyncgenfunction(plain):
        return Fault(
            problem=f"{function.name} is 'async def', but hooks are called without await",
            fix="make it 'def' and let it return an object with coroutine methods",
        )
    if marks.get("hookwrapper"):
        return Fault(problem=f"{function.name} is an old-style hook wrapper", fix="use @sandboxcore.hookimpl(wrapper=True)")
    if function.is_wrapper and function.hook in _NEVER_WRAPPED:
        return Fault(problem=f"{function.name} can't be a wrapper", fix="implement it without wrapper=True")
    if function.is_wrapper != inspect.isgeneratorfunction(plain):
        if function.is_wrapper:
            return Fault(problem=f"{function.name} does not yield", fix="yield once in it, or leave out wrapper=True")
        return Fault(problem=f"{function.name} is a generator", fix="return the value, or mark it wrapper=True")
    return None


def _parameter_faults(function: HookFunction) -> Iterator[Fault]:
    known = HOOKS[function.hook]
    for name, parameter in inspect.signature(function.function).parameters.items():
        where = f"{function.name}: parameter {name!r}"
        if parameter.kind is parameter.KEYWORD_ONLY:
            yield Fault(problem=f"{where} is keyword-only, and would never be passed", fix="remove the '*' before it")
        elif parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            yield Fault(problem=f"{where} takes what is never passed", fix=f"name what it uses of: {_listed(known)}")
        elif name not in known:
            near = did_you_mean(name, known)
            yield Fault(problem=f"{where} is unknown{near}", fix=f"the hook has: {_listed(known)}")
        elif parameter.default is not parameter.empty:
            yield Fault(problem=f"{where} has a default, and so would never be passed", fix="remove the default")


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "no parameters"
