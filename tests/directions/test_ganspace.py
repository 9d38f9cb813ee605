"""GANSpace equals scikit-learn's PCA plus least squares, in memory and streamed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.decomposition import PCA, IncrementalPCA

from cgjax.directions import ganspace as module
from cgjax.directions.ganspace import fit_ganspace, ganspace, ganspace_streaming
from cgjax.errors import UserError
from cgjax.numerics.pca import fix_signs


def problem(n: int = 600, d: int = 10, shape: tuple[int, ...] = (3, 3, 8), seed: int = 0):
    """Features: a bent linear map of the latents whose directions have distinct strengths."""
    rng = np.random.default_rng(seed)
    f = int(np.prod(shape))
    weight = np.random.default_rng(99).normal(size=(d, f)) * (3.0 * 0.7 ** np.arange(d))[:, None]
    z = rng.normal(size=(n, d)).astype(np.float32)
    h = (np.maximum(z @ weight, -1.0) + 5).astype(np.float32).reshape(n, *shape)
    return z, h


def reference(z, h, k):
    """Compute the published recipe with scikit-learn and NumPy, in float64."""
    h = h.reshape(len(h), -1).astype(np.float64)
    pca = PCA(k, svd_solver="full").fit(h)
    components = fix_signs(pca.components_)
    sd = np.sqrt(pca.explained_variance_)
    coordinates = (h - pca.mean_) @ components.T / sd
    solution = np.linalg.lstsq(coordinates, z.astype(np.float64), rcond=None)[0]
    return solution / np.linalg.norm(solution, axis=1, keepdims=True), components, sd


def test_directions_equal_scikit_learns_pca_plus_least_squares():
    z, h = problem()
    found = ganspace(z, h, 6)
    directions, components, sd = reference(z, h, 6)
    # float32 features: directions of components with close variances are known to about 1e-3.
    np.testing.assert_allclose(found.directions, directions, atol=2e-3)
    np.testing.assert_allclose(found.pca.components, components, atol=2e-3)
    np.testing.assert_allclose(found.act_stdev, sd, rtol=1e-4)
    np.testing.assert_array_equal(found.lat_stdev, 1)


def split(z, h, rows):
    return lambda: ((z[i : i + rows], h[i : i + rows]) for i in range(0, len(z), rows))


def test_streaming_equals_scikit_learns_incremental_pca():
    z, h = problem()
    flat = h.reshape(len(h), -1)
    theirs = IncrementalPCA(6, batch_size=150).fit(flat.astype(np.float64))
    ours = ganspace_streaming(split(z, h, 150), 6).pca
    np.testing.assert_allclose(ours.explained_variance, theirs.explained_variance_, rtol=1e-4)
    np.testing.assert_allclose(ours.components, fix_signs(theirs.components_), atol=2e-3)
    np.testing.assert_allclose(ours.mean, theirs.mean_, rtol=1e-5)
    assert ours.total_variance == pytest.approx(flat.var(axis=0, ddof=1).sum(), rel=1e-4)


def test_streaming_equals_memory_if_no_component_is_dropped():
    z, h = problem()
    rng = np.random.default_rng(5)
    h = (z @ rng.normal(size=(10, 40)) * 2 + 1).astype(np.float32)  # rank 10, ten components
    whole, parts = ganspace(z, h, 10), ganspace_streaming(split(z, h, 170), 10)
    np.testing.assert_allclose(parts.directions, whole.directions, atol=2e-3)
    np.testing.assert_allclose(
        parts.pca.explained_variance, whole.pca.explained_variance, rtol=1e-3
    )
    np.testing.assert_allclose(parts.lat_mean, z.mean(axis=0), atol=1e-5)


def test_top_directions_of_a_stream_agree_with_the_whole_on_bent_features():
    z, h = problem(n=1500)
    whole, parts = ganspace(z, h, 8), ganspace_streaming(split(z, h, 400), 8)
    cosines = np.abs(np.sum(whole.directions[:4] * parts.directions[:4], axis=1))
    assert cosines.min() > 0.999


def test_a_linear_layers_components_are_recovered_as_latent_directions():
    rng = np.random.default_rng(6)
    axes = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    z = rng.normal(size=(4000, 8)).astype(np.float32)
    h = (z @ axes * (3.0 * 0.6 ** np.arange(8))).astype(np.float32)
    # Component i of h is the axis i, whose latent direction is column i of the rotation.
    found = ganspace(z, h, 3)
    # The sample covariance of 4,000 latents turns an axis by about 1 / sqrt(4000) / (gap of 0.64).
    assert np.abs(np.sum(found.directions * axes.T[:3], axis=1)).min() > 0.995


def test_measured_stdev_is_the_latents_spread_along_each_direction():
    z, h = problem(n=900)
    w = (z * np.linspace(0.2, 2, 10) + 3).astype(np.float32)
    found = ganspace(w, h, 5, measure_stdev=True)
    want = (w @ found.directions.T).std(axis=0)
    np.testing.assert_allclose(found.lat_stdev, want, rtol=1e-4)
    np.testing.assert_allclose(found.lat_mean, w.mean(axis=0), rtol=1e-5)


def test_feature_edit_moves_by_alpha_standard_deviations_of_its_component_only():
    z, h = problem()
    found = ganspace(z, h, 4)
    moved = found.edit_features(h, 2, 1.5)
    assert moved.shape == h.shape
    change = found.pca.project(moved) - found.pca.project(h)
    want = np.zeros(4)
    want[2] = 1.5 * found.act_stdev[2]
    np.testing.assert_allclose(change, np.tile(want, (len(h), 1)), atol=1e-3)


class Small:
    """A generator whose layer "a" bends the latents and whose "w" rescales them."""

    def __init__(self):
        self.weight = jnp.asarray(problem()[1][:10].reshape(10, -1) - 5)

    def sample_latents(self, key, n):
        return jax.random.normal(key, (n, 10))

    def features(self, z, layer):
        if layer == "w":
            return z * jnp.linspace(0.5, 2, 10)[None] + 1
        return jax.nn.relu(z @ self.weight).reshape(-1, 3, 3, 8)


def test_fit_ganspace_streams_a_generator_and_repeats_for_the_same_key(key):
    first = fit_ganspace(Small(), "a", key=key, num_latents=700, num_components=5, block_rows=300)
    again = fit_ganspace(Small(), "a", key=key, num_latents=700, num_components=5, block_rows=300)
    np.testing.assert_array_equal(first.vectors, again.vectors)
    assert (first.method, first.space, first.layers) == ("ganspace", "z", ("a",))
    np.testing.assert_allclose(np.linalg.norm(first.vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(first.scales, 1)
    np.testing.assert_array_equal(first.mean, 0)
    blocks = module.generator_blocks(Small(), "a", key, 700, 300)
    z, h = (np.concatenate(part) for part in zip(*blocks(), strict=True))
    cosines = np.abs(np.sum(ganspace(z, h, 5).directions[:3] * first.vectors[:3], axis=1))
    assert cosines.min() > 0.99


def test_if_the_layer_is_the_edited_latent_its_components_are_the_directions(key):
    found = fit_ganspace(
        Small(), "w", key=key, num_latents=2000, num_components=3, latent_layer="w"
    )
    assert found.space == "w"
    # w has standard deviations 0.5 to 2 along the axes, the largest last, and mean 1.
    assert found.vectors[0, 9] > 0.95
    assert found.scales[0] == pytest.approx(2, rel=0.06)
    np.testing.assert_allclose(found.mean, 1, atol=0.2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z, h: ganspace(z, h[:-1], 3), "equal n"),
        (
            lambda z, h: ganspace_streaming(split(z, h, 5), 5),
            "num_components=5: expected at most 4, .* larger blocks",
        ),
        (lambda z, h: ganspace_streaming(lambda: iter(()), 5), "at least one"),
        (lambda z, h: ganspace_streaming(split(z, h * np.nan, 99), 5), "NaN"),
        (lambda z, h: ganspace_streaming(split(z * np.nan, h, 99), 5), "the latents hold NaN"),
        (lambda z, h: ganspace(z * np.inf, h, 3), "the latents hold NaN or infinities"),
        (lambda z, h: ganspace(z, h * np.nan, 3), "the features hold NaN or infinities"),
        (lambda z, h: ganspace(z, "layer1", 3), "features are 'layer1': expected"),
        (lambda z, h: ganspace([[0.0], [1.0, 2.0]], h, 3), "latents are not an array"),
        (lambda z, h: ganspace(z + 1j, h, 3), "latents are complex"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_ganspace_refuses_wrong_arguments(call, message):
    with pytest.raises(UserError, match=message):
        call(*problem(n=100))


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": 0}, "key=0: expected a random key"),
        ({"num_latents": 1}, "num_latents=1: expected a whole number of at least 2"),
        ({"num_latents": 1e3}, r"num_latents=1000\.0: expected a whole number"),
        ({"num_components": 0}, "num_components=0: expected a whole number of at least 1"),
    ],
)
def test_fit_ganspace_refuses_wrong_arguments(key, options, message):
    with pytest.raises(UserError, match=message):
        fit_ganspace(Small(), "a", **{"key": key, **options})
