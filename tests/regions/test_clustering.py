"""A clustering always saves the same bytes, and invalid files are refused."""

import numpy as np
import pytest

from cgjax.errors import UserError
from cgjax.features.spaces import Space
from cgjax.regions.clustering import FIELDS, Clustering, parse_clustering, save_clustering


@pytest.fixture
def latents():
    return np.random.default_rng(1).normal(size=(4, 2)).astype(np.float32)


@pytest.fixture
def clustering():
    return Clustering(
        layer="layer1",
        centroids=np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32),
        labels=np.array([0, 1, 0, 0], np.int32),
        margins=np.array([1.0, 2.0, 3.0, 5.0], np.float32),
        shares=np.array([0.75, 0.25]),
    )


def load(path):
    return parse_clustering(path.read_bytes(), path, "layer1")


def test_the_same_clustering_saves_the_same_bytes(tmp_path, clustering, latents):
    for name in ("a", "b"):
        save_clustering(tmp_path / name, clustering, latents)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    loaded, loaded_latents = load(tmp_path / "a")
    assert loaded.digest == clustering.digest
    assert loaded.id == "layer1-k2"
    for ours, theirs in zip(
        (*clustering[:-1], latents), (*loaded[:-1], loaded_latents), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("at", [0.1, 0.5, 0.95])
def test_a_truncated_file_is_refused(tmp_path, clustering, latents, at):
    path = tmp_path / "clusters.npz"
    save_clustering(path, clustering, latents)
    content = path.read_bytes()
    path.write_bytes(content[: int(at * len(content))])
    with pytest.raises(UserError, match="damaged"):
        load(path)


def test_a_flipped_byte_is_refused(tmp_path, clustering, latents):
    path = tmp_path / "clusters.npz"
    save_clustering(path, clustering, latents)
    content = bytearray(path.read_bytes())
    content[content.index(latents.tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.array([0, 7, 0, 0], np.int32)}, "labels from 0 to 7 for 2 clusters"),
        ({"labels": np.array([0, -1, 0, 0], np.int32)}, "labels from -1 to 0"),
        ({"labels": np.array([0.0, 1.0, 0.0, 0.0])}, "labels has dtype float64"),
        ({"labels": np.array([0, 1, 0], np.int32)}, "3 labels, 4 margins"),
        ({"labels": np.array([0, 1, 1, 0], np.int32)}, "shares that do not match the labels"),
        ({"margins": np.full(4, np.nan, np.float32)}, "margins has NaN"),
        ({"centroids": np.full((2, 3), np.nan, np.float32)}, "centroids has NaN"),
        ({"centroids": np.zeros((3, 3), np.float32)}, "3 centroids, 2 shares"),
        ({"centroids": np.zeros(3, np.float32)}, r"centroids has shape \(3,\)"),
        ({"shares": np.array([0.5, 0.5])}, "shares that do not match the labels"),
    ],
)
def test_an_invalid_clustering_is_refused(tmp_path, clustering, latents, change, message):
    path = tmp_path / "clusters.npz"
    save_clustering(path, clustering._replace(**change), latents)
    with pytest.raises(UserError, match=f"damaged .*{message}.*; remove it and run again"):
        load(path)


def test_too_few_latents_are_refused(tmp_path, clustering, latents):
    path = tmp_path / "clusters.npz"
    save_clustering(path, clustering, latents[:3])
    with pytest.raises(UserError, match="4 margins and 3 latents"):
        load(path)


MEAN, DEVIATION = np.arange(3, dtype=np.float32), np.ones(3, np.float32)
SPACES = (
    Space("standardised", mean=MEAN, deviation=DEVIATION),
    Space("pooled", channels=MEAN),
    Space("spherical", mean=MEAN),
)


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_a_clustering_in_another_space_survives_saving_and_loading(
    tmp_path, clustering, latents, space
):
    path = tmp_path / "clusters.npz"
    save_clustering(path, clustering._replace(space=space), latents)
    found = load(path)[0].space
    assert found.name == space.name
    for ours, theirs in zip(space[1:], found[1:], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_clustering_of_raw_features_saves_no_extra_arrays(tmp_path, clustering, latents):
    path = tmp_path / "clusters.npz"
    save_clustering(path, clustering, latents)
    with np.load(path) as arrays:
        assert tuple(arrays) == FIELDS


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (Space("spherical", mean=MEAN[:2]), "a spherical space of 2 dimensions and centroids of 3"),
        (Space("spherical", mean=MEAN * np.float32(np.nan)), "space_mean has NaN"),
        (Space("spherical", mean=MEAN.astype(float)), "space_mean has shape .3,. and float64"),
        (Space("pooled", channels=MEAN[:0]), r"space_channels has shape \(0,\)"),
        (Space("standardised", MEAN, DEVIATION[:2]), "parameters of the space differ in length"),
        (Space("standardised", MEAN, 0 * DEVIATION), "space_deviation has values that are not abo"),
    ],
)
def test_an_invalid_space_is_refused(tmp_path, clustering, latents, space, message):
    path = tmp_path / "clusters.npz"
    save_clustering(path, clustering._replace(space=space), latents)
    with pytest.raises(UserError, match=f"damaged .*{message}.*; remove it and run") as raised:
        load(path)
    assert "\n" not in str(raised.value)


def test_an_unknown_space_is_refused(tmp_path, clustering, latents):
    path = tmp_path / "clusters.npz"
    save_clustering(path, clustering, latents)
    arrays = dict(np.load(path))
    np.savez(path, **arrays, space=np.array("curved"))
    with pytest.raises(UserError, match=r"damaged .*unknown space 'curved'; expected one of raw"):
        load(path)
