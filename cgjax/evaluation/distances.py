"""Distances between two sets of feature rows: Frechet, KID, precision/recall/density/coverage, and
one in one dimension.

Every function takes plain arrays, one row per sample, of any features. The table that shows a
number names its feature (`cgjax.evaluation.extractors`); only with Inception's pool3 is a Frechet
distance an "FID".

References: [Heusel et al. 2017] Frechet; [Binkowski et al. 2018] KID; [Kynkaanniemi et al. 2019]
precision and recall; [Naeem et al. 2020] density and coverage.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cgjax.errors import UserError
from cgjax.numerics.rows import Floats, as_line, as_pair, as_rows, centred_pair, distance_blocks


class Kid(NamedTuple):
    """Mean and standard deviation of the unbiased polynomial MMD over the subsets."""

    mean: float
    sd: float


class Manifold(NamedTuple):
    """Shares in [0, 1], except density, which is 1 for equal distributions and can exceed 1."""

    precision: float
    recall: float
    density: float
    coverage: float


def mean_and_covariance(rows: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the float64 mean (d,) and unbiased covariance (d, d) of (n, d) rows.

    Args:
      rows: (n, d) features, n at least 2.

    Raises:
      UserError: fewer than two rows, or a row that is not finite.

    >>> mean, covariance = mean_and_covariance([[0.0, 1.0], [2.0, 1.0]])
    >>> mean.tolist(), covariance.tolist()
    ([1.0, 1.0], [[2.0, 0.0], [0.0, 0.0]])
    """
    wide = as_rows("the set", rows, min_rows=2).astype(np.float64)
    mean = wide.mean(axis=0)
    wide -= mean
    return mean, wide.T @ wide / (len(wide) - 1)


def frechet_gaussians(
    mean1: ArrayLike, covariance1: ArrayLike, mean2: ArrayLike, covariance2: ArrayLike
) -> float:
    """Return the squared 2-Wasserstein distance between two normal distributions.

    ||m1 - m2||^2 + tr(S1 + S2 - 2 (R^T S2 R)^{1/2}) with S1 = R R^T, in float64. The eigenvalues of
    the symmetric R^T S2 R are those of S1 S2 for every root R; they stay real where the square root
    of the non-symmetric product does not, and R costs least by Cholesky's decomposition.

    Args:
      mean1: (d,) mean.
      covariance1: (d, d), symmetric, positive semi-definite.
      mean2: as `mean1`.
      covariance2: as `covariance1`.

    Returns:
      The distance, at least zero, in squared units of the features.

    Raises:
      UserError: means and covariances whose shapes do not match.

    >>> round(frechet_gaussians([0.0], [[1.0]], [3.0], [[4.0]]), 6)  # 3^2 + (2 - 1)^2
    10.0
    """
    m1, m2 = np.asarray(mean1, np.float64), np.asarray(mean2, np.float64)
    s1, s2 = np.asarray(covariance1, np.float64), np.asarray(covariance2, np.float64)
    if not (m1.shape == m2.shape and s1.shape == s2.shape == (*m1.shape, *m1.shape)):
        raise UserError(
            f"means {m1.shape}, {m2.shape} and covariances {s1.shape}, {s2.shape} do not match; "
            "expected (d,) and (d, d)"
        )
    try:
        root = np.linalg.cholesky(s1)
    except np.linalg.LinAlgError:  # singular: constant features, or fewer rows than features
        values, vectors = np.linalg.eigh(s1)
        root = vectors * np.sqrt(np.maximum(values, 0))
    middle = root.T @ s2 @ root
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh((middle + middle.T) / 2), 0)).sum()
    distance = np.sum((m1 - m2) ** 2) + np.trace(s1) + np.trace(s2) - 2 * cross
    return float(max(distance, 0.0))  # equal distributions can give -1e-12


def frechet(a: ArrayLike, b: ArrayLike, *, allow_few_rows: bool = False) -> float:
    """Return the Frechet distance between normal fits of two sets of features.

    The estimate grows as the sets shrink, so compare distances only at equal n, and print the floor
    (`frechet_floor`) next to it.

    Args:
      a: (n, d) features.
      b: (m, d) features.
      allow_few_rows: accept n or m below d, where the covariance is singular and the bias large.

    Raises:
      UserError: fewer rows than features without the flag, fewer than two rows, a row that is not
        finite, sets of different widths.

    >>> rng = np.random.default_rng(0)
    >>> a = rng.normal(size=(500, 4))
    >>> round(frechet(a, a + 2.0), 6)
    16.0
    """
    a, b = as_pair(a, b, min_rows=2)
    fewest = min(len(a), len(b))
    if fewest < a.shape[1] and not allow_few_rows:
        raise UserError(
            f"{fewest} rows are too few for a Frechet distance in {a.shape[1]} features; give at "
            f"least {a.shape[1]} rows, project to fewer components, or pass allow_few_rows=True"
        )
    return frechet_gaussians(*mean_and_covariance(a), *mean_and_covariance(b))


