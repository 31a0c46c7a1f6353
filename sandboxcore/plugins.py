"""The plugin host: loads what is installed, each plugin by itself, and gives typed access to what the plugins offer.

There is no global one: ``PluginHost.load()`` makes one, and a program may have several.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ._guest_hooks import GuestHooks
from ._markers import PROJECT
from ._plugin_checks import Fault
from ._plugin_loading import Candidate, embedded, given, installed
from ._plugin_registry import PluginProblem, PluginRecord, Registry
from ._validation import did_you_mean, validated
from .errors import BackendNotFoundError, PluginError, SandboxError, UsageError

if TYPE_CHECKING:
    from click import Command

    from .abc import Channel, Discoverer, Executor, FileStore, ImageResolver, Provisioner, Strategy, Translator
    from .values import BackendInfo, Event, SandboxRef

__all__ = ("Binding", "PluginHost", "PluginProblem", "PluginRecord")

DISABLE_VARIABLE = "SANDBOXCORE_DISABLE_PLUGINS"


@dataclass(kw_only=True, slots=True)
class Binding:
    """What commands and files of one sandbox go through."""

    executor: Executor
    files: FileStore
    guest: Strategy | None = None
    closed: bool = False

    @property
    def strategies(self) -> tuple[Strategy, ...]:
        """What is to be closed."""
        return (self.executor, self.files, *((self.guest,) if self.guest else ()))

    def close(self) -> None:
        """Mark it as no longer usable, for those who kept it."""
        self.closed = True


class PluginHost:
    """The plugins that were loaded, and the hooks that they implement.

    Hooks that raise, or return what they must not, give ``PluginError`` with the plugin's and the hook's name; errors of
    sandboxcore's own tree pass through as they are.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._hook = registry.manager.hook
        self._noted: set[Fault] = set()
        self._guests = GuestHooks(self.channel)
        registry.manager.register(self._guests, name=f"{PROJECT}.guest")

    @classmethod
    def load(
        cls, *, entry_points: bool = True, disabled: Iterable[str] | None = None, extra: Iterable[object] = ()
    ) -> PluginHost:
        """Load the embedded plugins, then the installed ones by name, then ``extra``. The later are asked first.

        Args:
            entry_points: Load what distributions name in the entry-point group ``sandboxcore``.
            disabled: Names of plugins to leave out; None: those in ``$SANDBOXCORE_DISABLE_PLUGINS``, separated by commas.
            extra: Modules, or objects with hook methods, that the program brings itself.
        """
        registry = Registry()
        names = _disabled_names() if disabled is None else tuple(disabled)
        candidates = [*embedded(), *(installed() if entry_points else ()), *(given(plugin) for plugin in extra)]
        for candidate in candidates:
            registry.add(candidate, disabled=names)
        if entry_points or disabled is not None:
            _report_unknown(registry, names, [candidate.name for candidate in candidates])
        return cls(registry)

    @property
    def backends(self) -> Mapping[str, BackendInfo]:
        """The backends that can be used, by name."""
        return MappingProxyType(self._registry.backends)

    @property
    def plugins(self) -> tuple[PluginRecord, ...]:
        """Every plugin that was found, in the order of loading."""
        return tuple(self._registry.records)

    @property
    def problems(self) -> tuple[PluginProblem, ...]:
        """Why plugins are not used; empty if all is well."""
        return tuple(self._registry.problems)

    @property
    def observed(self) -> bool:
        """Whether any plugin wants to hear of events."""
        return bool(self._hook.sandboxcore_event.get_hookimpls())

    def info(self, backend: str) -> BackendInfo:
        """Return what a backend is.

        Raises:
            BackendNotFoundError: No loaded plugin brings it; the message says why where that is known.
        """
        found = self._registry.backends.get(backend)
        if found is not None:
            return found
        broken = next((problem for problem in self.problems if problem.name == backend), None)
        if broken is not None:
            raise BackendNotFoundError(f"backend {backend!r} can't be used: {broken.problem}", hint=broken.fix)
        if any(record.name == backend and record.status == "disabled" for record in self.plugins):
            raise BackendNotFoundError(f"backend {backend!r} is disabled", hint=f"take it out of {DISABLE_VARIABLE}")
        known = ", ".join(sorted(self._registry.backends)) or "none"
        near = did_you_mean(backend, self._registry.backends)
        raise BackendNotFoundError(f"no backend is called {backend!r}{near}; installed: {known}", hint=_install_hint(backend))

    def configure(self, backend: str, config: Mapping[str, Any] | None = None) -> Any:
        """Check a backend's configuration.

        Returns:
            An instance of the backend's ``config_model``; a copy of the mapping where it has none.

        Raises:
            BackendNotFoundError: No loaded plugin brings the backend.
            SpecError: A key is unknown or a value is wrong; the message names the nearest known key.
            PluginError: The model itself is broken.
        """
        model = self.info(backend).config_model
        if config is not None and not isinstance(config, Mapping):
            raise UsageError(f"config: must be a mapping of names to values, not {type(config).__name__}")
        given_config = dict(config or {})
        if model is None:
            return given_config
        try:
            return validated(model, given_config, what="config", owner=f"backend {backend!r}")
        except SandboxError:
            raise
        except Exception as error:
            label = self._registry.providers[backend].label
            raise PluginError(f"plugin {label}: its config model raised {type(error).__name__}: {error}") from error

    def provisioner(self, backend: str, config: Any) -> Provisioner:
        """Return a new provisioner of the backend."""
        found: Provisioner | None = self._hook.sandboxcore_provisioner(backend=backend, config=config)
        if found is None:
            raise self._missing(backend, "sandboxcore_provisioner")
        return found

    def discoverer(self, backend: str, config: Any, provisioner: Provisioner) -> Discoverer:
        """Return a new discoverer of the backend."""
        found: Discoverer | None = self._hook.sandboxcore_discoverer(backend=backend, config=config, provisioner=provisioner)
        if found is None:
            raise self._missing(backend, "sandboxcore_discoverer")
        return found

    def channel(self, sandbox: SandboxRef, config: Any, provisioner: Provisioner) -> Channel | None:
        """Return a way into the sandbox; None if its backend has none."""
        found: Channel | None = self._hook.sandboxcore_channel(sandbox=sandbox, config=config, provisioner=provisioner)
        return found

    def bind(self, sandbox: SandboxRef, config: Any, provisioner: Provisioner, *, lease: float = 300.0) -> Binding:
        """Return what commands and files of the sandbox go through; nothing is connected yet.

        Args:
            lease: Seconds that the guest keeps commands for a client that stays away.
        """
        self._guests.expect(sandbox, lease)
        try:
            executor: Executor | None = self._hook.sandboxcore_executor(sandbox=sandbox, config=config, provisioner=provisioner)
            files: FileStore | None = self._hook.sandboxcore_file_store(sandbox=sandbox, config=config, provisioner=provisioner)
        finally:
            guest = self._guests.take(sandbox)
        if executor is None:
            raise self._missing(sandbox.backend, "sandboxcore_channel")
        if files is None:
            raise self._missing(sandbox.backend, "sandboxcore_file_store")
        return Binding(executor=executor, files=files, guest=guest)

    def translators(self) -> tuple[Translator, ...]:
        """Return all translators, those of the plugins that were loaded first at the front.

        A plugin that fails to bring its own is noted in ``problems`` and stops nobody else.
        """
        found: dict[str, Translator] = {}
        for implementation in self._hook.sandboxcore_translators.get_hookimpls():
            try:
                several: Any = implementation.function()
            except SandboxError as error:
                self._note(implementation.plugin_name, str(error), error.hint or "report it to its author")
                continue
            for translator in several or ():
                if found.setdefault(translator.name, translator) is not translator:
                    problem = f"brings a translator {translator.name!r}, of which there is one already; it is not used"
                    self._note(implementation.plugin_name, problem, "uninstall one of them")
        return tuple(found.values())

    def commands(self) -> Mapping[str, Callable[[], Command]]:
        """Return the plugins' own commands by name. Clashes and failures are noted in ``problems``."""
        found: dict[str, Callable[[], Command]] = {}
        for implementation in self._hook.sandboxcore_commands.get_hookimpls():
            try:
                several: Any = implementation.function() or {}
            except SandboxError as error:
                self._note(implementation.plugin_name, str(error), error.hint or "report it to its author")
                continue
            for name, make in several.items():
                if found.setdefault(name, make) is not make:
                    problem = f"brings a command {name!r}, of which there is one already; it is not used"
                    self._note(implementation.plugin_name, problem, "uninstall one of them")
        return found

    def image_resolvers(self, backend: str, config: Any) -> tuple[ImageResolver, ...]:
        """Return what finds or builds images for a backend, that of the plugin that was loaded last at the front."""
        return tuple(self._hook.sandboxcore_image_resolver(backend=backend, config=config))

    def emit(self, event: Event) -> None:
        """Tell every observer. What they raise is logged, once a plugin."""
        self._hook.sandboxcore_event(event=event)

    def _note(self, plugin: str, problem: str, fix: str) -> None:
        fault = Fault(problem=problem, fix=fix)
        if fault not in self._noted:
            self._noted.add(fault)
            self._registry.note(self._registry.tried[plugin], fault)

    def _missing(self, backend: str, hook: str) -> PluginError:
        provider = self._registry.providers.get(backend)
        who = f"plugin {provider.label} names" if provider else "something names"
        return PluginError(f"{who} backend {backend!r}, but no plugin answers {hook} for it")


def _disabled_names() -> tuple[str, ...]:
    names = os.environ.get(DISABLE_VARIABLE, "").split(",")
    return tuple(name.strip() for name in names if name.strip())


def _report_unknown(registry: Registry, names: Iterable[str], known: Iterable[str]) -> None:
    known = sorted(set(known))
    for name in names:
        if name not in known:
            problem = f"is to be disabled, but no plugin has that name{did_you_mean(name, known)}"
            fix = f"correct {DISABLE_VARIABLE}; the plugins are {', '.join(known)}"
            registry.note(Candidate(name=name), Fault(problem=problem, fix=fix))


def _install_hint(extra: str) -> str | None:
    """Say how to install what the core knows as one of its extras."""
    from importlib.metadata import PackageNotFoundError, metadata

    try:
        extras = metadata(PROJECT).get_all("Provides-Extra") or []
    except PackageNotFoundError:
        return None
    return f"pip install '{PROJECT}[{extra}]'" if extra in extras else None
