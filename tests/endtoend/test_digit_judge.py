"""The judge of digits: right on unseen digits, the same for the same key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.endtoend import digit_judge
from cgjax.endtoend.data.stacked import StackedDigits
from cgjax.endtoend.digit_judge import scaled, train_judge
from tests.endtoend.counting import count_parameters

STACKED = StackedDigits("sklearn")  # its judge is trained once, for the tests of the stacks too


@pytest.fixture(scope="module")
def parts():
    return STACKED._parts


@pytest.fixture(scope="module")
def judge():
    return STACKED._judge


def test_the_judge_is_right_on_unseen_digits(judge, parts):
    # Keys give 97% to 98%; 359 digits have a standard error of 1%.
    accuracy = judge.accuracy(*parts[1])
    assert accuracy.share > 0.93
    assert accuracy.num == len(parts[1].labels) == 359
    assert accuracy.interval.low < accuracy.share < accuracy.interval.high


def test_the_judge_is_wrong_on_shuffled_labels(judge, parts):
    shuffled = np.random.default_rng(0).permutation(parts[1].labels)
    assert judge.accuracy(parts[1].pixels, shuffled).share < 0.2


def test_the_judge_has_the_published_widths(judge):
    one = 1024 * 256 + 256 + 256 * 256 + 256 + 256 * 10 + 10
    assert count_parameters(judge.arrays) == digit_judge.NETWORKS * one


def test_verdicts_are_the_joint_one_then_each_networks(judge, parts):
    digits = np.asarray(scaled(jnp.asarray(parts[1].pixels[:100])))
    nothing = np.random.default_rng(1).uniform(-1, 1, (100, 32, 32)).astype(np.float32)
    both = judge.verdicts(np.concatenate([digits, nothing]))
    assert both.shape == (1 + digit_judge.NETWORKS, 200)
    np.testing.assert_array_equal(both[0], judge.classify(np.concatenate([digits, nothing])))
    agree = (both[1:] == both[1]).all(axis=0)
    assert agree[:100].mean() > 0.9, "digits are clear"
    assert agree[100:].mean() < 0.5, "of noise every network thinks something else"
    for place in range(digit_judge.NETWORKS):
        arrays = jax.tree.map(lambda leaf, i=place: leaf[i : i + 1], judge.arrays)
        np.testing.assert_array_equal(
            judge._replace(arrays=arrays).classify(digits), both[1 + place, :100]
        )


def test_the_same_key_gives_the_same_judge_and_a_batch_the_same_verdicts(parts, monkeypatch):
    monkeypatch.setattr(digit_judge, "EPOCHS_OF_FEW", 5)
    pixels, labels = parts[0].pixels[:250], parts[0].labels[:250]
    first, again, other = (train_judge(jax.random.key(k), pixels, labels) for k in (1, 1, 2))
    same = jax.tree.map(lambda a, b: bool((a == b).all()), first.arrays, again.arrays)
    assert all(jax.tree.leaves(same))
    kernels = (judge.arrays.params["layers"][0]["kernel"] for judge in (first, other))
    assert not np.array_equal(*kernels)
    images = np.asarray(scaled(jnp.asarray(parts[1].pixels)))
    alone = [first.classify(images[i : i + 1])[0] for i in range(5)]
    np.testing.assert_array_equal(first.classify(images)[:5], alone)


def test_fewer_digits_than_a_batch_form_one_batch(parts, monkeypatch):
    monkeypatch.setattr(digit_judge, "EPOCHS_OF_FEW", 60)
    pixels, labels = parts[0].pixels[:12], parts[0].labels[:12]
    few = train_judge(jax.random.key(0), pixels, labels)
    assert few.accuracy(pixels, labels).share == 1


def test_pixels_are_scaled_to_minus_one_and_one():
    np.testing.assert_allclose(scaled(jnp.array([0, 255, 51], jnp.uint8)), [-1, 1, -0.6], atol=1e-6)
