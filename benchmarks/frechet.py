"""The Frechet distance of two normal fits, beside the two usual ways to compute it.

    python benchmarks/frechet.py [--reps=5]

From two means and covariances of as many features as the default's principal components (48), 512,
and Inception's pool3 (2,048). The peers are SciPy's square root of the product of the covariances,
which most tools for the FID take, and the square roots of that product's eigenvalues. The relative
difference of their distances from ours is printed too.
"""

from __future__ import annotations

import argparse

import numpy as np
import scipy.linalg
import timing

from cgjax.evaluation.distances import frechet_gaussians, mean_and_covariance

Moments = tuple[np.ndarray, np.ndarray]

CASES = ((48, 1000), (512, 2000), (2048, 10_000))
"""Numbers of features, and of the rows that a mean and a covariance come from."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reps", type=int, default=5)
    options = parser.parse_args()
    print(f"{timing.processor()}; medians of {options.reps}")
    print(f"{'features':>8}  {'way':<28}{'ms':>10}{'ratio':>8}{'difference':>12}")
    for num_features, num_rows in CASES:
        a, b = moments(num_features, num_rows)
        ways = {
            "cgjax": lambda a=a, b=b: frechet_gaussians(*a, *b),
            "square root of the product": lambda a=a, b=b: by_square_root(a, b),
            "eigenvalues of the product": lambda a=a, b=b: by_eigenvalues(a, b),
        }
        seconds, ours = timing.medians(ways, options.reps), ways["cgjax"]()
        for name, way in ways.items():
            print(
                f"{num_features:>8}  {name:<28}{1e3 * seconds[name]:>10.2f}"
                f"{seconds[name] / seconds['cgjax']:>7.1f}x{way() / ours - 1:>12.0e}"
            )


def moments(num_features: int, num_rows: int) -> tuple[Moments, Moments]:
    """Return the moments of two sets of correlated rows of many scales, as features are."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(num_features, num_features)) * rng.gamma(1, 1, num_features)
    rows = rng.normal(size=(2, num_rows, num_features)) @ mix
    return mean_and_covariance(rows[0]), mean_and_covariance(1.1 * rows[1] + 0.1)


def by_square_root(a: Moments, b: Moments) -> float:
    root = scipy.linalg.sqrtm(a[1] @ b[1]).real
    return float(np.sum((a[0] - b[0]) ** 2) + np.trace(a[1] + b[1] - 2 * root))


def by_eigenvalues(a: Moments, b: Moments) -> float:
    roots = np.sqrt(np.maximum(np.linalg.eigvals(a[1] @ b[1]).real, 0))
    return float(np.sum((a[0] - b[0]) ** 2) + np.trace(a[1] + b[1]) - 2 * roots.sum())


if __name__ == "__main__":
    main()
