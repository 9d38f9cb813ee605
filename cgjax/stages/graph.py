"""Making artifacts that are not current: timed, recorded when done, once for all processes.

A stage asks for the result of an artifact, and makes it if there is none:

    if maker.result("sheet") is None:
        with maker.making("sheet") as result:
            ...  # write its files, put what there is to say of them into the result
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

from absl import logging

from cgjax.run.manifests import Manifests
from cgjax.runtime.log import Metrics
from cgjax.runtime.memory import peak_rss_mb, reset_peak_rss
from cgjax.runtime.processes import ALONE, Processes

LEFT_OUT = "left_out"
"""What a result says under this key of what is too rare for it: {"lines": {what: why}}, and under
"max_draws" the budget if that was too small for some: with a larger one it is made again."""

Costs = dict[str, dict[str, float]]
"""Seconds and peak memory by stage."""


class Maker:
    """Makes the artifacts of a run.

    The first of several processes reads and writes the manifests, and counts its own time and
    memory; every process must call `result` and `making`.

    Attributes:
        is_changed: whether anything was made since this was last set to False.
    """

    def __init__(
        self,
        manifests: Manifests,
        metrics: Metrics,
        processes: Processes = ALONE,
        max_draws: int = 0,
    ):
        """Prepare; `max_draws` is the budget that a draw has."""
        self.manifests, self.metrics = manifests, metrics
        self.processes, self._max_draws = processes, max_draws
        self.is_changed = False
        self._costs: Costs = {}

    def result(self, name: str) -> dict[str, Any] | None:
        """Return what an artifact's stage said of it, or None if it has to be made."""

        def whole() -> dict[str, Any] | None:
            result = self.manifests.result(name)
            left_out = (result or {}).get(LEFT_OUT, {})
            return None if left_out.get("max_draws", math.inf) < self._max_draws else result

        return self.processes.first(whole)

    @contextlib.contextmanager
    def making(self, name: str, *, in_parts: bool = False) -> Iterator[dict[str, Any]]:
        """Make an artifact: the old one is removed first, the manifest is written last.

        Args:
            name: of the artifact.
            in_parts: whether the caller times the parts itself, with `timed`.

        Yields:
            A dict; `result` later returns what is put there.
        """
        if self.processes.is_first:
            self.manifests.forget(name)
        result: dict[str, Any] = {}
        outer_costs, self._costs = self._costs, {}
        whole = self.timed(self.manifests.graph[name].stage, name.partition(" ")[2])
        with contextlib.nullcontext() if in_parts else whole:
            yield result
        if self.processes.is_first:
            self.manifests.record(name, result, self._costs)
        self._costs, self.is_changed = outer_costs, True

    @contextlib.contextmanager
    def timed(self, stage: str, detail: str = "") -> Iterator[None]:
        """Time what a stage does, and log its start and end."""
        suffix = f" ({detail})" if detail else ""
        logging.info("%s: started%s", stage, suffix)
        started = time.monotonic()
        reset_peak_rss()
        yield
        seconds, peak = round(time.monotonic() - started, 3), round(peak_rss_mb(), 1)
        self._costs[stage] = {"seconds": seconds, "peak_rss_mb": peak}
        self.metrics.write(stage=stage, part=detail, seconds=seconds, peak_rss_mb=peak)
        logging.info("%s: %.1f s, peak memory %.0f MB%s", stage, seconds, peak, suffix)
