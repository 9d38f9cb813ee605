"""Clusters too rare for the budget of draws: foreseen before training, and left out by a stage.

True members are drawn from the prior, so what they cost depends on a cluster's share alone. A stage
goes on without a cluster that is too rare, and says so; it is made again with a larger budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
from absl import logging

from cgjax.config.plain import split_texts
from cgjax.errors import TooRare, UserError
from cgjax.numerics.draws import leading
from cgjax.regions.acceptance import expected_acceptance, larger_budget
from cgjax.regions.region import ClusterRegion, Region
from cgjax.run.artifacts import REFERENCE, target_classes
from cgjax.run.members import num_held_out, num_inside
from cgjax.run.run import Run
from cgjax.stages.graph import LEFT_OUT

Drawn = TypeVar("Drawn")

LEAF_SAMPLERS = "--config.hierarchy.samplers"
NO_LEAF_SAMPLERS = f"leave {LEAF_SAMPLERS} out"
FEWER_LEAVES = "ask for fewer clusters in --config.hierarchy.splits"

GOES_ON = "without that, the run leaves this cluster out there and goes on with the others"
"""How a warning ends: whoever reads it decides whether to stop the run."""


def lower_num(section: str) -> str:
    """Return what to type so that a stage draws fewer latents of every cluster."""
    return f"lower --config.{section}.num"


class LeftOut:
    """What a stage leaves out because there are too few latents of it.

    Attributes:
        lines: what, such as "1" for a cluster or "flow, cluster 1" for one of several samplers, ->
            one line that says why and what to type.
    """

    def __init__(self, run: Run, known: LeftOut | None = None):
        """Begin with what is left out already, if anything."""
        self._run = run
        self.lines: dict[str, str] = dict(known.lines) if known else {}
        self._is_budget_spent: bool = known is not None and known._is_budget_spent

    def add(self, what: str, error: UserError) -> None:
        """Leave something out, and log why; only for `TooRare` can a larger budget help."""
        self.lines[what] = str(error)
        self._is_budget_spent |= isinstance(error, TooRare)
        logging.warning("left out: %s", error)

    def drawn(self, draw: Callable[[ClusterRegion], Drawn], by: str = "") -> dict[int, Drawn]:
        """Call a function for every cluster that is not left out; return its results by id.

        A cluster without any member is left out without a call.

        Args:
            draw: the function.
            by: the sampler that it draws with, if several do: each leaves out what it misses.

        Raises:
            TooRare: nothing is left.
        """
        drawn: dict[int, Drawn] = {}
        for region in self.kept(by):
            what = _what(region, by)
            if not region.members().any():
                fewer = _fewer_clusters(self._run, region)
                self.add(what, UserError(_empty(self._run, region, fewer)))
                continue
            try:
                drawn[region.cluster] = draw(region)
            except TooRare as error:
                self.add(what, error)
        if not drawn:
            raise TooRare(self.lines[_what(self._run.regions[0], by)])
        return drawn

    def kept(self, by: str = "") -> list[ClusterRegion]:
        """Return the clusters that are not left out."""
        return [region for region in self._run.regions if _what(region, by) not in self.lines]

    @property
    def result(self) -> dict[str, Any]:
        """What an artifact's result has to say of it: see `LEFT_OUT`."""
        spent = {"max_draws": self._run.config["sample"]["max_draws"]}
        budget = spent if self._is_budget_spent else {}
        return {LEFT_OUT: budget | {"lines": self.lines}} if self.lines else {}


def _what(region: ClusterRegion, by: str) -> str:
    return f"{by}, cluster {region.cluster}" if by else str(region.cluster)


def _empty(run: Run, region: Region, fewer: str) -> str:
    """Return that a region has no member, and what to type."""
    raised = f"no member among {len(run.latents):,} latents: raise --config.latents.num"
    return f"{run.held.in_words(region)}: {raised}, or {fewer}"


def _fewer_clusters(run: Run, region: ClusterRegion) -> str:
    """Return how to ask for fewer clusters if one of the run's own is empty, or too rare."""
    if region.members().any():
        return "ask for fewer --config.cluster.num_clusters"
    num = len(np.unique(run.clustering.labels))
    return f"lower --config.cluster.num_clusters to {num}, the clusters that have members"


class _Need(NamedTuple):
    """True members that a later stage will draw from the prior.

    Attributes:
        region: what they are members of.
        num: how many.
        flag: what asks for them.
        instead: what to type to need fewer.
        fewer: how to ask for fewer clusters, which are larger.
    """

    region: Region
    num: int
    flag: str
    instead: str
    fewer: str

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
    expected = expected_acceptance(need.region)
    if not expected.num_members:
        return f"{_empty(run, need.region, need.fewer)}; {GOES_ON}"
    words = run.held.in_words(need.region)
    return (
        f"{words} ({expected.num_members:,} of {expected.num:,} latents): {need.num:,} true "
        f"members for {need.flag} take about {leading(need.passes(), round):,} draws, and the "
        f"budget is --config.sample.max_draws={budget}: {larger_budget(expected, need.num)}, "
        f"{need.instead}, or {need.fewer}; {GOES_ON}"
    )


def _needs(run: Run, measured: str) -> Iterator[_Need]:
    config = run.config
    nums = {measured: num_held_out(config, measured)}
    if measured == "evaluate" and REFERENCE in run.sampler_names:
        nums["sample"] = config["sample"]["num"]
        if target_classes(config):
            nums["transfer"] = config["transfer"]["num"]
    for region in run.regions:
        fewer = _fewer_clusters(run, region)
        for section, num in nums.items():
            yield _Need(region, num, f"--config.{section}.num", lower_num(section), fewer)
    for path in run.held.leaves if measured == "evaluate" else ():
        inside = run.held.region_inside(path)
        for name in split_texts(config["hierarchy"]["samplers"]):
            num = num_inside(inside, run.samplers.make(name))
            missing = num - int(inside.members().sum())
            yield _Need(inside, missing, LEAF_SAMPLERS, NO_LEAF_SAMPLERS, FEWER_LEAVES)
