"""Images in, latents out: the encoder's guess, the search from it, and further starts."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.inversion.encoder import Encoder, Params
from cgjax.inversion.gradients import Pull, Traced, own_pull, traced
from cgjax.inversion.prior import Prior
from cgjax.inversion.search import Aim, Search, aim_at, descend, distances, losses


class Found(NamedTuple):
    """What inverting images gave.

    Attributes:
        latents: (n, d) float32.
        errors: (n,) float32, the mean absolute difference between an image and its reconstruction,
            as a share of the pixels' range.
        features: (n,) float32, `encoder_features`: the mean squared difference of the encoder's
            features of the two.
        guesses: (n, d) float32, what the encoder alone said, labels by their probabilities.
    """

    latents: Float[np.ndarray, "n d"]
    errors: Float[np.ndarray, " n"]
    features: Float[np.ndarray, " n"]
    guesses: Float[np.ndarray, "n d"]


class Inverter:
    """A generator, an encoder of its images, and how the encoder's guesses are improved.

    Attributes:
        encoder: the network's shape.
        search: how latents are optimised.
        function: the generator as it is differentiated; None for one that cannot be, whose latents
            are the encoder's guesses.
    """

    def __init__(
        self,
        generator: ConditionedGenerator,
        encoder: Encoder,
        params: Params,
        prior: Prior,
        search: Search,
    ):
        """Bind; two latents are run to see whether the generator can be differentiated."""
        self.encoder, self.search = encoder, search
        self.function: Traced | Pull | None = traced(generator) or own_pull(generator)
        self._generator, self._params, self._prior = generator, params, prior

    def guess(self, images: Float[np.ndarray, "n s s c"]) -> Float[Array, "n d"]:
        """Return the encoder's guesses, moved to where the prior lies."""
        return self._prior.within(_guess(self._params, jnp.asarray(images), encoder=self.encoder))

    def invert(self, images: Float[np.ndarray, "n s s c"]) -> Found:
        """Find the latents of one batch of images.

        Args:
            images: (n, s, s, c) float32 in [-1, 1]. Programs are compiled for powers of two: fewer
                rows are padded.

        Returns:
            The latents, from the encoder's guesses.
        """
        x, num = _padded(images)
        aim = aim_at(self._params, x, encoder=self.encoder)
        guesses = self.guess(np.asarray(x))
        start = self._prior.project(guesses)
        z = self._better(start, self._descend(start, aim), aim)
        pixels, features = distances(self._images(z), aim, encoder=self.encoder)
        return Found(*(np.array(part)[:num] for part in (z, pixels, features, guesses)))

    def try_again(
        self, images: Float[np.ndarray, "n s s c"], found: Found, keys: Sequence[PRNGKeyArray]
    ) -> Found:
        """Search from other latents, drawn from the prior, and keep what is better.

        Args:
            images: as `invert` was given them.
            found: what is known.
            keys: of each image's start, which does not depend on the images beside it.
        """
        if self.function is None:
            return found
        x, num = _padded(images)
        aim = aim_at(self._params, x, encoder=self.encoder)
        drawn = np.concatenate([self._generator.sample_latents(key, 1) for key in keys])
        starts, known = (
            jnp.asarray(np.resize(z, (len(x), z.shape[1]))) for z in (drawn, found.latents)
        )
        z = self._better(known, self._descend(self._prior.project(starts), aim), aim)
        pixels, features = distances(self._images(z), aim, encoder=self.encoder)
        better, errors, distance = (np.array(part)[:num] for part in (z, pixels, features))
        return Found(better, errors, distance, found.guesses)

    def _descend(self, start: Array, aim: Aim) -> Array:
        if self.function is None:
            return start
        return descend(self.function, start, aim, self._prior, self.encoder, self.search)

    def _better(self, old: Array, new: Array, aim: Aim) -> Array:
        """Return of each row the latents with the lesser loss; those that are no numbers lose."""
        if self.function is None:
            return old
        weight = self.search.feature_weight
        before, after = (
            losses(self._images(z), aim, encoder=self.encoder, weight=weight) for z in (old, new)
        )
        return jnp.where((after < before)[:, None], new, old)

    def _images(self, z: Array) -> Array:
        return jnp.asarray(self._generator.images(np.asarray(z)))


@functools.partial(jax.jit, static_argnames="encoder")
def _guess(
    params: Params, images: Float[Array, "n s s c"], *, encoder: Encoder
) -> Float[Array, "n d"]:
    return encoder.latents(params, images)


def _padded(images: Float[np.ndarray, "n s s c"]) -> tuple[Array, int]:
    """Return images repeated up to a power of two, and how many there are."""
    num = len(images)
    return jnp.asarray(np.resize(images, (1 << (num - 1).bit_length(), *images.shape[1:]))), num
