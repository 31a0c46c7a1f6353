"""Loads files into one model: documents, ``include``, ``extends``, merging."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

from ._canonical import canonical
from ._checks import check_resources
from ._defaults import fill_defaults, resolve_environment
from ._dotenv import DotenvError, parse_dotenv
from ._interpolation import interpolate
from ._marks import ComposeError, Map, Mark, Path, Problem, Problems, Seq, clone
from ._merging import drop_repetitions, merge, merge_service
from ._paths import absolute, is_remote, resolve_paths
from ._schema import MAX_PROBLEMS, nearest, validate
from ._yaml import Document, read_documents

__all__ = ("Loader", "Variables", "read_env_file", "shown_name")

#: More than any Compose file, and few enough bytes to read at once.
MAX_FILE_BYTES = 32 * 1024 * 1024
#: Services that extend each other in a row.
MAX_EXTENDS = 100
#: Files that include each other in a row.
MAX_INCLUDES = 50


def shown_name(path: str) -> str:
    """Name a file in messages: relative where it lies below the current folder."""
    here = os.getcwd()
    return os.path.relpath(path, here) if path.startswith(here.rstrip("/") + "/") else path


class Variables:
    """The variables of one model, and what became of them."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values = dict(values)
        #: Named by the document, and not set.
        self.missing: dict[str, None] = {}

    def lookup(self, name: str) -> str | None:
        return self.values.get(name)

    def miss(self, name: str) -> None:
        self.missing.setdefault(name)


