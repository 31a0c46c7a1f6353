"""Says what is being waited for, on a terminal's stderr, once it has taken longer than a second."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator

    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from ..values import Event

__all__ = ("Progress", "describe")

#: Seconds of silence before anything is shown.
PATIENCE = 1.0


def describe(event: Event) -> str | None:
    """Put an event into a few words; None for those that nobody waits for."""
    subject, _, what = event.name.partition(".")
    if subject not in ("environment", "service"):
        return None
    words = what.replace(".", " ").replace("_", " ")
    detail = event.attributes.get("detail") or event.attributes.get("reason") or ""
    name = event.service or (event.environment_id if subject == "environment" else "")
    return " ".join(part for part in (f"{name}:" if name else "", words, f"({detail})" if detail else "") if part)


class Progress:
    """Follows a session's events and the bytes of a transfer, and draws them while something is waited for."""

    def __init__(self, *, enabled: bool | None = None) -> None:
        self._enabled = sys.stderr.isatty() if enabled is None else enabled
        self._title = ""
        self._detail = ""
        self._done_bytes = 0
        self._total_bytes: int | None = None
        self._drawing: tuple[RichProgress, TaskID] | None = None

    def on_event(self, event: Event) -> None:
        """Take a session's event; cheap, and never raises."""
        if text := describe(event):
            self._detail = text
            self._draw()

    def advance(self, count_bytes: int) -> None:
        """Count bytes that were moved."""
        self._done_bytes += count_bytes
        self._draw()

    @contextlib.asynccontextmanager
    async def waiting(self, title: str, *, total_bytes: int | None = None) -> AsyncIterator[None]:
        """Show the title and what happens below it while the block runs, with a bar where there are bytes to count."""
        self._title, self._detail, self._done_bytes, self._total_bytes = title, "", 0, total_bytes
        if not self._enabled:
            yield
            return
        import asyncio

        timer = asyncio.get_running_loop().call_later(PATIENCE, self._start)
        try:
            yield
        finally:
            self._stop(timer)

    def _start(self) -> None:
        from rich import progress as widgets
        from rich.console import Console

        columns: list[widgets.ProgressColumn] = [widgets.SpinnerColumn(), widgets.TextColumn("{task.description}", markup=False)]
        if self._total_bytes is not None:
            columns += [widgets.BarColumn(), widgets.DownloadColumn(binary_units=True), widgets.TransferSpeedColumn()]
        columns.append(widgets.TimeElapsedColumn())
        console = Console(stderr=True)
        progress = widgets.Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)
        self._drawing = progress, progress.add_task("", total=self._total_bytes)
        self._draw()
        progress.start()

    def _draw(self) -> None:
        if self._drawing is None:
            return
        progress, task = self._drawing
        text = f"{self._title}: {self._detail}" if self._detail else self._title
        progress.update(task, description=text, completed=self._done_bytes)

    def _stop(self, timer: asyncio.TimerHandle) -> None:
        timer.cancel()
        if self._drawing is not None:
            drawing, self._drawing = self._drawing, None
            drawing[0].stop()
