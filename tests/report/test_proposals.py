"""Names are proposed only if a judge tells the clusters apart."""

import numpy as np

from cgjax.report.proposals import propose
from cgjax.report.tree import tree_of


def test_the_best_explained_attribute_names_both_sides():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 50)
    seen = {
        "face_mesh.yaw": np.where(labels, 14.0, -17.0) + rng.normal(size=100),
        "image_statistics.brightness": rng.random(100),
    }
    seen["face_mesh.yaw"][:5] = np.nan  # no face found
    first, second = propose(seen, labels, 2)
    assert first.text.startswith("turned left, -17")
    assert second.text.startswith("turned right, +14")
    assert first.share > 0.9


def test_nothing_is_proposed_for_an_attribute_that_the_clusters_do_not_explain():
    rng = np.random.default_rng(1)
    seen = {"image_statistics.brightness": rng.random(400)}
    assert propose(seen, rng.integers(2, size=400), 2) == [None, None]
    assert propose({}, np.zeros(3, np.int64), 2) == [None, None]
    assert propose({"own.x": np.full(6, np.nan)}, np.array([0, 1] * 3), 2) == [None, None]


def test_random_clusters_are_rarely_given_a_name_however_few_images_are_judged():
    rng = np.random.default_rng(4)
    named = 0
    for _ in range(200):
        seen = {f"own.{i}": rng.normal(size=20) for i in range(5)}
        named += any(propose(seen, rng.integers(8, size=20), 8))
    assert named <= 10


def test_a_cluster_between_the_others_is_given_no_side():
    labels = np.repeat([0, 1, 2], 30)
    values = np.repeat([0.2, 0.5, 0.8], 30) + np.random.default_rng(2).normal(0, 0.05, 90)
    dark, middle, bright = propose({"image_statistics.brightness": values}, labels, 3)
    assert (dark.text[:4], middle, bright.text[:6]) == ("dark", None, "bright")


def test_the_tree_hangs_every_cluster_below_the_one_it_comes_from():
    def cluster(share, parent):
        jaccard = [0.9, 0.8, 1.0]
        return {"share": share, "parent": parent, "from_parent": 1.0, "jaccard": jaccard}

    table = [
        {"num_clusters": 1, "clusters": [cluster(1.0, None)]},
        {"num_clusters": 2, "clusters": [cluster(0.6, 0), cluster(0.4, 0)]},
        {"num_clusters": 3, "clusters": [cluster(0.4, 1), cluster(0.35, 0), cluster(0.25, 0)]},
    ]
    tree = tree_of({"table": table})
    last = [bar for bar in tree["bars"] if bar["num"] == 3]
    assert [bar["cluster"] for bar in last] == [1, 2, 0]  # below 0, 0 and 1
    assert len(tree["bands"]) == 5
    assert all(bar["x"] + bar["width"] <= tree["width"] for bar in tree["bars"])
