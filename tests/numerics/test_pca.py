"""The PCA equals scikit-learn's, in memory and block by block."""

import numpy as np
import pytest
from sklearn.decomposition import PCA as SklearnPCA

from cgjax.errors import UserError
from cgjax.numerics import pca as module


def correlated_rows(n: int, f: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    scales = 10.0 * 0.7 ** np.arange(f)
    axes = np.linalg.qr(rng.normal(size=(f, f)))[0]
    return (rng.normal(size=(n, f)) * scales @ axes + 3).astype(np.float32)


@pytest.mark.parametrize("shape", [(200, 30), (30, 200)])
@pytest.mark.parametrize("method", ["exact", "randomised"])
def test_pca_equals_scikit_learns(shape, method):
    rows = correlated_rows(*shape)
    ours = module.fit_pca(rows, 8, method=method)
    theirs = SklearnPCA(8, svd_solver="full").fit(rows.astype(np.float64))
    # The 8th standard deviation is 0.08 of the first: its direction is known to about
    # eps * (1 / 0.08)^2 = 2e-5 in float32 products.
    np.testing.assert_allclose(ours.components, module.fix_signs(theirs.components_), atol=2e-4)
    np.testing.assert_allclose(ours.explained_variance, theirs.explained_variance_, rtol=1e-4)
    np.testing.assert_allclose(ours.mean, theirs.mean_, rtol=1e-5, atol=1e-5)
    assert ours.total_variance == pytest.approx(rows.var(axis=0, ddof=1).sum(), rel=1e-4)


def test_pca_components_are_orthonormal_sorted_and_of_fixed_sign():
    pca = module.fit_pca(correlated_rows(100, 40), 10)
    np.testing.assert_allclose(pca.components @ pca.components.T, np.eye(10), atol=1e-5)
    assert (np.diff(pca.explained_variance) <= 0).all()
    largest = np.argmax(np.abs(pca.components), axis=1)
    assert (pca.components[np.arange(10), largest] > 0).all()


def test_pca_projection_has_the_explained_variance_and_flattens_images():
    images = correlated_rows(150, 48).reshape(150, 4, 4, 3)
    pca = module.fit_pca(images, 5)
    out = pca.project(images)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out.var(axis=0, ddof=1), pca.explained_variance, rtol=1e-4)


@pytest.mark.parametrize("size", [1, 7, 60, 300])
def test_pca_in_blocks_of_any_size_is_nearly_that_of_all_rows(size):
    rows = correlated_rows(300, 40)
    exact = module.fit_pca(rows, 6)
    ours = module.fit_pca_in_blocks((rows[i : i + size] for i in range(0, 300, size)), 6)
    # A block loses what lies beyond 12 components: 0.7^14 = 0.7% of the sixth's variance, in other
    # directions. In float32, 1e-6 remains.
    assert (np.sum(ours.components * exact.components, axis=1) > 1 - 1e-5).all()
    np.testing.assert_allclose(ours.explained_variance, exact.explained_variance, rtol=1e-5)
    np.testing.assert_allclose(ours.mean, exact.mean, rtol=1e-5, atol=1e-5)
    assert ours.total_variance == pytest.approx(exact.total_variance, rel=1e-4)


def test_pca_refuses_more_components_than_there_are():
    with pytest.raises(UserError, match="out of range for 10 rows of 30 features"):
        module.fit_pca_in_blocks([np.random.default_rng(0).normal(size=(10, 30))], 10)
    with pytest.raises(UserError, match="out of range for 0 rows"):
        module.fit_pca_in_blocks([], 10)
    with pytest.raises(UserError, match="expected 1 to 9"):
        module.fit_pca(np.random.default_rng(0).normal(size=(10, 30)), 10)
    with pytest.raises(UserError, match="do not fit a PCA of 30"):
        module.fit_pca(correlated_rows(40, 30), 2).project(np.zeros((3, 29)))


@pytest.mark.parametrize(
    "fit",
    [
        lambda rows: module.fit_pca(rows, 3, method="exact"),
        lambda rows: module.fit_pca(rows.T, 3, method="exact"),
        lambda rows: module.fit_pca(rows, 3, method="randomised"),
        lambda rows: module.fit_pca_in_blocks([rows[:20], rows[20:]], 3),
    ],
)
def test_rows_whose_squares_overflow_are_refused_by_every_method(fit):
    with pytest.raises(UserError, match="squares overflow float32"):
        fit(correlated_rows(50, 40) * np.float32(1e30))
