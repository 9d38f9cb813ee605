"""A region knows its members by their features, and a margin keeps part of a cluster."""

import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.errors import UserError
from cgjax.regions.clustering import Clustering
from cgjax.regions.region import WHOLE, ClusterRegion, MarginRange


@pytest.fixture
def clustering():
    return Clustering(
        layer="layer1",
        centroids=np.array([[0.0], [10.0], [100.0]], np.float32),
        labels=np.array([0, 1, 0, 0], np.int32),
        margins=np.array([1.0, 2.0, 3.0, 5.0], np.float32),
        shares=np.array([0.75, 0.25, 0.0]),
    )


def test_the_limits_of_a_margin_range_are_quantiles_of_the_clusters_own_margins(clustering):
    def limits(cluster, *margin):
        return ClusterRegion(clustering, cluster, MarginRange(*margin)).limits

    assert ClusterRegion(clustering, 0).limits == (-np.inf, np.inf)
    assert limits(0, 0.5) == (3.0, np.inf)
    assert limits(1, 0.9) == (2.0, np.inf)
    assert limits(0, 0.0, 0.5) == (-np.inf, 3.0)


def test_part_of_an_empty_cluster_is_refused_but_the_whole_is_not(clustering):
    assert ClusterRegion(clustering, 2).limits == (-np.inf, np.inf)
    with pytest.raises(UserError, match="cluster 2 has no members"):
        ClusterRegion(clustering, 2, MarginRange(0.5)).limits  # noqa: B018


@pytest.mark.parametrize("cluster", [-1, 3])
def test_a_cluster_that_does_not_exist_is_refused(clustering, cluster):
    region = ClusterRegion(clustering, cluster)
    for ask in (
        lambda: region.share,
        lambda: region.members(),
        lambda: region.contains(lambda _: jnp.zeros((1, 1))),
    ):
        with pytest.raises(UserError, match=f"cluster {cluster}: layer1-k3 has the clusters 0 to"):
            ask()


def test_a_region_contains_the_latents_of_its_cluster_within_its_margins(clustering):
    asked = []

    def features(layer):
        asked.append(layer)
        return jnp.array([[0.0], [4.0], [6.0], [9.0], [54.0]])

    # Margins: 10, 2, 2, 8, and 2 (54 is 44 from cluster 1 and 46 from cluster 2).
    whole = ClusterRegion(clustering, 1)
    assert whole.contains(features).tolist() == [False, False, True, True, True]
    one = clustering._replace(margins=np.array([1.0, 3.0, 3.0, 5.0], np.float32))
    clear = ClusterRegion(one, 1, MarginRange(0.5))
    assert clear.contains(features).tolist() == [False, False, False, True, False]
    assert set(asked) == {"layer1"} == set(whole.layers)
    assert str(whole) == "1"
    assert str(clear) == "1, margin 0.5"
    assert clear.share == 0.125


@pytest.mark.parametrize(
    "margins", [[2.0], [2.0, 2.0, 2.0], [0.0, 0.0, 5.0], [1.0, 2.0, 2.0, 2.0, 7.0]]
)
def test_the_depth_is_the_largest_margin_for_any_members_margins(margins):
    found = np.array([0.5, 2.0, 3.0, 9.0], np.float32)  # margins of the rows in question
    one = Clustering(
        layer="layer1",
        centroids=np.array([[0.0], [100.0]], np.float32),
        labels=np.zeros(len(margins), np.int32),
        margins=np.array(margins, np.float32),
        shares=np.array([1.0, 0.0]),
    )
    region = ClusterRegion(one, 0)
    rows = jnp.asarray(50 - found / 2)[:, None]
    depths = np.asarray(region.depth(lambda layer: rows))
    for depth, row in zip(depths, rows, strict=True):

        def holds(low, row=row):
            part = region.with_margin(MarginRange(low))
            return bool(part.contains(lambda layer: row[None])[0])

        assert holds(max(0.0, float(depth) - 1e-5))
        assert depth == 1 or not holds(float(depth) + 1e-5)


@pytest.mark.parametrize("margin", [0.6, "0.6", "0.6:1", (0.6, 1.0), [0.6, 1]])
def test_a_margin_is_one_quantile_or_two(margin):
    assert MarginRange.parse(margin) == MarginRange(0.6, 1.0)
    assert str(MarginRange.parse(margin)) == "0.6"
    assert str(MarginRange.parse("0.55:0.80")) == "0.55:0.8"
    assert MarginRange.parse(0) == WHOLE
    assert MarginRange.parse("0:0.9") == MarginRange(0.0, 0.9) != WHOLE


@pytest.mark.parametrize(
    "margin", [1, -0.1, "high", "0.8:0.6", "0.5:0.5", "0.2:0.4:0.6", "", "nan", ()]
)
def test_an_empty_margin_range_is_refused_with_what_to_type(margin):
    with pytest.raises(UserError, match=r"--margin=.*--margin=0.55:0.8"):
        MarginRange.parse(margin)