def frechet_floor(
    members: ArrayLike,
    num_rows: int | None = None,
    *,
    num_splits: int = 1,
    seed: int = 0,
    allow_few_rows: bool = False,
) -> float:
    """Return the Frechet distance between two disjoint random subsets of the true members.

    It is the score of a perfect sampler at this number of rows.

    Args:
      members: (n, d) features, n at least 4.
      num_rows: rows in each subset, at least 2; default, half of the members.
      num_splits: number of random splits to average, at least 1.
      seed: of the splits.
      allow_few_rows: as in `frechet`.

    Raises:
      UserError: fewer than four members, one that is not finite, too few members for two subsets,
        or as `frechet`.

    >>> members = np.random.default_rng(0).normal(size=(1000, 4))
    >>> frechet_floor(members) < frechet_floor(members, 50)  # fewer rows, a higher floor
    True
    """
    rows = as_rows("the members", members, min_rows=4)
    size = len(rows) // 2 if num_rows is None else num_rows
    if not 2 <= 2 * size <= len(rows):
        raise UserError(
            f"two disjoint subsets of {size} rows need {2 * size} members, but there are "
            f"{len(rows)}; ask for at most {len(rows) // 2}"
        )
    rng = np.random.default_rng(seed)
    distances = []
    for _ in range(num_splits):
        order = rng.permutation(len(rows))
        halves = rows[order[:size]], rows[order[size : 2 * size]]
        distances.append(frechet(*halves, allow_few_rows=allow_few_rows))
    return float(np.mean(distances))


def polynomial_mmd(a: ArrayLike, b: ArrayLike) -> float:
    """Return the unbiased squared MMD under the kernel (x.y/d + 1)^3; can be slightly negative.

    O((n + m)^2 d) time, O((n + m)^2) memory, in float64: `kid` takes subsets of large sets.

    Args:
      a: (n, d) features, n at least 2.
      b: (m, d) features, m at least 2.

    Raises:
      UserError: fewer than two rows, a row that is not finite, sets of different widths.

    >>> polynomial_mmd([[0.0], [0.0]], [[1.0], [1.0]])  # 1 + 2^3 - 2
    7.0
    """
    a, b = as_pair(a, b, min_rows=2)
    a, b = a.astype(np.float64), b.astype(np.float64)

    def kernel(x: Floats, y: Floats) -> Floats:
        linear = x @ y.T / x.shape[1] + 1
        return linear * linear * linear  # `** 3` uses the general power, ten times slower

    def off_diagonal_mean(x: Floats) -> float:
        values = kernel(x, x)
        return float((values.sum() - np.trace(values)) / (len(x) * (len(x) - 1)))

    return off_diagonal_mean(a) + off_diagonal_mean(b) - 2 * float(kernel(a, b).mean())


def kid(
    a: ArrayLike, b: ArrayLike, *, subset_size: int = 1000, num_subsets: int = 50, seed: int = 0
) -> Kid:
    """Return the kernel distance: mean and sd over random subsets of the unbiased polynomial MMD.

    Unbiased at any n, hence the better choice below about 10,000 rows. A subset is never larger
    than the smaller set; if it is the whole of both sets, one evaluation is exact and sd is 0.

    Args:
      a: (n, d) features.
      b: (m, d) features.
      subset_size: rows drawn without replacement from each set, at least 2.
      num_subsets: number of subsets, at least 1.
      seed: of the draws.

    Raises:
      UserError: `subset_size` below 2, `num_subsets` below 1, fewer than two rows, a row that is
        not finite, sets of different widths.

    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.normal(size=(300, 4)), rng.normal(size=(300, 4))
    >>> same, shifted = (kid(a, x, subset_size=100, num_subsets=10) for x in (b, b + 1.0))
    >>> abs(same.mean) < 0.5 < 5 < shifted.mean
    True
    """
    a, b = as_pair(a, b, min_rows=2)
    size = min(subset_size, len(a), len(b))
    if size < 2 or num_subsets < 1:
        raise UserError(f"subset_size={subset_size}, num_subsets={num_subsets}; need >= 2 and >= 1")
    if size == len(a) == len(b):
        return Kid(polynomial_mmd(a, b), 0.0)
    rng = np.random.default_rng(seed)
    estimates = [
        polynomial_mmd(
            a[rng.choice(len(a), size, replace=False)], b[rng.choice(len(b), size, replace=False)]
        )
        for _ in range(num_subsets)
    ]
    return Kid(float(np.mean(estimates)), float(np.std(estimates)))


