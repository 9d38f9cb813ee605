"""A region is empty exactly if it contains no combination of one cluster per clustering."""

import itertools

import numpy as np
import pytest

from cgjax.regions import emptiness
from cgjax.regions.compound import Complement, Intersection, Union
from cgjax.regions.emptiness import is_empty
from cgjax.regions.region import ClusterRegion
from tests.regions.planted import clustering
from tests.regions.test_compound import random_region

SIZES = (2, 3, 4)


@pytest.fixture(scope="module")
def clusterings():
    """Clusterings in which every combination of clusters has one member."""
    rows = np.asarray(list(itertools.product(*map(range, SIZES))))
    return {f"layer{i}": clustering(f"layer{i}", rows[:, i], k) for i, k in enumerate(SIZES)}


@pytest.mark.parametrize("seed", range(120))
def test_a_region_is_empty_if_and_only_if_no_combination_lies_in_it(clusterings, seed):
    region, members = random_region(np.random.default_rng(seed), clusterings)
    assert is_empty(region) == (not members.any())


def test_a_cluster_without_members_is_not_called_empty():
    assert not is_empty(ClusterRegion(clustering("layer1", [0, 0], 2), 1))


def test_a_cluster_and_one_inside_another_cluster_do_not_intersect():
    own, inner = clustering("layer1", [0, 0, 1], 2), clustering("layer2", [0, 1, 1], 2)
    paths = [
        Intersection((ClusterRegion(own, 0), ClusterRegion(inner, c))) for c in range(inner.num)
    ]
    assert is_empty(Intersection((ClusterRegion(own, 1), paths[0])))
    assert is_empty(Intersection(tuple(paths)))
    assert is_empty(Intersection((paths[0], Complement(paths[0]))))
    assert is_empty(Intersection((ClusterRegion(own, 0), *map(Complement, paths))))
    assert not is_empty(Union(tuple(paths)))


def test_too_many_combinations_are_not_checked(clusterings, monkeypatch):
    nothing = Intersection(tuple(ClusterRegion(clusterings["layer0"], c) for c in range(2)))
    assert is_empty(nothing)
    monkeypatch.setattr(emptiness, "MAX_CASES", 1)
    assert not is_empty(nothing)
