"""Images that do not fit into memory: read from their files each time that they are wanted.

Grain's threads decode them in the order in which they are asked for. What comes out is what the
images in memory are, bit for bit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt8

from cgjax.errors import UserError
from cgjax.runtime.photos import Photo, read_photos
from cgjax.runtime.png import as_bytes

CHANNELS = 3

THREADS, AHEAD = 16, 128
"""Threads that decode, and how many images they may be ahead of whoever asks."""


def check_grain(option: str) -> None:
    """Check that what reads the images is there.

    Args:
        option: the flag that named the folder, for messages.

    Raises:
        UserError: grain is not installed.
    """
    try:
        import grain  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"{option}: these images do not fit into --config.data.memory_mb, and what reads them "
            "while it trains is not installed; type: pip install 'cgjax[stream]', or raise that "
            "setting"
        ) from error


@dataclasses.dataclass(frozen=True, eq=False)
class RowsOnDisk:
    """Rows of bytes that are files; what is taken of them is an array.

    Attributes:
        photos: of each row; a file must stay what it is there.
        size: height and width that an image is resized to.
        option: the flag that named the folder, for messages.

    Raises:
        UserError: grain is not installed.
    """

    photos: tuple[Photo, ...]
    size: int
    option: str

    def __post_init__(self) -> None:
        """Refuse to begin without grain."""
        check_grain(self.option)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.photos)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all of them."""
        return (len(self), self.size, self.size, CHANNELS)

    def some(self, order: Int[np.ndarray, " n"]) -> RowsOnDisk:
        """Return those of the given numbers, in that order; opens none."""
        return dataclasses.replace(self, photos=tuple(self.photos[i] for i in order))

    def __getitem__(
        self, which: slice | Int[np.ndarray, "*i"]
    ) -> UInt8[Array, "*i {self.size} {self.size} 3"]:
        """Read rows.

        Raises:
            UserError: a file that cannot be read as an image, or is not what it was.
        """
        index = np.arange(len(self))[which]
        rows = np.empty((index.size, *self.shape[1:]), np.uint8)
        photos = [self.photos[i] for i in index.ravel()]
        for row, image in zip(rows, self._decoded(photos), strict=True):
            row[:] = image
        return jnp.asarray(rows.reshape(*index.shape, *self.shape[1:]))

    def _decoded(self, photos: Sequence[Photo]) -> Iterator[UInt8[np.ndarray, "s s 3"]]:
        import grain

        def read(photo: Photo) -> UInt8[np.ndarray, "s s 3"]:
            return as_bytes(read_photos([photo], self.size, CHANNELS, self.option)[0])

        threads = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=AHEAD)
        images = grain.MapDataset.source(photos).map(read)
        return iter(images.to_iter_dataset(threads))
