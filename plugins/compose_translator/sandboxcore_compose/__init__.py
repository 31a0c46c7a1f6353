"""Compose files for sandboxcore.

Two layers, both pure: nothing is fetched, started or written.

Loading, with docker compose's rules (merging, ``extends``, ``include``, profiles, variables, ``env_file``, short forms)::

    from sandboxcore_compose import load

    project = load(["compose.yaml", "more.yaml"], variables={"TAG": "1.2"}, project_name="demo", profiles=["gpu"],
                   env_files=["dev.env"])      # raises sandboxcore.SpecError with .problems: file:line:column: key: message
    project.canonical()                        # dict: what `docker compose config --format json` prints
    project.missing                            # names of variables that were not set

Translating, for any backend::

    from sandboxcore_compose import ComposeTranslator

    translation = ComposeTranslator().translate([Path("compose.yaml")], variables={...}, backend=info, options={...})
    translation.spec                           # sandboxcore.EnvironmentSpec
    translation.report                         # sandboxcore.TranslationReport: an entry for every key that is not carried over

``options`` of ``translate``: ``project_name``, ``profiles``, ``env_files`` as for ``load``; ``internet`` (true: services whose
networks let them out may use the internet; otherwise it is off and the report says so); ``offline`` (true: nor do allow lists
give a way out, for backends that can't keep to them); ``allow`` (names of what is left out or refused otherwise:
``privileged``, ``writable_binds``, ``host_paths``); ``images`` (service to image, a template such as
``registry/{project}-{service}:{digest}``, or a file with a mapping, for services that have to be built); ``gpus_all`` (how many
GPUs ``count: all`` means); ``strict`` (true: what is only approximated is an error); ``environment`` (true: the process
environment stands behind ``variables``, and the report lists which of its names ended up in a service).

``sandboxcore_compose.values.helm_values(spec)`` writes a spec as values for the Helm backend's chart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .project import Project, load
    from .translator import ComposeTranslator

__all__ = ("ComposeTranslator", "Project", "load")

_PLACES = {"ComposeTranslator": "translator", "Project": "project", "load": "project"}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f".{_PLACES[name]}", __name__), name)
