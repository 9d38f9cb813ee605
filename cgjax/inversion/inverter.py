"""Images in, latents out: the encoder's guess, a search from it, and from further starts."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.inversion.encoder import Params
from cgjax.inversion.gradients import Pull, Traced, own_pull, traced
from cgjax.inversion.prior import Prior
from cgjax.inversion.search import Search, Target, descend, distances, features_of, losses


class Inverted(NamedTuple):
    """The result of inverting images.

    Attributes:
        latents: (n, d) float32.
        errors: (n,) float32, the mean absolute difference between an image and its reconstruction,
            as a share of the pixels' range.
        features: (n,) float32, `encoder_features`: the mean squared difference between the
            encoder's features of the two.
        guesses: (n, d) float32, the encoder's guesses alone, with probabilities as labels.
    """

    latents: Float[np.ndarray, "n d"]
    errors: Float[np.ndarray, " n"]
    features: Float[np.ndarray, " n"]
    guesses: Float[np.ndarray, "n d"]


class Inverter:
    """A generator, an encoder of its images, and a search that improves the encoder's guesses.

    Attributes:
        search: how latents are optimised, and the encoder's shape.
        function: the generator as a differentiable function; None if it has no gradient: the
            latents are then the encoder's guesses.
    """

    def __init__(
        self,
        generator: ConditionedGenerator,
        search: Search,
        params: Params,
        prior: Prior,
    ):
        """Prepare; generates two images to see whether the generator can be differentiated."""
        self.search = search
        self.function: Traced | Pull | None = traced(generator) or own_pull(generator)
        self._generator, self._params, self._prior = generator, params, prior

    def guess(self, images: Float[np.ndarray, "n s s c"]) -> Float[Array, "n d"]:
        """Return the encoder's guesses, moved into the range of the prior."""
        return self._prior.within(_guess(self._params, jnp.asarray(images), search=self.search))

    def invert(self, images: Float[np.ndarray, "n s s c"]) -> Inverted:
        """Find the latents of one batch of images.

        Args:
            images: (n, s, s, c) float32 in [-1, 1]. Batches are padded to a power of two, so that
                few programs are compiled.

        Returns:
            The latents found from the encoder's guesses.
        """
        x, num = _padded(images)
        target = self._target(x)
        guesses = self.guess(np.asarray(x))
        start = self._prior.project(guesses)
        z, errors, features = self._search(start, start, target)
        return Inverted(*(np.array(part)[:num] for part in (z, errors, features, guesses)))

    def try_again(
        self, images: Float[np.ndarray, "n s s c"], found: Inverted, keys: Sequence[PRNGKeyArray]
    ) -> Inverted:
        """Search again from latents drawn from the prior, and keep the better ones.

        Args:
            images: the images that were inverted.
            found: the result so far.
            keys: a key for each image's start, so that it does not depend on the other images.
        """
        if self.function is None:
            return found
        x, num = _padded(images)
        target = self._target(x)
        drawn = np.concatenate([self._generator.sample_latents(key, 1) for key in keys])
        starts, known = (
            jnp.asarray(np.resize(z, (len(x), z.shape[1]))) for z in (drawn, found.latents)
        )
        parts = self._search(known, self._prior.project(starts), target)
        latents, errors, features = (np.array(part)[:num] for part in parts)
        return Inverted(latents, errors, features, found.guesses)

    def _search(self, known: Array, start: Array, target: Target) -> tuple[Array, Array, Array]:
        """Return `known` or the latents found from `start`, whichever is better, and distances.

        For each row those with the smaller loss are kept; NaN counts as larger.
        """
        z = known
        if self.function is not None:
            new = descend(self.function, start, target, self.search)
            before, after = (
                losses(self._images(rows), target, search=self.search) for rows in (known, new)
            )
            z = jnp.where((after < before)[:, None], new, known)
        return z, *distances(self._images(z), target, search=self.search)

    def _target(self, x: Array) -> Target:
        """Return the target for these images."""
        features = features_of(self._params, x, search=self.search)
        return Target(x, features, self._params, self._prior)

    def _images(self, z: Array) -> Array:
        return jnp.asarray(self._generator.images(np.asarray(z)))


@functools.partial(jax.jit, static_argnames="search")
def _guess(
    params: Params, images: Float[Array, "n s s c"], *, search: Search
) -> Float[Array, "n d"]:
    return search.encoder.latents(params, images)


def _padded(images: Float[np.ndarray, "n s s c"]) -> tuple[Array, int]:
    """Return images repeated up to a power of two, and their true number."""
    num = len(images)
    return jnp.asarray(np.resize(images, (1 << (num - 1).bit_length(), *images.shape[1:]))), num
