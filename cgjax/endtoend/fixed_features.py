"""Features to cluster by once, before training [Sage et al. 2018].

* "rows": the rows themselves, the simplest baseline;
* "autoencoder": the codes of an autoencoder (Logo-GAN-AE). Its encoder is the experiment's
  discriminator with one output per latent coordinate, its decoder the experiment's generator, and
  it minimises

      mean ||x - decode(encode(x))||^2;

* "package.module:function": the user's own, such as the last layer of a classifier (Logo-GAN-RC) or
  of a network that predicts rotations (RotNet).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from cgjax.endtoend.data.on_disk import RowsOnDisk
from cgjax.endtoend.networks.base import Architecture
from cgjax.evaluation.own_features import features_of_rows
from cgjax.numerics.networks import Arrays, Network
from cgjax.numerics.optimisers import take_step
from cgjax.runtime.keys import named_key

ROWS, AUTOENCODER = "rows", "autoencoder"


@dataclasses.dataclass(frozen=True)
class FixedFeatures:
    """Which features, and how the autoencoder is built and trained.

    Attributes:
        name: as above.
        networks: the experiment's.
        prepare: see `DataSet.prepare`.
        steps: number of training steps of the autoencoder.
        batch: rows per step.
        learning_rate: Adam's.
        most: maximum number of rows that it trains on if they are on disk.
    """

    name: str
    networks: Architecture
    prepare: Callable[..., Array]
    steps: int = 2_000
    batch: int = 64
    learning_rate: float = 1e-3
    most: int = 20_000

    def fit(
        self, key: PRNGKeyArray, rows: Shaped[Array, "n ..."] | RowsOnDisk
    ) -> Callable[[Array], Array]:
        """Return the features as a function of stored rows.

        Args:
            key: of the autoencoder.
            rows: its training rows; of rows on disk it uses the first `most`.

        Raises:
            UserError: the user's function does not exist; when the result is called, the function
                did not return features.
            ForeignError: when the result is called: the user's function raised an exception.
        """
        if self.name == ROWS:
            return lambda rows: self.prepare(rows).reshape(len(rows), -1)
        if self.name == AUTOENCODER:
            in_memory = rows[: self.most] if isinstance(rows, RowsOnDisk) else rows
            arrays = _train(named_key(key, "autoencoder"), in_memory, features=self)
            return functools.partial(_codes, arrays, features=self)
        own = features_of_rows(self.name)
        return lambda rows: jnp.asarray(own(np.asarray(self.prepare(rows))))

    @functools.cached_property
    def autoencoder(self) -> Network:
        """Encoder and decoder as pure functions."""
        return Network(lambda rngs: Autoencoder(self.networks, rngs))


class Autoencoder(nnx.Module):
    """A discriminator from rows to codes, and a generator from codes to rows."""

    def __init__(self, networks: Architecture, rngs: nnx.Rngs):
        self.encode: Any = networks.discriminator(networks.latent_dim, 1, rngs)
        self.decode: Any = networks.generator(1, rngs)

    def __call__(self, x: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
        """Reconstruct rows, in train mode."""
        codes = self.encode(x, train=True)
        return self.decode(codes, jnp.zeros(len(x), jnp.int32), train=True)


@functools.partial(jax.jit, static_argnames="features")
def _train(key: PRNGKeyArray, rows: Array, *, features: FixedFeatures) -> Arrays:
    arrays = features.autoencoder.init(named_key(key, "init"))
    adam = optax.adam(features.learning_rate)

    def loss(params: Any, stats: Any, x: Array) -> tuple[Array, Any]:
        output, stats = features.autoencoder.apply(Arrays(params, stats), lambda net: net(x))
        return jnp.mean(jnp.square(output - x)), stats

    def step(state: tuple[Arrays, Any], key: Array) -> tuple[tuple[Arrays, Any], None]:
        (params, stats), moments = state
        chosen = jax.random.randint(key, (features.batch,), 0, len(rows), jnp.int32)
        x = features.prepare(rows[chosen])
        gradient, stats = jax.grad(loss, has_aux=True)(params, stats, x)
        params, moments = take_step(adam, gradient, moments, params)
        return (Arrays(params, stats), moments), None

    keys = jax.random.split(named_key(key, "steps"), features.steps)
    return jax.lax.scan(step, (arrays, adam.init(arrays.params)), keys)[0][0]


@functools.partial(jax.jit, static_argnames="features")
def _codes(arrays: Arrays, rows: Array, *, features: FixedFeatures) -> Array:
    x = features.prepare(rows)
    return features.autoencoder.apply(arrays, lambda net: net.encode(x, train=False))[0]
