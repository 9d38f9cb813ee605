"""What a method decides, and the plain GAN, which keeps every default.

All methods share one training loop. A method chooses the networks, each row's label, what the
discriminator sees, and the losses. The defaults are the non-saturating losses of
[Goodfellow et al. 2014] on the label's own logit:

    L_D = mean softplus(-D(x, y)) + mean softplus(D(G(z, y), y))
    L_G = mean softplus(-D(G(z, y), y))

Symbols: x real rows, y labels, z latents, b batch size, k number of labels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from cgjax.clustering.assignment import assign
from cgjax.endtoend.data import Points
from cgjax.endtoend.data.on_disk import RowsOnDisk
from cgjax.endtoend.networks.base import Architecture, Discriminator, Generator
from cgjax.endtoend.state import Partition

# Rows whose features are in memory at a time while all rows are labelled.
BLOCK = 10_000

Features = Callable[[Array], Array]
"""(n, ...) stored rows to their (n, f) features."""


@dataclasses.dataclass(frozen=True)
class Method:
    """What all methods share.

    Attributes:
        num_labels: k; 1 for no conditioning.
        pack: number of rows that the discriminator judges together [Lin et al. 2018].
        fixed_features: name of the features that `start` gets, see `FixedFeatures`; None for D's.
    """

    num_labels: int = 1
    pack: int = 1
    fixed_features: str | None = None

    def generator(self, networks: Architecture, rngs: nnx.Rngs) -> Generator:
        """Build the generator."""
        return networks.generator(self.num_labels, rngs)

    def discriminator(self, networks: Architecture, rngs: nnx.Rngs) -> Discriminator:
        """Build the discriminator."""
        return networks.discriminator(self.num_labels, self.pack, rngs)

    @property
    def batches(self) -> int:
        """Number of batches of real rows per iteration."""
        return 1

    def own_step(self) -> Callable[..., Any] | None:
        """Return the method's own iteration, called like `step.step`; None to use that one."""
        return None

    def start(self, key: PRNGKeyArray, points: Points, features: Features) -> Partition:
        """Return the labels before the first iteration."""
        return Partition.unclustered(jnp.zeros(len(points.rows), jnp.int32))

    def next_reclustering(self, after: int) -> int | None:
        """Return the first iteration beyond `after` that `recluster` is called before, if any.

        The iterations between two calls are one compiled program.
        """
        return None

    def recluster(
        self, key: PRNGKeyArray, points: Points, features: Features, partition: Partition
    ) -> Partition:
        """Return new labels; called before the iterations that `next_reclustering` returns."""
        return partition

    def relabel(self, points: Points, features: Features, partition: Partition) -> Partition:
        """Return the partition to score, with the rows' current labels."""
        return partition

    def label(
        self,
        key: PRNGKeyArray,
        partition: Partition,
        rows: Int[Array, " b"],
        features: Callable[[], Array],
    ) -> tuple[Int[Array, " b"], Partition]:
        """Return the labels of a batch; compiled.

        Args:
            key: of this iteration.
            partition: before the batch.
            rows: indices of the batch's training rows.
            features: returns their (b, f) features.

        Returns:
            The labels, and the partition after the batch.
        """
        return partition.labels[rows], partition

    def codes(
        self, key: PRNGKeyArray, labels: Int[Array, " b"], latent_dim: int
    ) -> tuple[Float[Array, "m d"], Int[Array, " m"]]:
        """Draw latents, and return them with the label that each is generated with; compiled."""
        return self.latents(key, len(labels), latent_dim), labels

    def latents(self, key: PRNGKeyArray, num: int, latent_dim: int) -> Float[Array, "num d"]:
        """Draw latents."""
        return jax.random.normal(key, (num, latent_dim), jnp.float32)

    def score(self, logits: Float[Array, "p k"], labels: Int[Array, " p"]) -> Float[Array, " p"]:
        """Return the logit of "real" for each pack."""
        return jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]

    def discriminator_loss(
        self,
        real: Float[Array, "p k"],
        real_labels: Int[Array, " p"],
        fake: Float[Array, "q k"],
        fake_labels: Int[Array, " q"],
    ) -> Float[Array, ""]:
        """Return L_D from the logits of real and generated packs."""
        loss = jnp.mean(jax.nn.softplus(-self.score(real, real_labels)))
        return loss + jnp.mean(jax.nn.softplus(self.score(fake, fake_labels)))

    def generator_loss(
        self, fake: Float[Array, "q k"], fake_labels: Int[Array, " q"]
    ) -> Float[Array, ""]:
        """Return L_G from the logits of generated packs."""
        return jnp.mean(jax.nn.softplus(-self.score(fake, fake_labels)))

    def sample_labels(
        self, key: PRNGKeyArray, partition: Partition, num: int
    ) -> Int[Array, " num"]:
        """Draw labels to generate with: the labels of randomly drawn training rows."""
        rows = jax.random.randint(key, (num,), 0, len(partition.labels), jnp.int32)
        return partition.labels[rows]

    def final_partition(
        self,
        key: PRNGKeyArray,
        points: Points,
        encode: Callable[[Array | RowsOnDisk], Array],
        partition: Partition,
    ) -> Partition:
        """Return the training rows' clusters after training; by default those used in training.

        Args:
            key: typed.
            points: the training rows.
            encode: (n, ...) rows to (n, f) codes of the generator's encoder, where it has one.
            partition: from the training state.
        """
        return partition


@dataclasses.dataclass(frozen=True)
class Gan(Method):
    """The plain GAN; PacGAN with `pack` above 1 [Lin et al. 2018].

    As in the code of [Liu et al. 2020], a pack is consecutive rows of the batch, so a batch of b
    rows has b // pack packs; rows that do not fill a pack are left out.
    """


@dataclasses.dataclass(frozen=True)
class UniformLabels(Method):
    """A method that generates with labels drawn uniformly, not with those of training rows."""

    def sample_labels(
        self, key: PRNGKeyArray, partition: Partition, num: int
    ) -> Int[Array, " num"]:
        """Draw labels uniformly."""
        return uniform_labels(key, num, self.num_labels)


def uniform_labels(key: PRNGKeyArray, num: int, num_labels: int) -> Int[Array, " num"]:
    """Draw labels uniformly."""
    return jax.random.randint(key, (num,), 0, num_labels, jnp.int32)


def packed(rows: Float[Array, "n ..."], pack: int) -> Array:
    """Join consecutive rows along the last axis; rows that do not fill a pack are left out.

    >>> packed(jnp.arange(10.0).reshape(5, 2), 2).tolist()
    [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]]
    """
    if pack == 1:
        return rows
    num, (*space, channels) = len(rows) // pack, rows.shape[1:]
    groups = jnp.moveaxis(rows[: num * pack].reshape(num, pack, *space, channels), 1, -2)
    return groups.reshape(num, *space, pack * channels)


def of_packs(labels: Int[Array, " n"], pack: int) -> Int[Array, " p"]:
    """Return the label of the first row of each pack."""
    return labels[: len(labels) // pack * pack : pack]


def label_all(
    rows: Shaped[Array, "n ..."] | RowsOnDisk, features: Features, centroids: Float[Array, "k f"]
) -> Partition:
    """Label every training row by its nearest centroid, block by block."""
    blocks = [
        np.asarray(assign(features(rows[i : i + BLOCK]), centroids)[0])
        for i in range(0, len(rows), BLOCK)
    ]
    return Partition.clustered(np.concatenate(blocks), centroids)
