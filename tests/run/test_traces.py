"""A trace tells an edited function from the same one on another machine."""

import sys
import types

import numpy as np
import pytest

from cgjax.run.traces import NUM_ROWS, PART, function_trace, is_same

IMAGES = np.random.default_rng(0).uniform(-1, 1, (NUM_ROWS, 4, 4, 3)).astype(np.float32)


@pytest.fixture
def trace(monkeypatch):
    """Returns the trace of a function as a judge, features or labels."""

    def make(function, kind="judge", images=IMAGES):
        module = types.ModuleType("mine")
        module.own = function
        monkeypatch.setitem(sys.modules, "mine", module)
        return function_trace(f"{kind} mine:own", images)

    return make


def redness(images):
    red = images[..., 0].mean(axis=(1, 2))
    return np.where(red > 0.2, np.nan, red)


def wide(images):
    """512 features and three class scores."""
    rows = images.reshape(len(images), -1)
    weights = np.random.default_rng(1).normal(size=(rows.shape[1], 515)).astype(np.float32)
    both = rows @ weights
    return both[:, :512], both[:, 512:]


def rounded(images):
    return np.nextafter(images, np.float32(2))


def test_a_judges_trace_is_what_it_says_of_each_image(trace):
    red = trace(redness)
    assert len(red) == PART
    assert 0 < np.isnan(red).sum() < NUM_ROWS
    assert is_same(trace(lambda images: redness(rounded(images))), red)
    assert not is_same(trace(lambda images: 1.01 * redness(images)), red)
    assert not is_same(trace(lambda images: np.nan_to_num(redness(images))), red)

    def both(images):
        return {"red": redness(images), "other": np.zeros(len(images))}

    both.attributes = ("red", "other")
    assert not is_same(trace(both), red)


@pytest.mark.parametrize("kind", ["features", "labels"])
def test_one_of_many_features_is_noticed(trace, kind):
    def features(images):
        return wide(images)[0] if kind == "labels" else wide(images)

    def one_less(images):
        found = wide(images)
        found[0][:, 100] = 0
        return found[0] if kind == "labels" else found

    known = trace(features, kind)
    assert is_same(trace(lambda images: features(rounded(images)), kind), known)
    assert not is_same(trace(one_less, kind), known)


def test_other_class_scores_are_noticed_beside_the_same_features(trace):
    known = trace(wide, "features")
    assert not is_same(trace(lambda x: (wide(x)[0], wide(x)[1][:, ::-1]), "features"), known)
    assert not is_same(trace(lambda x: wide(x)[0], "features"), known)


def test_features_that_nearly_cancel_are_the_same_within_rounding(trace):
    grey = np.repeat(IMAGES[..., :1], 3, axis=3)

    def means(images):
        return images.mean(axis=(1, 2))

    known = trace(means, "features", grey)
    assert is_same(trace(lambda x: means(x) + np.array([0, 1e-7, -1e-7]), "features", grey), known)


def test_points_are_traced_too(trace):
    points = np.random.default_rng(0).normal(size=(NUM_ROWS, 2)).astype(np.float32)
    known = trace(lambda rows: rows[:, :1], "labels", points)
    assert known
    assert not is_same(trace(lambda rows: rows[:, 1:], "labels", points), known)


@pytest.mark.parametrize("kind", ["judge", "features", "labels"])
def test_a_function_that_fails_or_answers_at_random_has_no_trace(trace, kind):
    random = np.random.default_rng(0)
    assert trace(lambda images: images.missing, kind) == []
    assert trace(3, kind) == []
    shape = (NUM_ROWS,) if kind == "judge" else (NUM_ROWS, 2)
    assert trace(lambda images: random.normal(size=shape), kind) == []
    assert function_trace(f"{kind} no_module:f", IMAGES) == []


@pytest.mark.parametrize("kind", ["judge", "labels"])
def test_the_function_may_change_its_images(trace, kind):
    def own(images):
        found = images.reshape(NUM_ROWS, -1)[:, :1].copy()
        images[:] = 9
        return found[:, 0] if kind == "judge" else found

    assert trace(own, kind)
    assert IMAGES.max() <= 1
