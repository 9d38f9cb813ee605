"""Networks whose first layer is dense, and whose classes have a say in that layer only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from cgjax.errors import UserError
from cgjax.generators.conditions import class_vectors
from cgjax.generators.staged import Inputs, StagedNetwork, State, parameter


class DenseFirst(StagedNetwork):
    """What such families share: the first maps of a latent and, where there is one, its class.

    A class vector is joined to the latent, or picks the first layer.
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
            per_class: whether each class has a first layer of its own, with a bias; its rows are
                those of the latent and then the bias, class after class.
            bias: whether all share a bias, of every place and channel.

        Raises:
            UserError: names or first layers of classes that are not there.
        """
        self.latent_dim = latent_dim
        if class_names and len(class_names) != num_classes:
            raise UserError(f"{len(class_names)} class_names for num_classes={num_classes}")
        if per_class and not num_classes:
            raise UserError("per_class is true, and num_classes is 0")
        self.num_classes, self.class_names = num_classes, tuple(class_names)
        self.per_class = per_class
        inputs = num_classes * (latent_dim + 1) if self.per_class else latent_dim + num_classes
        self.first = parameter(inputs, *maps, std=0.02)
        self.first_bias = parameter(*maps) if bias else None

    def resolve(self, num: int, *, condition: Any = None, **others: Any) -> Inputs:
        """Turn a condition into class vectors, where the network has classes."""
        self.refuse(**others)
        if not self.num_classes:
            self.refuse(condition=condition)
            return {}
        names = tuple((name,) for name in self.class_names)
        return {"classes": class_vectors(condition, num, self.num_classes, names)}

    def begin(self, z: Float[Array, "n d"], inputs: Inputs) -> State:
        """Start from the latent as it is: such networks do not normalise it."""
        if self.per_class:
            # Of a one-hot class vector, (z, 1) in the place of its class and zeros elsewhere.
            classes, ones = inputs["classes"], jnp.ones((len(z), 1), z.dtype)
            outer = classes[:, :, None] * jnp.concatenate([z, ones], axis=1)[:, None, :]
            return {"h": outer.reshape(len(z), -1)}
        return {"h": jnp.concatenate([z, inputs["classes"]], axis=1) if self.num_classes else z}

    def first_maps(self, state: State) -> Float[Array, "n h w c"]:
        """Return what the first layer makes of `begin`'s state."""
        h = jnp.einsum("nd,dyxc->nyxc", state["h"], self.first[...])
        return h if self.first_bias is None else h + self.first_bias[...][None]

    def latent_weights(self) -> Float[Array, "d m"]:
        """Return the weight that first touches the latent: a row for each coordinate (SeFa).

        Of first layers for each class all of them, side by side.
        """
        first = self.first[...]
        if self.per_class:
            own = first.reshape(self.num_classes, self.latent_dim + 1, -1)
            first = own[:, : self.latent_dim].transpose(1, 0, 2)
        return first[: self.latent_dim].reshape(self.latent_dim, -1)
