"""A cluster is small if it holds significantly less than a tenth of an equal share."""

import numpy as np
import pytest

from cgjax.figures.clusters import titles
from cgjax.regions.clustering import Clustering
from cgjax.regions.small import is_small, small_clusters


def clustering(*counts):
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    return Clustering(
        "layer1",
        np.zeros((len(counts), 2), np.float32),
        labels,
        np.ones(len(labels), np.float32),
        np.array(counts) / len(labels),
    )


@pytest.mark.parametrize(
    ("count", "num_latents", "num_clusters", "small"),
    [
        (200, 10_000, 2, True),  # the outliers of the embedded generator's late layers
        (300, 10_000, 2, True),
        (909, 10_000, 2, False),  # groups in a ratio of 1 to 10
        (4_600, 10_000, 2, False),
        (490, 10_000, 2, False),  # could be 5% by chance
        (1, 50, 2, False),  # with few latents, few members prove little
        (0, 100, 2, True),
        (200, 10_000, 8, False),  # an equal share is 12.5%
        (50, 10_000, 8, True),
        (10, 10, 1, False),
    ],
)
def test_small_means_significantly_less_than_a_tenth_of_an_equal_share(
    count, num_latents, num_clusters, small
):
    assert is_small(count, num_latents, num_clusters) is small


def test_titles_say_which_clusters_are_small():
    found = clustering(980, 20)
    assert small_clusters(found) == [1]
    assert titles(found) == ["cluster 0\n98.0%", "cluster 1\n2.0%, small"]


def test_clusters_of_ordinary_size_have_plain_titles():
    assert titles(clustering(540, 460)) == ["cluster 0\n54.0%", "cluster 1\n46.0%"]
