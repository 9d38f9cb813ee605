"""Blocks that a source of rows returns are checked before they are used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.clustering import kmeans
from cgjax.clustering.kmeans.sources import ArrayRows, Reader
from cgjax.errors import UserError
from cgjax.runtime.memory import empty_aligned
from tests.clustering.kmeans.device_cases import points


class Changed(ArrayRows):
    """Rows that are changed before they are returned, from the given call on."""

    def __init__(self, change, first=0):
        super().__init__(points(50), 16)
        self._change, self._first, self._calls = change, first, 0

    def read(self, index):
        self._calls += 1
        block = super().read(index)
        return self._change(block) if self._calls > self._first else block


@pytest.mark.parametrize("first", [0, 3])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda block: block[:7], "shape (7, 5) when asked for"),
        (lambda block: block[:, :3], "shape (16, 3) when asked for"),
        (lambda block: np.concatenate([block, block]), "shape (32, 5)"),
        (lambda block: block[0], "shape (5,)"),
        (lambda block: None, "shape ()"),
        (lambda block: block.astype(complex), "complex128 numbers"),
    ],
    ids=["too few rows", "too narrow", "too many rows", "one row", "nothing", "complex"],
)
def test_blocks_of_the_wrong_kind_are_refused_in_one_line(change, message, first, key):
    with pytest.raises(UserError, match=r"Changed\.read returned") as error:
        kmeans(Changed(change, first), 2, key=key, num_init=2)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("first", [0, 5, 9, 13, 17])
def test_nan_at_any_call_is_refused_in_one_line(first, key):
    with pytest.raises(UserError, match="NaN or Inf") as error:
        kmeans(Changed(lambda block: block * np.nan, first), 2, key=key, num_init=2, max_iter=1)
    assert "\n" not in str(error.value)


class Overwritten(ArrayRows):
    """Rows in a buffer that the next read overwrites, aligned so that JAX takes it as it is."""

    def __init__(self, rows, block):
        super().__init__(rows, block)
        self._buffer = empty_aligned((block, self.dim))

    def read(self, index):
        self._buffer[:] = super().read(index)
        return self._buffer


@jax.jit
def _slowly(carry, block):
    """Add up a block after a while."""
    power = jax.lax.fori_loop(0, 100, lambda _, m: m @ m, jnp.eye(300))
    return carry + jnp.sum(block * power[0, 0], axis=0)


def test_a_block_is_not_overwritten_while_something_is_computed_of_it():
    reader = Reader(Overwritten(points(64), 16))
    rows = np.arange(64)
    total = reader.fold("add", rows, lambda own, _, block: _slowly(own, block), jnp.zeros(5))
    np.testing.assert_allclose(total, points(64).sum(axis=0), rtol=1e-5)


def test_fetched_rows_are_there_before_another_block_is_read():
    rows = np.broadcast_to(np.arange(2000, dtype=np.float32)[:, None], (2000, 4096))
    source = Overwritten(rows, 2000)
    reader, wanted = Reader(source), jnp.array([7, 3, 7])
    for _ in range(10):
        fetched = reader.fetch((wanted, jnp.ones(3, bool)), jnp.zeros(4096))
        source.read(np.array([1]))
        np.testing.assert_array_equal(fetched, np.repeat(wanted[:, None], 4096, 1))


@pytest.mark.parametrize("kind", [np.float64, np.float16, jax.numpy.bfloat16, np.int32])
def test_blocks_of_other_real_numbers_are_converted(kind, key):
    whole = np.rint(points(50))

    class Whole(ArrayRows):
        def read(self, index):
            return super().read(index).astype(kind)

    result = kmeans(Whole(whole, 16), 2, key=key)
    np.testing.assert_array_equal(result.labels, kmeans(whole, 2, key=key).labels)


def test_lists_of_rows_are_converted(key):
    class Listed(ArrayRows):
        def read(self, index):
            return super().read(index).tolist()

    result = kmeans(Listed(points(50), 16), 2, key=key)
    np.testing.assert_array_equal(result.labels, kmeans(points(50), 2, key=key).labels)


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_rows", 0), ("dim", 5.0), ("block", 0), ("block", 51), ("num_rows", "50")],
)
def test_impossible_sizes_are_named(field, value, key):
    source = ArrayRows(points(50), 16)
    setattr(source, field, value)
    with pytest.raises(UserError, match=f"ArrayRows.{field} is {value!r}"):
        kmeans(source, 2, key=key)
