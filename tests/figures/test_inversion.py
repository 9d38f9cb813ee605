"""Pictures of inverted images: a size that a page can hold, however many clusters there are."""

import io

import numpy as np
import pytest
from PIL import Image

from cgjax.figures.inversion import errors_by_cluster


def size_with(names):
    """The size in pixels of a plot of clusters with these names."""
    rng, num = np.random.default_rng(0), len(names)

    def some(count):
        errors = np.exp(rng.normal(-3, 1, count)).astype(np.float32)
        return errors, rng.integers(0, num, count).astype(np.int32)

    made = rng.random(30) > 0.5
    drawn = errors_by_cluster(some(40), (*some(30), made), names, 0.05, "errors")
    with Image.open(io.BytesIO(drawn.png)) as picture:
        return picture.size


@pytest.mark.parametrize(("num", "widest"), [(1, 700), (4, 900), (100, 3500)])
def test_columns_of_many_clusters_are_narrow(num, widest):
    width, _ = size_with([f"cluster {c}" for c in range(num)])
    assert 600 <= width <= widest


def test_long_names_are_cut_and_get_wider_columns_or_below_narrow_ones_a_higher_figure():
    assert size_with(["cluster 0"] * 4) == (800, 420)
    assert size_with(["sideways" * 20] * 4) == (1360, 420)
    assert size_with(["cluster 0"] * 20) == (840, 420)
    assert size_with(["sideways" * 20] * 20) == (840, 560)
