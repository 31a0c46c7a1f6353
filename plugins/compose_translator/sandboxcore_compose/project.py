"""A loaded Compose project: what docker compose would work with, and the form in which it prints that."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sandboxcore.errors import SpecError

from ._checks import check_project
from ._decode import OMIT, Decoder, read_mapping
from ._defaults import normalize, services_of
from ._dotenv import DotenvError, parse_dotenv, parse_raw
from ._files import Loader, Variables, read_env_file, read_text, shown_name
from ._marks import ComposeError, Map, Mark, Path, Problem, Problems, Seq, locate
from ._model import CONFIG, NETWORK, SECRET, SERVICE, VOLUME
from ._scalars import Timestamp
from ._yaml import Document

__all__ = ("DEFAULT_NAMES", "Project", "load", "spec_error")

#: File names that are looked for in a folder, in this order.
DEFAULT_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
_PROJECT_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*\Z")


@dataclass
class Project:
    """Everything that the files of a project say, merged, checked and with its paths made absolute.

    Args:
        name: The project's name.
        folder: Absolute path that relative paths were resolved against.
        tree: The merged document; its values know their places.
        rendered: What ``canonical`` prints, before dollar signs are escaped.
        disabled: Services that no active profile enables.
        missing: Variables that the files name and nobody set; they became empty strings.
        variables: Values that the files could use.
        used: Service to the variables that its values name.
    """

    name: str
    folder: str
    tree: Map
    rendered: dict[str, Any]
    disabled: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    used: Mapping[str, set[str]] = field(default_factory=dict)

    @property
    def services(self) -> dict[str, dict[str, Any]]:
        """The enabled services, as they are printed."""
        found: dict[str, dict[str, Any]] = self.rendered["services"]
        return found

    def canonical(self) -> dict[str, Any]:
        """Return what ``docker compose config --format json`` prints: a dollar sign is written twice."""
        escaped: dict[str, Any] = _escaped(self.rendered)
        return escaped

    def locate(self, path: Path) -> Mark:
        """Tell where a path of the document stands."""
        return locate(self.tree, path)


def load(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    variables: Mapping[str, str] | None = None,
    project_name: str | None = None,
    profiles: Iterable[str] = (),
    env_files: Sequence[str | os.PathLike[str]] | None = None,
) -> Project:
    """Load Compose files as one project.

    Args:
        paths: The base and its overrides. A folder stands for the first of ``DEFAULT_NAMES`` in it and its override file.
        variables: Values for ``${NAME}`` and for variables that containers take over by name. The process environment is not
            looked at: pass ``os.environ`` to use it.
        project_name: Wins over ``COMPOSE_PROJECT_NAME``, the files' ``name`` and the folder's name.
        profiles: Active profiles; ``"*"`` is all. None: those of the variable ``COMPOSE_PROFILES``.
        env_files: Read instead of the folder's ``.env``; they fill what ``variables`` does not set.

    Raises:
        SpecError: With every problem, each with file, line and column.
    """
    problems = Problems()
    try:
        project = _load(_files(paths, problems), variables or {}, project_name, tuple(profiles), env_files, problems)
        problems.check()
        return project
    except ComposeError as error:
        raise spec_error(error.problems) from None


def spec_error(problems: Sequence[Problem]) -> SpecError:
    """Return the error for these problems, in the order of the documents."""
    files = {name: place for place, name in enumerate(dict.fromkeys(problem.mark.file for problem in problems))}
    ordered = sorted(problems, key=lambda problem: (files[problem.mark.file], problem.mark.line, problem.mark.column))
    return SpecError(problems=[str(problem) for problem in ordered])


def _files(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], problems: Problems) -> list[str]:
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    found: list[str] = []
    for path in given:
        text = os.path.abspath(os.fspath(path))
        found += _in_folder(text, problems) if os.path.isdir(text) else [text]
    if not found:
        problems.add(Mark("", 0, 0), (), "no Compose file was given")
    problems.check()
    return found


def _in_folder(folder: str, problems: Problems) -> list[str]:
    for name in DEFAULT_NAMES:
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            stem = os.path.join(folder, name.partition(".")[0] + ".override")
            return [path, *(stem + end for end in (".yml", ".yaml") if os.path.isfile(stem + end))][:2]
    problems.add(Mark(shown_name(folder), 0, 0), (), f"no Compose file here; looked for {', '.join(DEFAULT_NAMES)}")
    return []


def _load(
    files: list[str],
    given: Mapping[str, str],
    project_name: str | None,
    profiles: tuple[str, ...],
    env_files: Sequence[str | os.PathLike[str]] | None,
    problems: Problems,
) -> Project:
    folder = os.path.dirname(files[0])
    values = _variables(given, folder, env_files, problems)
    loader = Loader(problems, values.get("HOME") or os.path.expanduser("~"))
    name = project_name or values.get("COMPOSE_PROJECT_NAME") or _declared_name(loader, files, values) or _folder_name(folder)
    if not _PROJECT_NAME.match(name):
        mark = Mark(shown_name(files[0]), 0, 0)
        raise loader.stop(mark, ("name",), f"{name!r} can't be a project's name: use lower case letters, digits, '-' and '_'")
    values["COMPOSE_PROJECT_NAME"] = name
    variables = Variables(values)
    tree = loader.model(files, folder, variables)
    tree["name"] = name
    normalize(tree, name, variables.lookup, problems)
    active = profiles or tuple(part.strip() for part in values.get("COMPOSE_PROFILES", "").split(",") if part.strip())
    disabled = _disable(tree, active)
    check_project(tree, disabled, problems)
    rendered = _render(tree, name, values, problems)
    return Project(name, folder, tree, rendered, disabled, tuple(variables.missing), values, loader.used)


def _variables(
    given: Mapping[str, str], folder: str, env_files: Sequence[str | os.PathLike[str]] | None, problems: Problems
) -> dict[str, str]:
    default = os.path.join(folder, ".env")
    chosen = [os.path.abspath(os.fspath(path)) for path in env_files] if env_files is not None else []
    if env_files is None and os.path.isfile(default):
        chosen = [default]
    found: dict[str, str] = {}
    for path in chosen:
        found |= read_env_file(path, {**found, **given}, problems, Mark(shown_name(path), 0, 0), ())
    return {**found, **given}


def _declared_name(loader: Loader, files: list[str], values: Mapping[str, str]) -> str:
    name = ""
    for file in files:
        for document in loader.documents(file, Mark(shown_name(file), 0, 0), ()):
            declared = document.value.get("name") if isinstance(document.value, Map) else None
            if isinstance(declared, str) and declared:
                only = Map({"name": declared}, document.value.mark, {"name": document.value.mark_of("name")})
                name = loader.interpolated(Document(only, []), file, Variables(values))["name"]
    return name


def _folder_name(folder: str) -> str:
    kept = "".join(re.findall(r"[a-z0-9_-]", os.path.basename(folder).lower()))
    return kept.lstrip("_-") or "default"


def _disable(tree: Map, active: tuple[str, ...]) -> tuple[str, ...]:
    """Take out the services that no active profile enables."""
    disabled: list[str] = []
    services = tree.get("services")
    if not isinstance(services, Map):
        return ()
    for name, service in services_of(tree):
        wanted = service.get("profiles")
        if isinstance(wanted, Seq) and wanted and "*" not in active and not set(wanted) & set(active):
            disabled.append(name)
    for name in disabled:
        del services[name]
    return tuple(disabled)


def _render(tree: Map, name: str, values: Mapping[str, str], problems: Problems) -> dict[str, Any]:
    decoder = Decoder(tree, problems)
    services: dict[str, Any] = {}
    for key, service in services_of(tree):
        path: Path = ("services", key)
        environment = _with_env_files(service, path, values, tree, problems)
        labels = _with_label_files(service, path, tree, problems)
        printed = SERVICE(decoder, service, path)
        if printed is OMIT:
            continue
        if environment:
            printed["environment"] = environment
        if labels:
            printed["labels"] = labels
        services[key] = printed
    result: dict[str, Any] = {"name": name, "services": services}
    for section, kind in (("networks", NETWORK), ("volumes", VOLUME), ("secrets", SECRET), ("configs", CONFIG)):
        used = _used(section, services)
        declared = tree.get(section)
        items = declared.items() if isinstance(declared, Map) else ()
        printed = {key: kind(decoder, value or Map(), (section, key)) for key, value in items if key in used}
        if printed:
            result[section] = printed
    for key, value in tree.items():
        if key.startswith("x-"):
            result[key] = _extension(value)
    return result


def _used(section: str, services: Mapping[str, Any]) -> set[str]:
    used: set[str] = set()
    for service in services.values():
        if section == "networks":
            used |= set(service.get("networks") or ())
        elif section == "volumes":
            used |= {volume.get("source", "") for volume in service.get("volumes", ()) if volume.get("type") == "volume"}
        else:
            used |= {mount.get("source", "") for mount in service.get(section, ())}
            if section == "secrets":
                used |= {mount.get("source", "") for mount in service.get("build", {}).get("secrets", ())}
    return used


def _with_env_files(service: Map, path: Path, values: Mapping[str, str], tree: Map, problems: Problems) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    entries = service.get("env_file")
    for index, entry in enumerate(entries if isinstance(entries, Seq) else ()):
        if not isinstance(entry, Map) or not isinstance(file := entry.get("path"), str):
            continue
        where = (*path, "env_file", index)
        if not os.path.exists(file):
            if entry.get("required") is not False:
                problems.at(tree, where, f"{shown_name(file)} does not exist; set required: false if it may be missing")
            continue
        found |= _env_file(file, str(entry.get("format") or ""), {**_set(found), **values}, problems, locate(tree, where), where)
    environment = read_mapping(service.get("environment"))
    return {**found, **environment}


def _set(found: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in found.items() if value is not None}


def _env_file(file: str, form: str, values: Mapping[str, str], problems: Problems, mark: Mark, where: Path) -> dict[str, str]:
    if form not in ("", "raw"):
        problems.add(mark, where, f"unknown format {form!r}; there is 'raw'")
        return {}
    text = read_text(file, problems, mark, where)
    try:
        return parse_raw(text, values.get) if form == "raw" else parse_dotenv(text, values.get)
    except DotenvError as error:
        problems.add(Mark(shown_name(file), error.line, 1), (), str(error))
        return {}


def _with_label_files(service: Map, path: Path, tree: Map, problems: Problems) -> dict[str, str]:
    found: dict[str, str] = {}
    files = service.get("label_file")
    for index, file in enumerate(files if isinstance(files, Seq) else ()):
        if isinstance(file, str):
            where = (*path, "label_file", index)
            found |= _env_file(file, "", {}, problems, locate(tree, where), where)
    return {**found, **{key: item or "" for key, item in read_mapping(service.get("labels")).items()}} if found else {}


def _extension(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _extension(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_extension(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return int(value)
    return value.text if isinstance(value, Timestamp) else value


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, dict):
        return {key.replace("$", "$$"): _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return value
