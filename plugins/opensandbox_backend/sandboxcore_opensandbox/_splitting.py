"""How many environments fit into one BatchSandbox.

The controller keeps its books in annotations of the object: four lists that grow with every pod. Kubernetes allows 256 KiB
of annotations an object (``TotalAnnotationSizeLimitB``), and etcd about 1.5 MiB a request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from sandboxcore.errors import CapabilityError

__all__ = ("ANNOTATION_BYTES", "BODY_BYTES", "Footprint", "pooled_footprint", "split", "template_footprint")

#: Most bytes that one object's lists may have, with an eighth kept for what others write there.
ANNOTATION_BYTES = 256 * 1024 * 7 // 8
#: Most bytes of an object's own body.
BODY_BYTES = 1024 * 1024
#: ``"255.255.255.255",``
_ADDRESS = 18
#: What the API server appends to a pool's name for its pods (``-`` and 5 characters).
_SUFFIX = 6
#: Quotes and a comma.
_QUOTED = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Footprint:
    """Bytes of one environment: in the object's annotations, and in the rest of it."""

    annotations: int
    body: int = 0


def pooled_footprint(pods: int, pool: str, notes: int) -> Footprint:
    """Estimate an environment whose pods come from a pool.

    Args:
        pods: Pods an environment.
        pool: Name of the pool; its pods are called after it.
        notes: Bytes that our own annotations need for it.
    """
    name = len(pool) + _SUFFIX + _QUOTED
    return Footprint(annotations=pods * (3 * name + _ADDRESS) + notes)


def template_footprint(pods: int, patches: int, notes: int) -> Footprint:
    """Estimate an environment whose pods are made from a template; ``patches`` is the bytes of its shard patches."""
    return Footprint(annotations=pods * _ADDRESS + notes, body=patches)


def split(count: int, each: Footprint, *, fixed: Footprint | None = None) -> Sequence[range]:
    """Divide ``count`` environments over as few objects as hold them, evenly.

    Args:
        fixed: What an object needs however many it holds.

    Raises:
        CapabilityError: Not even one fits.
    """
    fixed = fixed or Footprint(annotations=0)
    most = min(_fitting(ANNOTATION_BYTES - fixed.annotations, each.annotations), _fitting(BODY_BYTES - fixed.body, each.body))
    if most < 1:
        raise CapabilityError(
            "one environment is larger than a BatchSandbox can be",
            hint="move large files out of the spec, or spread its services over several environments",
        )
    parts = -(-count // most)
    bounds = [count * part // parts for part in range(parts + 1)] if parts else [0]
    return [range(begin, end) for begin, end in pairwise(bounds)]


def _fitting(room: int, each: int) -> int:
    return room // each if each > 0 else max(room, 0)
