"""The direction baselines of a comparison: SeFa and GANSpace, along the direction a judge chose.

Edits happen in the space of the directions, to which draws of the prior are mapped first. A space
after the latent, such as StyleGAN's w, cannot be mapped back to it, so the lines of such edits lack
what is measured of latents, above all membership.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, get_args

import numpy as np
from absl import logging
from jaxtyping import Float, PRNGKeyArray

from cgjax.config.distance_features import LAYER, kind_of_feature
from cgjax.directions.edits import Directions, EditForm
from cgjax.directions.ganspace import fit_ganspace
from cgjax.directions.sefa import fit_sefa
from cgjax.errors import UserError
from cgjax.evaluation.attribute import Side
from cgjax.run.run import Run
from cgjax.runtime.keys import named_key
from cgjax.stages.measuring import judge
from cgjax.stages.methods import ComparedMethod, Drawer, Images

PRIOR = "z"
"""The space of the generator's latents."""


class Along(NamedTuple):
    """A direction and which way along it: +1 or -1."""

    direction: int
    sign: int


class DirectionBaselines:
    """SeFa and GANSpace on one run."""

    def __init__(self, run: Run, sides: list[Side], key: PRNGKeyArray, check: Callable[..., None]):
        """Prepare.

        Args:
            run: with its clusters.
            sides: for each cluster, the side of the judged attribute that its members are on.
            key: of the selection set and of GANSpace's latents.
            check: called between directions, with what is kept if it raises to stop.
        """
        self.run, self.sides, self.key, self.check = run, sides, key, check
        self.settings = run.config["compare"]

    def methods(self) -> Iterator[ComparedMethod]:
        """Yield both systems, in both forms and at every alpha, along the chosen directions."""
        for name, fit in (("sefa", self._fit_sefa), ("ganspace", self._fit_ganspace)):
            started = time.monotonic()
            try:
                directions = fit()
                seconds = time.monotonic() - started
                chosen = self._choose(name, directions)
            except UserError as error:
                logging.warning("%s is left out: %s", name, error)
                continue
            indices = [along.direction for along in chosen]
            is_same = len(set(indices)) == 1
            what = f"direction {indices[0]}" if is_same else f"directions {indices}"
            for form in get_args(EditForm):
                for alpha in self.settings["alphas"]:
                    draw = self._drawer(directions, chosen, alpha, form)
                    method = ComparedMethod(name, f"{what}, {form} {alpha:g}", draw, seconds)
                    if directions.space != PRIOR:
                        imagine = functools.partial(self._imagine, directions.space)
                        method = method._replace(imagine=imagine, identity=directions.space)
                    yield method

    def _fit_sefa(self) -> Directions:
        gen = self.run.generator.gen
        directions = fit_sefa(gen, num_directions=self.settings["directions"])
        if directions.space == PRIOR:
            return directions
        feature = self.run.config["evaluate"]["features"]
        if kind_of_feature(feature) == LAYER:
            raise UserError(
                f"its edits are in {directions.space}, and --config.evaluate.features={feature} is "
                "of latents; give --config.evaluate.features=pca_pixels"
            )
        # alpha counts standard deviations, as in the prior.
        key = named_key(self.key, "sefa")
        return directions.measured(
            self._drawn(directions.space, key, self.settings["ganspace_latents"])
        )

    def _fit_ganspace(self) -> Directions:
        return fit_ganspace(
            self.run.generator.gen,
            self.run.generator.layer,
            key=named_key(self.key, "ganspace"),
            num_latents=self.settings["ganspace_latents"],
            num_components=self.settings["directions"],
        )

    def _choose(self, name: str, directions: Directions) -> list[Along]:
        """Return for each cluster the direction and sign most accurate on the selection set."""
        alpha = middle_alpha(self.settings["alphas"])
        key = named_key(self.key, "selection")
        z = self._drawn(directions.space, key, self.settings["selection"])
        best = [(-1.0, Along(0, 1))] * len(self.sides)
        for index in range(len(directions.vectors)):
            for sign in (1, -1):
                self.check("the measured lines are kept")
                edited = self._edit(directions, z, index, sign * alpha, "shift")
                images = self._imagine(directions.space, edited)
                values = judge(self.sides[0].attribute, images)
                for c, side in enumerate(self.sides):
                    is_right = side.attribute.is_right(values, side.sign)  # NaN counts as wrong
                    scored = float(np.mean(is_right)), Along(index, sign)
                    best[c] = max(best[c], scored, key=lambda b: b[0])
        for c, (accuracy, along) in enumerate(best):
            logging.info(
                "%s, cluster %d: direction %d, sign %+d (%.3f on the selection set)",
                *(name, c, along.direction, along.sign, accuracy),
            )
        return [along for _, along in best]

    def _drawn(self, space: str, key: PRNGKeyArray, num: int) -> Float[np.ndarray, "n d"]:
        generator = self.run.generator
        z = np.asarray(generator.sample_latents(key, num))
        return z if space == PRIOR else generator.at_layer(space).all_features(z)

    def _imagine(self, space: str, latents: Float[np.ndarray, "n d"], cluster: int = 0) -> Images:
        generator = self.run.generator
        if space == PRIOR:
            return generator.image_blocks(latents)
        return generator.at_layer(space).image_blocks_from(latents)

    def _edit(
        self,
        directions: Directions,
        z: Float[np.ndarray, "n d"],
        index: int,
        alpha: float,
        form: EditForm,
    ) -> Float[np.ndarray, "n d"]:
        normalise = self.run.generator.normalizes_latent and directions.space == PRIOR
        return np.asarray(directions.edit(z, index, alpha, form=form, normalise=normalise))

    def _drawer(
        self, directions: Directions, chosen: list[Along], alpha: float, form: EditForm
    ) -> Drawer:
        def draw(key: PRNGKeyArray, c: int, num: int) -> tuple[np.ndarray, None]:
            index, sign = chosen[c]
            drawn = self._drawn(directions.space, key, num)
            return self._edit(directions, drawn, index, sign * alpha, form), None

        return draw


def middle_alpha(alphas: Sequence[float]) -> float:
    """Return the strength at which directions are chosen."""
    return float(np.median(alphas))
