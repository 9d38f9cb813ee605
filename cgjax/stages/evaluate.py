"""The stage that measures every sampler against held-out members of every cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, PRNGKeyArray

from cgjax.evaluation import fidelity
from cgjax.evaluation.fidelity import Reference, ReferenceSettings, SamplerDraws
from cgjax.regions.region import ClusterRegion
from cgjax.run.artifacts import FEATURE
from cgjax.run.members import num_held_out
from cgjax.run.places import evaluation_name
from cgjax.run.run import Run
from cgjax.runtime.keys import named_key
from cgjax.runtime.log import Progress
from cgjax.stages.graph import LEFT_OUT, Maker
from cgjax.stages.inside import draw_inside
from cgjax.stages.rare import LeftOut, lower_num


def reference_of(
    run: Run,
    key: PRNGKeyArray,
    section: str,
    left_out: LeftOut,
    check: Callable[[], None],
) -> Reference:
    """Draw what a run's samplers are compared with: see `fidelity.make_reference`.

    Args:
        run: the run.
        key: a typed key.
        section: of the config, whose `num` is half the number of members of each cluster.
        left_out: gets the clusters that are too rare.
        check: called between batches; may raise to stop.

    Raises:
        TooRare: all of them are.
    """
    num, instead = num_held_out(run.config, section), lower_num(section)

    def draw(region: ClusterRegion) -> Float[np.ndarray, "m d"]:
        own = named_key(key, "members", region.cluster)
        return draw_inside(run, region, num, own, check, instead)

    settings = ReferenceSettings(**{name: run.config["evaluate"][name] for name in FEATURE})
    return fidelity.make_reference(run.generator, left_out.drawn(draw), key, settings)


class EvaluateStage:
    """Evaluation of a run's samplers against one reference, drawn once."""

    def __init__(self, run: Run, maker: Maker, check: Callable[..., None]):
        """Prepare.

        Args:
            run: with its samplers fitted.
            maker: of its artifacts.
            check: called between samplers and batches of draws, with what is kept if it
                raises to stop.
        """
        self.run, self.maker, self.check = run, maker, check
        self.key = named_key(run.root_key, "evaluate")

    def run_all(self) -> None:
        """Measure every sampler whose measurements are not current."""
        run, maker = self.run, self.maker
        names = [name for name in run.sampler_names if maker.result(evaluation_name(name)) is None]
        if not names:
            return
        progress = Progress("evaluate", 1 + len(names))
        reference, too_rare = None, LeftOut(run)
        for i, name in enumerate(names):
            self._check()
            with maker.making(evaluation_name(name)) as result:
                if reference is None:
                    reference = reference_of(run, self.key, "evaluate", too_rare, self._check)
                    progress.update(1)
                left_out = LeftOut(run, too_rare)
                numbers = self._evaluate(name, reference, left_out)
                result["distance"] = fidelity.distance_name(reference.extractor)
                result["numbers"] = numbers
                result |= left_out.result
                maker.metrics.write(stage="evaluate", sampler=name, **numbers)
            progress.update(2 + i)

    def _check(self) -> None:
        self.check("the finished evaluations are kept")

    def _evaluate(self, name: str, reference: Reference, left_out: LeftOut) -> dict[str, list[Any]]:
        """Measure a sampler on every cluster; every list has one entry per cluster."""
        measured = left_out.drawn(lambda region: self._measure(name, region, reference))
        clusters = range(self.run.clustering.num)
        numbers: dict[str, list[Any]] = {
            field: [measured.get(c, {}).get(field) for c in clusters] for field in fidelity.MEASURED
        }
        if left_out.lines:
            numbers[LEFT_OUT] = [left_out.lines.get(str(c)) for c in clusters]
        return numbers

    def _measure(self, name: str, region: ClusterRegion, reference: Reference) -> dict[str, Any]:
        """Measure a sampler on one cluster."""
        run, num = self.run, self.run.config["evaluate"]["num"]
        key = named_key(self.key, name, region.cluster)
        verified, draw = run.draw(
            key, region, num, sampler=name, instead=lower_num("evaluate"), check=self._check
        )
        assert draw is not None
        plain = raw = verified
        if not run.samplers.fitted(name).sampler.always_verified:
            # Otherwise its proposals are draws of the prior.
            plain, _ = run.draw(key, region, num, sampler=name, verify=False)
            raw, _ = run.draw(key, region, num, sampler=name, verify=False, rescaled=False)
        inside = int(run.are_inside(plain, region).sum())
        drawn = SamplerDraws(verified, plain, raw, draw.acceptance, inside)
        return fidelity.measure(drawn, reference, region.cluster, run.generator)
