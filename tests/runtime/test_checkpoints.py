"""A checkpoint is restored exactly or refused, and an interrupted step never happened."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.errors import UserError
from cgjax.runtime.checkpoints import Checkpoints


@pytest.fixture
def tree():
    return {"a": jnp.arange(2000, dtype=jnp.float32), "b": [jnp.ones((3, 2), jnp.int32)]}


def test_what_is_restored_is_what_was_saved(tmp_path, tree):
    saved = Checkpoints(tmp_path / "c")
    saved.save(7, tree, {"note": "x"})
    assert saved.steps() == [(7, {"note": "x"})]
    restored = saved.restore(7, tree)
    np.testing.assert_array_equal(restored["a"], tree["a"])
    np.testing.assert_array_equal(restored["b"][0], tree["b"][0])


def test_only_the_last_two_steps_are_kept(tmp_path, tree):
    saved = Checkpoints(tmp_path / "c")
    for number in (1, 2, 3):
        saved.save(number, tree, {})
    assert [step.number for step in saved.steps()] == [2, 3]
    assert not (tmp_path / "c" / "1").exists()


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_a_damaged_step_is_named_and_refused(tmp_path, tree, damage):
    saved = Checkpoints(tmp_path / "c")
    saved.save(1, tree, {})
    files = [p for p in (tmp_path / "c" / "1").rglob("*") if p.is_file()]
    victim = max(files, key=lambda p: p.stat().st_size)
    content = bytearray(victim.read_bytes())
    if damage == "truncate":
        victim.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        content[len(content) // 2] ^= 1
        victim.write_bytes(content)
    else:
        victim.unlink()
    with pytest.raises(UserError, match=victim.name):
        saved.restore(1, tree)


def test_a_step_without_its_record_never_happened(tmp_path, tree):
    saved = Checkpoints(tmp_path / "c")
    saved.save(1, tree, {})
    (tmp_path / "c" / "1.json").unlink()
    assert saved.steps() == []
    saved.save(1, tree, {})
    assert len(saved.steps()) == 1
    (tmp_path / "c" / "1.json").write_text(json.dumps({"half": 1})[:5])
    assert saved.steps() == []
