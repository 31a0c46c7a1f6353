"""From what a task gives as its sandbox's configuration to what a session provisions."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspect_ai.util import ComposeConfig
from inspect_ai.util._sandbox.compose import COMPOSE_FILES, DOCKERFILE, is_dockerfile
from sandboxcore.errors import UsageError
from sandboxcore.spec import BuildSpec, EnvironmentSpec, ServiceSpec

from ._config import SandboxcoreConfig, default_backend

if TYPE_CHECKING:
    from sandboxcore.session import Session
    from sandboxcore.values import Translation

__all__ = ("config_files", "config_of", "for_sample", "text_of", "translated", "variables_of")

#: Backends on which Helm values are the first thing to look for, as Inspect's own provider for Kubernetes does.
VALUES_BACKENDS = ("helm", "opensandbox")
VALUES_FILES = ("values.yaml", "helm-values.yaml")
#: What Inspect's Docker provider runs where a task says nothing.
GENERIC_IMAGE = "aisiuk/inspect-tool-support"
_IDLE = ("tail", "-f", "/dev/null")


def config_files() -> list[str]:
    """List the files that are looked for beside a task, first one first: those of Inspect's provider for the same place."""
    compose = [*COMPOSE_FILES, DOCKERFILE]
    return [*VALUES_FILES, *compose] if default_backend() in VALUES_BACKENDS else compose


def config_of(given: object) -> SandboxcoreConfig:
    """Take any form that Inspect hands over.

    Raises:
        UsageError: It is another provider's configuration.
    """
    if given is None or isinstance(given, str):
        return SandboxcoreConfig(spec=given)
    if isinstance(given, SandboxcoreConfig):
        return given
    if isinstance(given, ComposeConfig):
        return SandboxcoreConfig()
    raise UsageError(
        f"the sandbox's configuration is a {type(given).__name__}, which the provider sandboxcore does not know",
        hint="give the path of a Compose file, Helm values or a Dockerfile, a ComposeConfig, or a SandboxcoreConfig",
    )


def variables_of(text: str, metadata: Mapping[str, Any]) -> dict[str, str]:
    """Name a sample's metadata as Inspect's Docker provider does; only what the Compose file's text mentions."""
    named = {f"SAMPLE_METADATA_{key.replace(' ', '_').upper()}": str(value) for key, value in metadata.items()}
    return {name: value for name, value in named.items() if name in text}


def text_of(given: object) -> str:
    """Return the text of the document, where there is one."""
    spec = config_of(given).spec
    return _read(Path(spec)) if isinstance(spec, str) else ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # whoever needs it says why it can't be read


def for_sample(
    spec: EnvironmentSpec, config: SandboxcoreConfig, task: str, uuid: str | None, metadata: Mapping[str, Any]
) -> EnvironmentSpec:
    """Give a release's chart what Inspect's provider for Kubernetes gives it: the task, the sample and its metadata.

    Of the metadata that is what the values or the chart itself mention: ``my key`` as ``sampleMetadataMyKey``.
    """
    values: dict[str, Any] = {"annotations": {"inspectTaskName": task}} | (
        {"labels": {"inspectSampleUUID": uuid}} if uuid else {}
    )
    text = json.dumps(spec.options.get("helm", {}), default=str) + _text_of_chart(config.options.get("chart"))
    for key, value in metadata.items():
        name = "sampleMetadata" + "".join(word[:1].upper() + word[1:] for word in re.findall(r"[A-Za-z0-9]+", key))
        if name in text:
            values[name] = str(value)
    helm = {**spec.options.get("helm", {}), "per_release": values}
    return spec.model_copy(update={"options": {**spec.options, "helm": helm}})


def _text_of_chart(chart: object) -> str:
    folder = Path(chart) if isinstance(chart, str) else None
    if folder is None or not folder.is_dir():
        return ""
    return "".join(_read(path) for path in sorted(folder.rglob("*")) if path.suffix in (".yaml", ".yml", ".tpl", ".json"))


def translated(session: Session, given: object, variables: Mapping[str, str]) -> Translation:
    """Translate a configuration.

    Args:
        variables: Those of the sample's metadata.

    Raises:
        SpecError: With every problem of the document.
    """
    config = config_of(given)
    values = {**config.variables, **variables}
    if isinstance(given, ComposeConfig):
        with _written(given) as path:
            return _document(session, path, values, {"project_name": f"inspect-{hash_of(given)}"})
    if isinstance(config.spec, EnvironmentSpec):
        return session.translate(config.spec)
    if config.spec is None:
        return session.translate(_nothing_said(session, config))
    if is_dockerfile(config.spec):
        return session.translate(_of_dockerfile(Path(config.spec)))
    return _document(session, Path(config.spec), values, {**_chart(config), **config.translator})


def _chart(config: SandboxcoreConfig) -> dict[str, Any]:
    """Tell the translator of values that they are for a chart of one's own."""
    names = {"chart": "chart", "chart_version": "version", "chart_repo": "repo"}
    return {name: config.options[option] for option, name in names.items() if config.options.get(option)}


def hash_of(config: ComposeConfig) -> str:
    """Name a configuration by its content."""
    return hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:8]


def _document(session: Session, path: Path, variables: Mapping[str, str], options: Mapping[str, Any]) -> Translation:
    known = any(translator.claims(path) for translator in session.plugins.translators())
    if "compose" in path.name.lower() or not known:
        # As docker compose does it, on which evals rely.
        options = {"environment": True, **options}
    return session.translate(path, variables=variables, translator=None if known else "compose", options=options)


@contextmanager
def _written(config: ComposeConfig) -> Iterator[Path]:
    """Write a ComposeConfig as the file that it stands for; its paths begin at the current folder."""
    document = config.model_dump(mode="json", by_alias=True, exclude_none=True)
    for service in document["services"].values():
        build = service.get("build")
        if isinstance(build, str):
            service["build"] = str(Path(build).absolute())
        elif build is not None:
            build["context"] = str(Path(build.get("context", ".")).absolute())
    with tempfile.TemporaryDirectory(prefix="sandboxcore-") as folder:
        path = Path(folder) / "compose.yaml"
        path.write_text(json.dumps(document), encoding="utf-8")  # JSON is YAML
        yield path


def _of_dockerfile(path: Path) -> EnvironmentSpec:
    build = BuildSpec(context=str(path.parent), dockerfile=path.name)
    service = ServiceSpec(build=build, command=_IDLE, init=True, networks=None, stop_grace_period=1.0)
    return EnvironmentSpec(services={"default": service}, name=re.sub(r"[^a-z0-9]+", "-", path.parent.name.lower()).strip("-"))


def _nothing_said(session: Session, config: SandboxcoreConfig) -> EnvironmentSpec | None:
    """Where a container needs an image and neither the task nor the backend names one, take that of Inspect's own provider."""
    if session.backend in VALUES_BACKENDS or "images" not in session.info.capabilities or config.options.get("default_image"):
        return None
    service = ServiceSpec(image=GENERIC_IMAGE, command=_IDLE, init=True, networks=None, stop_grace_period=1.0)
    return EnvironmentSpec(services={"default": service})
