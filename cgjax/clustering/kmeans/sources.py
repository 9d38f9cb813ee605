"""Where k-means reads rows that do not fit into memory from, a block at a time.

Symbols: n rows, f features, s rows of a block, w columns.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from cgjax.errors import UserError
from cgjax.numerics.arguments import is_real_number
from cgjax.runtime.mesh import (
    all_max,
    all_sum,
    from_shards,
    over_processes,
    own_device,
)

Tree = TypeVar("Tree")
Carry = TypeVar("Carry")

RowBlock = Array | np.ndarray
"""(s, f) rows that `RowSource.read` returned."""

OnBlock = Callable[[str, int, int], None]
"""Called after every block with the name of the pass, how many of its rows (or columns) are done,
and how many there are; may raise to stop."""

OnProgress = Callable[[int, int], None]
"""Called between units of work with how many are done and how many there are; may raise to stop."""


@runtime_checkable
class RowSource(Protocol):
    """Rows that are read when they are needed.

    Attributes:
        num_rows: n.
        dim: f.
        block: s <= n, the number of rows that `read` returns.
    """

    num_rows: int
    dim: int
    block: int

    def read(self, index: Int[np.ndarray, " i"]) -> Float[Array, "s f"] | Float[np.ndarray, "s f"]:
        """Return s rows; the first i <= s are those requested, the others are arbitrary.

        The same index must give the same rows every time. The next call may overwrite a NumPy
        array that is returned.
        """
        ...


@runtime_checkable
class ColumnSource(RowSource, Protocol):
    """Rows that can also be read by columns.

    Attributes:
        has_columns: whether columns can be read (once the rows are kept).
    """

    has_columns: bool

    def keep_rows(self, on_rows: OnProgress) -> None:
        """Store all rows so that their columns can be read; `has_columns` says if that worked."""
        ...

    def read_columns(self, begin: int, out: Float[np.ndarray, "n w"]) -> None:
        """Fill the array with columns, from the given first one on."""
        ...


class ArrayRows:
    """Rows of an array: in memory, or mapped from a file (`np.load(path, mmap_mode="r")`)."""

    has_columns = True

    def __init__(self, rows: Float[np.ndarray, "n f"], block: int = 1024):
        self._rows = rows
        self.num_rows, self.dim = rows.shape
        self.block = min(block, self.num_rows)

    def read(self, index: Int[np.ndarray, " i"]) -> Float[np.ndarray, "s f"]:
        """Return the rows, padded to a whole block with copies of the last one."""
        filled = np.pad(index, (0, self.block - len(index)), mode="edge")
        return np.asarray(self._rows[filled], np.float32)

    def keep_rows(self, on_rows: OnProgress) -> None:
        """Do nothing: all rows are stored already."""

    def read_columns(self, begin: int, out: Float[np.ndarray, "n w"]) -> None:
        """Fill the array with columns."""
        out[:] = self._rows[:, begin : begin + out.shape[1]]


class Reader:
    """Reads a source in blocks, for jitted functions whose shapes must not change.

    Each of several processes reads its own rows, the same number in each. All take the same number
    of turns (one with fewer rows to read waits) and call `on_block` after every block, so that they
    can stop at the same one.

    Attributes:
        num_rows, dim, block: n, f and s of the source.
        weights: (n,) float32, 1 for rows that count and 0 for padding.
        every: the indices of the rows that count.
        mesh: of the processes, from `cgjax.runtime.mesh.process_mesh`; None for one.
    """

    def __init__(
        self,
        source: RowSource,
        on_block: OnBlock | None = None,
        *,
        weights: Float[Array, " n"] | None = None,
        mesh: Mesh | None = None,
    ):
        self._source, self._on_block = source, on_block
        self.num_rows, self.dim, self.block = source.num_rows, source.dim, source.block
        self.mesh = mesh
        self.weights = jnp.ones((self.num_rows,), jnp.float32) if weights is None else weights
        self.every = np.flatnonzero(np.asarray(self.weights)).astype(np.int32)

    def over(self, function: Callable[..., Any], **static: Any) -> Callable[..., Any]:
        """Return a jitted function of this process's arrays that may sum over all processes."""
        return over_processes(function, self.mesh, **static)

    def total(self, tree: Tree) -> Tree:
        """Sum arrays of one dtype over the processes."""
        summed: Tree = tree if self.mesh is None else self.over(all_sum)(tree)
        return summed

    def fold(
        self,
        what: str,
        index: Int[np.ndarray, " i"],
        step: Callable[[Carry, Int[np.ndarray, " s"], RowBlock], Carry],
        carry: Carry,
    ) -> Carry:
        """Fold a function over rows, one block after the other.

        JAX may use a block without copying it and compute asynchronously, and the next read may
        overwrite the block: so each step is waited for.

        Args:
            what: the name of the pass, for `on_block`.
            index: the rows.
            step: takes the carry, this block's index, padded with n (which a scatter drops), and
                its rows; returns the next carry, all of whose arrays depend on the block.
            carry: for the first step.
        """
        size = self.block
        total = self._most(len(index))
        for begin in range(0, total, size):
            part = index[begin : begin + size]
            if len(part):
                filled = np.full(size, self.num_rows, np.int32)
                filled[: len(part)] = part
                carry = jax.block_until_ready(step(carry, filled, self._read(part)))
            self.report(what, min(begin + size, total), total)
        return carry

    def report(self, what: str, done: int, total: int) -> None:
        """Report the progress of a pass."""
        if self._on_block is not None:
            self._on_block(what, done, total)

    def fetch(
        self, drawn: tuple[Int[Array, "*i"], Bool[Array, "*i"]], offset: Float[Array, " f"]
    ) -> Float[Array, "*i f"]:
        """Return a few rows relative to the offset, each from the process that has it.

        `drawn` holds indices into this process's rows, and whether each belongs to this process.
        """
        row, is_here = drawn
        here = np.asarray(is_here)
        index, place = np.unique(np.asarray(row)[here], return_inverse=True)
        parts: list[Array] = []
        parts = self.fold(
            "fetch", index, lambda parts, _, block: [*parts, _difference(block, offset)], parts
        )
        where = np.zeros(here.shape, np.int32)
        where[here] = place
        rows = jnp.concatenate(parts or [jnp.zeros((1, len(offset)), jnp.float32)])
        fetched: Array = self.over(from_shards)(rows[where], is_here)
        return fetched

    def gather(self, own: Array) -> np.ndarray:
        """Return the values of all rows that count, in every process, given those of its own."""
        values, weights = np.asarray(own), np.asarray(self.weights)
        if self.mesh is not None:
            values, weights = multihost_utils.process_allgather((values, weights), tiled=True)
        return np.asarray(values[weights > 0])

    def check_finite(self, index: Int[np.ndarray, " i"], value: Array | np.ndarray) -> None:
        """Raise `UserError`, naming bad rows, if a value computed from these rows is not finite."""
        if not self._most(int(not np.isfinite(np.asarray(value)).all())):
            return

        def add_bad(bad: list[int], filled: np.ndarray, block: RowBlock) -> list[int]:
            is_bad = ~np.isfinite(np.asarray(block)).all(axis=1)
            return bad + filled[is_bad & (filled < self.num_rows)].tolist()

        none: list[int] = []
        bad = self.fold("looking for NaN or Inf", index, add_bad, none)
        shown = np.full(_SHOWN, _NONE)
        shown[: len(bad)] = bad[:_SHOWN]
        num, first = map(np.asarray, self.over(_join_bad, num_rows=self.num_rows)(len(bad), shown))
        raise not_finite(first[first < _NONE], int(num))

    def _most(self, num: int) -> int:
        return num if self.mesh is None else int(self.over(all_max)(num))

    def _read(self, index: Int[np.ndarray, " i"]) -> RowBlock:
        """Return the block of some rows as float32; raise `UserError` if it is malformed."""
        block = self._source.read(index)
        if not isinstance(block, jax.Array):
            block = np.asarray(block)
        name, expected = type(self._source).__name__, (self.block, self.dim)
        if block.shape != expected:
            raise UserError(
                f"{name}.read returned an array of shape {block.shape} when asked for {len(index)} "
                f"rows: expected {expected}, a whole block of rows (block={self.block}, "
                f"dim={self.dim})"
            )
        if not is_real_number(block.dtype):
            raise UserError(f"{name}.read returned {block.dtype} numbers: expected float32")
        block = block if block.dtype == np.float32 else block.astype(np.float32)
        return block if self.mesh is None else jax.device_put(block, own_device(self.mesh))


