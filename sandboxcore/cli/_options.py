"""Options that several commands have, and the values that they become."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ._completion import complete_backend, complete_service
from ._settings import debug_option
from ._values import DURATION, backend_config, environment_variables, json_or_text, key_values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..session import Session
    from ..values import Event, Translation

__all__ = (
    "BackendChoice",
    "Source",
    "backend_options",
    "document_options",
    "exec_options",
    "json_option",
    "label_option",
    "service_option",
    "source_options",
)

F = TypeVar("F", bound="Callable[..., Any]")


@dataclass(frozen=True, kw_only=True)
class BackendChoice:
    """Which backend, and how it is configured. The configuration may hold secrets."""

    backend: str | None
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def session(self, *, on_event: Callable[[Event], None] | None = None, **options: Any) -> Session:
        """Make a session on it, not yet entered."""
        from ..session import Session

        return Session(self.backend, config=self.config, on_event=on_event, **options)


@dataclass(frozen=True, kw_only=True)
class Source:
    """What to provision: documents, the first being the base, and how they are to be read.

    Args:
        variables: Values of the documents' variables.
        options: The translator's own.
        translator: Its name; None: the one that knows files of that name.
        quiet: Do not warn of what the translation could not keep.
    """

    files: tuple[Path, ...]
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict)
    translator: str | None = None
    quiet: bool = False

    @property
    def title(self) -> str:
        """Name it for people."""
        return ", ".join(str(path) for path in self.files) or "an empty environment"

    def translate(self, session: Session) -> Translation:
        """Translate the documents. Nothing is created.

        Raises:
            SpecError: They are wrong, missing, or nothing that an installed translator knows.
        """
        return session.translate(
            list(self.files) or None, variables=self.variables, translator=self.translator, options=self.options
        )


def backend_options(function: F) -> F:
    """Add ``-b``, ``--config`` and ``--config-file``; the command gets them as ``choice``."""

    @click.option("-b", "--backend", metavar="NAME", default=None, shell_complete=complete_backend,
                  help="Backend to use. [default: $SANDBOXCORE_BACKEND, else local]")  # fmt: skip
    @click.option(
        "--config", multiple=True, metavar="K=V", help="Set a key of the backend's configuration; V may be JSON. Repeatable."
    )
    @click.option("--config-file", type=click.Path(path_type=Path), metavar="FILE",
                  help="Read the backend's configuration from a TOML or .json file.")  # fmt: skip
    @debug_option
    @functools.wraps(function)
    def wrapper(*args: Any, backend: str | None, config: Sequence[str], config_file: Path | None, **options: Any) -> Any:
        choice = BackendChoice(backend=backend, config=backend_config(config, config_file))
        return function(*args, choice=choice, **options)

    return wrapper  # type: ignore[return-value]


def document_options(function: F) -> F:
    """Add what says how documents are read; the command, which has ``files``, gets it all as ``source``."""

    @click.option("--var", "variables", multiple=True, metavar="K=V", help="Set a variable of the document; repeatable.")
    @click.option("--env-file", "env_files", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
                  help="Read the document's variables from this file in place of .env; repeatable.")  # fmt: skip
    @click.option("--profile", "profiles", multiple=True, metavar="NAME", help="Enable a profile of the document; repeatable.")
    @click.option("--project-name", metavar="NAME", help="Name of the project, in place of the document's.")
    @click.option("--translator", metavar="NAME", help="Translator to use. [default: the one that knows files of that name]")
    @click.option(
        "--option",
        "options",
        multiple=True,
        metavar="K=V",
        help="Set an option of the translator, such as internet=true; repeatable.",
    )
    @click.option("-q", "--quiet", is_flag=True, help="Do not warn of what the translation could not keep.")
    @functools.wraps(function)
    def wrapper(
        *args: Any,
        files: Sequence[Path],
        variables: Sequence[str],
        env_files: Sequence[Path],
        profiles: Sequence[str],
        project_name: str | None,
        translator: str | None,
        options: Sequence[str],
        quiet: bool,
        **others: Any,
    ) -> Any:
        given: dict[str, Any] = {name: json_or_text(text) for name, text in key_values("--option", options).items()}
        named = {"env_files": [str(path) for path in env_files], "profiles": list(profiles), "project_name": project_name}
        source = Source(
            files=tuple(files),
            variables=key_values("--var", variables),
            options=given | {name: value for name, value in named.items() if value},
            translator=translator,
            quiet=quiet,
        )
        return function(*args, source=source, **others)

    return wrapper  # type: ignore[return-value]


def source_options(function: F) -> F:
    """Add ``-f`` and what says how documents are read; the command gets it all as ``source``."""
    return click.option(
        "-f",
        "--file",
        "files",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Document to provision; a further one overrides those before. Without any: one bare service.",
    )(document_options(function))


def exec_options(function: F) -> F:
    """Add what says how a command runs; the command gets it as ``command_line``."""

    @click.option("-i", "--interactive", is_flag=True, help="Pass standard input on to the command.")
    @click.option("-t", "--tty", is_flag=True, help="Give the command a terminal.")
    @click.option("-u", "--user", metavar="USER", help="User to run as: name or uid, with :group or :gid.")
    @click.option("-w", "--workdir", metavar="DIR", help="Working directory; relative to the service's own.")
    @click.option(
        "-e", "--env", multiple=True, metavar="K=V", help="Set a variable; K alone passes on the one set here. Repeatable."
    )
    @click.option("--timeout", type=DURATION, metavar="S", help="Kill the command after this time (90, 90s, 15m); exit code 124.")
    @functools.wraps(function)
    def wrapper(
        *args: Any,
        interactive: bool,
        tty: bool,
        user: str | None,
        workdir: str | None,
        env: Sequence[str],
        timeout: float | None,
        argv: Sequence[str],
        **options: Any,
    ) -> Any:
        from ._attach import CommandLine

        command_line = CommandLine(
            argv=tuple(argv),
            interactive=interactive,
            tty=tty,
            user=user,
            cwd=workdir,
            env=environment_variables(env),
            timeout=timeout,
        )
        command_line.check()
        return function(*args, command_line=command_line, **options)

    return wrapper  # type: ignore[return-value]


service_option = click.option(
    "-s",
    "--service",
    metavar="SERVICE",
    shell_complete=complete_service,
    help="Service to run in. [default: the document's default]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
label_option = click.option("--label", "labels", multiple=True, metavar="K=V", help="Label of the environment; repeatable.")
