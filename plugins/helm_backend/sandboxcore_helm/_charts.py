"""Charts by whatever reference: the built-in one, folders, archives, and what helm can download."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sandboxcore.errors import UsageError

from ._helm import HelmFailedError, helm_error
from ._scan import ChartScan, scan_chart, stamp

if TYPE_CHECKING:
    from ._helm import Helm

__all__ = ("BUILT_IN", "Chart", "Charts", "cache_folder", "is_local")

BUILT_IN = Path(__file__).parent / "chart"


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """A chart on this machine's disk."""

    path: Path
    scan: ChartScan
    built_in: bool = False


def is_local(reference: str) -> bool:
    """Tell whether a reference is a path: it exists, or can be nothing else."""
    return Path(reference).expanduser().exists() or reference.startswith(("/", "./", "../", "~")) or reference.endswith(".tgz")


def _local(reference: str) -> Path:
    path = Path(reference).expanduser().absolute()
    if not path.exists():
        raise UsageError(f"chart {reference!r}: there is no such folder or file")
    return path


def cache_folder() -> Path:
    """Return where downloaded charts with a version are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "sandboxcore" / "charts"


class Charts:
    """The charts of a session; each is read again only when its files have changed."""

    def __init__(self, helm: Helm) -> None:
        self._helm = helm
        self._read: dict[Path, tuple[object, ChartScan]] = {}
        self._pulls: dict[tuple[str, str | None, str | None], asyncio.Future[Path]] = {}
        self._folder: str | None = None

    async def get(self, reference: str | None, *, version: str | None = None, repo: str | None = None) -> Chart:
        """Find a chart and look through it; None is the built-in one.

        Raises:
            UsageError: There is none, or it can't be had.
        """
        if reference in (None, "builtin"):
            return Chart(path=BUILT_IN, scan=self._scan(BUILT_IN), built_in=True)
        assert reference is not None
        if repo is None and not reference.startswith(("http://", "https://", "oci://")) and is_local(reference):
            path = _local(reference)
        else:
            path = await self._pulled(reference, version, repo)
        return Chart(path=path, scan=self._scan(path))

    def _scan(self, path: Path) -> ChartScan:
        now = stamp(path)
        known = self._read.get(path)
        if known is None or known[0] != now:
            known = self._read[path] = (now, scan_chart(path))
        return known[1]

    async def _pulled(self, reference: str, version: str | None, repo: str | None) -> Path:
        key = (reference, version, repo)
        pull = self._pulls.get(key)
        if pull is None or (pull.done() and (pull.cancelled() or pull.exception())):
            pull = self._pulls[key] = asyncio.ensure_future(self._pull(reference, version, repo))
        return await asyncio.shield(pull)

    async def _pull(self, reference: str, version: str | None, repo: str | None) -> Path:
        digest = hashlib.sha256("\0".join((reference, version or "", repo or "")).encode()).hexdigest()[:16]
        kept = cache_folder() / f"{digest}.tgz" if version else None
        if kept is not None and kept.is_file():
            return kept
        if self._folder is None:
            self._folder = tempfile.mkdtemp(prefix="sandboxcore-charts-")
        folder = Path(self._folder) / digest
        folder.mkdir(exist_ok=True)
        try:
            await self._helm.pull(reference, str(folder), version=version, repo=repo)
        except HelmFailedError as failure:
            raise helm_error(failure, f"chart {reference!r} can't be downloaded") from None
        archive = next(folder.glob("*.tgz"))
        if kept is None:
            return archive
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_name(f"{kept.name}.{os.getpid()}")
        shutil.copyfile(archive, part)
        part.replace(kept)
        return kept

    def close(self) -> None:
        """Remove what was downloaded for this session only. Idempotent."""
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
