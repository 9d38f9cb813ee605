"""With planted halves and a few far outliers, every space but "raw" finds the halves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.clustering import kmeans
from cgjax.clustering.trimmed import trimmed_kmeans
from cgjax.config.leaves import SPACES as WORDS
from cgjax.evaluation.agreement import adjusted_rand_index
from cgjax.features.in_memory import features_in, space_at
from cgjax.features.spaces import RAW, SPACES, Space, fit_space, num_fit_rows, space_of
from cgjax.features.stream import FeatureStream
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.testing.planted import make_planted

MAPPED = tuple(name for name in SPACES if name != "raw")
POSITIONS, CHANNELS, ROWS = 4, 8, 1000


@pytest.fixture(scope="module")
def halves():
    """Two clouds; 2% of the rows have a "border": one position bright, its neighbour dark."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, ROWS)
    rows = rng.standard_normal((ROWS, POSITIONS * CHANNELS)).astype(np.float32)
    rows += (4 * labels - 2)[:, None]
    is_far = np.arange(ROWS) % 50 == 0
    rows[is_far, 0] += 100
    rows[is_far, CHANNELS] -= 100
    return rows, labels, is_far


def test_plain_k_means_splits_off_the_outliers(halves, key):
    rows, _, is_far = halves
    np.testing.assert_array_equal(kmeans(rows, 2, key=key).labels == 1, is_far)


@pytest.mark.parametrize("name", MAPPED)
def test_every_space_finds_the_planted_halves(halves, key, name):
    rows, labels, _ = halves
    space = fit_space(name, rows, CHANNELS)
    result = kmeans(space(jnp.asarray(rows)), 2, key=key)
    assert adjusted_rand_index(np.asarray(result.labels), labels) >= 0.9


def test_trimmed_k_means_finds_the_planted_halves_and_assigns_the_outliers_too(halves, key):
    rows, labels, is_far = halves
    result = trimmed_kmeans(rows, 2, key=key, share=0.05)
    assert adjusted_rand_index(np.asarray(result.labels), labels) >= 0.9
    assert result.counts.sum() == len(result.labels) == ROWS
    for c in range(2):  # the means leave out the outliers
        members = rows[(np.asarray(result.labels) == c) & ~is_far]
        np.testing.assert_allclose(result.centroids[c], members.mean(0), atol=0.1)


@pytest.mark.parametrize("name", MAPPED)
def test_a_row_is_mapped_independently_of_the_others(halves, name):
    rows = halves[0]
    space = fit_space(name, rows, CHANNELS)
    together = np.asarray(space(jnp.asarray(rows)))
    alone = np.asarray(space(jnp.asarray(rows[7:8])))
    np.testing.assert_allclose(alone[0], together[7], rtol=1e-6, atol=1e-6)
    assert together.shape[1] == space.output_dim


def test_spaces_equal_their_formulas(halves):
    rows = halves[0].astype(np.float64)
    centred = rows - rows.mean(0)
    expected = {
        "standardised": centred / rows.std(0),
        "pooled": (lambda pooled: pooled - pooled.mean(0))(
            rows.reshape(ROWS, POSITIONS, CHANNELS).mean(1)
        ),
        "spherical": centred / np.linalg.norm(centred, axis=1, keepdims=True),
    }
    for name, values in expected.items():
        mapped = fit_space(name, halves[0], CHANNELS)(jnp.asarray(halves[0]))
        np.testing.assert_allclose(mapped, values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SPACES)
def test_features_that_never_change_stay_finite(name):
    rows = np.zeros((20, 6), np.float32)
    rows[:, 0] = np.arange(20)
    rows[10] = 0.0
    for constant in (rows, np.full((20, 6), 3, np.float32)):
        assert np.isfinite(fit_space(name, constant, 3)(jnp.asarray(constant))).all()


def test_a_feature_that_is_nearly_always_off_weighs_no_more_than_the_others():
    rows = np.random.default_rng(0).standard_normal((2000, 10)).astype(np.float32)
    rows[:, 0] = 0
    rows[5, 0] = 1e-4
    mapped = np.asarray(fit_space("standardised", rows, 10)(jnp.asarray(rows)))
    assert mapped[5, 0] < 1


@pytest.mark.parametrize("name", SPACES)
def test_a_map_survives_saving_and_loading(halves, name):
    space = fit_space(name, halves[0], CHANNELS)
    loaded = space_of(space.arrays())
    assert loaded.name == name
    for written, read in zip(space[1:], loaded[1:], strict=True):
        np.testing.assert_array_equal(written, read)
    assert RAW.arrays() == {}


@pytest.mark.parametrize("name", MAPPED)
def test_streamed_features_are_mapped_as_those_in_memory(name, key, tmp_path):
    generator = ConditionedGenerator(make_planted(), "layer2", {}, batch=16)
    latents = np.asarray(generator.sample_latents(jax.random.key(1), 100))
    space = space_at(generator, latents, name)
    held = features_in(generator, latents, space)
    expected = kmeans(held, 2, key=key, num_init=3)
    for keep in (False, True):
        with FeatureStream(generator, latents, block=32, space=space) as stream:
            if keep:
                stream.keep_on_disk(tmp_path)
            assert stream.dim == held.shape[1]
            np.testing.assert_array_equal(stream.first(100), held)
            result = kmeans(stream, 2, key=key, num_init=3)
        np.testing.assert_array_equal(result.labels, expected.labels)


def test_the_number_of_rows_to_fit_is_bounded_by_memory():
    assert num_fit_rows(50, 10) == 50
    assert num_fit_rows(10**6, 10) == 10_000
    assert num_fit_rows(10**6, 2**20) == 64
    assert num_fit_rows(10**6, 2**40) == 1


def test_the_config_knows_every_space():
    assert tuple(SPACES) == WORDS


def test_raw_features_are_returned_unchanged():
    rows = jnp.ones((2, 3))
    assert Space()(rows) is rows
