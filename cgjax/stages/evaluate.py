"""The stage that measures every sampler against held-out members of every cluster."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool

from cgjax.evaluation import fidelity
from cgjax.evaluation.fidelity import Reference, ReferenceSettings, SamplerDraws
from cgjax.run.artifacts import FEATURE
from cgjax.run.places import evaluation_name
from cgjax.run.run import Run
from cgjax.runtime.keys import named_key
from cgjax.runtime.log import Progress
from cgjax.stages.graph import Maker


def memberships(run: Run) -> list[functools.partial[Bool[np.ndarray, " n"]]]:
    """Return the membership check of every cluster."""
    return [functools.partial(run.are_inside, region=region) for region in run.regions]


def reference_of(run: Run, key: Any, *, num: int) -> Reference:
    """Draw what a run's samplers are compared with: see `fidelity.make_reference`."""
    asked = {name: run.config["evaluate"][name] for name in FEATURE}
    settings = ReferenceSettings(**asked, num=num, max_draws=run.config["sample"]["max_draws"])
    return fidelity.make_reference(run.generator, memberships(run), key, settings)


class EvaluateStage:
    """Evaluation of a run's samplers against one reference, drawn once."""

    def __init__(self, run: Run, maker: Maker, check: Callable[..., None]):
        """Prepare.

        Args:
            run: with its samplers fitted.
            maker: of its artifacts.
            check: called between samplers, with what is kept if it raises to stop.
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
        reference: Reference | None = None
        for i, name in enumerate(names):
            self.check("the finished evaluations are kept")
            with maker.making(evaluation_name(name)) as result:
                if reference is None:
                    reference = reference_of(run, self.key, num=run.config["evaluate"]["num"])
                    progress.update(1)
                numbers = self._evaluate(name, reference)
                result["distance"] = fidelity.distance_name(reference.extractor)
                result["numbers"] = numbers
                maker.metrics.write(stage="evaluate", sampler=name, **numbers)
            progress.update(2 + i)

    def _evaluate(self, name: str, reference: Reference) -> dict[str, list[Any]]:
        """Measure a sampler on every cluster; every list has one entry per cluster."""
        run, num = self.run, self.run.config["evaluate"]["num"]
        always = run.samplers.fitted(name).sampler.always_verified
        numbers: dict[str, list[Any]] = {}
        for region in run.regions:
            key = named_key(self.key, name, region.cluster)
            verified, draw = run.draw(key, region, num, sampler=name)
            assert draw is not None
            plain = raw = verified
            if not always:  # otherwise its proposals are draws of the prior
                options: dict[str, Any] = {"sampler": name, "verify": False}
                plain, _ = run.draw(key, region, num, **options)
                raw, _ = run.draw(key, region, num, rescaled=False, **options)
            inside = int(run.are_inside(plain, region).sum())
            drawn = SamplerDraws(verified, plain, raw, draw.acceptance, inside)
            measured = fidelity.measure(drawn, reference, region.cluster, run.generator)
            for field, value in measured.items():
                numbers.setdefault(field, []).append(value)
        return numbers
