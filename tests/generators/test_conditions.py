"""Classes are given by name, id or vector, and an ambiguous name is refused with candidates."""

import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.errors import UserError
from cgjax.generators.conditions import class_vectors, find_class, imagenet_names
from cgjax.generators.families import abstract_network

NAMES = imagenet_names()


def _vectors(condition, num=2, num_classes=5, names=()):
    return np.asarray(class_vectors(condition, num, num_classes, names))


def test_imagenet_names_has_1000_classes_in_the_usual_order():
    assert len(NAMES) == 1000
    # Ids that all ImageNet models agree on.
    known = {0: "tench", 1: "goldfish", 207: "golden retriever", 281: "tabby", 340: "zebra",
             417: "balloon", 817: "sports car", 954: "banana", 980: "volcano",
             999: "toilet tissue"}  # fmt: skip
    assert {i: NAMES[i][0] for i in known} == known
    assert all(name for names in NAMES for name in names)


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("golden retriever", 207),
        ("Golden_Retriever", 207),
        ("husky", 248),
        ("tabby cat", 281),
        ("harp", 594),  # also a name of class 593, but the usual name of 594 only
        ("volcano", 980),
        ("labrador", 208),
    ],
)
def test_a_class_is_found_by_any_of_its_names(name, index):
    assert find_class(name, NAMES) == index


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("crane", "fits 2 classes: 134 crane, 517 crane"),
        ("retriever", "207 golden retriever, 208 Labrador"),
        ("terrier", "and .* more"),
        ("labradr", "is not a class name: 208 Labrador retriever"),
        ("qqqq", "is not a class name; give an id"),
    ],
)
def test_an_ambiguous_or_unknown_name_lists_candidates(name, message):
    with pytest.raises(UserError, match=message):
        find_class(name, NAMES)


@pytest.mark.parametrize(
    "condition", [3, "3", " 3", np.int64(3), [3], [3, 3], np.array([3, 3]), ["3"], ["3", 3]]
)
def test_ids_become_one_hot_rows(condition):
    np.testing.assert_array_equal(_vectors(condition), np.eye(5, dtype=np.float32)[[3, 3]])


def test_each_row_can_have_its_own_class():
    np.testing.assert_array_equal(_vectors([4, 0]), np.eye(5, dtype=np.float32)[[4, 0]])
    for condition in (
        ["goldfish", 207],
        ["goldfish", np.int64(207)],
        np.array(["goldfish", "207"]),
    ):
        rows = _vectors(condition, num_classes=1000, names=NAMES)
        np.testing.assert_array_equal(rows.argmax(1), [1, 207])


def test_class_vectors_are_used_unchanged():
    mixture = np.array([[0.5, 0.5, 0, 0, 0], [0, 0, 0, 0.3, 0.7]], np.float32)
    np.testing.assert_array_equal(_vectors(mixture), mixture)
    np.testing.assert_array_equal(_vectors(jnp.asarray(mixture)), mixture)
    np.testing.assert_array_equal(_vectors(mixture.tolist()), mixture)
    np.testing.assert_array_equal(_vectors(mixture[:1]), mixture[[0, 0]])
    np.testing.assert_array_equal(_vectors(mixture[0]), mixture[[0, 0]])


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (None, "needs a class"),
        (5, "from 0 to 4"),
        (-1, "from 0 to 4"),
        ("cat", "have no names"),
        ([1, 2, 3], "3 classes for 2 rows"),
        (np.zeros((2, 4), np.float32), "shape"),
        (np.zeros((3, 5), np.float32), "shape"),
        (2.5, "neither an id"),
        ("²", "have no names"),
        ("9" * 5000, "have no names"),
        ([[1], [1, 2]], "lists of unequal lengths"),
        (np.zeros((1, 1, 5), np.int32), "shape"),
        (np.ones((2, 5)) * 1j, "complex128 numbers: expected an id"),
        (object(), "entries of condition are <object"),
    ],
)
def test_an_invalid_condition_is_refused_in_one_line(condition, message):
    with pytest.raises(UserError, match=message) as caught:
        _vectors(condition)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("family", "architecture"),
    [
        ("dcgan", {"widths": [4, 2]}),
        ("pgan", {"form": "zoo", "depths": [4, 2]}),
        ("stylegan", {"form": "zoo", "style_dim": 4, "mapping_widths": [4], "depths": [4, 2]}),
    ],
)
def test_latents_end_in_a_value_of_every_category_whatever_the_class(family, architecture, key):
    sizes = {"latent_dim": 6, "num_classes": 2, "categories": [2, 3]}
    network = abstract_network(family, {**architecture, **sizes})
    z = np.asarray(network.sample_latents(key, 50))
    for part in (z[:, 1:3], z[:, 3:]):
        np.testing.assert_array_equal(part.sum(axis=1), 1)
        assert set(part.argmax(axis=1)) == set(range(part.shape[1]))
    np.testing.assert_array_equal(network.sample_latents(key, 50, condition=1), z)
    with pytest.raises(UserError, match=f"{family} takes no 'truncated'"):
        network.sample_latents(key, 50, truncated=1)
