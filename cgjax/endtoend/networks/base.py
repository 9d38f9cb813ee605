"""The interface of networks."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from flax import nnx
from jaxtyping import Array, Float, Int


@runtime_checkable
class Generator(Protocol):
    """Maps latents and labels to rows."""

    def __call__(
        self, z: Float[Array, "n d"], labels: Int[Array, " n"], *, train: bool
    ) -> Float[Array, "n ..."]:
        """Generate; in train mode batch norms use the batch's moments and move the running ones."""


@runtime_checkable
class Discriminator(Protocol):
    """Maps rows to features, and features to one or more logits."""

    def features(self, x: Float[Array, "n ..."], *, train: bool) -> Float[Array, "n f"]:
        """Return the features to cluster: the input of the last layer."""

    def __call__(self, x: Float[Array, "n ..."], *, train: bool) -> Float[Array, "n outputs"]:
        """Return all logits."""


@runtime_checkable
class Architecture(Protocol):
    """The two networks of an experiment; hashable, so that it can be a static argument of jit.

    Attributes:
        latent_dim: length of z.
        is_rowwise: whether the discriminator treats every row independently, so that real and
            generated rows can go through it in one pass; false with batch norms.
    """

    @property
    def latent_dim(self) -> int: ...  # noqa: D102

    @property
    def is_rowwise(self) -> bool: ...  # noqa: D102

    def generator(self, num_labels: int, rngs: nnx.Rngs) -> Generator:
        """Return a generator, unconditional if there is only one label."""

    def generators(self, num_labels: int, rngs: nnx.Rngs) -> Generator:
        """Return one generator per label, sharing all but their first layer."""

    def discriminator(self, num_outputs: int, pack: int, rngs: nnx.Rngs) -> Discriminator:
        """Return a discriminator that judges `pack` rows together."""
