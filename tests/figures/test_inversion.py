"""Pictures of inverted images: a size that a page can hold, however many clusters there are."""

import io

import numpy as np
import pytest
from PIL import Image

from cgjax.figures.inversion import errors_by_cluster


@pytest.mark.parametrize(("num", "widest"), [(1, 700), (4, 900), (100, 3500)])
def test_columns_of_many_clusters_are_narrow_and_long_names_cut(num, widest):
    rng = np.random.default_rng(0)

    def some(count):
        errors = rng.uniform(0.01, 0.1, count).astype(np.float32)
        return errors, rng.integers(0, num, count).astype(np.int32)

    made = rng.random(30) > 0.5
    names = [f"cluster {c}" + " looking to the left" * 20 for c in range(num)]
    drawn = errors_by_cluster(some(40), (*some(30), made), names, 0.05, "errors")
    with Image.open(io.BytesIO(drawn.png)) as picture:
        assert 600 <= picture.width <= widest