def not_finite(bad: Int[np.ndarray, " b"], num: int | None = None) -> UserError:
    """Return the error for distances that are not finite.

    `bad` are the rows that hold NaN or Inf, or the first of `num` such rows.
    """
    num = len(bad) if num is None else num
    if not num:
        return UserError(
            "the features are too large: their squared distances overflow float32; "
            "divide them by a constant first"
        )
    named = ", ".join(map(str, bad[:_SHOWN].tolist())) + (", ..." if num > _SHOWN else "")
    return UserError(
        f"{num} features hold NaN or Inf (rows {named}): expected finite numbers; check the "
        "generator's weights and the latents of those rows"
    )


_difference = jax.jit(lambda block, offset: block - offset[None, :])

# How many bad rows a message names, and the placeholder for none.
_SHOWN, _NONE = 5, np.iinfo(np.int32).max


def _join_bad(
    num: Int[Array, ""], rows: Int[Array, " b"], *, num_rows: int, axis_name: str | None
) -> tuple[Int[Array, ""], Int[Array, " b"]]:
    """Return how many bad rows all processes have, and the first of them, counted over all."""
    if axis_name is None:
        return num, rows
    rows = jnp.where(rows < _NONE, rows + jax.lax.axis_index(axis_name) * num_rows, rows)
    every = jax.lax.all_gather(rows, axis_name, tiled=True)
    return all_sum(num, axis_name), jnp.sort(every)[: len(rows)]
