"""Compound regions contain exactly the boolean combination of their parts."""

import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.regions.compound import Complement, Intersection, Nested, Union, as_query
from cgjax.regions.region import WHOLE, ClusterRegion, MarginRange, Region
from tests.regions.planted import clustering, planted

SIZES = {"layer1": 2, "layer2": 3, "synthesis.b16": 4}


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(0)
    pairs = {layer: planted(rng, layer, num, 400) for layer, num in SIZES.items()}
    return {k: c for k, (c, _) in pairs.items()}, {k: y for k, (_, y) in pairs.items()}


def random_region(rng, clusterings, depth=3):
    """A region, and the booleans it must equal."""
    kind = rng.choice(["cluster", "all", "any", "not"]) if depth else "cluster"
    if kind == "cluster":
        one = clusterings[rng.choice(list(clusterings))]
        c = int(rng.integers(one.num))
        return ClusterRegion(one, c), one.labels == c
    parts = [random_region(rng, clusterings, depth - 1) for _ in range(rng.integers(1, 4))]
    if kind == "not":
        return Complement(parts[0][0]), ~parts[0][1]
    regions, members = tuple(r for r, _ in parts), np.stack([m for _, m in parts])
    if kind == "all":
        return Intersection(regions), members.all(axis=0)
    return Union(regions), members.any(axis=0)


@pytest.mark.parametrize("seed", range(40))
def test_members_are_the_boolean_combination_of_the_label_arrays(scene, seed):
    region, expected = random_region(np.random.default_rng(seed), scene[0])
    assert isinstance(region, Region)
    np.testing.assert_array_equal(region.members(), expected)
    assert region.share == pytest.approx(expected.mean(), abs=1e-12)


@pytest.mark.parametrize("margin", [WHOLE, MarginRange(0.5), MarginRange(0.2, 0.7)])
@pytest.mark.parametrize("seed", range(4))
def test_features_give_the_same_members_as_labels_and_margins(scene, seed, margin):
    clusterings, features = scene
    region, _ = random_region(np.random.default_rng(100 + seed), clusterings)
    region = region.with_margin(margin)
    found = region.contains(features.__getitem__)
    np.testing.assert_array_equal(np.asarray(found), region.members())


@pytest.mark.parametrize("seed", range(8))
def test_a_margin_keeps_exactly_the_latents_that_are_deep_enough(scene, seed):
    clusterings, features = scene
    region, _ = random_region(np.random.default_rng(200 + seed), clusterings)
    depth = np.asarray(region.depth(features.__getitem__))
    np.testing.assert_array_equal(depth >= 0, region.members())
    for low in (0.25, 0.5, 0.9):
        kept = region.with_margin(MarginRange(low)).members()
        # Rounding may put a member at the limit itself on either side of it.
        differs = kept != (depth >= low)
        assert (np.abs(depth[differs] - low) < 1e-5).all()


def test_a_fingerprint_depends_on_the_clusters_but_not_on_order_or_margin(scene):
    clusterings, _ = scene
    one = ClusterRegion(clusterings["layer1"], 0)
    other = ClusterRegion(clusterings["layer2"], 1)
    both = Intersection((one, other))
    assert both.fingerprint == Intersection((other, one)).fingerprint
    assert both.fingerprint == both.with_margin(MarginRange(0.4)).fingerprint
    distinct = (both, Union((one, other)), one, Complement(one), one._replace(cluster=1))
    assert len({region.fingerprint for region in distinct}) == len(distinct)


def test_the_margin_of_a_query_is_that_of_the_clusters_it_asks_for(scene):
    clusterings, _ = scene
    one, other = (ClusterRegion(clusterings[layer], 0) for layer in ("layer1", "layer2"))
    region = Intersection((Complement(one), other))
    assert region.margin == WHOLE
    assert region.with_margin(MarginRange(0.2, 0.7)).margin == MarginRange(0.2, 0.7)


def test_a_layers_features_are_computed_once_and_only_if_needed(scene):
    clusterings, features = scene
    one, two = clusterings["layer1"], clusterings["layer2"]
    region = Union(
        (
            Intersection((ClusterRegion(one, 0), Complement(ClusterRegion(two, 1)))),
            Intersection((ClusterRegion(one, 1), ClusterRegion(two, 0))),
            ClusterRegion(two, 2),
        )
    )
    asked = []

    def of(layer):
        asked.append(layer)
        return features[layer]

    region.contains(of)
    assert sorted(asked) == ["layer1", "layer2"]
    assert region.layers == ("layer1", "layer2")
    region.contains(of)
    assert len(asked) == 4  # nothing is cached from one call to the next


