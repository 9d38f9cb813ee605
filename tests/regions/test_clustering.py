"""Clusters are saved as the same bytes, found by id or name, and refused when damaged."""

import numpy as np
import pytest

from cgjax.errors import UserError
from cgjax.regions import clustering as clusters
from cgjax.regions.clustering import WHOLE, MarginRange


@pytest.fixture
def made():
    rng = np.random.default_rng(0)
    return clusters.Clusters(
        centroids=rng.normal(size=(2, 3)).astype(np.float32),
        labels=np.array([0, 1, 0, 0], np.int32),
        margins=np.array([1.0, 2.0, 3.0, 5.0], np.float32),
        shares=np.array([0.75, 0.25]),
        latents=rng.normal(size=(4, 2)).astype(np.float32),
    )


def test_the_same_clusters_are_the_same_bytes(tmp_path, made):
    for name in ("a", "b"):
        clusters.save_clusters(tmp_path / name, made)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    loaded = clusters.load_clusters(tmp_path / "a")
    for ours, theirs in zip(made, loaded, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("at", [0.1, 0.5, 0.95])
def test_a_truncated_file_is_refused(tmp_path, made, at):
    path = tmp_path / "clusters.npz"
    clusters.save_clusters(path, made)
    content = path.read_bytes()
    path.write_bytes(content[: int(at * len(content))])
    with pytest.raises(UserError, match="damaged"):
        clusters.load_clusters(path)


def test_a_flipped_byte_is_refused(tmp_path, made):
    path = tmp_path / "clusters.npz"
    clusters.save_clusters(path, made)
    content = bytearray(path.read_bytes())
    content[content.index(made.latents.tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        clusters.load_clusters(path)


def test_a_cluster_is_found_by_id_or_name_and_an_unknown_one_lists_them():
    entries = [{"id": 0, "name": None}, {"id": 1, "name": "facing left"}]
    assert clusters.find_cluster(1, entries) == 1
    assert clusters.find_cluster("0", entries) == 0
    assert clusters.find_cluster("facing left", entries) == 1
    with pytest.raises(UserError, match=r"--cluster=7 is none .*: 0, 1 \(facing left\)"):
        clusters.find_cluster("7", entries)


def test_the_limits_of_a_band_are_quantiles_of_the_clusters_own_margins(made):
    assert made.margin_limits(0, WHOLE) == (-np.inf, np.inf)
    assert made.margin_limits(0, MarginRange(0.5)) == (3.0, np.inf)
    assert made.margin_limits(1, MarginRange(0.9)) == (2.0, np.inf)
    assert made.margin_limits(0, MarginRange(0.0, 0.5)) == (-np.inf, 3.0)


@pytest.mark.parametrize("margin", [0.6, "0.6", "0.6:1", (0.6, 1.0), [0.6, 1]])
def test_a_margin_is_a_quantile_or_two(margin):
    assert MarginRange.parse(margin) == MarginRange(0.6, 1.0)
    assert str(MarginRange.parse(margin)) == "0.6"
    assert str(MarginRange.parse("0.55:0.80")) == "0.55:0.8"
    assert MarginRange.parse(0) == WHOLE
    assert MarginRange.parse("0:0.9") == MarginRange(0.0, 0.9) != WHOLE


@pytest.mark.parametrize(
    "margin", [1, -0.1, "high", "0.8:0.6", "0.5:0.5", "0.2:0.4:0.6", "", "nan", ()]
)
def test_a_margin_that_leaves_nothing_is_refused_with_what_to_type(margin):
    with pytest.raises(UserError, match=r"--margin=.*--margin=0.55:0.8"):
        MarginRange.parse(margin)
