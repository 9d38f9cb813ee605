"""Optimising latents so that the generator reproduces given images.

For every image separately, from the encoder's guess,

    z* = argmin ||G(z) - x||_1 + lambda ||F(G(z)) - F(x)||^2     [Liu et al. 2020, section 4.4.1]

by Adam, with both terms as means over their entries and z kept within the range of the prior. The
second term compares features of the encoder, a stand-in for a perceptual distance that is reported
as `encoder_features`.
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
        encoder: the network whose features are compared.
        num_steps: steps of Adam.
        step_size: Adam's initial learning rate, in units of the latent; it falls to zero along half
            a cosine.
        feature_weight: lambda.
    """

    encoder: Encoder
    num_steps: int = 100
    step_size: float = 0.1
    feature_weight: float = 0.05

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Adam."""
        rate = optax.cosine_decay_schedule(self.step_size, self.num_steps)
        return optax.adam(rate, b1=0.9, b2=0.99)


class Target(NamedTuple):
    """The images to reproduce, what compares images with them, and where latents may lie.

    Attributes:
        images: (n, s, s, c) float32.
        features: (n, f) float32, the encoder's features of them.
        params: the encoder's parameters.
        prior: range of the latents.
    """

    images: Float[Array, "n s s c"]
    features: Float[Array, "n f"]
    params: Params
    prior: Prior


@functools.partial(jax.jit, static_argnames="search")
def features_of(
    params: Params, images: Float[Array, "n s s c"], *, search: Search
) -> Float[Array, "n f"]:
    """Return the encoder's features of images."""
    return search.encoder.features(params, images)


@functools.partial(jax.jit, static_argnames="search")
def distances(
    images: Float[Array, "n s s c"], target: Target, *, search: Search
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Return the mean absolute difference of pixels and the mean squared one of features.

    The first is a share of the pixels' range: black differs from white by 1.
    """
    pixels = jnp.mean(jnp.abs(images - target.images), axis=(1, 2, 3)) / 2
    features = jnp.square(search.encoder.features(target.params, images) - target.features)
    return pixels, jnp.mean(features, axis=1)


@functools.partial(jax.jit, static_argnames="search")
def losses(
    images: Float[Array, "n s s c"], target: Target, *, search: Search
) -> Float[Array, " n"]:
    """Return the loss of each image."""
    pixels, features = distances(images, target, search=search)
    return 2 * pixels + search.feature_weight * features


@functools.partial(jax.jit, static_argnames="search")
def _image_gradient(
    images: Float[Array, "n s s c"], target: Target, *, search: Search
) -> Float[Array, "n s s c"]:
    def total(x: Array) -> Array:
        return jnp.sum(losses(x, target, search=search))

    return jax.grad(total)(images)


@functools.partial(jax.jit, static_argnames="search")
def _update(
    z: Float[Array, "n d"],
    moments: Any,
    gradient: Float[Array, "n d"],
    prior: Prior,
    *,
    search: Search,
) -> tuple[Float[Array, "n d"], Any]:
    change, moments = change_of(search.optimizer, gradient, moments)
    return prior.project(z + change), moments


def _step(pull: Pull, z: Array, moments: Any, target: Target, search: Search) -> tuple[Array, Any]:
    x, back = pull(z)
    gradient = back(_image_gradient(x, target, search=search))
    return _update(z, moments, gradient, target.prior, search=search)


@functools.partial(jax.jit, static_argnames=("images", "search"))
def _descend(
    weights: Any,
    z: Float[Array, "n d"],
    target: Target,
    *,
    images: Any,
    search: Search,
) -> Float[Array, "n d"]:
    def body(_: Array, state: Any) -> Any:
        z, moments = state
        return _step(Traced(images, weights).pull, z, moments, target, search)

    start = (z, search.optimizer.init(z))
    return jax.lax.fori_loop(0, search.num_steps, body, start)[0]


def descend(
    generator: Traced | Pull,
    start: Float[Array, "n d"],
    target: Target,
    search: Search,
) -> Float[Array, "n d"]:
    """Optimise latents for images, each row separately.

    This is one compiled program if JAX differentiates the generator; otherwise a Python loop, in
    which the generator runs outside of JAX.

    Args:
        generator: a differentiable function, or its `Pull`.
        start: (n, d) float32.
        target: the n images.
        search: the settings.

    Returns:
        (n, d) float32 latents after the last step.
    """
    if isinstance(generator, Traced):
        return _descend(generator.weights, start, target, images=generator.images, search=search)
    z, moments = start, search.optimizer.init(start)
    for _ in range(search.num_steps):
        z, moments = _step(generator, z, moments, target, search)
    return z
