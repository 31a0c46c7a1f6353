"""Turns a loaded project into a neutral spec and a report."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError
from sandboxcore.abc import Translator
from sandboxcore.errors import SpecError, UsageError
from sandboxcore.report import Loss, TranslationReport
from sandboxcore.spec import EnvironmentSpec, NetworkSpec, ServiceSpec
from sandboxcore.values import BackendInfo, Translation

from ._extensions import OWN, Extensions, service_extensions, top_extensions
from ._marks import Map, Path
from ._mounts import Mounts, declare_volumes, service_mounts
from ._networks import declare_networks, service_network
from ._notes import Notes, Options
from ._schema import nearest
from ._service import ServiceTranslation
from .project import Project, load, spec_error

__all__ = ("ComposeTranslator", "translate_project")

_OPTIONS = (
    "allow",
    "env_files",
    "environment",
    "gpus_all",
    "images",
    "internet",
    "offline",
    "profiles",
    "project_name",
    "strict",
)
#: Services that take mounts from each other in a row.
MAX_TAKEN = 100
_ALLOW = ("host_paths", "privileged", "writable_binds")


class ComposeTranslator(Translator):
    """Translates Compose files."""

    name = "compose"

    def claims(self, path: FilePath) -> bool:
        """Tell whether the file is YAML with the word ``compose`` in its name."""
        *words, suffix = re.split(r"[._-]", path.name.lower())
        return suffix in ("yaml", "yml") and "compose" in words

    def translate(
        self,
        paths: Sequence[FilePath],
        *,
        variables: Mapping[str, str] | None = None,
        backend: BackendInfo | None = None,
        options: Mapping[str, object] | None = None,
    ) -> Translation:
        """Load and translate Compose files.

        Args:
            variables: Values for ``${NAME}``.
            backend: Paths of this machine are mounted as they are where it has the capability ``binds``.
            options: See the package's documentation.

        Raises:
            SpecError: With every problem, each with file, line and column.
            UsageError: An option is unknown or of the wrong type.
        """
        chosen = _Chosen(options or {})
        values = dict(variables or {})
        if chosen.environment:
            values = {**os.environ, **values}
        project = load(
            paths,
            variables=values,
            project_name=chosen.project_name,
            profiles=chosen.profiles,
            env_files=chosen.env_files,
        )
        capabilities = backend.capabilities if backend is not None else frozenset()
        notes = Notes(project.tree, chosen.options)
        if chosen.environment:
            _note_environment(project, frozenset(os.environ) - frozenset(variables or {}), notes)
        return translate_project(project, notes, keeps_binds="binds" in capabilities)


class _Chosen:
    """The translator's options, checked."""

    def __init__(self, options: Mapping[str, object]) -> None:
        for name in options:
            if name not in _OPTIONS:
                raise UsageError(f"unknown option {name!r} of the Compose translator{nearest(name, _OPTIONS)}")
        self.environment = _flag(options, "environment")
        self.project_name = _text(options, "project_name")
        self.profiles = _texts(options, "profiles")
        self.env_files = _texts(options, "env_files") if options.get("env_files") is not None else None
        allow = _texts(options, "allow")
        for name in allow:
            if name not in _ALLOW:
                raise UsageError(f"option allow: there is no {name!r}{nearest(name, _ALLOW)}; there are {', '.join(_ALLOW)}")
        gpus = options.get("gpus_all")
        if gpus is not None and (not isinstance(gpus, int) or isinstance(gpus, bool) or gpus < 0):
            raise UsageError("option gpus_all: must be a number of GPUs")
        self.options = Options(
            internet=_flag(options, "internet"),
            offline=_flag(options, "offline"),
            allow=frozenset(allow),
            images=_images(options.get("images")),
            gpus_all=gpus,
            strict=_flag(options, "strict"),
        )


def _flag(options: Mapping[str, object], name: str) -> bool:
    value = options.get(name, False)
    if not isinstance(value, bool):
        raise UsageError(f"option {name}: must be true or false")
    return value


