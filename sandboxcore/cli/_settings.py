"""What the options that every command has are set to."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import click

__all__ = ("Settings", "debug_option")


@dataclass
class Settings:
    """One for each run of the command line."""

    debug: bool = False

    def start_debugging(self) -> None:
        """Log everything to stderr, and show tracebacks. Idempotent."""
        if self.debug:
            return
        self.debug = True
        import logging

        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, format="%(asctime)s %(name)s %(levelname)s %(message)s")


def _debug(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    settings = ctx.find_object(Settings)
    if wanted and settings is not None:
        settings.start_debugging()


#: Also takes ``--debug`` after the command's name, which is where people put it.
debug_option = click.option("--debug", is_flag=True, expose_value=False, hidden=True, callback=_debug)
