"""A file of features gives back what was written, by rows and by columns."""

import numpy as np
import pytest

from cgjax.feature_file import FeatureFile


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal(size=(7, 10)).astype(np.float32)


@pytest.mark.parametrize("width", [1, 3, 5, 10, 16])
@pytest.mark.parametrize("lets_go", [True, False])
def test_rows_and_columns_come_back(rows, width, lets_go, tmp_path):
    file = FeatureFile(tmp_path, 7, 10, width)
    file.lets_go = lets_go
    for begin, end in ((4, 7), (0, 3), (3, 4)):
        file.write_rows(begin, rows[begin:end])
    for begin, end in ((0, 7), (2, 5), (6, 7)):
        found = np.empty((end - begin, 10), np.float32)
        file.read_rows(begin, found)
        np.testing.assert_array_equal(found, rows[begin:end])
    for begin, end in ((0, 10), (0, 3), (3, 6), (9, 10), (2, 9)):
        wide = np.full((7, 12), np.nan, np.float32)
        file.read_columns(begin, wide[:, : end - begin])
        np.testing.assert_array_equal(wide[:, : end - begin], rows[:, begin:end])
        assert np.isnan(wide[:, end - begin :]).all()
    file.close()
    assert not list(tmp_path.iterdir())


def test_rows_that_were_never_written_are_an_error(rows, tmp_path):
    file = FeatureFile(tmp_path, 7, 10, 10)
    file.write_rows(0, rows[:2])
    with pytest.raises(OSError, match="too early"):
        file.read_rows(5, np.empty((2, 10), np.float32))
    file.close()
