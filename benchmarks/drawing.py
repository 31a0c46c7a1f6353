"""What the pictures have in common: made without a screen, and the same file of the same report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ("grid_and_legend", "picture")


@contextmanager
def picture(path: Path, rows: int, columns: int, inches: tuple[float, float]) -> Iterator[Any]:
    """Give the axes of a picture, which is then written; its format is that of the name's ending."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "sandboxcore"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(rows, columns, figsize=inches, layout="constrained")
    yield axes
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def grid_and_legend(axis: Any) -> None:
    """Finish a plot of several lines."""
    axis.grid(visible=True, which="major", alpha=0.3)
    axis.legend(fontsize=8)
