"""The plugin's hooks: light, so that loading it costs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxcore import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandboxcore.abc import Translator

SANDBOXCORE_HOOK_API = 1


@hookimpl
def sandboxcore_translators() -> Sequence[Translator]:
    """Bring the translator of Compose files."""
    from .translator import ComposeTranslator

    return [ComposeTranslator()]
