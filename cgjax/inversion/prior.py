"""Where the latents of a prior lie, as far as a sample of it tells: the search stays there."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cgjax.inversion.encoder import to_length


class Prior(NamedTuple):
    """The box and the ball that hold a sample of the prior.

    A generator is trained on these latents only; further out it makes anything, and a photograph
    that it cannot make would be followed there. What follows the d numbers of a latent is a label.

    Attributes:
        low: (d,) least value of each coordinate.
        high: (d,) greatest one.
        radius: greatest length of a latent.
        norm: the typical length, where only the direction matters to the generator; else None.
    """

    low: Float[Array, " d"]
    high: Float[Array, " d"]
    radius: Float[Array, ""]
    norm: float | None = None

    def project(self, z: Float[Array, "n e"]) -> Float[Array, "n e"]:
        """Return the nearest latents in the box, pulled straight back into the ball.

        Where only the direction matters, latents of the typical length. Of labels the likeliest
        stays.
        """
        z, label = jnp.split(self.within(z), [len(self.low)], axis=1)
        num = label.shape[1]
        if num:
            label = jax.nn.one_hot(jnp.argmax(label, axis=1), num, dtype=z.dtype)
        return jnp.concatenate([z, label], axis=1)

    def within(self, z: Float[Array, "n e"]) -> Float[Array, "n e"]:
        """Do the same, but leave labels as they are."""
        z, label = jnp.split(z, [len(self.low)], axis=1)
        if self.norm is not None:
            z = to_length(z, self.norm)
        else:
            z = jnp.clip(z, self.low[None], self.high[None])
            length = jnp.sqrt(jnp.sum(jnp.square(z), axis=1, keepdims=True) + 1e-12)
            z = z * jnp.minimum(1.0, self.radius / length)
        return jnp.concatenate([z, label], axis=1)


def prior_of(sample: Float[Array, "m e"], *, only_direction: bool, num_labels: int = 0) -> Prior:
    """Return what a sample of a prior tells; a few thousand latents will do.

    Args:
        sample: latents.
        only_direction: whether their length does not matter to the generator.
        num_labels: how many of a latent's numbers, the last ones, are a one-hot label.

    Example:
        >>> prior = prior_of(jnp.array([[-1.0, 0.0], [1.0, 2.0]]), only_direction=False)
        >>> prior.project(jnp.array([[3.0, 0.5]])).tolist()
        [[1.0, 0.5]]
    """
    sample = sample[:, : sample.shape[1] - num_labels]
    length = jnp.sqrt(jnp.sum(jnp.square(sample), axis=1))
    norm = float(jnp.mean(length)) if only_direction else None
    return Prior(jnp.min(sample, axis=0), jnp.max(sample, axis=0), jnp.max(length), norm)
