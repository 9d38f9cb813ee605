"""A feature file returns what was written, by rows and by columns."""

import contextlib
import errno
import os
import threading

import numpy as np
import pytest

from cgjax.features.file import FeatureFile
from cgjax.runtime.memory import empty_aligned


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal(size=(7, 10)).astype(np.float32)


@pytest.mark.parametrize("width", [1, 3, 5, 10, 16])
@pytest.mark.parametrize("direct_io", [True, False])
def test_rows_and_columns_are_read_as_written(rows, width, direct_io, tmp_path):
    file = FeatureFile(tmp_path, 7, 10, width)
    file.direct_io = direct_io
    for begin, end in ((4, 7), (0, 3), (3, 4)):
        file.write_rows(begin, rows[begin:end])
    for begin, end in ((0, 7), (2, 5), (6, 7)):
        out = np.empty((end - begin, 10), np.float32)
        file.read_rows(begin, out)
        np.testing.assert_array_equal(out, rows[begin:end])
    for begin, end in ((0, 10), (0, 3), (3, 6), (9, 10), (2, 9)):
        wide = np.full((7, 12), np.nan, np.float32)
        file.read_columns(begin, wide[:, : end - begin])
        np.testing.assert_array_equal(wide[:, : end - begin], rows[:, begin:end])
        assert np.isnan(wide[:, end - begin :]).all()
    file.close()
    assert not list(tmp_path.iterdir())


def open_files(folder):
    """Return this process's open files in a folder, including unnamed ones."""
    names = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # closed in the meantime
            names.append(os.readlink(f"/proc/self/fd/{number}"))
    return [name for name in names if name.startswith(str(folder))]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs Linux's list of open files")
def test_closing_frees_the_disk_space(rows, tmp_path):
    file = FeatureFile(tmp_path, 7, 10, 10)
    file.write_rows(0, rows)
    assert open_files(tmp_path)
    before = set(threading.enumerate())
    file.close()
    for thread in set(threading.enumerate()) - before:
        thread.join()
    assert not open_files(tmp_path)


def test_rows_that_were_never_written_are_an_error(rows, tmp_path):
    file = FeatureFile(tmp_path, 7, 10, 10)
    file.write_rows(0, rows[:2])
    with pytest.raises(OSError, match="too early"):
        file.read_rows(5, np.empty((2, 10), np.float32))
    file.close()


@pytest.mark.parametrize("is_refused", [False, True], ids=["", "refused"])
@pytest.mark.parametrize("num", [70, 6])
def test_whole_pages_bypass_the_page_cache_where_it_is_allowed(
    num, is_refused, tmp_path, monkeypatch
):
    rows = np.random.default_rng(0).normal(size=(num, 2500)).astype(np.float32)
    file = FeatureFile(tmp_path, num, 2500, 1024)
    file.direct_io = True
    direct, moved = file._direct, []

    def recording(call):
        def move(number, pieces, offset):
            if number == direct:
                if is_refused:
                    raise OSError(errno.EINVAL, "not supported")
                moved.append(sum(map(len, pieces)))
            return call(number, pieces, offset)

        return move

    for name in ("preadv", "pwritev"):
        monkeypatch.setattr(os, name, recording(getattr(os, name)))
    file.write_rows(0, rows[:5])
    file.write_rows(5, rows[5:])
    for begin, end in ((0, 1024), (1024, 2048), (2048, 2500), (1000, 1100)):
        out = empty_aligned((num, end - begin))
        file.read_columns(begin, out)
        np.testing.assert_array_equal(out, rows[:, begin:end])
    out = empty_aligned((num, 2500))
    file.read_rows(0, out)
    np.testing.assert_array_equal(out, rows)
    if direct is not None and not is_refused:
        assert sum(moved) >= 4 * 4 * 1024 * num, "two slabs written and read"
    else:
        assert not moved
    file.close()
