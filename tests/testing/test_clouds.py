"""Planted mixtures have the stated properties."""

import numpy as np
import pytest

from cgjax.errors import UserError
from cgjax.testing.clouds import make_clouds


@pytest.mark.parametrize("kinds", [{}, {"ratio": 10.0}, {"shape": "long"}])
@pytest.mark.parametrize("accuracy", [0.95, 0.99])
def test_the_nearest_true_centre_is_right_as_often_as_asked(kinds, accuracy):
    clouds = make_clouds(4, 64, accuracy=accuracy, **kinds)
    rows, labels = clouds.draw(np.random.default_rng(1), 8000)
    score = rows @ clouds.centres.T - 0.5 * np.square(clouds.centres).sum(axis=1)
    # Both samples of 8,000 have a standard deviation of 0.0024 at most.
    assert (score.argmax(axis=1) == labels).mean() == pytest.approx(accuracy, abs=0.01)


def test_a_long_cloud_is_ten_times_as_long():
    rows, _ = make_clouds(1, 16, shape="long").draw(np.random.default_rng(0), 4000)
    spread = np.sqrt(np.linalg.eigvalsh(np.cov(rows, rowvar=False)))
    assert spread[-1] / np.median(spread) == pytest.approx(10.0, rel=0.1)


def test_shares_span_the_ratio_and_wide_rows_keep_their_distances():
    clouds = make_clouds(3, 200, ratio=10.0)
    assert clouds.shares[-1] / clouds.shares[0] == pytest.approx(10.0)
    rows, _ = clouds.draw(np.random.default_rng(0), 50)
    assert rows.shape == (50, 200)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(clouds.embedding @ clouds.embedding.T, np.eye(64), atol=1e-4)


def test_unknown_shapes_are_refused():
    with pytest.raises(UserError, match=r"accuracy=1\.5"):
        make_clouds(2, 8, accuracy=1.5)
