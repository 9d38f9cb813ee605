"""How gradients get from images to latents: through JAX, or the generator's own `pull_back`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cgjax.generators.base import PretrainedGenerator
from cgjax.generators.conditioned import ConditionedGenerator

Pull = Callable[[Array], tuple[Array, Callable[[Array], Array]]]
"""Latents -> their images, and a function from the images' gradient to the latents'."""


@dataclasses.dataclass(frozen=True)
class _Images:
    """Images as a function of a network's weights; equal for equal networks, so compiled once.

    Attributes:
        gen: a generator with that network; its own weights are not used.
        structure: the network's structure.
        keywords: further arguments of `images`, as pairs.
    """

    gen: PretrainedGenerator = dataclasses.field(compare=False)
    structure: Hashable
    keywords: tuple[tuple[str, Any], ...]

    def __call__(self, weights: list[Array], z: Float[Array, "n d"]) -> Float[Array, "n s s c"]:
        return self.gen.with_weights(weights).images(z, **dict(self.keywords))


class Traced(NamedTuple):
    """A generator that JAX can differentiate.

    Attributes:
        images: (weights, z) -> images; a pure function.
        weights: its first argument, so that they are not constants of a compiled program.
    """

    images: Callable[[Any, Array], Array]
    weights: Any

    def pull(self, z: Array) -> tuple[Array, Callable[[Array], Array]]:
        """Return the images, and a function from their gradient to the latents'; see `Pull`."""
        x, back = jax.vjp(functools.partial(self.images, self.weights), z)
        return x, lambda gradient: back(gradient)[0]


def traced(generator: ConditionedGenerator) -> Traced | None:
    """Return a generator as a function that JAX differentiates; None if JAX cannot."""
    gen, keywords = generator.gen, generator.keywords

    if isinstance(gen, PretrainedGenerator):
        # On one device, like the encoder, even if forward passes are split over several.
        weights = [jax.device_put(weight, jax.local_devices()[0]) for weight in gen.weights]
        return Traced(_Images(gen, gen.structure, tuple(sorted(keywords.items()))), weights)

    own = Traced(lambda weights, z: gen.images(z, **keywords), ())
    return own if _has_gradient(own.pull, generator) else None


def own_pull(generator: ConditionedGenerator) -> Pull | None:
    """Return the generator's own `pull_back(z)`, such as `cgjax.from_torch` makes, or None."""
    gen, keywords = generator.gen, generator.keywords
    if not callable(getattr(gen, "pull_back", None)):
        return None

    def pull(z: Array) -> tuple[Array, Callable[[Array], Array]]:
        x, back = gen.pull_back(np.asarray(z), **keywords)
        return jnp.asarray(x, jnp.float32), lambda gradient: jnp.asarray(
            back(np.asarray(gradient)), jnp.float32
        )

    return pull if _has_gradient(pull, generator) else None


def _has_gradient(pull: Pull, generator: ConditionedGenerator) -> bool:
    """Whether the gradient from the images of two latents is finite and not all zero."""
    z = generator.sample_latents(jax.random.key(0), 2)
    try:
        x, back = pull(z)
        gradient = np.asarray(back(jnp.ones_like(x)))
    except Exception:  # foreign code: any failure means that it cannot be differentiated
        return False
    return bool(gradient.shape == z.shape and np.isfinite(gradient).all() and gradient.any())
