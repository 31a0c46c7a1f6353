"""Images of services that are built: named by a mapping or a template, never guessed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path as FilePath
from typing import Any

from sandboxcore.spec import BuildSpec

from ._marks import Path
from ._notes import Notes

__all__ = ("build_spec", "named_image")

_KNOWN = ("context", "dockerfile", "dockerfile_inline", "args", "target", "platforms")


def build_spec(build: dict[str, Any]) -> BuildSpec:
    """Describe a build for whoever carries it out."""
    return BuildSpec(
        context=str(build.get("context", "")),
        dockerfile=build.get("dockerfile"),
        dockerfile_inline=build.get("dockerfile_inline"),
        args=dict(build.get("args") or {}),
        target=build.get("target"),
        platforms=tuple(build.get("platforms") or ()),
        extra={key: value for key, value in build.items() if key not in _KNOWN},
    )


def named_image(images: Any, service: str, project: str, build: BuildSpec, path: Path, notes: Notes) -> str | None:
    """Find the image that a mapping or template names for a service; None where it names none."""
    if isinstance(images, dict):
        found = images.get(service)
        return str(found) if found else None
    if not isinstance(images, str) or not images:
        return None
    try:
        digest = _digest(build) if "{digest}" in images else ""
        return images.format(project=project, service=service, digest=digest)
    except (KeyError, IndexError, ValueError):
        notes.problems.at(notes.tree, path, f"the template {images!r} may use {{project}}, {{service}} and {{digest}} only")
    except OSError as error:
        notes.problems.at(notes.tree, path, f"the build context can't be read: {(error.strerror or 'unreadable').lower()}")
    return None


def _digest(build: BuildSpec) -> str:
    """Hash what a build depends on: its files and settings. Twelve hexadecimal digits."""
    found = hashlib.sha256(repr((build.dockerfile, build.dockerfile_inline, sorted(build.args.items()), build.target)).encode())
    for place, folders, names in os.walk(build.context):
        folders.sort()
        for name in sorted(names):
            path = FilePath(place, name)
            if path.is_file() and not path.is_symlink():
                found.update(str(path.relative_to(build.context)).encode() + b"\0")
                with path.open("rb") as file:
                    found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()[:12]
