"""Latents that are partly one-hot vectors, such as the classes of an AC-GAN or an InfoGAN.

What a sampler learns is continuous, so it proposes numbers near 0 and 1 that the generator was
never trained on, and that the membership check accepts.
"""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import Array, Float

ROWS = 10_000
"""Latents that are looked at: a number that is not 0 or 1 shows in the first few."""

Parts = tuple[tuple[int, int], ...]
"""The first column of each one-hot vector, and the one after its last."""


def one_hot_parts(latents: Float[np.ndarray, "n d"]) -> Parts:
    """Return where draws of a prior have one-hot vectors.

    >>> one_hot_parts(np.array([[0.3, 0, 1, 1, 0], [-1.2, 1, 0, 0, 1]]))
    ((1, 3), (3, 5))
    """
    rows = latents[:ROWS]
    parts, begin = [], 0
    for end, is_binary in enumerate(((rows == 0) | (rows == 1)).all(axis=0), start=1):
        if not is_binary:
            begin = end
        elif (rows[:, begin:end].sum(axis=1) == 1).all():
            parts.append((begin, end))
            begin = end
    return tuple(parts)


def as_one_hot(z: Float[Array, "n d"], parts: Parts) -> Float[Array, "n d"]:
    """Return latents whose parts are one-hot: 1 where each was largest, 0 elsewhere."""
    for begin, end in parts:
        largest = z[:, begin:end].argmax(axis=1)
        z = z.at[:, begin:end].set(jax.nn.one_hot(largest, end - begin, dtype=z.dtype))
    return z
