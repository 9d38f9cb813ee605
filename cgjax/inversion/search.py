"""Optimising latents until the generator's image is the given one.

From the encoder's guess, for every image on its own,

    z* = argmin ||G(z) - x||_1 + lambda ||F(G(z)) - F(x)||^2     [Liu et al. 2020, section 4.4.1]

by Adam, with both terms as means over their entries and with z kept where the prior lies. The
second term compares features of the encoder: a stand-in for a perceptual distance, named
`encoder_features` wherever it is shown.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from cgjax.inversion.encoder import Encoder, Params
from cgjax.inversion.gradients import Pull, Traced
from cgjax.inversion.prior import Prior
from cgjax.numerics.optimisers import change_of


class Search(NamedTuple):
    """How latents are optimised; hashable.

    Attributes:
        num_steps: of Adam.
        step_size: Adam's rate at the start, in units of the latent; it falls to zero along half a
            cosine.
        feature_weight: lambda.
    """

    num_steps: int = 100
    step_size: float = 0.1
    feature_weight: float = 0.05

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Adam."""
        rate = optax.cosine_decay_schedule(self.step_size, self.num_steps)
        return optax.adam(rate, b1=0.9, b2=0.99)


class Aim(NamedTuple):
    """What images are compared with, and by what.

    Attributes:
        images: (n, s, s, c) float32.
        features: (n, f) float32, the encoder's of these.
        params: the encoder's.
    """

    images: Float[Array, "n s s c"]
    features: Float[Array, "n f"]
    params: Params


@functools.partial(jax.jit, static_argnames="encoder")
def aim_at(params: Params, images: Float[Array, "n s s c"], *, encoder: Encoder) -> Aim:
    """Return the aim for these images."""
    return Aim(images, encoder.features(params, images), params)


@functools.partial(jax.jit, static_argnames="encoder")
def distances(
    images: Float[Array, "n s s c"], aim: Aim, *, encoder: Encoder
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Return the mean absolute difference of the pixels, and the features' mean squared one.

    The first as a share of the pixels' range: 1 is black for white.
    """
    pixels = jnp.mean(jnp.abs(images - aim.images), axis=(1, 2, 3)) / 2
    features = jnp.square(encoder.features(aim.params, images) - aim.features)
    return pixels, jnp.mean(features, axis=1)


@functools.partial(jax.jit, static_argnames=("encoder", "weight"))
def losses(
    images: Float[Array, "n s s c"], aim: Aim, *, encoder: Encoder, weight: float
) -> Float[Array, " n"]:
    """Return what is minimised, for each image."""
    pixels, features = distances(images, aim, encoder=encoder)
    return 2 * pixels + weight * features


@functools.partial(jax.jit, static_argnames=("encoder", "weight"))
def _slope(
    images: Float[Array, "n s s c"], aim: Aim, *, encoder: Encoder, weight: float
) -> Float[Array, "n s s c"]:
    def total(x: Array) -> Array:
        return jnp.sum(losses(x, aim, encoder=encoder, weight=weight))

    return jax.grad(total)(images)


@functools.partial(jax.jit, static_argnames="search")
def _move(
    z: Float[Array, "n d"],
    moments: Any,
    gradient: Float[Array, "n d"],
    prior: Prior,
    search: Search,
) -> tuple[Float[Array, "n d"], Any]:
    change, moments = change_of(search.optimizer, gradient, moments)
    return prior.project(z + change), moments


def _step(
    pull: Pull, z: Array, moments: Any, aim: Aim, prior: Prior, encoder: Encoder, search: Search
) -> tuple[Array, Any]:
    x, back = pull(z)
    gradient = back(_slope(x, aim, encoder=encoder, weight=search.feature_weight))
    return _move(z, moments, gradient, prior, search)


@functools.partial(jax.jit, static_argnames=("images", "encoder", "search"))
def _descend(
    weights: Any,
    z: Float[Array, "n d"],
    aim: Aim,
    prior: Prior,
    *,
    images: Any,
    encoder: Encoder,
    search: Search,
) -> Float[Array, "n d"]:
    def pull(z: Array) -> Any:
        x, back = jax.vjp(lambda rows: images(weights, rows), z)
        return x, lambda slope: back(slope)[0]

    def body(_: Array, state: Any) -> Any:
        z, moments = state
        return _step(pull, z, moments, aim, prior, encoder, search)

    start = (z, search.optimizer.init(z))
    return jax.lax.fori_loop(0, search.num_steps, body, start)[0]


def descend(
    generator: Traced | Pull,
    start: Float[Array, "n d"],
    aim: Aim,
    prior: Prior,
    encoder: Encoder,
    search: Search,
) -> Float[Array, "n d"]:
    """Optimise latents for images, each row on its own.

    One compiled program where JAX differentiates the generator; otherwise a step at a time, the
    generator's part of it outside of JAX.

    Args:
        generator: the function, or its `Pull`.
        start: (n, d) float32.
        aim: for n images.
        prior: where latents may lie.
        encoder: that the aim's parameters belong to.
        search: the settings.

    Returns:
        (n, d) float32 latents after the last step.
    """
    if isinstance(generator, Traced):
        options = {"images": generator.images, "encoder": encoder, "search": search}
        return _descend(generator.weights, start, aim, prior, **options)
    z, moments = start, search.optimizer.init(start)
    for _ in range(search.num_steps):
        z, moments = _step(generator, z, moments, aim, prior, encoder, search)
    return z
