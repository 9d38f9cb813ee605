"""Features of latents that do not fit in memory: recomputed or kept on disk.

A `FeatureStream` gives k-means the rows it asks for. A row is computed from its latent when it is
first asked for; then it is either kept in a temporary file or computed again each time, whichever
two measured blocks say is faster.
"""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cgjax.clustering.kmeans.gram import slab_width
from cgjax.clustering.kmeans.sources import OnProgress
from cgjax.features.file import FeatureFile
from cgjax.features.in_memory import feature_dim
from cgjax.features.spaces import RAW, Space
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.runtime.memory import empty_aligned

# Rows that k-means gets at a time, and those of one forward pass: as many as fit into these.
BLOCK_MB, BATCH_MB = 128, 64
# What the features' file must leave of a disk.
SPARE_MB = 1024

Storage = Literal["disk", "recompute"]


class Speed(NamedTuple):
    """Seconds that one block of features takes.

    Attributes:
        compute: the forward pass.
        write: to the disk, until it is there.
        read: from the disk, where the system lets us bypass its page cache.
    """

    compute: float
    write: float
    read: float


class FeatureStream:
    """The features of latents as rows that are read when they are needed.

    Attributes:
        num_rows: n.
        dim: f.
        block: rows that `read` returns.
        storage: "disk" or "recompute", once it is chosen.
        num_computed: forward passes so far, in rows.
    """

    def __init__(
        self,
        generator: ConditionedGenerator,
        latents: Float[np.ndarray, "n d"],
        *,
        block: int | None = None,
        space: Space = RAW,
    ):
        self._generator, self._latents, self._space = generator, latents, space
        self.num_rows = len(latents)
        self.dim = space.output_dim or math.prod(feature_dim(generator, latents))
        row_mb = 4 * self.dim / 2**20
        self._batch = min(generator.batch, max(1, int(BATCH_MB / row_mb)))
        if block is None:
            block = self._batch * max(1, int(BLOCK_MB / row_mb) // self._batch)
        self.block = min(block, self.num_rows)
        self.storage: Storage = "recompute"
        self.num_computed = 0
        self._is_kept = np.zeros(self.num_rows, bool)
        self._file: FeatureFile | None = None
        self._is_fast = False  # the disk, beside the forward passes
        self._buffer: np.ndarray | None = None

    def choose_storage(self, folder: Path, *, num_reads: int, num_files: int = 1) -> Speed | None:
        """Keep the features on disk if there is room for them and it is measured to be faster.

        Args:
            folder: where the file would lie.
            num_reads: how often each row will be asked for at least.
            num_files: how many such files, of as many processes, the disk must have room for.

        Returns:
            What was measured; None without room on the disk.
        """
        free_mb = shutil.disk_usage(folder).free / 2**20
        if free_mb < num_files * 4 * self.num_rows * self.dim / 2**20 + SPARE_MB:
            return None
        first, second = np.arange(self.block), np.arange(self.block, 2 * self.block)
        second = second[second < self.num_rows] if self.num_rows > self.block else first
        compiled = np.asarray(self._compute(first))
        begun = time.perf_counter()
        rows = np.asarray(self._compute(second))
        compute = time.perf_counter() - begun
        self.keep_on_disk(folder)
        assert self._file is not None
        begun = time.perf_counter()
        self._write(second, rows)
        self._file.let_go()
        write = time.perf_counter() - begun
        begun = time.perf_counter()
        self._read(second)
        read = time.perf_counter() - begun
        self._is_fast = 2 * (write + read) < compute
        if write + (num_reads - 1) * read < (num_reads - 1) * compute:
            self._write(first, compiled)
        else:
            self.close()
        return Speed(compute, write, read)

    def keep_on_disk(self, folder: Path) -> None:
        """Keep rows in a temporary file from now on."""
        width = slab_width(self.num_rows, self.dim)
        self._file = FeatureFile(folder, self.num_rows, self.dim, width)
        self.storage = "disk"

    def close(self) -> None:
        """Give the file back; rows are computed from now on."""
        if self._file is not None:
            self._file.close()
        self._file, self.storage = None, "recompute"
        self._is_kept[:] = False

    def __enter__(self) -> FeatureStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, index: Int[np.ndarray, " i"]) -> Float[Array, "s f"] | Float[np.ndarray, "s f"]:
        """Return `block` rows, the first of them those asked for; see `RowSource`."""
        if self._file is not None and self._is_kept[index].all():
            return self._read(index)
        rows = self._compute(index)
        if self._file is not None:
            self._keep(index, rows)
        return rows

    @property
    def has_columns(self) -> bool:
        """Whether rows are kept, so that their columns can be read."""
        return self._file is not None

    def keep_rows(self, on_rows: OnProgress) -> None:
        """Compute and keep the rows that are not: some are computed while others are written.

        From then on they are read by columns, once or twice: of a fast disk nothing stays in
        memory. Where the disk fills up the file is given back.

        Args:
            on_rows: called between with the number of rows done, and of how many; may raise.
        """
        assert self._file is not None
        self._file.direct_io = self._is_fast
        missing = np.flatnonzero(~self._is_kept)
        parts = [missing[b : b + self._batch] for b in range(0, len(missing), self._batch)]
        done, waiting = 0, None
        for part in [*parts, None]:
            ahead = None if part is None else (part, self._pass(part))
            if waiting is not None:
                self._keep(*waiting)
                if self._file is None:
                    return
                done += len(waiting[0])
                on_rows(done, len(missing))
            waiting = ahead

    def read_columns(self, begin: int, out: Float[np.ndarray, "n w"]) -> None:
        """Fill the array with the columns from the given one on, of all rows."""
        assert self._file is not None
        self._file.read_columns(begin, out)

    def first(self, num: int) -> Float[np.ndarray, "num f"]:
        """Return the first rows, in memory."""
        rows = np.empty((num, self.dim), np.float32)
        for begin in range(0, num, self.block):
            part = np.arange(begin, min(begin + self.block, num))
            rows[part] = np.asarray(self.read(part))[: len(part)]
        return rows

    def _compute(self, index: Int[np.ndarray, " i"]) -> Float[Array, "s f"]:
        parts, left = [], self.block
        for begin in range(0, len(index), self._batch):
            parts.append(self._pass(index[begin : begin + self._batch])[:left])
            left -= len(parts[-1])
        if left:
            parts.append(jnp.zeros((left, self.dim), jnp.float32))
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts)

    def _pass(self, index: Int[np.ndarray, " i"]) -> Float[Array, "b f"]:
        """Start one forward pass, filled up to its size."""
        rows = self._latents[index]
        missing = self._batch - len(rows)
        self.num_computed += len(rows)
        features = self._generator.features(jnp.asarray(np.pad(rows, [(0, missing), (0, 0)])))
        return self._space(features)

    def _keep(self, index: Int[np.ndarray, " i"], rows: Float[Array, "s f"]) -> None:
        try:
            self._write(index, np.asarray(rows))
        except OSError:  # somebody else filled the disk
            self.close()

    def _write(self, index: Int[np.ndarray, " i"], rows: Float[np.ndarray, "s f"]) -> None:
        assert self._file is not None
        for begin, end in _runs(index):
            self._file.write_rows(int(index[begin]), rows[begin:end])
        self._is_kept[index] = True

    def _read(self, index: Int[np.ndarray, " i"]) -> Float[np.ndarray, "s f"]:
        assert self._file is not None
        if self._buffer is None:
            self._buffer = empty_aligned((self.block, self.dim))
        for begin, end in _runs(index):
            self._file.read_rows(int(index[begin]), self._buffer[begin:end])
        return self._buffer


def _runs(index: Int[np.ndarray, " i"]) -> list[tuple[int, int]]:
    """Return where consecutive numbers begin and end.

    Example:
        >>> _runs(np.array([4, 5, 6, 9]))
        [(0, 3), (3, 4)]
    """
    ends = [*(np.flatnonzero(np.diff(index) != 1) + 1).tolist(), len(index)]
    return list(zip([0, *ends[:-1]], ends, strict=True))
