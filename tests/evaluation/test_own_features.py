"""The user's own features: what they are called on, and what is refused."""

import sys
import types

import numpy as np
import pytest

from cgjax.errors import ForeignError, UserError
from cgjax.evaluation.extractors import FeatureExtractor
from cgjax.evaluation.own_features import BATCH, OwnFeatures

IMAGES = np.random.default_rng(0).uniform(-1, 1, (5, 4, 4, 3)).astype(np.float32)


@pytest.fixture
def features(monkeypatch):
    """Makes features of a function; keywords are those of `OwnFeatures`."""

    def make(function, **keywords):
        module = types.ModuleType("mine")
        module.features = function
        monkeypatch.setitem(sys.modules, "mine", module)
        return OwnFeatures("mine:features", **keywords)

    return make


def means(images):
    return images.mean(axis=(1, 2))


def test_features_are_the_functions_named_after_it_and_class_scores_stand_behind_them(features):
    plain = features(means)
    assert isinstance(plain, FeatureExtractor)
    assert (plain.name, plain.input, plain.check(4)) == ("mine:features", "images", 3)
    np.testing.assert_array_equal(plain(IMAGES), means(IMAGES))
    pair = features(lambda x: (means(x), means(x)[:, :2].astype(np.float64)))
    np.testing.assert_array_equal(pair(IMAGES), means(IMAGES))
    both = features(pair.function, with_scores=True)
    rows = both(IMAGES)
    assert both.check(4, 6) == 3
    for found, expected in zip(both.split(rows), pair.function(IMAGES), strict=True):
        np.testing.assert_array_equal(found, expected.astype(np.float32))


def test_a_class_is_called_without_arguments(features):
    class Mine:
        def __call__(self, images):
            return means(images)

    np.testing.assert_array_equal(features(Mine)(IMAGES), means(IMAGES))


def test_the_function_sees_few_colour_images_at_a_time_and_may_change_them(features):
    shapes = []

    def first(images):
        shapes.append((images.dtype, images.shape))
        found = images[:, 0, 0, :1].copy()
        images[:] = 9
        return found

    num = BATCH + 2
    grey = np.linspace(-1, 1, num, dtype=np.float32).reshape(num, 1, 1, 1)
    colour = np.repeat(grey, 3, axis=3)
    for images in (grey, colour):
        np.testing.assert_array_equal(features(first)(images)[:, 0], grey[:, 0, 0, 0])
    assert colour.max() == 1
    assert shapes == 2 * [(np.float32, (n, 1, 1, 3)) for n in (BATCH, 2)]


def test_the_function_sees_fewer_images_at_a_time_if_they_are_large(features):
    seen: list[int] = []
    large = np.broadcast_to(np.float32(0), (9, 1024, 1024, 3))
    assert features(lambda x: (seen.append(len(x)), x[:, 0, 0])[1])(large).shape == (9, 3)
    assert seen == [8, 1]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (3, "is 3; expected a function"),
        (lambda x: x, r"returned float32 \(3, 4, 4, 3\) for rows of .*; expected \(3, columns\)"),
        (lambda x: means(x)[:, 0], r"returned float32 \(3,\) for rows of"),
        (lambda x: means(x)[1:], r"returned float32 \(2, 3\)"),
        (lambda x: means(x).astype(str), "returned <U"),
        (lambda x: [[1], [2, 3], [4]], "returned list, which is not an array"),
        (lambda x: means(x) * np.nan, "returned NaN or infinite"),
        (lambda x: np.full((len(x), 2), 1e300), "returned NaN or infinite"),
        (lambda x: means(x)[:, :0], "at least one feature"),
        (lambda x: (means(x), means(x)[:, :1]), "scores of at least two classes"),
        (lambda x: (means(x), means(x)[:, 0]), r"class scores: returned float32 \(3,\)"),
        (lambda x: (means(x),) * 3, "returned a tuple of 3"),
        (lambda x: np.zeros((len(x), len(x))), "before .*; expected the same numbers every time"),
        (lambda x: means(x) - means(x).mean(axis=0), "change with the images beside it"),
        (lambda x: (means(x), means(x) * len(x)), "change with the images beside it"),
        (lambda x: np.random.default_rng().normal(size=(len(x), 2)), "from call to call"),
    ],
)
def test_anything_but_features_of_each_image_alone_is_refused_in_one_line(
    features, function, words
):
    with pytest.raises(UserError, match=words) as caught:
        features(function, with_scores=True).check(4)
    assert "'mine:features'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_exception_names_the_function(features):
    with pytest.raises(ForeignError, match="features 'mine:features' raised AttributeError"):
        features(lambda x: x.missing).check(4)
