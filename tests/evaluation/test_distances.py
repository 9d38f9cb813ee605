"""Distances equal closed forms on Gaussians, and SciPy, scikit-learn or a plain loop on data."""

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import polynomial_kernel

from cgjax.errors import UserError
from cgjax.evaluation import distances


def random_covariance(rng: np.random.Generator, dim: int) -> np.ndarray:
    root = rng.normal(size=(dim, dim))
    return root @ root.T / dim


def test_frechet_of_one_dimensional_gaussians_is_the_closed_form():
    # (m1 - m2)^2 + (s1 - s2)^2
    got = distances.frechet_gaussians([1.0], [[4.0]], [4.0], [[1.0]])
    assert got == pytest.approx(9 + 1, abs=1e-12)


def test_frechet_of_commuting_gaussians_is_the_closed_form():
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    v1, v2 = rng.uniform(0.1, 5, 6), rng.uniform(0.1, 5, 6)
    m1, m2 = rng.normal(size=6), rng.normal(size=6)
    want = np.sum((m1 - m2) ** 2) + np.sum((np.sqrt(v1) - np.sqrt(v2)) ** 2)
    got = distances.frechet_gaussians(m1, (axes * v1) @ axes.T, m2, (axes * v2) @ axes.T)
    assert got == pytest.approx(want, rel=1e-10)  # float64, well conditioned


def test_frechet_agrees_with_scipys_matrix_square_root():
    rng = np.random.default_rng(1)
    s1, s2 = random_covariance(rng, 8), random_covariance(rng, 8)
    m1, m2 = rng.normal(size=8), rng.normal(size=8)
    want = np.sum((m1 - m2) ** 2) + np.trace(s1 + s2 - 2 * scipy.linalg.sqrtm(s1 @ s2).real)
    assert distances.frechet_gaussians(m1, s1, m2, s2) == pytest.approx(want, rel=1e-8)


def test_frechet_survives_singular_covariances():
    s1 = np.diag([1.0, 0.0, 0.0])
    s2 = np.diag([0.0, 4.0, 0.0])
    zero = np.zeros(3)
    assert distances.frechet_gaussians(zero, s1, zero, s2) == pytest.approx(5.0, abs=1e-9)
    assert distances.frechet_gaussians(zero, s1, zero, s1) == pytest.approx(0.0, abs=1e-9)


def test_frechet_of_samples_approaches_the_true_distance():
    rng = np.random.default_rng(2)
    s1, s2 = random_covariance(rng, 3), random_covariance(rng, 3)
    a = rng.multivariate_normal(np.zeros(3), s1, 40_000)
    b = rng.multivariate_normal(np.ones(3), s2, 40_000)
    want = distances.frechet_gaussians(np.zeros(3), s1, np.ones(3), s2)
    # The mean's standard error is about 2 * 1 / sqrt(40,000) = 0.01 per coordinate, of a value
    # above 3.
    assert distances.frechet(a, b) == pytest.approx(want, rel=0.03)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_frechet_is_symmetric_zero_on_itself_and_invariant_to_a_common_rotation(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(30, 5)), rng.normal(size=(25, 5)) * 2 + 1
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    forward = distances.frechet(a, b)
    assert forward == pytest.approx(distances.frechet(b, a), rel=1e-9)
    assert forward == pytest.approx(distances.frechet(a @ turn, b @ turn), rel=1e-9)
    assert distances.frechet(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_with_a_large_mean_keeps_its_precision():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(400, 4)), rng.normal(size=(400, 4))
    want = distances.frechet(a, b)
    # float64 holds 1e4 + x to about 2e-12, so nine digits of the distance must survive the shift.
    assert distances.frechet(a + 1e4, b + 1e4) == pytest.approx(want, rel=1e-8)


def test_frechet_with_fewer_rows_than_features_is_refused_unless_asked():
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(5, 8)), rng.normal(size=(50, 8))
    with pytest.raises(UserError, match=r"5 rows are too few.*8 features.*allow_few_rows"):
        distances.frechet(a, b)
    assert distances.frechet(a, b, allow_few_rows=True) > 0


def test_frechet_names_the_row_that_is_not_finite():
    a = np.zeros((4, 2))
    a[2, 1] = np.nan
    with pytest.raises(UserError, match="row 2"):
        distances.frechet(a, np.zeros((4, 2)))


def test_frechet_refuses_sets_in_different_features():
    with pytest.raises(UserError, match="3 and 2 features"):
        distances.frechet(np.zeros((9, 3)), np.zeros((9, 2)))


def test_frechet_floor_is_the_score_of_a_perfect_sampler():
    rng = np.random.default_rng(5)
    members = rng.normal(size=(2000, 8))
    floor = distances.frechet_floor(members, 500, num_splits=8)
    perfect = np.mean(
        [distances.frechet(rng.normal(size=(500, 8)), rng.normal(size=(500, 8))) for _ in range(8)]
    )
    # One estimate varies by about 20%, each mean of eight by 7%.
    assert floor == pytest.approx(perfect, rel=0.3)


def test_frechet_floor_refuses_overlapping_halves():
    with pytest.raises(UserError, match="at most 50"):
        distances.frechet_floor(np.random.default_rng(0).normal(size=(100, 2)), 51)


