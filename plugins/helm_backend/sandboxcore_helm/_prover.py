"""Renders charts with markers, each distinct set of values once, and keeps the patterns that were proven."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import TYPE_CHECKING

from sandboxcore._at_once import together

from ._differing import of_place, of_text, sort_of_text
from ._helm import HelmFailedError, helm_error
from ._markers import NAMES, TEXTS, own_name
from ._pattern import Pattern
from ._proof import Marked, NotProvenError, prove
from ._scan import scan_values, value_sources, value_words

if TYPE_CHECKING:
    from ._charts import Chart
    from ._helm import Helm
    from ._plan import Path_, Plan
    from ._uses import Source

__all__ = ("Prover",)

#: Seconds between the first rendering and the last, so that what depends on the second shows.
_LATER = 1.1
#: Seconds in which equal environments that are asked for together are seen to be more than one.
_TOGETHER = 0.02


class Prover:
    """Knows for charts and values whether they can be rendered once."""

    def __init__(self, helm: Helm, namespace: str) -> None:
        self._helm = helm
        self._namespace = namespace
        self._patterns: dict[str, asyncio.Future[Pattern]] = {}
        self._asked: dict[str, int] = {}
        #: By chart, place, and templates in values: why the values there can't be left open, empty where they can.
        self._places: dict[tuple[str, bool, Path_, tuple[Source, ...]], str] = {}

    async def pattern(self, chart: Chart, plan: Plan, *, alone: bool) -> Pattern:
        """Return the pattern of releases like this one, proven now or before.

        Args:
            alone: Prove it even for a single release; else the first of its kind is left to helm.

        Raises:
            NotProvenError: It can't be rendered once, for this reason.
            SandboxError: The chart can't be rendered at all. Nothing was created.
        """
        self._look(chart, plan)
        key = self.kind(chart, plan)
        self._asked[key] = self._asked.get(key, 0) + 1
        if key not in self._patterns and not alone:
            await asyncio.sleep(_TOGETHER)
            if self._asked[key] < 2:
                raise NotProvenError("it is the first of its kind, and alone")
        known = self._patterns.get(key)
        if known is None or known.cancelled():
            known = self._patterns[key] = asyncio.ensure_future(self._prove(chart, plan))
            known.add_done_callback(_looked_at)
        try:
            return await asyncio.shield(known)
        except NotProvenError:
            raise
        except Exception:
            # A cluster that can't be reached now may be later.
            self._patterns.pop(key, None)
            raise

    def to_be_rendered(self, chart: Chart, plan: Plan) -> dict[Path_, str]:
        """Map the places of those values that no pattern can leave open to the reason."""
        if not plan.varying:
            return {}
        sources = tuple(value_sources(plan.values))
        reasons = {path: of_text(chart, path, text) or self._of_place(path, chart, sources) for path, text in plan.varying}
        return {path: reason for path, reason in reasons.items() if reason}

    def _of_place(self, path: Path_, chart: Chart, sources: tuple[Source, ...]) -> str:
        key = (chart.scan.digest, chart.built_in, path, sources)
        if key not in self._places:
            self._places[key] = of_place(path, chart, sources)
        return self._places[key]

    def words(self, chart: Chart, plan: Plan) -> set[str]:
        """List words that the release's name must not have in it."""
        return set(chart.scan.words) | value_words(plan.values)

    def refuse(self, chart: Chart, plan: Plan, reason: str) -> None:
        """Never use the pattern of such releases again."""
        refused: asyncio.Future[Pattern] = asyncio.get_running_loop().create_future()
        refused.add_done_callback(_looked_at)
        refused.set_exception(NotProvenError(reason))
        self._patterns[self.kind(chart, plan)] = refused

    async def aclose(self) -> None:
        """Stop what is being rendered."""
        unfinished = [known for known in self._patterns.values() if not known.done()]
        for known in unfinished:
            known.cancel()
        if unfinished:
            await asyncio.wait(unfinished)

    def _look(self, chart: Chart, plan: Plan) -> None:
        """Refuse what the files and values tell already."""
        reasons = [*chart.scan.reasons, *scan_values(plan.values)]
        if reasons:
            raise NotProvenError(reasons[0])
        if plan.release is not None and not own_name(plan.release):
            raise NotProvenError("the release's name is the user's own")
        for reason in self.to_be_rendered(chart, plan).values():
            raise NotProvenError(reason, holes=True)

    def kind(self, chart: Chart, plan: Plan) -> str:
        """Name what releases have in common that differ in no more than name and the values that may differ."""
        parts = [chart.scan.digest, plan.values, [(path, sort_of_text(chart, path, text)) for path, text in plan.varying]]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()

    async def _prove(self, chart: Chart, plan: Plan) -> Pattern:
        # The built-in chart is known: its own tests hold that it passes with all markers.
        names = NAMES[:2] if chart.built_in else NAMES
        holes = len(plan.varying)
        if holes:
            names = NAMES
        rounds = [self._render(chart, plan, name, holes, 0.0) for name in names[:-1]]
        rounds.append(self._render(chart, plan, names[-1], holes, 0.0 if chart.built_in else _LATER))
        renderings = await together(rounds)
        return prove(renderings, self._namespace)

    async def _render(self, chart: Chart, plan: Plan, name: str, holes: int, later: float) -> Marked:
        await asyncio.sleep(later)
        # Several values that differ have to be told apart.
        sorts = [sort_of_text(chart, path, text) for path, text in plan.varying]
        texts = tuple(f"{TEXTS[sort][NAMES.index(name)]}{index:03d}" for index, sort in enumerate(sorts))
        try:
            release = await self._helm.dry_run(name, str(chart.path), plan.values_for(name, texts), labels={})
        except HelmFailedError as failure:
            if holes:
                raise NotProvenError(
                    f"it can't be rendered with other values in their place: {failure.text}", holes=True
                ) from None
            raise helm_error(failure, f"chart {chart.scan.name!r}") from None
        return Marked(release=release, texts=texts)


def _looked_at(future: asyncio.Future[Pattern]) -> None:
    """Look at the outcome: nobody may be waiting for it."""
    if not future.cancelled():
        future.exception()
