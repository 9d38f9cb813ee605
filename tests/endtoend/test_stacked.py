"""Stacked digits: rows, classes, and how the judge scores samplers of known quality."""

import math
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.endtoend.data.base import DataSet
from cgjax.endtoend.data.digit_files import IMAGES, LABELS, load_digits
from cgjax.endtoend.data.stacked import StackedDigits
from cgjax.errors import UserError

DATA = StackedDigits("sklearn")
KEY = jax.random.key(5)
SCORES = ["modes", "reverse_kl_nats", "reverse_kl_log10", "kl_nats_lowest", "kl_nats_highest"]


def write(folder, pixels, labels):
    for name, array in ((IMAGES, pixels), (LABELS, labels)):
        head = struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape)
        (folder / name).write_bytes(head + array.astype(np.uint8).tobytes())
    return str(folder)


def floats(rows):
    return np.asarray(DATA.prepare(rows))


def test_stacked_digits_are_a_data_set_of_a_thousand_classes():
    assert isinstance(DATA, DataSet)
    assert (DATA.num_classes, DATA.row_shape()) == (1000, (32, 32, 3))
    assert hash(DATA) == hash(StackedDigits("sklearn"))


def test_the_same_key_gives_the_same_rows():
    first, again, other = (DATA.draw(jax.random.key(k), 50) for k in (0, 0, 1))
    assert (first.rows.shape, first.rows.dtype) == ((50, 32, 32, 3), jnp.uint8)
    np.testing.assert_array_equal(first.rows, again.rows)
    np.testing.assert_array_equal(first.classes, again.classes)
    assert not np.array_equal(first.rows, other.rows)


def test_the_first_channel_is_the_hundreds(tmp_path):
    labels = np.arange(40) % 10
    grey = np.broadcast_to((25 * labels)[:, None, None], (40, 28, 28))
    points = StackedDigits(write(tmp_path, grey, labels)).draw(KEY, 200)
    shades = np.asarray(points.rows)[:, 9, 9].astype(np.int32)
    digits = shades // 25
    assert len(np.unique(digits)) == 10
    np.testing.assert_array_equal(points.classes, digits @ [100, 10, 1])


def test_a_folder_gives_the_same_rows_as_a_package_with_the_same_digits(tmp_path):
    folder = write(tmp_path, *load_digits("sklearn"))
    np.testing.assert_array_equal(StackedDigits(folder).draw(KEY, 20).rows, DATA.draw(KEY, 20).rows)


def test_digits_are_drawn_in_proportion_to_their_number(tmp_path):
    labels = np.repeat(np.arange(10), [200, *[20] * 9])
    folder = write(tmp_path, np.zeros((380, 28, 28)), labels)
    classes = np.asarray(StackedDigits(folder).draw(KEY, 20_000).classes)
    share = (200 / 380) ** 3
    error = math.sqrt(share * (1 - share) / 20_000)
    assert np.mean(classes == 0) == pytest.approx(share, abs=4 * error)
    for place in (100, 10, 1):
        assert np.mean(classes // place % 10 == 0) == pytest.approx(200 / 380, abs=0.015)


def test_rows_are_prepared_for_networks_and_shown_as_pictures():
    rows = DATA.draw(KEY, 4).rows
    seen = np.asarray(DATA.prepare(rows, KEY))
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen, np.asarray(rows, np.float64) / 127.5 - 1, atol=1e-6)
    np.testing.assert_array_equal(DATA.images(seen), seen)


def test_the_judge_is_right_on_held_out_digits():
    accuracy = DATA.judge_accuracy()
    assert accuracy.share > 0.93
    assert accuracy.num == 359


def test_the_judge_reads_the_channels_in_the_order_of_the_classes():
    points = DATA.draw(KEY, 300)
    found = DATA.classes(floats(points.rows))
    assert np.mean(found == np.asarray(points.classes)) > 0.97


def test_a_sampler_of_seven_classes_scores_seven_modes_and_their_kl():
    points = DATA.draw(KEY, 100)
    is_right = DATA.classes(floats(points.rows)) == np.asarray(points.classes)
    _, first = np.unique(np.asarray(points.classes)[is_right], return_index=True)
    seven = points.rows[np.flatnonzero(is_right)[first[:7]]]
    scores = DATA.scores(np.repeat(floats(seven), 10, axis=0))
    assert list(scores) == SCORES
    assert scores["modes"] == 7
    assert scores["reverse_kl_nats"] == pytest.approx(math.log(1000 / 7), abs=1e-12)
    assert scores["reverse_kl_log10"] == pytest.approx(math.log10(1000 / 7), abs=1e-12)


def test_the_scores_show_where_the_judges_networks_disagree():
    digits = DATA.scores(floats(DATA.draw(KEY, 500).rows))
    noise = np.random.default_rng(2).uniform(-1, 1, (500, 32, 32, 3)).astype(np.float32)
    nothing = DATA.scores(noise)
    spreads = [of["kl_nats_highest"] - of["kl_nats_lowest"] for of in (digits, nothing)]
    assert 0 <= spreads[0] < 0.1 < spreads[1]


def test_a_perfect_sampler_scores_the_counting_floor_and_unseen_digits_a_little_more():
    seen, unseen = (of(KEY, 26_000, 20) for of in (DATA.perfect, DATA.perfect_unseen))
    for found in (seen, unseen):
        assert list(found) == SCORES
        assert found["modes"].mean == 1000
    assert seen["reverse_kl_nats"].mean == pytest.approx(0.0196, abs=6e-4)
    # The judge errs on a few held-out digits, which moves their classes by a few per cent.
    assert seen["reverse_kl_nats"].mean < unseen["reverse_kl_nats"].mean < 0.04
    assert DATA.perfect(KEY, 26_000, 20) == seen


def test_fresh_training_rows_score_like_a_perfect_sampler():
    scores = DATA.scores(floats(DATA.draw(KEY, 4_000).rows))
    for name, expected in DATA.perfect(KEY, 4_000, 50).items():
        # Of so few draws the interval is of 95% of them: a little room on both sides.
        low, high = expected.interval
        room = 0.5 * (high - low)
        assert low - room <= scores[name] <= high + room, name


def test_rows_that_are_not_finite_are_refused_in_one_line():
    rows = np.zeros((3, 32, 32, 3), np.float32)
    rows[1, 4, 5, 2] = np.nan
    with pytest.raises(UserError, match="the generated rows: NaN or an infinity, first in row 1"):
        DATA.scores(rows)
