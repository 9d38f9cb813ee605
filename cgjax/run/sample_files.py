"""Samples as files: numbered images and their latents, which replace those of an earlier draw."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float

from cgjax.errors import UserError
from cgjax.runtime.array_files import write_npy
from cgjax.runtime.files import make_folder, write_atomically
from cgjax.runtime.lock import FolderLock
from cgjax.runtime.png import is_ours, to_png

LATENTS = "latents.npy"

# Not a name that `remove_unfinished` removes: a draw into a run's folder does not lock the run.
_DRAFT = ".unfinished_draw"


def save_images(
    blocks: Iterable[Float[np.ndarray, "m s s c"]],
    latents: Float[np.ndarray, "n d"],
    folder: Path,
    on_image: Callable[[], None] = lambda: None,
) -> None:
    """Write `00000.png`, ... and `latents.npy`; older samples in the folder are replaced.

    The latents are removed first and written last: a folder without them holds half a draw.

    Args:
        blocks: the images, block by block, so that few of them are held.
        latents: of all images.
        folder: created if it does not exist.
        on_image: called after every image; may raise to stop.

    Raises:
        UserError: if the folder cannot be created or written, or holds files of these names that
            are not samples of cgjax.
    """
    make_folder(folder)
    remove_samples(folder)
    for i, image in enumerate(itertools.chain.from_iterable(blocks)):
        write_atomically(folder / f"{i:05d}.png", to_png(image))
        on_image()
    write_npy(folder / LATENTS, latents)


@contextlib.contextmanager
def draft(folder: Path, option: str) -> Iterator[Path]:
    """Return a hidden place for new samples of a folder, which is gone at the end of the block.

    Samples are written there and then moved, so that older ones stay until the new are complete.
    What a killed process left there is removed first.

    Args:
        folder: where the samples will go; created if it does not exist, and locked.
        option: the flag that named it.

    Raises:
        UserError: the folder cannot be created or written, or another command draws into it.
    """
    place = folder / _DRAFT
    with FolderLock(folder, option) as lock:
        lock.acquire()
        shutil.rmtree(place, ignore_errors=True)
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)


def move_samples(place: Path, folder: Path) -> None:
    """Move samples to a folder that has none; the latents go last, as in `save_images`."""
    for path in (*_numbered(place), place / LATENTS):
        os.replace(path, folder / path.name)


def holds_samples(folder: Path) -> bool:
    """Whether a folder itself holds images of an earlier draw."""
    return any(path.is_file() and is_ours(path) for path in _numbered(folder))


def _numbered(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.glob("*.png")) if re.fullmatch(r"\d{5,}", p.stem)]


def remove_samples(folder: Path) -> None:
    """Remove an earlier draw from a folder; raises as `older_samples`."""
    old = older_samples(folder)
    (folder / LATENTS).unlink(missing_ok=True)
    for path in old:
        path.unlink()


def older_samples(folder: Path) -> list[Path]:
    """Return the images of an earlier draw in a folder, which a new draw replaces.

    Raises:
        UserError: if files of these names are the user's own.
    """
    numbered = _numbered(folder)
    foreign = [path for path in numbered if not (path.is_file() and is_ours(path))]
    if not numbered and (folder / LATENTS).exists():
        foreign = [folder / LATENTS]
    if foreign:
        raise UserError(
            f"{folder} holds {foreign[0].name}, which is not a sample of this version of cgjax "
            "and would be overwritten; remove it, or name another folder"
        )
    return numbered
