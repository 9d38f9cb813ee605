"""One line of a comparison: what is measured of a method's samples, and against what."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from cgjax.evaluation import compare_table, fidelity, image_batches
from cgjax.evaluation.attribute import Attribute, Side
from cgjax.evaluation.distances import frechet, frechet_floor, kid
from cgjax.figures.plots import draw_comparison
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.numerics.intervals import wilson_interval
from cgjax.stages import measuring
from cgjax.stages.measuring import Measurer
from cgjax.stages.methods import ComparedMethod
from tests.evaluation.test_fidelity import Itself


class Grey:
    """A generator of grey images, whose layer is the latent."""

    layers, latent_dim, image_size = ("latent",), 3, 2

    def sample_latents(self, key, n):
        return jax.random.normal(key, (n, 3))

    def features(self, z, layer):
        return z

    def images(self, z):
        return jax.numpy.zeros((len(z), 2, 2, 3))


@pytest.fixture
def by_hand():
    """One cluster of two modes, every latent of positive x a member of it; and its two halves."""
    rng = np.random.default_rng(0)
    modes = np.repeat(np.array([[0, 0, 0], [20, 0, 0]], np.float32), 10, axis=0)
    halves = [modes + rng.normal(size=modes.shape).astype(np.float32) for _ in range(2)]
    members = np.concatenate(halves)
    measurer = Measurer(
        generator=ConditionedGenerator(Grey(), "latent", {}, 100),
        memberships=[lambda z: z[:, 0] > 0],
        reference=fidelity.Reference(
            Itself(), {0: members}, {0: members}, {0: frechet_floor(members, num_splits=8)}
        ),
        sides=[],
        num=20,
        key=jax.random.key(0),
    )
    return measurer, *halves


def measured(measurer, latents, **options):
    line = ComparedMethod("flow", "", lambda key, c, n: (latents, 0.5), **options)
    return measurer.measure(line, 0, measurer.draw(line, 0))


def test_samples_from_half_of_the_members_have_full_precision_and_half_recall(by_hand):
    measurer, first, second = by_hand
    latents = np.concatenate([second[:10], second[:10] + 0.01])
    row = measured(measurer, latents)
    assert row["frechet"] == pytest.approx((frechet(latents, first) + frechet(latents, second)) / 2)
    assert row["frechet_low"] < row["frechet"] < row["frechet_high"]
    assert row["ratio"] == row["frechet"] / row["frechet_floor"]
    assert row["precision"] > 0.7
    assert row["recall"] <= 0.5
    assert row["coverage"] <= 0.5
    assert row["kid"] == kid(latents, first).mean > 1
    assert row["mean_distance"] < 0.3


class Constant(Itself):
    """Such as the class that a classifier gives, in a pure cluster."""

    def __call__(self, z):
        return np.zeros((len(z), 2), np.float32)


def test_members_whose_features_are_all_equal_leave_ratios_empty(by_hand):
    measurer, _, second = by_hand
    extractor = Constant()
    members = {0: extractor(measurer.reference.latents[0])}
    reference = fidelity.Reference(extractor, members, measurer.reference.latents, {0: 0.0})
    row = measured(measurer._replace(reference=reference), second)
    assert (row["frechet"], row["ratio"], row["mean_distance"]) == (0.0, None, None)
    untrained = row | {"setting": compare_table.SAME_CODES}
    lines = compare_table.domain_gap([row | {"setting": "unverified"}, untrained]).splitlines()
    assert [line.split()[-1] for line in lines[1:3]] == ["-", "-"]
    draw_comparison([row])


@pytest.mark.parametrize(("side", "at_once"), [(2, [8, 8, 4]), (1, [2] * 10)])
def test_images_are_measured_a_few_at_a_time(side, at_once, by_hand, monkeypatch):
    measurer, first, _ = by_hand
    seen: list[int] = []

    class Counting:
        name, attributes = "counting", ("number",)

        def __call__(self, images):
            seen.append(len(images))
            return {"number": np.arange(sum(seen) - len(images), sum(seen), dtype=float)}

    attribute = Attribute(Counting(), "number", 9.5, 0.0)
    measurer = measurer._replace(sides=[Side(attribute, 1, np.arange(5.0))])
    monkeypatch.setattr(measuring, "BLOCK_ROWS", 8)
    monkeypatch.setattr(image_batches, "SIDE", side)  # of images that are not large
    monkeypatch.setattr(measurer.generator, "images", lambda z: 1 / 0)
    assert measured(measurer, first)["accuracy"] == 0.5
    assert seen == at_once


def test_latents_are_measured_against_the_same_number_of_members(by_hand):
    measurer, *_ = by_hand
    line = [[4, 0, 0], [-4, 0, 0]] * 10
    members = np.array(line + [[100, 100, 100]] * 20, np.float32)
    reference = measurer.reference._replace(latents=[members])
    latents = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]] * 5, np.float32)
    row = measured(measurer._replace(reference=reference), latents)
    assert row["norm_ratio"] == 0.25
    assert row["effective_rank"] == pytest.approx(2.0)
    low, high = wilson_interval(5, 20)
    assert (row["membership_low"], row["membership"], row["membership_high"]) == (low, 0.25, high)


def test_the_line_of_the_members_compares_one_half_with_the_other(by_hand):
    measurer, first, second = by_hand
    row = measured(measurer, second, is_second_half=True)
    assert row["frechet"] == frechet(second, first)
    interval = fidelity.distance_interval(second, first)
    assert (row["frechet_low"], row["frechet_high"]) == interval


def test_times_are_per_draw_and_per_image_and_members_have_no_draw_time(by_hand, monkeypatch):
    measurer, _, second = by_hand
    ticks = iter([0.0, 0.5, 10.0, 12.0, 20.0] * 2)  # what is done with images does not count
    monkeypatch.setattr(measuring, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    flow, members = (
        measured(measurer, second, is_second_half=of_members) for of_members in (False, True)
    )
    assert flow["sampling_ms"] == 100.0  # half a second for a quarter of 20
    assert members["sampling_ms"] is None
    assert flow["image_ms"] == members["image_ms"] == 100.0  # two seconds for 20
