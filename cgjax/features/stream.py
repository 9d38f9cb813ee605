"""Features of latents that do not fit in memory: recomputed or kept on disk.

A `FeatureStream` gives k-means the rows it asks for. A row is computed from its latent when it is
first requested; after that it is either read from a temporary file or recomputed every time,
whichever is faster according to a measurement on two blocks.
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
from cgjax.features.spaces import RAW, Space
from cgjax.generators.batching import filled_up
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.runtime.memory import empty_aligned

# Upper bounds on the features that k-means gets at a time, and on those of one forward pass.
BLOCK_MB, BATCH_MB = 128, 64
# Free disk space that must remain beside the feature file.
SPARE_MB = 1024

Storage = Literal["disk", "recompute"]


class Speed(NamedTuple):
    """Seconds for one block of features.

    Attributes:
        compute: to run the forward pass.
        write: to write it to the disk and flush.
        read: to read it from the disk, past the page cache where the system allows it.
    """

    compute: float
    write: float
    read: float


class FeatureStream:
    """The features of latents, as rows that are read on demand.

    Attributes:
        num_rows: n.
        dim: f.
        block: number of rows that `read` returns.
        storage: "disk" or "recompute", once it is chosen.
        num_computed: number of rows computed so far.
    """

    def __init__(
        self,
        generator: ConditionedGenerator,
        latents: Float[np.ndarray, "n d"],
        *,
        block: int | None = None,
        space: Space = RAW,
    ):
        """Choose how many rows a block has; computes nothing.

        Args:
            generator: the generator and its layer.
            latents: (n, d) float32, of the rows.
            block: rows of a block, at most n; default: as many whole batches as take `BLOCK_MB`.
            space: the space that features are mapped to.
        """
        self._generator, self._latents, self._space = generator, latents, space
        self.num_rows = len(latents)
        self.dim = space.output_dim or math.prod(generator.feature_shape)
        row_mb = 4 * self.dim / 2**20
        self._batch = min(generator.batch, max(1, int(BATCH_MB / row_mb)))
        if block is None:
            block = self._batch * max(1, int(BLOCK_MB / row_mb) // self._batch)
        self.block = min(block, self.num_rows)
        self.storage: Storage = "recompute"
        self.num_computed = 0
        self._is_kept = np.zeros(self.num_rows, bool)
        self._file: FeatureFile | None = None
        self._is_disk_fast = False  # compared with the forward passes
        self._buffer: np.ndarray | None = None

    def choose_storage(self, folder: Path, *, num_reads: int, num_files: int = 1) -> Speed | None:
        """Keep the features on disk if there is room for them and it is measured to be faster.

        Args:
            folder: where to put the file.
            num_reads: minimum number of times that each row will be read.
            num_files: number of such files, one per process, that the disk must have room for.

        Returns:
            The measured times; None if there is no room on the disk.
        """
        free_mb = shutil.disk_usage(folder).free / 2**20
        if free_mb < num_files * 4 * self.num_rows * self.dim / 2**20 + SPARE_MB:
            return None
        first, second = np.arange(self.block), np.arange(self.block, 2 * self.block)
        second = second[second < self.num_rows] if self.num_rows > self.block else first
        first_rows = np.asarray(self._compute(first))  # not timed: it compiles
        start = time.perf_counter()
        second_rows = np.asarray(self._compute(second))
        compute = time.perf_counter() - start
        try:
            self.keep_on_disk(folder)
            write, read = self._time_disk(second, second_rows)
            self._is_disk_fast = 2 * (write + read) < compute
            if write + (num_reads - 1) * read < (num_reads - 1) * compute:
                self._write(first, first_rows)
            else:
                self.close()
        except OSError:  # less room than the disk says, such as a quota
            self.close()
            return None
        return Speed(compute, write, read)

    def _time_disk(
        self, index: Int[np.ndarray, " i"], rows: Float[np.ndarray, "s f"]
    ) -> tuple[float, float]:
        """Return how many seconds it takes to write rows and to read them back."""
        assert self._file is not None
        start = time.perf_counter()
        self._write(index, rows)
        self._file.flush_and_drop()
        written = time.perf_counter()
        self._read(index)
        return written - start, time.perf_counter() - written

    def keep_on_disk(self, folder: Path) -> None:
        """Keep rows in a temporary file from now on."""
        width = slab_width(self.num_rows, self.dim)
        self._file = FeatureFile(folder, self.num_rows, self.dim, width)
        self.storage = "disk"

    def close(self) -> None:
        """Delete the file; rows are recomputed from now on."""
        if self._file is not None:
            self._file.close()
        self._file, self.storage = None, "recompute"
        self._is_kept[:] = False

    def __enter__(self) -> FeatureStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, index: Int[np.ndarray, " i"]) -> Float[Array, "s f"] | Float[np.ndarray, "s f"]:
        """Return `block` rows, of which the first are those requested; see `RowSource`."""
        if self._file is not None and self._is_kept[index].all():
            return self._read(index)
        rows = self._compute(index)
        if self._file is not None:
            self._keep(index, rows)
        return rows

    @property
    def has_columns(self) -> bool:
        """Whether rows are kept on disk, so that columns can be read."""
        return self._file is not None

    def keep_rows(self, on_rows: OnProgress) -> None:
        """Compute and keep the missing rows; a batch is computed while the previous one is written.

        After that they are read by columns, once or twice, so on a fast disk the file bypasses the
        page cache. If the disk fills up, the file is deleted.

        Args:
            on_rows: called after each batch with the number of rows done, and of how many; may
                raise to stop.
        """
        assert self._file is not None
        self._file.direct_io = self._is_disk_fast
        missing = np.flatnonzero(~self._is_kept)
        parts = [missing[b : b + self._batch] for b in range(0, len(missing), self._batch)]
        done, pending = 0, None
        for part in [*parts, None]:
            following = None if part is None else (part, self._pass(part))
            if pending is not None:
                self._keep(*pending)
                if self._file is None:
                    return
                done += len(pending[0])
                on_rows(done, len(missing))
            pending = following

    def read_columns(self, begin: int, out: Float[np.ndarray, "n w"]) -> None:
        """Fill an array with columns of all rows, starting at column `begin`."""
        assert self._file is not None
        self._file.read_columns(begin, out)

    def first(self, num: int) -> Float[np.ndarray, "num f"]:
        """Return the first `num` rows, in memory."""
        rows = np.empty((num, self.dim), np.float32)
        for begin in range(0, num, self.block):
            part = np.arange(begin, min(begin + self.block, num))
            rows[part] = np.asarray(self.read(part))[: len(part)]
        return rows

    def _compute(self, index: Int[np.ndarray, " i"]) -> Float[Array, "s f"]:
        """Compute `block` rows: the requested ones first, padding after them."""
        parts, remaining = [], self.block
        for begin in range(0, len(index), self._batch):
            parts.append(self._pass(index[begin : begin + self._batch])[:remaining])
            remaining -= len(parts[-1])
        if remaining:
            parts.append(jnp.zeros((remaining, self.dim), jnp.float32))
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts)

    def _pass(self, index: Int[np.ndarray, " i"]) -> Float[Array, "b f"]:
        """Start one forward pass, padded to the batch size with copies of the last latent."""
        z = self._latents[index]
        self.num_computed += len(z)
        full = filled_up(z, self._batch)
        return self._space(self._generator.features(jnp.asarray(full)))

    def _keep(self, index: Int[np.ndarray, " i"], rows: Float[Array, "s f"]) -> None:
        try:
            self._write(index, np.asarray(rows))
        except OSError:  # another process filled the disk
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
    """Return the (begin, end) of each run of consecutive numbers.

    Example:
        >>> _runs(np.array([4, 5, 6, 9]))
        [(0, 3), (3, 4)]
    """
    ends = [*(np.flatnonzero(np.diff(index) != 1) + 1).tolist(), len(index)]
    return list(zip([0, *ends[:-1]], ends, strict=True))
