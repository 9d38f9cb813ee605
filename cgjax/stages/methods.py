"""What a comparison compares: named ways to draw latents of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, PRNGKeyArray

Drawer = Callable[[PRNGKeyArray, int, int], tuple[Float[np.ndarray, "n d"], float | None]]
"""(key, cluster, num) -> latents, and the acceptance of the check or None."""

Images = Iterator[Float[np.ndarray, "m s s c"]]
"""Images that come in blocks, so that few of them are held."""

Imaginer = Callable[[Float[np.ndarray, "n d"], int], Images]
"""(latents, cluster) -> images by another generator, or of latents of another space."""


class ComparedMethod(NamedTuple):
    """One line of the table, before it is measured.

    Attributes:
        name: of the sampler or baseline.
        setting: of the method, in words.
        draw: see `Drawer`.
        training_s: seconds that fitting took; None if nothing was fitted.
        codes_of: the setting of this sampler whose random numbers it uses; None: its own.
        imagine: for latents of another generator or space; None for the run's own latents.
        identity: of that generator or space.
        is_second_half: whether these are the held-out members themselves: their second half is
            measured against the first, and nothing is drawn.
    """

    name: str
    setting: str
    draw: Drawer
    training_s: float | None = None
    codes_of: str | None = None
    imagine: Imaginer | None = None
    identity: str = ""
    is_second_half: bool = False
