"""Networks whose first layer is dense, and where the class affects that layer only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from cgjax.errors import UserError
from cgjax.generators.staged import Inputs, StagedNetwork, State, parameter


class DenseFirst(StagedNetwork):
    """The first maps, as a function of the latent and, where there are classes, the class.

    A class vector is appended to the latent, or selects the class's own first layer.
    """

    def __init__(
        self,
        latent_dim: int,
        maps: tuple[int, int, int],
        num_classes: int,
        class_names: Sequence[str],
        *,
        per_class: bool,
        bias: bool,
    ):
        """Declare the first layer.

        Args:
            latent_dim: length of a latent, without a class vector.
            maps: height, width and channels of the first maps.
            num_classes: length of a class vector; 0 for none.
            class_names: the classes' names, where they have any.
            per_class: whether each class has its own first layer, with a bias. The rows of the
                weight are then, class after class, those of the latent and one for the bias.
            bias: whether there is a shared bias, one number per pixel and channel.

        Raises:
            UserError: class names or `per_class` without as many classes.
        """
        self.latent_dim = latent_dim
        if class_names and len(class_names) != num_classes:
            raise UserError(f"{len(class_names)} class_names for num_classes={num_classes}")
        if per_class and not num_classes:
            raise UserError("per_class is true but num_classes is 0")
        self.num_classes, self.class_names = num_classes, tuple(class_names)
        self.per_class = per_class
        inputs = num_classes * (latent_dim + 1) if self.per_class else latent_dim + num_classes
        self.first = parameter(inputs, *maps, std=0.02)
        self.first_bias = parameter(*maps) if bias else None

    def resolve(self, num: int, *, condition: Any = None, **others: Any) -> Inputs:
        """Convert the condition to class vectors, where the network has classes."""
        self.refuse(**others)
        return self.resolve_classes(num, condition, [(name,) for name in self.class_names])

    def begin(self, z: Float[Array, "n d"], inputs: Inputs) -> State:
        """Return the first layer's input; these networks do not normalise the latent."""
        if self.per_class:
            # For a one-hot class vector: (z, 1) at the position of its class, zeros elsewhere.
            classes, ones = inputs["classes"], jnp.ones((len(z), 1), z.dtype)
            outer = classes[:, :, None] * jnp.concatenate([z, ones], axis=1)[:, None, :]
            return {"h": outer.reshape(len(z), -1)}
        return {"h": jnp.concatenate([z, inputs["classes"]], axis=1) if self.num_classes else z}

    def first_maps(self, state: State) -> Float[Array, "n h w c"]:
        """Apply the first layer to `begin`'s state."""
        h = jnp.einsum("nd,dyxc->nyxc", state["h"], self.first[...])
        return h if self.first_bias is None else h + self.first_bias[...][None]

    def latent_weights(self) -> Float[Array, "d m"]:
        """Return the weights that first read the latent, one row per coordinate (SeFa).

        Where each class has its own first layer, these are concatenated.
        """
        first = self.first[...]
        if self.per_class:
            by_class = first.reshape(self.num_classes, self.latent_dim + 1, -1)
            first = by_class[:, : self.latent_dim].transpose(1, 0, 2)
        return first[: self.latent_dim].reshape(self.latent_dim, -1)