def test_polynomial_mmd_equals_the_sums_over_scikit_learns_kernel():
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=(20, 7)), rng.normal(size=(31, 7)) + 0.3
    options = {"degree": 3, "gamma": 1 / 7, "coef0": 1.0}
    kaa, kbb, kab = (polynomial_kernel(x, y, **options) for x, y in ((a, a), (b, b), (a, b)))
    want = (
        (kaa.sum() - np.trace(kaa)) / (20 * 19)
        + (kbb.sum() - np.trace(kbb)) / (31 * 30)
        - 2 * kab.mean()
    )
    assert distances.polynomial_mmd(a, b) == pytest.approx(want, rel=1e-9)


def test_kid_is_unbiased_on_equal_distributions_but_the_frechet_distance_is_not():
    rng = np.random.default_rng(7)
    pairs = [(rng.normal(size=(40, 16)), rng.normal(size=(40, 16))) for _ in range(60)]
    kids = np.array([distances.kid(a, b).mean for a, b in pairs])
    assert abs(kids.mean()) < 3 * kids.std() / np.sqrt(len(kids))
    frechets = np.array([distances.frechet(a, b) for a, b in pairs])
    assert frechets.mean() > 3 * frechets.std() / np.sqrt(len(frechets))


def test_kid_over_subsets_agrees_with_the_whole():
    rng = np.random.default_rng(8)
    a, b = rng.normal(size=(600, 6)), rng.normal(size=(600, 6)) + 0.7
    whole = distances.kid(a, b)
    subsets = distances.kid(a, b, subset_size=150, num_subsets=60)
    assert whole.sd == 0
    # Each subset varies by `sd`; their mean by about sd / sqrt(60), and less when drawn without
    # replacement.
    assert subsets.mean == pytest.approx(whole.mean, abs=4 * subsets.sd / np.sqrt(60))


def loop_prdc(
    real: np.ndarray, fake: np.ndarray, k_recall: int, k_density: int
) -> tuple[float, ...]:
    """Compute the four definitions as written, with full distance matrices."""

    def dist(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.linalg.norm(x[:, None] - y[None], axis=-1)

    def radius(x: np.ndarray, k: int) -> np.ndarray:
        return np.sort(dist(x, x), axis=1)[:, k]  # index 0 is the point itself

    cross = dist(real, fake)
    precision = (cross <= radius(real, k_recall)[:, None]).any(axis=0).mean()
    recall = (cross <= radius(fake, k_recall)[None]).any(axis=1).mean()
    density = (cross <= radius(real, k_density)[:, None]).sum() / (k_density * len(fake))
    coverage = (cross.min(axis=1) <= radius(real, k_density)).mean()
    return precision, recall, density, coverage


@pytest.mark.parametrize(("k_recall", "k_density"), [(3, 5), (5, 3), (1, 1)])
def test_precision_recall_density_coverage_equal_the_definitions(k_recall, k_density):
    rng = np.random.default_rng(9)
    real, fake = rng.normal(size=(60, 3)), rng.normal(size=(45, 3)) * 0.8 + 0.5
    got = distances.precision_recall_density_coverage(
        real, fake, k_recall=k_recall, k_density=k_density
    )
    assert got == pytest.approx(loop_prdc(real, fake, k_recall, k_density), abs=1e-12)


def test_precision_recall_do_not_depend_on_the_block_size(monkeypatch):
    rng = np.random.default_rng(10)
    real, fake = rng.normal(size=(70, 4)), rng.normal(size=(50, 4)) * 0.5
    whole = distances.precision_recall_density_coverage(real, fake)
    blocks = distances.distance_blocks
    monkeypatch.setattr(distances, "distance_blocks", lambda a, b: blocks(a, b, block_rows=7))
    assert distances.precision_recall_density_coverage(real, fake) == whole


def test_collapsed_samples_keep_precision_and_lose_recall_and_coverage():
    rng = np.random.default_rng(11)
    real = rng.normal(size=(500, 8))
    fake = rng.normal(size=(500, 8)) * 0.2
    got = distances.precision_recall_density_coverage(real, fake)
    assert got.precision > 0.99
    assert got.recall < 0.1
    assert (
        got.coverage < 0.5 < 0.9 < distances.precision_recall_density_coverage(real, real).coverage
    )


def test_precision_recall_refuse_too_few_rows():
    with pytest.raises(UserError, match="more than k rows"):
        distances.precision_recall_density_coverage(np.zeros((5, 2)), np.zeros((9, 2)))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20),
    st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20),
)
def test_wasserstein1_equals_scipys(a, b):
    want = scipy.stats.wasserstein_distance(a, b)
    assert distances.wasserstein1(a, b) == pytest.approx(want, rel=1e-9, abs=1e-9)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("values", [["a"], [[1.0], [2.0, 3.0]], [1 + 2j], 3.0, []])
def test_wasserstein1_refuses_what_is_no_line_of_numbers(values):
    with pytest.raises(UserError, match=r"the second set .* expected a"):
        distances.wasserstein1([1.0], values)


def test_wasserstein1_of_a_shift_is_the_shift():
    x = np.random.default_rng(12).normal(size=500)
    assert distances.wasserstein1(x, x + 3.5) == pytest.approx(3.5, rel=1e-12)


def test_wasserstein1_refuses_unjudged_images():
    with pytest.raises(UserError, match="1 values that are NaN"):
        distances.wasserstein1([1.0, np.nan], [1.0])