def read_text(path: str, problems: Problems, mark: Mark, where: Path) -> str:
    """Read a file of the project.

    Raises:
        ComposeError: It can't be read, or is too large.
    """
    try:
        if os.path.getsize(path) > MAX_FILE_BYTES:
            raise ComposeError(
                [*problems.found, Problem(mark, where, f"{shown_name(path)} is larger than {MAX_FILE_BYTES} bytes")]
            )
        return FilePath(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        reason = (error.strerror or "can't be read").lower()
        problems.add(mark, where, reason if mark.file == shown_name(path) else f"{shown_name(path)}: {reason}")
    except UnicodeDecodeError:
        problems.add(mark, where, f"{shown_name(path)} is not UTF-8 text")
    raise ComposeError(problems.found)


def read_env_file(path: str, variables: Mapping[str, str], problems: Problems, mark: Mark, where: Path) -> dict[str, str]:
    """Read a file of variables; what the caller's variables say already is used, not overridden."""
    text = read_text(path, problems, mark, where)
    try:
        return parse_dotenv(text, variables.get)
    except DotenvError as error:
        problems.add(Mark(shown_name(path), error.line, 1), (), str(error))
        return {}


class Loader:
    """Loads the files of one project. What is wrong is collected in ``problems``."""

    def __init__(self, problems: Problems, home: str) -> None:
        self.problems = problems
        self.home = home
        #: Service to the variables that its values name.
        self.used: dict[str, set[str]] = {}
        self.read: dict[str, list[Document]] = {}

    def model(
        self,
        files: list[str],
        folder: str,
        variables: Variables,
        included: tuple[str, ...] = (),
        named_at: tuple[Mark, Path] | None = None,
    ) -> Map:
        """Load files, each over those before it.

        Args:
            included: The files that led here.
            named_at: Where another file names these; what can't be read is reported there.
        """
        tree = Map({}, Mark(shown_name(files[0]), 1, 1))
        for file in files:
            documents = self.documents(file, *(named_at or (Mark(shown_name(file), 0, 0), ())))
            if not documents and not tree:
                raise self.stop(Mark(shown_name(file), 0, 0), (), "is empty")
            for document in documents:
                tree = self.document(tree, document, file, folder, variables, included)
        fill_defaults(tree)
        check_resources(tree, self.problems)
        resolve_paths(tree, folder, self.home)
        resolve_environment(tree, variables.lookup)
        return tree

    def documents(self, file: str, mark: Mark, where: Path) -> list[Document]:
        if file in self.read:
            return self.read[file]
        text = read_text(file, self.problems, mark, where)
        try:
            return self.read.setdefault(file, read_documents(text, shown_name(file)))
        except ComposeError as error:
            raise ComposeError([*self.problems.found, *error.problems]) from None

    def stop(self, mark: Mark, path: Path, message: str) -> ComposeError:
        return ComposeError([*self.problems.found, Problem(mark, path, message)])

    def document(
        self, tree: Map, document: Document, file: str, folder: str, variables: Variables, included: tuple[str, ...]
    ) -> Map:
        config = self.interpolated(document, file, variables)
        self.include(config, file, folder, variables, included)
        self.extend(config, document, file, folder, variables)
        for path in document.cleared:
            _clear(tree, path)
        tree = drop_repetitions(merge(tree, config, self.problems), self.problems)
        self.validate(tree)
        return drop_repetitions(_without_empty_dns(canonical(tree, self.problems)), self.problems)

    def interpolated(self, document: Document, file: str, variables: Variables) -> Map:
        if not isinstance(document.value, Map):
            mark = getattr(document.value, "mark", Mark(shown_name(file), 1, 1))
            raise self.stop(mark, (), "a Compose file is a mapping with 'services' at its top")
        result, used = interpolate(document.value, variables.lookup, self.problems, variables.miss)
        for service, names in used.items():
            self.used.setdefault(service, set()).update(names)
        return result

    def validate(self, tree: Map) -> None:
        """Check against the schema; what fails is noted and taken out, so that the rest can be checked too."""
        known = len(self.problems.found)
        if validate(tree, self.problems):
            return
        # From the back, so that taking one item out of a list does not move those still to come.
        for problem in reversed(self.problems.found[known:]):
            _clear(tree, problem.path)
        if len(self.problems.found) - known >= MAX_PROBLEMS or not validate(tree, Problems()):
            raise ComposeError(self.problems.found)

    # -- include

    def include(self, config: Map, file: str, folder: str, variables: Variables, included: tuple[str, ...]) -> None:
        entries = config.pop("include", None)
        if entries is None:
            return
        chain = (*included, file)
        if not isinstance(entries, Seq):
            self.problems.add(config.mark_of("include"), ("include",), "must be a list")
            return
        for index, (entry, mark) in enumerate(entries.pairs()):
            self.include_one(config, entry, mark, ("include", index), folder, variables, chain)

    def include_one(
        self, config: Map, entry: Any, mark: Mark, where: Path, folder: str, variables: Variables, chain: tuple[str, ...]
    ) -> None:
        entry = Map({"path": entry}, mark) if isinstance(entry, str) or entry is None else entry
        unknown = [key for key in entry if key not in _INCLUDE_KEYS] if isinstance(entry, Map) else ["?"]
        if unknown:
            near = nearest(unknown[0], _INCLUDE_KEYS)
            self.problems.add(mark, where, f"unknown key {unknown[0]!r}{near}" if isinstance(entry, Map) else "must be a path")
            return
        paths = _texts(entry.get("path"))
        if not paths:
            return
        if "" in paths:
            self.problems.add(mark, where, "an empty path")
            return
        for path in paths:
            if is_remote(path):
                self.problems.add(mark, where, f"{path}: only files of this machine can be included; fetch it first")
                return
        files = [absolute(path, folder, self.home) for path in paths]
        if len(chain) > MAX_INCLUDES:
            raise self.stop(mark, where, f"more than {MAX_INCLUDES} files include each other in a row")
        if files[0] in chain:
            circle = " includes ".join(shown_name(path) for path in (*chain, files[0]))
            raise self.stop(mark, where, f"a circle: {circle}")
        project = entry.get("project_directory")
        inner = absolute(project, folder, self.home) if isinstance(project, str) and project else os.path.dirname(files[0])
        values = self.include_variables(entry, inner, folder, variables, mark, where)
        imported = self.model(files, inner, values, chain, (mark, where))
        variables.missing.update(values.missing)
        self.import_into(config, imported, mark, where)

    def include_variables(self, entry: Map, inner: str, folder: str, variables: Variables, mark: Mark, where: Path) -> Variables:
        files = [absolute(path, folder, self.home) for path in _texts(entry.get("env_file"))]
        if not files and os.path.isfile(default := os.path.join(inner, ".env")):
            files = [default]
        found: dict[str, str] = {}
        for file in files:
            found |= read_env_file(file, {**found, **variables.values}, self.problems, mark, where)
        return Variables({**found, **variables.values})

    def import_into(self, config: Map, imported: Map, mark: Mark, where: Path) -> None:
        for section in ("services", "volumes", "networks", "secrets", "configs", "models"):
            source = imported.get(section)
            if not isinstance(source, Map):
                continue
            if not isinstance(config.get(section), Map):
                config[section] = Map({}, mark)
            target = config[section]
            for name, value in source.items():
                if name in target and target[name] != value:
                    self.problems.add(target.mark_of(name), (section, name), f"is defined by the included file {where} too")
                target.put(name, value, source.mark_of(name))

    # -- extends

    def extend(self, config: Map, document: Document, file: str, folder: str, variables: Variables) -> None:
        services = config.get("services")
        if not isinstance(services, Map):
            return
        extending = _Extending(self, variables)
        for name in list(services):
            services[name] = extending.service(name, services, file, folder, [document.cleared], ())

    def extended_file(self, path: str, name: str, mark: Mark, where: Path, variables: Variables) -> tuple[Map, list[Path]]:
        """Load the file that a service extends a service of; its paths are relative to itself."""
        tree, cleared = Map(), []
        for document in self.documents(path, mark, where):
            config = self.interpolated(document, path, variables)
            config.pop("include", None)
            for place in document.cleared:
                _clear(tree, place)
            tree = drop_repetitions(merge(tree, config, self.problems), self.problems)
            cleared = document.cleared
        known = len(self.problems.found)
        if not validate(tree, self.problems):
            # What it holds besides the service is none of our business.
            mine = [found for found in self.problems.found[known:] if found.path[:2] in ((), ("services",), ("services", name))]
            del self.problems.found[known:]
            if mine:
                raise ComposeError([*self.problems.found, *mine])
        return resolve_paths(canonical(tree, self.problems), os.path.dirname(path), self.home), cleared


_INCLUDE_KEYS = ("path", "env_file", "project_directory")


class _Extending:
    """Resolves the ``extends`` of one document."""

    def __init__(self, loader: Loader, variables: Variables) -> None:
        self.loader = loader
        self.variables = variables

    def service(
        self, name: str, services: Map, file: str, folder: str, cleared: list[list[Path]], chain: tuple[tuple[str, str], ...]
    ) -> Any:
        """Return the service with what it extends merged in."""
        service = services.get(name)
        if not isinstance(service, Map) or "extends" not in service:
            return service
        where: Path = ("services", name, "extends")
        mark = service.mark_of("extends")
        if (file, name) in chain:
            circle = " extends ".join(f"{other} ({shown_name(path)})" for path, other in (*chain, (file, name)))
            raise self.loader.stop(mark, where, f"a circle: {circle}")
        if len(chain) > MAX_EXTENDS:
            raise self.loader.stop(mark, where, f"more than {MAX_EXTENDS} services extend each other in a row")
        target = self.target(service["extends"], mark, where)
        if target is None:
            return service
        other, path = target
        if path is None:
            base_services, base_file, base_folder = services, file, folder
        else:
            base_file = absolute(path, folder, self.loader.home)
            tree, inner = self.loader.extended_file(base_file, other, mark, where, self.variables)
            base_services, base_folder = tree.get("services") or Map(), os.path.dirname(base_file)
            cleared = [*cleared, inner]
        if other not in base_services:
            place = f" in {shown_name(base_file)}" if path is not None else ""
            self.loader.problems.add(mark, where, f"no service is called {other!r}{place}{nearest(other, base_services)}")
            return service
        base = self.service(other, base_services, base_file, base_folder, cleared, (*chain, (file, name)))
        return self.merged(clone(base), service, name, cleared)

    def merged(self, base: Any, service: Map, name: str, cleared: list[list[Path]]) -> Map:
        if not isinstance(base, Map):
            return service
        own = clone(service)
        holder = Map({"services": Map({name: base})})
        for paths in cleared:
            for place in paths:
                _clear(holder, place)
        merged = merge_service(base, own, name, self.loader.problems)
        merged.pop("extends", None)
        return merged

    def target(self, extends: Any, mark: Mark, where: Path) -> tuple[str, str | None] | None:
        if isinstance(extends, str):
            return extends, None
        if not isinstance(extends, Map) or not isinstance(extends.get("service"), str):
            self.loader.problems.add(mark, where, "needs a 'service'")
            return None
        path = extends.get("file")
        if isinstance(path, str) and is_remote(path):
            self.loader.problems.add(mark, where, f"{path}: only files of this machine can be extended; fetch it first")
            return None
        return extends["service"], path if isinstance(path, str) else None


def _texts(value: Any) -> list[str]:
    return [item for item in (value if isinstance(value, Seq) else [value]) if isinstance(item, str)]


def _clear(tree: Any, path: Path) -> None:
    """Take out what stands at a path, if anything does."""
    if not path:
        return
    for part in path[:-1]:
        if isinstance(tree, Map):
            tree = tree.get(str(part))
        elif isinstance(tree, Seq) and isinstance(part, int) and part < len(tree):
            tree = tree[part]
        else:
            return
    last = path[-1]
    if isinstance(tree, Map):
        tree.pop(str(last), None)
    elif isinstance(tree, Seq) and isinstance(last, int) and last < len(tree):
        del tree[last], tree.marks[last]


def _without_empty_dns(tree: Map) -> Map:
    services = tree.get("services")
    for service in services.values() if isinstance(services, Map) else ():
        dns = service.get("dns") if isinstance(service, Map) else None
        if isinstance(dns, Seq):
            service["dns"] = Seq([item for item in dns if item], dns.mark)
    return tree
