"""Take in plugins one by one: import, check, register; and keep the books on what became of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pluggy

from . import hookspecs
from ._markers import PROJECT
from ._plugin_checks import Fault, HookFunction, faults, hook_functions
from ._plugin_guard import GuardedPlugin
from ._plugin_loading import Candidate, import_plugin
from .values import BackendInfo

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

__all__ = ("PluginProblem", "PluginRecord", "Registry")

#: An import that takes longer than these seconds is worth a word: everybody who loads plugins waits for it.
SLOW_IMPORT = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class PluginProblem:
    """Why a plugin is not used, and what to do about it."""

    name: str
    distribution: str
    version: str
    module: str
    problem: str
    fix: str

    def __str__(self) -> str:
        origin = " ".join(part for part in (self.distribution, self.version) if part)
        return f"plugin {self.name!r}{f' ({origin})' if origin else ''}: {self.problem}; {self.fix}"


@dataclass(frozen=True, kw_only=True, slots=True)
class PluginRecord:
    """A plugin that was found, whether it is used or not.

    Args:
        name: Of its entry point.
        module: What the entry point names.
        hooks: Hooks that it implements.
        backend: Name of the backend that it brings; empty if none.
        import_seconds: How long importing it took.
        warning: Something that is wrong with it, though it is used.
    """

    name: str
    distribution: str
    version: str
    module: str
    status: Literal["loaded", "disabled", "broken"]
    hooks: tuple[str, ...] = ()
    backend: str = ""
    import_seconds: float = 0.0
    warning: str = ""


class Registry:
    """The plugins of one host. Whatever is wrong with one of them ends up in ``problems`` and nowhere else."""

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager(PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self.records: list[PluginRecord] = []
        self.problems: list[PluginProblem] = []
        self.backends: dict[str, BackendInfo] = {}
        self.providers: dict[str, Candidate] = {}
        #: Plugins that were tried, by name.
        self.tried: dict[str, Candidate] = {}

    def add(self, candidate: Candidate, *, disabled: Collection[str] = ()) -> None:
        """Import, check and register a plugin, or note why not."""
        if candidate.name in disabled:
            self._record(candidate, "disabled")
            return
        fault = self._clash(candidate)
        if fault:
            self._refuse(candidate, [fault])
            return
        self.tried[candidate.name] = candidate
        imported = import_plugin(candidate)
        if imported.error is not None:
            self._refuse(candidate, [_import_fault(imported.error)], imported.seconds)
            return
        self._admit(candidate, imported.plugin, imported.seconds)

    def note(self, candidate: Candidate, fault: Fault) -> None:
        """Keep a problem that does not come from loading."""
        self.problems.append(
            PluginProblem(
                name=candidate.name,
                distribution=candidate.distribution,
                version=candidate.version,
                module=candidate.module,
                problem=fault.problem,
                fix=fault.fix,
            )
        )

    def _clash(self, candidate: Candidate) -> Fault | None:
        if candidate.fault:
            return Fault(problem=candidate.fault, fix="reinstall the distribution")
        other = self.tried.get(candidate.name)
        if other is None:
            return None
        return Fault(
            problem=f"plugin {other.label} was loaded under the same name; this one, {candidate.label}, is not used",
            fix=f"uninstall one of {other.distribution or other.module} and {candidate.distribution or candidate.module}",
        )

    def _admit(self, candidate: Candidate, plugin: object, seconds: float) -> None:
        functions: tuple[HookFunction, ...] = ()
        try:
            found = faults(plugin)
            functions = hook_functions(plugin)
            info = None if found else _backend_info(functions)
        except _Refused as refused:
            found, info = (refused.fault,), None
        except Exception as error:
            problem = f"can't be examined: {type(error).__name__}: {error}"
            found, info = (Fault(problem=problem, fix="report it to its author"),), None
        if info is not None and not found:
            found = self._backend_clash(candidate, info)
        if not found:
            found = self._register(candidate, functions)
        if found:
            self._refuse(candidate, found, seconds)
            return
        if info is not None:
            self.backends[info.name], self.providers[info.name] = info, candidate
        hooks = tuple(sorted({function.hook for function in functions}))
        self._record(candidate, "loaded", seconds, hooks=hooks, backend=info.name if info else "")

    def _backend_clash(self, candidate: Candidate, info: BackendInfo) -> tuple[Fault, ...]:
        other = self.providers.get(info.name)
        if other is None:
            return ()
        problem = f"backend {info.name!r} is taken by plugin {other.label}; this one, {candidate.label}, is not used"
        return (Fault(problem=problem, fix=f"uninstall one of them, or set SANDBOXCORE_DISABLE_PLUGINS={other.name}"),)

    def _register(self, candidate: Candidate, functions: Sequence[HookFunction]) -> tuple[Fault, ...]:
        guarded = GuardedPlugin(candidate.label, functions)
        try:
            self.manager.register(guarded, name=candidate.name)
        except (pluggy.PluginValidationError, ValueError) as error:
            self.manager.unregister(guarded)
            return (Fault(problem=f"was refused: {error}", fix="report it to its author"),)
        return ()

    def _refuse(self, candidate: Candidate, found: Sequence[Fault], seconds: float = 0.0) -> None:
        for fault in found:
            self.note(candidate, fault)
        self._record(candidate, "broken", seconds)

    def _record(
        self,
        candidate: Candidate,
        status: Literal["loaded", "disabled", "broken"],
        seconds: float = 0.0,
        hooks: tuple[str, ...] = (),
        backend: str = "",
    ) -> None:
        slow = f"took {seconds:.1f} s to import; it should import what is heavy inside its hooks" if seconds > SLOW_IMPORT else ""
        self.records.append(
            PluginRecord(
                name=candidate.name,
                distribution=candidate.distribution,
                version=candidate.version,
                module=candidate.module,
                status=status,
                hooks=hooks,
                backend=backend,
                import_seconds=seconds,
                warning=slow,
            )
        )


class _Refused(Exception):
    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.problem)
        self.fault = fault


def _import_fault(error: BaseException) -> Fault:
    problem = f"can't be imported: {type(error).__name__}: {str(error) or 'no message'}".splitlines()[0]
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    fix = f"install what is missing ({missing})" if missing else "reinstall it, or report it to its author"
    return Fault(problem=problem, fix=fix)


def _backend_info(functions: Sequence[HookFunction]) -> BackendInfo | None:
    """Ask a plugin which backend it brings."""
    ask: Callable[..., Any] | None = next((f.function for f in functions if f.hook == f"{PROJECT}_backend_info"), None)
    if ask is None:
        return None
    try:
        info = ask()
    except Exception as error:
        problem = f"sandboxcore_backend_info raised {type(error).__name__}: {error}"
        raise _Refused(Fault(problem=problem, fix="report it to its author")) from error
    if info is None:
        return None
    _check_info(info)
    return info  # type: ignore[no-any-return]


def _check_info(info: object) -> None:
    if not isinstance(info, BackendInfo):
        problem = f"sandboxcore_backend_info returned {type(info).__name__}"
        raise _Refused(Fault(problem=problem, fix="return a sandboxcore.BackendInfo or None"))
    if not isinstance(info.name, str) or not info.name or not info.name.isprintable() or " " in info.name:
        raise _Refused(Fault(problem=f"{info.name!r} can't be the name of a backend", fix="use a word without spaces"))
    if info.config_model is None:
        return
    from pydantic import BaseModel

    if not (isinstance(info.config_model, type) and issubclass(info.config_model, BaseModel)):
        problem = f"config_model of backend {info.name!r} is not a pydantic model"
        raise _Refused(Fault(problem=problem, fix="make it a subclass of pydantic.BaseModel, or None"))
