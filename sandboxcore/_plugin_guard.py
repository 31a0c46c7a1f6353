"""Stand between pluggy and a plugin's functions: name the plugin when a hook raises or returns what it must not."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Generator, Sequence
from typing import Any

from ._plugin_checks import HookFunction
from .abc import Channel, Discoverer, Executor, FileStore, ImageResolver, Provisioner, Translator
from .errors import PluginError, SandboxError

__all__ = ("GuardedPlugin", "wrong_type")

_log = logging.getLogger("sandboxcore.plugins")

_RESULTS: dict[str, type[Any]] = {
    "sandboxcore_provisioner": Provisioner,
    "sandboxcore_discoverer": Discoverer,
    "sandboxcore_channel": Channel,
    "sandboxcore_executor": Executor,
    "sandboxcore_file_store": FileStore,
    "sandboxcore_image_resolver": ImageResolver,
}


class GuardedPlugin:
    """What is registered with pluggy in the plugin's place: its hooks, each with a guard around it."""

    def __init__(self, label: str, functions: Sequence[HookFunction]) -> None:
        for function in functions:
            # functools.wraps carries over the marks and the parameter names that pluggy looks for.
            setattr(self, function.name, functools.wraps(function.function)(_guard(label, function)))


def wrong_type(hook: str, value: object) -> str | None:
    """Say what a hook should have returned instead of this value; None if the value is as it should be."""
    if value is None:
        return None
    if hook == "sandboxcore_translators":
        items = value if isinstance(value, (list, tuple)) else (None,)
        return None if all(isinstance(item, Translator) for item in items) else "a list of Translator"
    wanted = _RESULTS.get(hook, object)
    return None if isinstance(value, wanted) else f"{wanted.__name__} or None"


def _guard(label: str, function: HookFunction) -> Callable[..., Any]:
    if function.hook == "sandboxcore_event":
        return _observer(label, function)
    return _wrapper(label, function) if function.is_wrapper else _implementation(label, function)


def _implementation(label: str, function: HookFunction) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        try:
            value = function.function(*arguments)
        except SandboxError:
            raise
        except Exception as error:
            raise _raised(label, function, error) from error
        return _checked(label, function, value)

    return call


def _wrapper(label: str, function: HookFunction) -> Callable[..., Any]:
    def call(*arguments: Any) -> Generator[None, Any, Any]:
        passed: BaseException | None = None
        running = function.function(*arguments)
        try:
            _advance(running, label, function)
            try:
                value = yield
            except BaseException as error:
                passed = error
                running.throw(error)
            else:
                running.send(value)
        except StopIteration as stop:
            return _checked(label, function, stop.value)
        except SandboxError:
            raise
        except Exception as error:
            if error is passed:
                raise
            raise _raised(label, function, error) from error
        raise PluginError(f"plugin {label}: hook {function.name} yields more than once")

    return call


def _advance(running: Generator[None, Any, Any], label: str, function: HookFunction) -> None:
    try:
        next(running)
    except StopIteration:
        raise PluginError(f"plugin {label}: hook {function.name} did not yield") from None


def _observer(label: str, function: HookFunction) -> Callable[..., Any]:
    quiet = False

    def call(*arguments: Any) -> None:
        nonlocal quiet
        try:
            value = function.function(*arguments)
            if inspect.iscoroutine(value):
                value.close()
        except Exception:
            if not quiet:
                _log.exception("plugin %s: %s raised; further failures of it are not logged", label, function.name)
            quiet = True

    return call


def _raised(label: str, function: HookFunction, error: Exception) -> PluginError:
    return PluginError(f"plugin {label}: hook {function.name} raised {type(error).__name__}: {error}")


def _checked(label: str, function: HookFunction, value: object) -> object:
    wanted = wrong_type(function.hook, value)
    if wanted is None:
        return value
    if inspect.iscoroutine(value):
        value.close()
    raise PluginError(f"plugin {label}: hook {function.name} returned {type(value).__name__}; it has to return {wanted}")