def _text(options: Mapping[str, object], name: str) -> str | None:
    value = options.get(name)
    if value is not None and not isinstance(value, str):
        raise UsageError(f"option {name}: must be a string")
    return value


def _texts(options: Mapping[str, object], name: str) -> tuple[str, ...]:
    value = options.get(name) or ()
    items = [value] if isinstance(value, (str, os.PathLike)) else value
    if not isinstance(items, Iterable):
        raise UsageError(f"option {name}: must be a list of strings")
    found = list(items)
    if not all(isinstance(item, (str, os.PathLike)) for item in found):
        raise UsageError(f"option {name}: must be a list of strings")
    return tuple(os.fspath(item) for item in found)


def _images(value: object) -> Any:
    """Take a mapping, a template, or the path of a YAML file with a mapping."""
    if isinstance(value, os.PathLike) or (isinstance(value, str) and value.endswith((".yaml", ".yml", ".json"))):
        import yaml

        try:
            value = yaml.safe_load(FilePath(value).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UsageError(f"option images: the file can't be read: {str(error).splitlines()[0]}") from None
    if isinstance(value, Mapping) and all(isinstance(key, str) and isinstance(item, str) for key, item in value.items()):
        return dict(value)
    if value is None or isinstance(value, str):
        return value
    raise UsageError("option images: must be a mapping of services to images, a template, or a file with a mapping")


def translate_project(project: Project, notes: Notes, *, keeps_binds: bool = False) -> Translation:
    """Translate a project that is loaded.

    Raises:
        SpecError: With everything that is refused.
    """
    shared = top_extensions(notes)
    rendered = project.rendered
    networks = declare_networks(rendered.get("networks") or {}, notes)
    volumes = declare_volumes(rendered.get("volumes") or {}, notes)
    _note_top(project, notes)
    services = _Services(project, notes, shared, keeps_binds)
    specs = services.translate(networks)
    default = services.default()
    if notes.problems.found or not specs:
        if not specs and not notes.problems.found:
            notes.problems.at(project.tree, ("services",), "there is no service to run")
        raise spec_error(notes.problems.found)
    try:
        spec = EnvironmentSpec(
            services=specs,
            default=default,
            networks=networks or {"default": NetworkSpec()},
            volumes=volumes,
            name=project.name,
            options=shared.options,
        )
    except ValidationError as error:
        problems = [str(found["msg"]).removeprefix("Value error, ") for found in error.errors()]
        raise SpecError(problems=problems) from None
    return Translation(spec=spec, report=TranslationReport(entries=_sorted(notes)))


def _sorted(notes: Notes) -> tuple[Any, ...]:
    return tuple(sorted(notes.entries, key=lambda entry: (entry.file, entry.line, entry.column)))


def _note_top(project: Project, notes: Notes) -> None:
    if "version" in project.tree:
        notes.noop(("version",), "has no meaning any more")
    if project.tree.get("models"):
        notes.reject(("models",), "models are not provisioned; start the model server as a service")
    for name in project.missing:
        notes.policy((), f"the variable {name} is not set: it is empty", f"variables: {name}")
    for section in ("configs", "secrets"):
        for name in project.tree.get(section) or ():
            if name not in (project.rendered.get(section) or {}):
                notes.noop((section, name), "no service uses it")


def _note_environment(project: Project, names: frozenset[str], notes: Notes) -> None:
    """List the names of the process environment whose values are in a service's environment."""
    for service, source in (project.tree.get("services") or Map()).items():
        found = set(project.used.get(service, ())) & names
        for key, value in (project.services.get(service, {}).get("environment") or {}).items():
            if key in names and value == os.environ.get(key):
                found.add(key)
        for name in sorted(found):
            notes.note(
                Loss.POLICY,
                ("services", service),
                f"the variable {name} of this process is used in the service",
                mark=source.mark,
            )


class _Services:
    """Translates the services, with what one says about another."""

    def __init__(self, project: Project, notes: Notes, shared: Extensions, keeps_binds: bool) -> None:
        self.project, self.notes, self.shared, self.keeps_binds = project, notes, shared, keeps_binds
        self.extensions: dict[str, Extensions] = {}
        self.mounts: dict[str, Mounts] = {}
        self.kept: list[str] = []

    def translate(self, networks: Any) -> dict[str, ServiceSpec]:
        specs: dict[str, ServiceSpec] = {}
        sources = self.project.tree["services"]
        self.kept = [name for name in self.project.services if not self.is_off(name)]
        for name in self.project.services:
            path: Path = ("services", name)
            self.extensions[name] = service_extensions(sources[name], path, self.notes)
            self.mounts[name] = service_mounts(self.project, name, self.notes, keeps_binds=self.keeps_binds)
        aliases = self.link_aliases()
        jobs = self.jobs()
        for name in self.kept:
            work = ServiceTranslation(self.project, name, self.notes, self.shared, self.extensions[name])
            networking = service_network(work.service, networks, ("services", name), self.notes)
            spec = work.spec(networking, self.mounted(name, ()), aliases.get(name, ()))
            if spec is not None:
                job = name in jobs and self.extensions[name].exec_target is None
                specs[name] = spec.model_copy(update={"exec_target": False}) if job else spec
        return specs

    def is_off(self, name: str) -> bool:
        service = self.project.services[name]
        count = service.get("scale", (service.get("deploy") or {}).get("replicas"))
        if count != 0:
            return False
        key: Path = ("services", name, "scale") if "scale" in service else ("services", name, "deploy", "replicas")
        self.notes.exact(key, "the service is not started")
        return True

    def jobs(self) -> set[str]:
        """Name the services that others wait for to end: nobody runs commands in them."""
        default = self.default()
        found = {
            other
            for service in self.project.services.values()
            for other, dependency in (service.get("depends_on") or {}).items()
            if dependency["condition"] == "service_completed_successfully"
        }
        return found - {default}

    def mounted(self, name: str, above: tuple[str, ...]) -> Mounts:
        """Return a service's mounts with those of the services that it takes them from."""
        own = self.mounts[name]
        result = Mounts(list(own.volumes), dict(own.files))
        taken = {mount.target for mount in own.volumes}
        for index, text in enumerate(self.project.services[name].get("volumes_from", ())):
            where: Path = ("services", name, "volumes_from", index)
            other, _, mode = text.partition(":")
            if other == "container" or other not in self.mounts:
                self.notes.reject(where, "only mounts of a service of this project can be taken over")
                continue
            if other in above or len(above) > MAX_TAKEN:
                continue
            for mount in self.mounted(other, (*above, name)).volumes:
                if mount.target not in taken:
                    if not mount.source and mount.type == "volume":
                        self.notes.approx(where, f"{mount.target}: an unnamed volume is not shared; each service has its own")
                    result.volumes.append(mount.model_copy(update={"read_only": mount.read_only or mode == "ro"}))
        return result

    def link_aliases(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for name, service in self.project.services.items():
            for index, text in enumerate(service.get("links", ())):
                target, _, alias = text.partition(":")
                where: Path = ("services", name, "links", index)
                if alias and alias != target:
                    found[target] = (*found.get(target, ()), alias)
                    self.notes.approx(where, f"{alias} is a name of {target} for every service on its networks")
                else:
                    self.notes.noop(where, "services on a network know each other by name anyway")
        return found

    def default(self) -> str | None:
        """Choose the service that commands go to: ``default``, else the one marked so, else the first."""
        wanted = self.shared.default
        if wanted is not None:
            if wanted not in self.kept:
                problem = f"no service is called {wanted!r}{nearest(wanted, self.kept)}"
                self.notes.problems.at(self.notes.tree, (OWN, "default"), problem)
            return wanted
        if "default" in self.kept:
            return "default"
        marked = [name for name in self.kept if self.extensions[name].is_default]
        candidates = marked or self.kept
        return candidates[0] if candidates else None
