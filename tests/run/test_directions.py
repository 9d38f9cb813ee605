"""Saved directions come back the same, and nothing in their file can run."""

import numpy as np
import pytest

from cgjax.directions import Directions
from cgjax.errors import UserError
from cgjax.run.directions import load_directions, save_directions


@pytest.fixture
def directions() -> Directions:
    return Directions(
        method="ganspace",
        space="w",
        layers=("layer1", "layer2"),
        vectors=np.eye(2, 6, dtype=np.float32),
        strengths=np.array([4, 1], np.float32),
        scales=np.array([0.5, 2], np.float32),
        mean=np.ones(6, np.float32),
    )


def test_saved_directions_come_back_the_same(directions, tmp_path):
    save_directions(directions, tmp_path / "directions.npz")
    again = load_directions(tmp_path / "directions.npz")
    assert (again.method, again.space, again.layers) == ("ganspace", "w", ("layer1", "layer2"))
    for name in ("vectors", "strengths", "scales", "mean"):
        np.testing.assert_array_equal(getattr(again, name), getattr(directions, name))
        assert getattr(again, name).dtype == np.float32


class Trap:
    ran = False

    def __reduce__(self):
        return (setattr, (Trap, "ran", True))


def test_a_pickle_inside_the_file_is_refused_and_does_not_run(tmp_path):
    np.savez(tmp_path / "bad.npz", method=np.array([Trap()], dtype=object))
    with pytest.raises(UserError, match="does not hold saved directions"):
        load_directions(tmp_path / "bad.npz")
    assert not Trap.ran


def test_missing_broken_and_inconsistent_files_are_refused(directions, tmp_path):
    with pytest.raises(UserError, match="fit the directions first"):
        load_directions(tmp_path / "none.npz")
    for content in (b"", b"no archive", b"PK\x03\x04 torn"):
        (tmp_path / "torn.npz").write_bytes(content)
        with pytest.raises(UserError, match="does not hold saved directions"):
            load_directions(tmp_path / "torn.npz")
    np.save(tmp_path / "array.npy", np.ones(3))
    with pytest.raises(UserError, match="does not hold saved directions"):
        load_directions(tmp_path / "array.npy")
    np.savez(tmp_path / "odd.npz", **{**vars(directions), "mean": np.ones(5, np.float32)})
    with pytest.raises(UserError, match="holds arrays that do not match"):
        load_directions(tmp_path / "odd.npz")
