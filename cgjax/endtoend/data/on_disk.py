"""Images that do not fit in memory: read from their files whenever they are needed.

Grain's threads decode them in the requested order. The result equals the images in memory, bit for
bit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt8

from cgjax.errors import UserError
from cgjax.runtime.photos import Photo, read_photos
from cgjax.runtime.png import as_uint8

CHANNELS = 3

THREADS, AHEAD = 16, 128
"""Number of decoding threads, and of images that they decode ahead."""


def check_grain(option: str) -> None:
    """Check that grain, which reads the images, is installed.

    Args:
        option: the flag that named the folder, for messages.

    Raises:
        UserError: grain is not installed.
    """
    try:
        import grain  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"{option}: these images do not fit in --config.data.memory_mb, and grain, which reads "
            "them during training, is not installed; type: pip install 'cgjax[stream]', or raise "
            "that setting"
        ) from error


@dataclasses.dataclass(frozen=True, eq=False)
class RowsOnDisk:
    """Rows of uint8 pixels that stay in image files; indexing reads them into an array.

    Attributes:
        photos: the file of each row and its hash; a changed file is refused.
        size: height and width that images are resized to.
        option: the flag that named the folder, for messages.

    Raises:
        UserError: grain is not installed.
    """

    photos: tuple[Photo, ...]
    size: int
    option: str

    def __post_init__(self) -> None:
        """Check that grain is installed."""
        check_grain(self.option)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.photos)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array of all rows."""
        return (len(self), self.size, self.size, CHANNELS)

    def take(self, order: Int[np.ndarray, " n"]) -> RowsOnDisk:
        """Return the rows of the given indices, in that order; opens no file."""
        return dataclasses.replace(self, photos=tuple(self.photos[i] for i in order))

    def __getitem__(
        self, which: slice | Int[np.ndarray, "*i"]
    ) -> UInt8[Array, "*i {self.size} {self.size} 3"]:
        """Read rows.

        Raises:
            UserError: a file that cannot be read as an image, or has changed.
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
            return as_uint8(read_photos([photo], self.size, CHANNELS, self.option)[0])

        threads = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=AHEAD)
        images = grain.MapDataset.source(photos).map(read)
        return iter(images.to_iter_dataset(threads))
