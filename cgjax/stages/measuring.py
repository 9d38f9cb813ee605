"""How a comparison measures a method: the latents that it draws for a cluster, and their images."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, PRNGKeyArray

from cgjax.evaluation import fidelity
from cgjax.evaluation.attribute import Attribute, Side
from cgjax.evaluation.compare_table import Row, quotient
from cgjax.evaluation.distances import kid, precision_recall_density_coverage
from cgjax.evaluation.diversity import mean_pairwise_distance, norm_ratio, participation_ratio
from cgjax.evaluation.image_batches import images_at_a_time
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.numerics.intervals import wilson_interval, with_ends
from cgjax.numerics.rows import BLOCK_ROWS
from cgjax.runtime.keys import named_key
from cgjax.stages.methods import ComparedMethod, Images

Membership = Callable[[Float[np.ndarray, "n d"]], Bool[np.ndarray, " n"]]


def judge(attribute: Attribute, blocks: Images) -> Float[np.ndarray, " n"]:
    """Judge images; NaN where there is no face."""
    return _joined([attribute.values(images) for images in _regrouped(blocks)])


def _regrouped(blocks: Images) -> Images:
    """Yield as many small images at a time as a projection takes: it then gives the same bits."""
    images = itertools.chain.from_iterable(blocks)
    for first in images:
        others = images_at_a_time(BLOCK_ROWS, *first.shape[:2]) - 1
        yield np.stack([first, *itertools.islice(images, others)])


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0)


class DrawnByMethod(NamedTuple):
    """Latents that a method drew for a cluster.

    Attributes:
        latents: (n, d).
        acceptance: of the membership check, or None.
        seconds: per latent.
    """

    latents: np.ndarray
    acceptance: float | None
    seconds: float


class Measurer(NamedTuple):
    """What every method of a comparison is measured with.

    Attributes:
        generator: of the run; makes the images.
        memberships: for each cluster, whether latents are members.
        reference: the held-out members.
        sides: for each cluster, the side of the judged attribute that its members are on; empty
            without a judge.
        num: how many latents a method draws for a cluster.
        key: of their random numbers.
    """

    generator: ConditionedGenerator
    memberships: Sequence[Membership]
    reference: fidelity.Reference
    sides: list[Side]
    num: int
    key: PRNGKeyArray

    def draw(self, method: ComparedMethod, c: int) -> DrawnByMethod:
        """Draw latents of a cluster by a method."""
        key = named_key(self.key, "test", method.name, method.codes_of or method.setting, c)
        latents, acceptance = method.draw(key, c, self.num)
        timed = max(1, self.num // 4)
        started = time.perf_counter()
        method.draw(jax.random.fold_in(key, 1), c, timed)  # again, now that it is compiled
        return DrawnByMethod(latents, acceptance, (time.perf_counter() - started) / timed)

    def measure(self, method: ComparedMethod, c: int, drawn: DrawnByMethod) -> Row:
        """Measure latents that a method drew for a cluster, and their images."""
        num, latents, imagine = self.num, drawn.latents, method.imagine
        blocks = imagine(latents, c) if imagine else self.generator.image_blocks(latents)
        seen, judged, imaging = self._see(blocks)
        halves, extractor = self.reference.halves(c), self.reference.extractor
        held_out = halves[0]
        features = extractor(latents) if extractor.input == "latents" else seen
        against = halves[:1] if method.is_second_half else halves
        distance = fidelity.distance_to(features, *against)
        interval = fidelity.distance_interval(features, *against)
        manifold = precision_recall_density_coverage(held_out, features)
        row: Row = {
            "method": method.name,
            "setting": method.setting,
            "cluster": c,
            "feature": extractor.name,
            **with_ends("frechet", distance, *interval),
            "frechet_floor": self.reference.floors[c],
            "ratio": quotient(distance, self.reference.floors[c]),
            "kid": kid(features, held_out).mean,
            **manifold._asdict(),
            "mean_distance": quotient(
                mean_pairwise_distance(features), mean_pairwise_distance(held_out)
            ),
            "acceptance": drawn.acceptance,
            "sampling_ms": None if method.is_second_half else 1e3 * drawn.seconds,
            "image_ms": 1e3 * imaging / num,
            "training_s": method.training_s,
            "num": num,
        }
        row |= {} if imagine else self._of_latents(latents, c)
        return row | (self.sides[c].measure(judged) if self.sides else {})

    def _see(self, blocks: Images) -> tuple[np.ndarray, np.ndarray, float]:
        """Return the features and judged values of images, and the seconds that making them took.

        Features of latents, and values without a judge, are empty.
        """
        extractor = self.reference.extractor
        features, judged, imaging, started = [], [], 0.0, time.perf_counter()
        for images in _regrouped(blocks):
            imaging += time.perf_counter() - started
            if extractor.input == "images":
                features.append(extractor(images))
            if self.sides:
                judged.append(self.sides[0].attribute.values(images))
            started = time.perf_counter()
        return _joined(features), _joined(judged), imaging

    def _of_latents(self, latents: np.ndarray, c: int) -> Row:
        """Measure latents of the run's own generator."""
        members = self.reference.latents[c][: self.num]
        inside = int(self.memberships[c](latents).sum())
        share = inside / len(latents)
        return {
            **with_ends("membership", share, *wilson_interval(inside, len(latents))),
            "norm_ratio": norm_ratio(latents, members),
            "effective_rank": participation_ratio(latents) / participation_ratio(members),
        }