def _neighbour_radii(rows: Floats, ks: tuple[int, ...]) -> list[Floats]:
    """Return, per k, each row's squared distance to its k-th nearest other row."""
    radii = [np.empty(len(rows), rows.dtype) for _ in ks]
    for first, block in distance_blocks(rows, rows):
        index = np.arange(len(block))
        block[index, first + index] = np.inf
        block.partition([k - 1 for k in ks], axis=1)
        for radius, k in zip(radii, ks, strict=True):
            radius[first : first + len(block)] = block[:, k - 1]
    return radii


def precision_recall_density_coverage(
    real: ArrayLike, fake: ArrayLike, *, k_recall: int = 3, k_density: int = 5
) -> Manifold:
    """Return how far each set lies within the k-nearest-neighbour balls of the other.

    precision: share of fakes within some real ball; recall: share of reals within some fake ball
    (both with `k_recall`, [Kynkaanniemi et al. 2019]); density: mean number of real balls a fake
    lies in, divided by k; coverage: share of reals whose own ball contains a fake (both with
    `k_density`, [Naeem et al. 2020]). O((n + m)^2 d) time, O((n + m) block) memory.

    Args:
      real: (n, d) features of true members.
      fake: (m, d) features of samples.
      k_recall: neighbours for precision and recall, at least 1.
      k_density: neighbours for density and coverage, at least 1.

    Raises:
      UserError: a k below 1, a set of no more rows than the larger k, a row that is not finite,
        sets of different widths.

    >>> real = np.random.default_rng(0).normal(size=(200, 2))
    >>> real[100:] += 50.0  # a second mode, without any fake
    >>> scores = precision_recall_density_coverage(real, real[:100] + 0.001)
    >>> scores.precision, scores.recall, scores.coverage
    (1.0, 0.5, 0.5)
    """
    real, fake = as_pair(real, fake)
    k_max = max(k_recall, k_density)
    if min(k_recall, k_density) < 1 or min(len(real), len(fake)) <= k_max:
        raise UserError(
            f"{len(real)} and {len(fake)} rows, k {k_recall} and {k_density}; each set needs more "
            "than k rows and k at least 1"
        )
    real, fake = centred_pair(real, fake)
    real_recall, real_density = _neighbour_radii(real, (k_recall, k_density))
    (fake_recall,) = _neighbour_radii(fake, (k_recall,))
    num_precise = num_balls = 0
    recalled = np.zeros(len(real), bool)
    nearest_fake = np.full(len(real), np.inf)
    for first, block in distance_blocks(fake, real):
        rows = slice(first, first + len(block))
        num_precise += int((block <= real_recall).any(axis=1).sum())
        num_balls += int((block <= real_density).sum())
        recalled |= (block <= fake_recall[rows, None]).any(axis=0)
        np.minimum(nearest_fake, block.min(axis=0), out=nearest_fake)
    return Manifold(
        precision=num_precise / len(fake),
        recall=float(recalled.mean()),
        density=num_balls / (k_density * len(fake)),
        coverage=float((nearest_fake <= real_density).mean()),
    )


def wasserstein1(a: ArrayLike, b: ArrayLike) -> float:
    """Return the exact 1-Wasserstein distance of two one-dimensional samples, in their unit.

    The area between the two empirical distribution functions; the sizes may differ.

    Args:
      a: (n,) numbers, n at least 1.
      b: (m,) numbers, m at least 1.

    Raises:
      UserError: another shape, an empty array, NaN or an infinity.

    >>> wasserstein1([0.0, 1.0], [5.0, 6.0])
    5.0
    """
    a, b = np.sort(as_line("the first set", a)), np.sort(as_line("the second set", b))
    points = np.sort(np.concatenate([a, b]))
    share_a = np.searchsorted(a, points[:-1], side="right") / len(a)
    share_b = np.searchsorted(b, points[:-1], side="right") / len(b)
    return float(np.sum(np.abs(share_a - share_b) * np.diff(points)))
