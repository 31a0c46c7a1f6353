"""``sandboxcore translate``: what a document becomes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import SpecError, UsageError
from ...report import Loss
from .._environments import show_losses
from .._lazy import COMMANDS
from .._options import BackendChoice, Source, backend_options, document_options, json_option
from .._output import print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...report import ReportEntry, TranslationReport
    from ...session import Session
    from ...spec import EnvironmentSpec
    from ...values import Translation

__all__ = ("command",)


def report_data(report: TranslationReport) -> list[dict[str, Any]]:
    """Describe a report with the keys that ``--json`` promises."""
    return [
        {
            "loss": entry.loss.value,
            "key": entry.key,
            "service": entry.service,
            "reason": entry.reason,
            "option": entry.option,
            "file": entry.file,
            "line": entry.line,
            "column": entry.column,
        }
        for entry in report.entries
    ]


def refuse_losses(entries: Sequence[ReportEntry]) -> None:
    """Refuse a document of which something would behave differently.

    Raises:
        SpecError: With a line for each.
    """
    if entries:
        raise SpecError(problems=[str(entry) for entry in entries], hint="leave out --strict to go on with these differences")


def spec_data(spec: EnvironmentSpec) -> dict[str, Any]:
    """Describe a spec with JSON's types; what is not given is left out. Bytes that are no UTF-8 are in base64."""
    data = _json_safe(spec.model_dump(exclude_defaults=True))
    assert isinstance(data, dict)
    return data


def _json_safe(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _json_safe(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_safe(inner) for inner in value]
    if isinstance(value, bytes):
        return _text(value)
    return value


def _text(data: bytes) -> str | dict[str, str]:
    import base64

    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode("ascii")}


@click.command(short_help=COMMANDS["translate"])
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--to", "form", type=click.Choice(["spec", "compose", "values"]), default="spec", show_default=True,
              help="The neutral spec, what `docker compose config --format json` prints, or Helm values.")  # fmt: skip
@click.option("--report", is_flag=True, help="Show what is not carried over as it stands, key by key, instead.")
@click.option("--strict", is_flag=True, help="Refuse a document of which something would be refused or behave differently.")
@document_options
@backend_options
@json_option
def command(choice: BackendChoice, source: Source, form: str, report: bool, strict: bool, as_json: bool) -> int:
    """Show what a document becomes, and what is lost on the way: by the translation, and on the backend if one is named.

    Nothing is created, and neither a daemon nor a cluster is needed. Each further FILE overrides those before. All forms are
    JSON, which is YAML as well; values are for the backend helm, whatever the backend is.
    """
    if form == "compose":
        if report or strict:
            raise UsageError("--to compose: nothing is lost there, so there is no report", hint="leave out --report and --strict")
        print_json(_canonical(source))
        return 0
    session = choice.session()
    translation = source.translate(session)
    if form == "values":
        document, more = _compose("values").helm_values(translation.spec)
        losses = translation.report.extended(more)
    else:
        document, losses = spec_data(translation.spec), translation.report
        if choice.backend is not None:
            losses = _checked(session, translation)
    if strict:
        refuse_losses(losses.of(Loss.REJECT, Loss.APPROX))
    _print(form, document, losses, report, as_json, source.quiet)
    return 0


def _checked(session: Session, translation: Translation) -> TranslationReport:
    """Add what the backend says."""
    import asyncio

    return asyncio.run(session.check(translation)).report


def _print(form: str, document: dict[str, Any], losses: TranslationReport, only_report: bool, as_json: bool, quiet: bool) -> None:
    if as_json:
        print_json(({} if only_report else {form: document}) | {"report": report_data(losses)})
    elif only_report:
        _show(losses)
    else:
        if not quiet:
            show_losses(losses)
        print_json(document)


def _canonical(source: Source) -> Any:
    """Load a Compose project and return its canonical form.

    Raises:
        SpecError: The documents are wrong, with every problem.
    """
    known = {name: value for name, value in source.options.items() if name in ("env_files", "profiles", "project_name")}
    return _compose("project").load(list(source.files), variables=source.variables, **known).canonical()


def _compose(module: str) -> Any:
    """Import a part of the Compose translator, which need not be installed.

    Raises:
        UsageError: It is not.
    """
    import importlib

    try:
        return importlib.import_module(f"sandboxcore_compose.{module}")
    except ModuleNotFoundError as error:
        if error.name and not error.name.startswith("sandboxcore_compose"):
            raise
        raise UsageError("this form needs the Compose translator", hint="pip install 'sandboxcore[compose]'") from None


def _show(report: TranslationReport) -> None:
    rows = [(entry.loss.value, entry.where, entry.key, entry.reason, entry.option) for entry in report.entries]
    print_table(("CLASS", "WHERE", "KEY", "WHAT HAPPENS", "OPTION"), rows)
