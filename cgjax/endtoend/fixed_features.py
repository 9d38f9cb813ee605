"""Features for clusters that are found once, before training [Sage et al. 2018].

* "rows": the rows themselves, the floor;
* "autoencoder": codes of an autoencoder (Logo-GAN-AE): its encoder is a discriminator of the
  experiment with as many outputs as a latent has numbers, its decoder a generator of it,

      mean ||x - decode(encode(x))||^2 -> min;

* "package.module:function": the user's own, such as a classifier's last layer (Logo-GAN-RC), or
  that of a network which tells rotations apart (RotNet).
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
from cgjax.endtoend.networks.base import Architecture, Arrays, Network
from cgjax.errors import UserError, foreign_code
from cgjax.numerics.optimisers import change_of
from cgjax.runtime.imports import load_attribute
from cgjax.runtime.keys import named_key

ROWS, AUTOENCODER = "rows", "autoencoder"


@dataclasses.dataclass(frozen=True)
class FixedFeatures:
    """Which features, and what the autoencoder is built of.

    Attributes:
        name: as above.
        networks: the experiment's.
        prepare: see `DataSet.prepare`.
        steps: of the autoencoder.
        batch: rows of a step.
        learning_rate: Adam's.
        most: rows on disk that it learns from.
    """

    name: str
    networks: Architecture
    prepare: Callable[..., Array]
    steps: int = 2_000
    batch: int = 64
    learning_rate: float = 1e-3
    most: int = 20_000

    def learnt(
        self, key: PRNGKeyArray, rows: Shaped[Array, "n ..."] | RowsOnDisk
    ) -> Callable[[Array], Array]:
        """Return the features as a function of rows as they are kept.

        Args:
            key: of the autoencoder.
            rows: what it learns from; of those on disk the first `most`.

        Raises:
            UserError: a function that is not there; when it is called, one that returns something
                else than features.
            ForeignError: when it is called: the user's function raised an exception.
        """
        if self.name == ROWS:
            return lambda rows: self.prepare(rows).reshape(len(rows), -1)
        if self.name == AUTOENCODER:
            held = rows[: self.most] if isinstance(rows, RowsOnDisk) else rows
            arrays = _train(named_key(key, "autoencoder"), held, features=self)
            return functools.partial(_codes, arrays, features=self)
        function = load_attribute(self.name, "features")
        return lambda rows: _own(self.name, function, np.asarray(self.prepare(rows)))

    @functools.cached_property
    def autoencoder(self) -> Network:
        """Encoder and decoder as pure functions."""
        return Network(lambda rngs: Autoencoder(self.networks, rngs))


class Autoencoder(nnx.Module):
    """A discriminator to codes, and a generator back to rows."""

    def __init__(self, networks: Architecture, rngs: nnx.Rngs):
        self.encode: Any = networks.discriminator(networks.latent_dim, 1, rngs)
        self.decode: Any = networks.generator(1, rngs)

    def __call__(self, x: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
        """Return rows as they come back, in train mode."""
        codes = self.encode(x, train=True)
        return self.decode(codes, jnp.zeros(len(x), jnp.int32), train=True)


@functools.partial(jax.jit, static_argnames="features")
def _train(key: PRNGKeyArray, rows: Array, *, features: FixedFeatures) -> Arrays:
    arrays = features.autoencoder.init(named_key(key, "init"))
    adam = optax.adam(features.learning_rate)

    def loss(params: Any, stats: Any, x: Array) -> tuple[Array, Any]:
        back, stats = features.autoencoder.apply(Arrays(params, stats), lambda net: net(x))
        return jnp.mean(jnp.square(back - x)), stats

    def step(state: tuple[Arrays, Any], key: Array) -> tuple[tuple[Arrays, Any], None]:
        (params, stats), moments = state
        chosen = jax.random.randint(key, (features.batch,), 0, len(rows), jnp.int32)
        slope, stats = jax.grad(loss, has_aux=True)(params, stats, features.prepare(rows[chosen]))
        change, moments = change_of(adam, slope, moments, params)
        return (Arrays(optax.apply_updates(params, change), stats), moments), None

    keys = jax.random.split(named_key(key, "steps"), features.steps)
    return jax.lax.scan(step, (arrays, adam.init(arrays.params)), keys)[0][0]


@functools.partial(jax.jit, static_argnames="features")
def _codes(arrays: Arrays, rows: Array, *, features: FixedFeatures) -> Array:
    seen = features.prepare(rows)
    return features.autoencoder.apply(arrays, lambda net: net.encode(seen, train=False))[0]


def _own(name: str, function: Any, batch: np.ndarray) -> Float[Array, "n f"]:
    """Call the user's function and check what it returns."""
    with foreign_code(f"features {name!r}"):
        made = np.asarray(function(batch))
    if made.ndim != 2 or len(made) != len(batch) or made.dtype.kind not in "biuf":
        raise UserError(
            f"--config.labels.features={name}: returned {made.dtype} {made.shape} for rows of "
            f"shape {batch.shape}; expected ({len(batch)}, numbers)"
        )
    if not np.isfinite(made).all():
        raise UserError(f"--config.labels.features={name}: returned NaN or infinite values")
    return jnp.asarray(made, jnp.float32)
