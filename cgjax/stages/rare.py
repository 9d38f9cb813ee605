"""Clusters too rare for the budget of draws: foreseen before training, and left out by a stage.

True members are drawn from the prior, so what they cost depends on a cluster's share alone. A stage
goes on without a cluster that is too rare, and says so; it is made again with a larger budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
from absl import logging

from cgjax.config.plain import split_texts
from cgjax.errors import TooRare
from cgjax.numerics.draws import leading
from cgjax.regions.acceptance import expected_acceptance, larger_budget
from cgjax.regions.region import ClusterRegion, Region
from cgjax.run.artifacts import REFERENCE, target_classes
from cgjax.run.members import num_inside
from cgjax.run.run import Run
from cgjax.stages.fit import LEAF_SAMPLERS
from cgjax.stages.graph import LEFT_OUT

Drawn = TypeVar("Drawn")

GOES_ON = "without that, the run leaves this cluster out there and goes on with the others"
"""How a warning ends: whoever reads it decides whether to stop the run."""


class LeftOut:
    """What a stage leaves out because the budget gives too few latents of it.

    Attributes:
        lines: what, such as a cluster's id -> one line that says why and what to type.
    """

    def __init__(self, run: Run, lines: Mapping[str, str] | None = None):
        """Begin with what is left out already, if anything."""
        self._run, self.lines = run, dict(lines or {})

    def add(self, what: str, error: Exception) -> None:
        """Leave something out, and log why."""
        self.lines[what] = str(error)
        logging.warning("left out: %s", error)

    def drawn(self, draw: Callable[[ClusterRegion], Drawn]) -> dict[int, Drawn]:
        """Call a function for every cluster that is not left out; return its results by id.

        A cluster without any member is left out without a call.

        Raises:
            TooRare: nothing is left.
        """
        drawn: dict[int, Drawn] = {}
        for region in self.kept():
            try:
                _check_members(self._run, region)
                drawn[region.cluster] = draw(region)
            except TooRare as error:
                self.add(str(region.cluster), error)
        if not drawn:
            raise TooRare(next(iter(self.lines.values())))
        return drawn

    def kept(self) -> list[ClusterRegion]:
        """Return the clusters that are not left out."""
        return [region for region in self._run.regions if str(region.cluster) not in self.lines]

    @property
    def result(self) -> dict[str, Any]:
        """What an artifact's result has to say of it: see `LEFT_OUT`."""
        budget = self._run.config["sample"]["max_draws"]
        return {LEFT_OUT: {"max_draws": budget, "lines": self.lines}} if self.lines else {}


def _check_members(run: Run, region: ClusterRegion) -> None:
    if not region.members().any():
        with run.naming(region, _fewer(run)):
            raise TooRare(_no_member(run))


def _no_member(run: Run) -> str:
    return f"no member among {len(run.latents):,} latents: raise --config.latents.num"


def _fewer(run: Run) -> str:
    num = len(np.unique(run.clustering.labels))
    return f"lower --config.cluster.num_clusters to {num}, the clusters that have members"


class _Need(NamedTuple):
    """True members that a later stage will draw from the prior.

    Attributes:
        region: what they are members of.
        num: how many.
        flag: what asks for them.
        instead: what to type to need fewer.
    """

    region: Region
    num: int
    flag: str
    instead: str

    def passes(self) -> float:
        """Return how many draws of the prior they are expected to take."""
        share = expected_acceptance(self.region).share
        return self.num / share if share else math.inf


def warn_of_rare(run: Run, measured: str) -> None:
    """Log a line for each cluster that a later stage will probably have to leave out.

    Args:
        run: with its clusters, and those inside them.
        measured: "evaluate" or "compare": what will measure the samplers.
    """
    budget = run.config["sample"]["max_draws"]
    most: dict[str, _Need] = {}
    for need in _needs(run, measured):
        if need.passes() > budget:
            known = most.setdefault(need.region.fingerprint, need)
            most[need.region.fingerprint] = max(known, need, key=lambda one: one.num)
    for need in most.values():
        logging.warning("%s", _foreseen(run, need, budget))


def _foreseen(run: Run, need: _Need, budget: int) -> str:
    """Return what to expect of a cluster of which the budget is too small, and what to type."""
    expected, words = expected_acceptance(need.region), run.held.in_words(need.region)
    if not expected.num_members:
        return f"{words}: {_no_member(run)}, or {_fewer(run)}; {GOES_ON}"
    return (
        f"{words} ({expected.num_members:,} of {expected.num:,} latents): {need.num:,} true "
        f"members for {need.flag} take about {leading(need.passes(), round):,} draws, and the "
        f"budget is --config.sample.max_draws={budget}: {larger_budget(expected, need.num)}, "
        f"{need.instead}, or ask for fewer --config.cluster.num_clusters; {GOES_ON}"
    )


def _needs(run: Run, measured: str) -> Iterator[_Need]:
    config = run.config
    nums = {measured: 2 * config[measured]["num"]}  # two halves
    if measured == "evaluate" and REFERENCE in run.sampler_names:
        nums["sample"] = config["sample"]["num"]
        if target_classes(config):
            nums["transfer"] = config["transfer"]["num"]
    for region in run.regions:
        for section, num in nums.items():
            flag = f"--config.{section}.num"
            yield _Need(region, num, flag, f"lower {flag}")
    for path in run.held.leaves if measured == "evaluate" else ():
        inside = run.held.region_inside(path)
        for name in split_texts(config["hierarchy"]["samplers"]):
            num = num_inside(inside, run.samplers.make(name).num_latents or len(run.latents))
            missing = num - int(inside.members().sum())
            yield _Need(inside, missing, LEAF_SAMPLERS, f"leave {LEAF_SAMPLERS} out")
