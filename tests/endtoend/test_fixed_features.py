"""Fixed clusters: of the rows, of an autoencoder's codes, of the user's own features."""

import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.endtoend import fixed_features
from cgjax.endtoend.data import Points, grid
from cgjax.endtoend.fixed_features import FixedFeatures
from cgjax.endtoend.methods.labelled import FixedClusters
from cgjax.endtoend.networks import Dcgan, Planar
from cgjax.endtoend.step import unprepared
from cgjax.endtoend.trainer import Trainer
from cgjax.errors import ForeignError, UserError
from cgjax.evaluation.agreement import matched_accuracy

KEY = jax.random.key(0)
PLANE = Planar(width=32, depth=2, critic_width=24, pieces=2, latent_dim=2)


def points():
    return grid(3).draw(KEY, 600)


def test_rows_as_features_are_unchanged():
    rows = points().rows
    made = FixedFeatures("rows", PLANE, unprepared).fit(KEY, rows)(rows)
    np.testing.assert_array_equal(made, points().rows)


def test_an_autoencoders_codes_keep_modes_apart():
    drawn = points()
    features = FixedFeatures("autoencoder", PLANE, unprepared, steps=600)
    codes = features.fit(KEY, drawn.rows)(drawn.rows)
    assert codes.shape == (600, 2)
    np.testing.assert_array_equal(codes, features.fit(KEY, drawn.rows)(drawn.rows))
    # Codes of one mode lie together: those of the nearest code are of the same mode.
    apart = jnp.square(codes[:, None] - codes[None]).sum(axis=2) + 1e9 * jnp.eye(600)
    nearest = np.asarray(drawn.classes)[np.asarray(apart.argmin(axis=1))]
    assert np.mean(nearest == np.asarray(drawn.classes)) > 0.9


def test_images_are_encoded_by_the_experiments_networks():
    rows = jnp.asarray(np.random.default_rng(0).integers(0, 255, (20, 8, 8, 3), dtype=np.uint8))
    networks = Dcgan((8, 8, 3), latent_dim=5, width=4)
    features = FixedFeatures(
        "autoencoder", networks, lambda x: x.astype(jnp.float32) / 255, steps=3
    )
    assert features.fit(KEY, rows)(rows).shape == (20, 5)


@pytest.fixture
def own(monkeypatch):
    module = types.ModuleType("own_features")
    module.first = lambda rows: rows[:, :1]
    module.flat = lambda rows: rows[:, 0]
    module.bad = lambda rows: np.full((len(rows), 2), np.nan)
    module.broken = lambda rows: rows.missing
    module.none = lambda rows: rows[:, :0]

    def in_place(rows):
        rows *= 2
        return rows[:, :1]

    module.in_place = in_place
    module.Made = type("Made", (), {"__call__": lambda self, rows: rows[:, :1]})
    monkeypatch.setitem(sys.modules, "own_features", module)


def test_the_users_features_are_called_and_checked(own):
    def made(name):
        rows = points().rows
        return FixedFeatures(f"own_features:{name}", PLANE, unprepared).fit(KEY, rows)(rows)

    np.testing.assert_array_equal(made("first"), points().rows[:, :1])
    np.testing.assert_array_equal(made("Made"), points().rows[:, :1])
    np.testing.assert_array_equal(made("in_place"), 2 * points().rows[:, :1])
    with pytest.raises(UserError, match="returned no features; expected at least one"):
        made("none")
    with pytest.raises(UserError, match=r"own_features:flat: returned float32 \(600,\)"):
        made("flat")
    with pytest.raises(UserError, match="returned NaN"):
        made("bad")
    with pytest.raises(ForeignError, match="own_features:broken"):
        made("broken")
    with pytest.raises(UserError, match="has no 'gone'"):
        made("gone")


def test_clusters_come_from_the_named_features(own):
    drawn = points()
    for name, num in (("rows", 9), ("own_features:first", 3)):
        method = FixedClusters(num, num=400, fixed_features=name)
        state = Trainer(method, PLANE, batch=10).init(KEY, Points(drawn.rows, drawn.classes))
        labels = np.asarray(state.partition.labels)
        true = np.asarray(drawn.classes)
        if name != "rows":  # the grid's columns
            true = np.unique(np.round(np.asarray(drawn.rows)[:, 0] / 2), return_inverse=True)[1]
        assert matched_accuracy(labels, true) > 0.99


@pytest.mark.usefixtures("untyped")
def test_an_autoencoder_reads_only_its_training_rows_from_disk(monkeypatch):
    read = []

    class OnDisk:
        def __getitem__(self, which):
            read.append(which)
            return points().rows[which]

    monkeypatch.setattr(fixed_features, "RowsOnDisk", OnDisk)
    features = FixedFeatures("autoencoder", PLANE, unprepared, steps=1, most=20)
    features.fit(KEY, OnDisk())
    assert read == [slice(None, 20)]
