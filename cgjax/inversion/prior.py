"""The range of a prior's latents, estimated from a sample: the search stays within it."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cgjax.inversion.encoder import to_length


class Prior(NamedTuple):
    """The smallest box and ball that hold a sample of the prior.

    A generator is trained on such latents only. Farther out its images are arbitrary, and a search
    for a photograph that it cannot make would end there. A label may follow the d numbers of a
    latent.

    Attributes:
        low: (d,) least value of each coordinate.
        high: (d,) greatest value of each coordinate.
        radius: greatest length of a latent.
        norm: the mean length if the generator depends only on the direction, else None.
    """

    low: Float[Array, " d"]
    high: Float[Array, " d"]
    radius: Float[Array, ""]
    norm: float | None = None

    def project(self, z: Float[Array, "n e"]) -> Float[Array, "n e"]:
        """Return latents clipped to the box and then scaled into the ball; labels become one-hot.

        If only the direction matters, latents are scaled to the mean length instead.
        """
        z, label = jnp.split(self.within(z), [len(self.low)], axis=1)
        num = label.shape[1]
        if num:
            label = jax.nn.one_hot(jnp.argmax(label, axis=1), num, dtype=z.dtype)
        return jnp.concatenate([z, label], axis=1)

    def within(self, z: Float[Array, "n e"]) -> Float[Array, "n e"]:
        """Do the same as `project`, but keep labels unchanged."""
        z, label = jnp.split(z, [len(self.low)], axis=1)
        if self.norm is not None:
            z = to_length(z, self.norm)
        else:
            z = jnp.clip(z, self.low[None], self.high[None])
            length = jnp.sqrt(jnp.sum(jnp.square(z), axis=1, keepdims=True) + 1e-12)
            z = z * jnp.minimum(1.0, self.radius / length)
        return jnp.concatenate([z, label], axis=1)


def prior_of(sample: Float[Array, "m e"], *, only_direction: bool, num_labels: int = 0) -> Prior:
    """Estimate a prior's range from a sample; a few thousand latents are enough.

    Args:
        sample: latents.
        only_direction: whether the generator depends only on their direction.
        num_labels: length of the one-hot label at the end of a latent.

    Example:
        >>> prior = prior_of(jnp.array([[-1.0, 0.0], [1.0, 2.0]]), only_direction=False)
        >>> prior.project(jnp.array([[3.0, 0.5]])).tolist()
        [[1.0, 0.5]]
    """
    sample = sample[:, : sample.shape[1] - num_labels]
    length = jnp.sqrt(jnp.sum(jnp.square(sample), axis=1))
    norm = float(jnp.mean(length)) if only_direction else None
    return Prior(jnp.min(sample, axis=0), jnp.max(sample, axis=0), jnp.max(length), norm)
