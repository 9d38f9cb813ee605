"""What a comparison compares: a way to draw latents of a cluster, with its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, PRNGKeyArray

Drawer = Callable[[PRNGKeyArray, int, int], tuple[Float[np.ndarray, "n d"], float | None]]
"""(key, cluster, num) -> latents and the acceptance of the check, or None."""

Imaginer = Callable[[Float[np.ndarray, "n d"], int], Float[np.ndarray, "n s s c"]]
"""(latents, cluster) -> the images of another generator, or of latents of another space."""


class Method(NamedTuple):
    """One line of the table before it is measured.

    Attributes:
        name: of the sampler or baseline.
        setting: what of it, in words.
        draw: see `Drawer`.
        training_s: what it took to fit, or None.
        codes_of: setting of the same sampler whose random numbers it takes; None for its own.
        imagine: for latents of another generator or space; None for those of the run's.
        identity: of that generator or space.
    """

    name: str
    setting: str
    draw: Drawer
    training_s: float | None
    codes_of: str | None = None
    imagine: Imaginer | None = None
    identity: str = ""