def test_a_margin_applies_to_what_is_asked_for_and_not_to_what_is_excluded(scene):
    one, two = scene[0]["layer1"], scene[0]["layer2"]
    margin = MarginRange(0.5)
    region = Intersection((ClusterRegion(one, 0), Complement(ClusterRegion(two, 1))))
    part = region.with_margin(margin)
    clear = ClusterRegion(one, 0, margin).members()
    np.testing.assert_array_equal(part.members(), clear & (two.labels != 1))
    assert 0 < part.share < region.share


def test_an_intersection_is_proposed_by_its_smallest_cluster_of_the_samplers_clustering():
    main = clustering("layer2", [0, 0, 0, 1, 1, 2], 3)
    other = clustering("layer4", [0, 1, 1, 1, 1, 1], 2)
    large, small, rare = ClusterRegion(main, 0), ClusterRegion(main, 2), ClusterRegion(other, 0)
    assert large.proposal(main) is large
    assert large.proposal(other) is None
    assert Intersection((large, rare)).proposal(main) is large
    assert Intersection((large, Intersection((rare, small)))).proposal(main) is small
    assert Intersection((large, rare)).proposal(other) is rare
    assert Intersection((rare, Complement(small))).proposal(main) is None
    assert Union((large, small)).proposal(main) is None
    assert Complement(large).proposal(main) is None
    assert Intersection((Union((large, small)), large)).proposal(main) is large
    assert (
        Intersection((large, rare)).with_margin(MarginRange(0.5)).proposal(main).margin.low == 0.5
    )


def test_a_cluster_of_another_clustering_with_the_same_id_is_no_proposal():
    main = clustering("layer2", [0, 0, 0, 1, 1, 1], 2)
    inner = clustering("layer2", [0, 1, 0, 0, 0, 0], 2)
    outside, inside = ClusterRegion(main, 0), ClusterRegion(inner, 1)
    assert main.id == inner.id
    assert Nested((outside, inside)).proposal(main) is outside
    assert inside.proposal(main) is None


@pytest.mark.parametrize("seed", range(20))
def test_a_proposal_contains_its_whole_region(scene, seed):
    region, members = random_region(np.random.default_rng(200 + seed), scene[0])
    for one in scene[0].values():
        aim = region.proposal(one)
        assert aim is None or not (members & ~aim.members()).any()


def test_a_region_prints_as_it_is_typed(scene):
    one, two = scene[0]["layer1"], scene[0]["layer2"]
    a, b = ClusterRegion(one, 0), ClusterRegion(two, 1)
    assert str(Intersection((a, Complement(b)))) == "layer1-k2=0 & layer2-k3!=1"
    assert str(Intersection((Union((a, b)), b))) == "(layer1-k2=0 | layer2-k3=1) & layer2-k3=1"
    assert str(Complement(Union((a, b)))) == "!(layer1-k2=0 | layer2-k3=1)"
    assert str(Complement(Complement(a))) == "!layer1-k2!=0"
    odd = ClusterRegion(one._replace(layer="a=b"), 0)
    assert str(Union((odd, a))) == "'a=b-k2'=0 | layer1-k2=0"
    nested = Nested((a, b))
    assert str(nested) == "0/1"
    assert str(Intersection((nested, a))) == "0/1 & layer1-k2=0"
    assert str(Complement(nested)) == "!0/1"
    assert str(nested.with_margin(MarginRange(0.5))) == "0/1, margin 0.5"
    part = Intersection((a, b)).with_margin(MarginRange(0.5))
    assert str(part) == "layer1-k2=0, margin 0.5 & layer2-k3=1, margin 0.5"


def test_a_region_prints_with_the_ids_that_a_run_gives_its_clusterings(scene):
    one, two = scene[0]["layer1"], scene[0]["layer2"]
    a, b = ClusterRegion(one, 0), ClusterRegion(two, 1)
    region = Union((Intersection((a, Complement(b))), Complement(Nested((a, b)))))
    ids = {one.digest: "sweep:layer1-k2", two.digest: "layer2-k3"}
    typed = as_query(region, lambda clustering: ids[clustering.digest])
    assert typed == "(sweep:layer1-k2=0 & layer2-k3!=1) | !0/1"


def test_a_clusters_members_have_margins_within_the_limits():
    one = clustering("layer1", [0, 1, 0, 0], 2, margins=np.array([1, 2, 3, 5], np.float32))
    assert ClusterRegion(one, 0).members().tolist() == [True, False, True, True]
    assert ClusterRegion(one, 0, MarginRange(0.5)).members().tolist() == [False, False, True, True]
    assert ClusterRegion(one, 0, MarginRange(0, 0.5)).members().sum() == 2
    assert jnp.asarray(ClusterRegion(one, 1).members()).dtype == jnp.bool_
