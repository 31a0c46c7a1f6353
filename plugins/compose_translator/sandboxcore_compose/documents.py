"""Reading YAML so that every problem can name its line, for other translators of this project."""

from __future__ import annotations

from ._extensions import read_quantity
from ._marks import ComposeError, Map, Mark, Path, Problem, Problems, Seq, dotted, locate
from ._schema import explain, nearest
from ._yaml import Document, read_documents
from .project import spec_error

__all__ = (
    "ComposeError",
    "Document",
    "Map",
    "Mark",
    "Path",
    "Problem",
    "Problems",
    "Seq",
    "dotted",
    "explain",
    "locate",
    "nearest",
    "read_documents",
    "read_quantity",
    "spec_error",
)
