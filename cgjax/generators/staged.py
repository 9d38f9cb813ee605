"""`StagedNetwork`, the base class of every family: an ordered list of named layers.

Each layer is computed from the state that the previous one left. Features, resuming and images are
the same walk along that list, started or stopped at different places, so no layer after the
requested one is ever run.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from cgjax.errors import UserError
from cgjax.generators.conditions import Names, class_vectors, with_categories

State = dict[str, Any]
"""Passed from layer to layer: "h", the current activation, and whatever else a family needs."""

Inputs = dict[str, Any]
"""Resolved keywords (arrays): class vectors, truncation, noise, ..., as a family defines them."""


class Buffer(nnx.Variable[Any]):
    """An array of a network that was not trained: statistics, stored noise."""


Mean = float | tuple[Any, ...]
"""One number for a whole array, or nested tuples of its shape (variable metadata is hashed)."""


def parameter(*shape: int, std: float = 0.0, mean: Mean = 0.0) -> nnx.Param[Array]:
    """Declare a trained array; `build_network` draws it from N(mean, std^2)."""
    return nnx.Param(jnp.zeros(shape, jnp.float32), std=std, mean=mean)


def buffer(*shape: int, std: float = 0.0, mean: Mean = 0.0) -> Buffer:
    """Declare an array that was not trained; otherwise as `parameter`."""
    return Buffer(jnp.zeros(shape, jnp.float32), std=std, mean=mean)


class StagedNetwork(nnx.Module):
    """A generator as an ordered list of layers.

    A family implements `begin`, `stage` and `end`; the other methods have defaults that suit a
    network that is a plain function of its latent. A family may also have `latent_weights()`, the
    weights that first read the latent (SeFa).

    The constructor takes JSON-able keywords only (the `architecture` of `generator.json`), typed
    with the annotations of `architecture`, and makes its arrays with `parameter` and `buffer`.
    Attributes that are not arrays must be hashable: they are part of jit's cache key.

    Attributes:
        family: the family's name, as in `generator.json`.
        layers: ordered names of the representation points.
        latent_dim: length of a latent.
        image_size: height and width of an image.
        image_channels: 3, or 1.
        normalizes_latent: True where the network rescales its latent, so that only a latent's
            direction matters.
        resume_needs_latents: True where `resume` needs `latents` (or `w`) besides the
            activation.
        truncates_prior: True where `sample_latents` takes `truncation`.
        num_classes: length of a class vector; 0 where there are no classes.
        categories: lengths of the one-hot vectors at the end of a latent.
        edit_space: the space whose coordinates are the rows of `latent_weights`: "z", or the layer
            that holds the space, such as "w".
    """

    family: str
    layers: tuple[str, ...]
    latent_dim: int
    image_size: int
    image_channels: int
    normalizes_latent: bool = False
    resume_needs_latents: bool = False
    truncates_prior: bool = False
    num_classes: int = 0
    categories: tuple[int, ...] = ()
    edit_space: str = "z"

    def begin(self, z: Float[Array, "n d"], inputs: Inputs) -> State:
        """Return the state before the first layer."""
        raise NotImplementedError

    def stage(self, index: int, state: State) -> State:
        """Compute layer `index`; the new state's "h" is its activation."""
        raise NotImplementedError

    def end(self, state: State) -> Float[Array, "n s s c"]:
        """Turn the state after the last layer into an image."""
        raise NotImplementedError

    def enter(self, h: Float[Array, "n ..."], index: int, inputs: Inputs) -> State:
        """Return the state after layer `index`, whose activation is h.

        Raises:
            UserError: if the rest of the network needs more than h and the inputs.
        """
        return {"h": h}

    def resolve(self, num: int, *, condition: Any = None, **others: Any) -> Inputs:
        """Turn a call's keywords into arrays, on the host; by default only classes are known."""
        self.refuse(**others)
        return self.resolve_classes(num, condition)

    def resolve_classes(self, num: int, condition: Any, names: Names = ()) -> Inputs:
        """Return the class vectors of a condition, where the network has classes.

        Args:
            num: number of rows.
            condition: class id, name, list of either, or class vectors.
            names: the classes' names, where they have any.
        """
        if not self.num_classes:
            self.refuse(condition=condition)
            return {}
        return {"classes": class_vectors(condition, num, self.num_classes, names)}

    def resolve_resume(self, num: int, index: int, latents: Array | None, w: Any) -> Inputs:
        """Return the inputs that resuming needs besides those of `resolve`; by default none."""
        self.refuse(w=w)
        return {}

    def refuse(self, **keywords: Any) -> None:
        """Refuse every keyword that is not None.

        Raises:
            UserError: naming the first one given.
        """
        given = [name for name, value in keywords.items() if value is not None]
        if given:
            raise UserError(f"{self.family} takes no {given[0]!r}; remove {given[0]}=...")

    def takes(self, h: Array, index: int) -> bool:
        """Whether `enter` accepts this activation although `features` returns another shape."""
        return False

    def sample_latents(self, key: PRNGKeyArray, n: int, **keywords: Any) -> Float[Array, "n d"]:
        """Draw n latents, independent of the class.

        N(0, I) unless a family overrides this, and a random value of every category.
        """
        any_class = {"condition": 0} if self.num_classes else {}
        self.resolve(n, **(any_class | keywords))
        z = jax.random.normal(key, (n, self.latent_dim), jnp.float32)
        return with_categories(key, z, self.categories)


def features_(network: StagedNetwork, z: Array, inputs: Inputs, *, index: int) -> Array:
    """Walk from the latent to layer `index`; later layers are not traced at all."""
    state = network.begin(z, inputs)
    for i in range(index + 1):
        state = network.stage(i, state)
    return state["h"]


def resume_(network: StagedNetwork, h: Array, inputs: Inputs, *, index: int) -> Array:
    """Walk from the activation of layer `index` to the image."""
    state = network.enter(h, index, inputs)
    for i in range(index + 1, len(network.layers)):
        state = network.stage(i, state)
    return network.end(state)


def images_(network: StagedNetwork, z: Array, inputs: Inputs) -> Array:
    """Walk from the latent to the image."""
    state = network.begin(z, inputs)
    for i in range(len(network.layers)):
        state = network.stage(i, state)
    return network.end(state)
