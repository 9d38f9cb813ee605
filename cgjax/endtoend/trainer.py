"""Training one method: start, iterate, cluster again, generate.

Where to find the parts of an algorithm:

    iteration       `step.step`; for ClusterGAN `methods.clustergan.step`
    clustering      `Method.start` before training, `Method.recluster` during it; for
                    Self-Conditioned GAN both are in `methods.selfcond`
    schedule        `Method.next_reclustering`, which `Experiment.advance` follows; `Setup.rate` for
                    the learning rates

The iterations between two clusterings are one compiled program, a scan. All randomness in iteration
i comes from fold_in(key, i), so how training is cut into calls changes no number. Rows on disk are
read in chunks of iterations: the next chunk is read while one is trained on.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from cgjax.endtoend.data import Points
from cgjax.endtoend.data.on_disk import RowsOnDisk
from cgjax.endtoend.fixed_features import FixedFeatures
from cgjax.endtoend.methods.base import Features, packed
from cgjax.endtoend.state import Learner, Losses, Partition, TrainState
from cgjax.endtoend.step import Setup, step
from cgjax.numerics.networks import Arrays
from cgjax.runtime.keys import named_key

# Rows that go through a network at a time outside training.
BLOCK = 500

# Bytes of rows on disk that are read at a time.
CHUNK = 2**27

# Batches that the running moments of averaged weights warm up on, and then are averaged over.
WARM_UP, AVERAGED = 100, 100


@dataclasses.dataclass(frozen=True)
class Trainer(Setup):
    """A `Setup` that trains."""

    def init(self, key: PRNGKeyArray, points: Points) -> TrainState:
        """Return fresh networks and the first labels of one trial."""
        state = self.unlabelled(key, len(points.rows))
        features = self.features(state.discriminator.arrays)
        if self.method.fixed_features is not None:
            fixed = FixedFeatures(self.method.fixed_features, self.networks, self.prepare)
            function = fixed.fit(named_key(key, "features"), points.rows)
            features = functools.partial(in_blocks, function)
        partition = self.method.start(named_key(key, "start"), points, features)
        return state._replace(partition=partition)

    def unlabelled(self, key: PRNGKeyArray, num_rows: int) -> TrainState:
        """Return fresh networks of one trial, all of its training rows with label 0."""
        g = self.generator.init(named_key(key, "g"))
        d = self.discriminator.init(named_key(key, "d"))
        return TrainState(
            generator=Learner(g, self.generator_adam.init(g.params)),
            discriminator=Learner(d, self.discriminator_adam.init(d.params)),
            partition=Partition.unclustered(jnp.zeros(num_rows, jnp.int32)),
            average=g.params if self.average else (),
        )

    def reclustered(
        self, key: PRNGKeyArray, iteration: int, state: TrainState, points: Points
    ) -> TrainState:
        """Return one trial's state, clustered again as its method does before an iteration."""
        features = self.features(state.discriminator.arrays)
        partition = self.method.recluster(
            named_key(key, "renew", iteration), points, features, state.partition
        )
        return state._replace(partition=partition)

    def relabelled(self, state: TrainState, points: Points) -> TrainState:
        """Return one trial's state with the labels that the current networks give its rows."""
        features = self.features(state.discriminator.arrays)
        return state._replace(partition=self.method.relabel(points, features, state.partition))

    def run(
        self, state: TrainState, points: Points, keys: Key[Array, " trials"], begin: int, num: int
    ) -> tuple[TrainState, Losses]:
        """Train for `num` iterations, the first of which is number `begin`.

        Args:
            state: all trials, stacked; donated.
            points: each trial's training rows, stacked; a single trial's may be unstacked, or on
                disk.
            keys: (trials,) each trial's key, the same in every call.
            begin: iterations done before.
            num: iterations of this call; each value compiles a program of its own.
        """
        if isinstance(points.rows, RowsOnDisk):
            return self._run_from_disk(state, points.rows, keys, begin, num)
        return _run(state, points, keys, jnp.int32(begin), num=num, trainer=self)

    def _run_from_disk(
        self, state: TrainState, rows: RowsOnDisk, keys: Key[Array, " trials"], begin: int, num: int
    ) -> tuple[TrainState, Losses]:
        """Train one trial as `run` does, a chunk of iterations at a time."""
        batch = self.batch * self.method.batches
        bytes_each = math.prod(rows.shape[1:]) * batch
        num_chunks = min(num, -(-num * bytes_each // CHUNK))
        indices = _batches(keys[0], jnp.int32(begin), num_rows=len(rows), batch=batch, num=num)
        parts = []
        for chunk in np.array_split(np.asarray(indices), num_chunks):
            x = rows[chunk]  # Read while the chunk before is still being trained on.
            state, losses = _train_on(state, x, chunk, keys, jnp.int32(begin), trainer=self)
            begin += len(chunk)
            parts.append(losses)
        return state, jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), *parts)

    def features(self, discriminator: Arrays) -> Features:
        """Return D's features as a function of stored rows, each repeated to fill a pack."""
        return lambda rows: in_blocks(
            functools.partial(_features, discriminator, trainer=self), rows
        )

    def encoder(self, generator: Arrays) -> Callable[[Array | RowsOnDisk], Array]:
        """Return G's encoder as a function of stored rows, for a method that has one."""
        return lambda rows: in_blocks(functools.partial(_encode, generator, trainer=self), rows)

    def for_sampling(self, key: PRNGKeyArray, state: TrainState) -> Arrays:
        """Return the generator that one trial samples with: G, or its average if there is one.

        The running moments of G's batch norms belong to its newest weights; averaged weights
        normalised by them generate something else. They get moments of their own, from batches
        that they generate themselves ("standing statistics" [Brock et al. 2019]).
        """
        arrays = state.generator.arrays
        if not self.average:
            return arrays
        averaged = arrays._replace(params=state.average)
        if not jax.tree.leaves(arrays.stats):
            return averaged
        stats = _standing_statistics(averaged, key, state.partition, trainer=self)
        return averaged._replace(stats=stats)

    def generate(
        self, generator: Arrays, key: PRNGKeyArray, labels: Int[Array, " n"]
    ) -> Float[Array, "n ..."]:
        """Generate a row for each label, batch norms in inference mode."""
        z = self.method.latents(key, len(labels), self.networks.latent_dim)
        return in_blocks(functools.partial(_generate, generator, trainer=self), z, labels)


def run_(
    state: TrainState,
    points: Points,
    keys: Key[Array, " trials"],
    begin: Int[Array, ""],
    *,
    num: int,
    trainer: Trainer,
) -> tuple[TrainState, Losses]:
    """Train all trials, without jit."""

    def one(state: TrainState, points: Points, key: PRNGKeyArray) -> tuple[TrainState, Losses]:
        batch = trainer.batch * trainer.method.batches
        indices = batches(named_key(key, "rows"), begin, len(points.rows), batch, num)
        return _train_one(state, (indices, None), key, begin, trainer=trainer, rows=points.rows)

    if len(keys) > 1:
        return jax.vmap(one)(state, points, keys)
    # XLA's products on CPUs are much slower with a leading axis of one.
    state, key = jax.tree.map(lambda leaf: leaf[0], (state, keys))
    if points.classes.ndim == 2:
        points = jax.tree.map(lambda leaf: leaf[0], points)
    return jax.tree.map(lambda leaf: leaf[None], one(state, points, key))


_run = jax.jit(run_, static_argnames=("num", "trainer"), donate_argnames=("state",))


@functools.partial(jax.jit, static_argnames="trainer", donate_argnames="state")
def _train_on(
    state: TrainState,
    x: Array,
    indices: Int[Array, "num b"],
    keys: Key[Array, " 1"],
    begin: Int[Array, ""],
    *,
    trainer: Trainer,
) -> tuple[TrainState, Losses]:
    """Train one trial, stacked, on the given rows of every iteration."""
    single = jax.tree.map(lambda leaf: leaf[0], state)
    result = _train_one(single, (indices, x), keys[0], begin, trainer=trainer)
    return jax.tree.map(lambda leaf: leaf[None], result)


def _train_one(
    state: TrainState,
    batches: tuple[Int[Array, "num b"], Array | None],
    key: PRNGKeyArray,
    begin: Int[Array, ""],
    *,
    trainer: Trainer,
    rows: Any = None,
) -> tuple[TrainState, Losses]:
    """Train one trial, an iteration for each batch.

    Args:
        state: of the trial.
        batches: the indices of every iteration's rows, and those rows, or None to take them out of
            `rows`.
        key: of the trial.
        begin: number of the first iteration.
        trainer: the settings.
        rows: all training rows.
    """
    take_step = trainer.method.own_step() or step

    def body(state: TrainState, batch: tuple[Array, Any]) -> tuple[TrainState, Losses]:
        iteration, (indices, stored) = batch
        key_now = jax.random.fold_in(key, iteration)
        stored = rows[indices] if stored is None else stored
        x = trainer.prepare(stored, named_key(key_now, "augment"))
        return take_step(state, x, indices, key_now, trainer, trainer.rate(iteration))

    iterations = begin + jnp.arange(len(batches[0]), dtype=jnp.int32)
    return jax.lax.scan(body, state, (iterations, batches))


def batches(
    key: PRNGKeyArray, begin: Int[Array, ""], num_rows: int, batch: int, num: int
) -> Int[Array, "num b"]:
    """Return the row indices of `num` iterations from `begin` on; every epoch has a fresh order."""
    per_epoch = num_rows // batch
    first = begin // per_epoch

    def order(epoch: Array) -> Array:
        shuffled = jax.random.permutation(jax.random.fold_in(key, epoch), num_rows)
        return shuffled[: per_epoch * batch].reshape(per_epoch, batch).astype(jnp.int32)

    epochs = first + jnp.arange(-(-num // per_epoch) + 1, dtype=jnp.int32)
    orders = jax.lax.map(order, epochs).reshape(-1, batch)
    return jax.lax.dynamic_slice_in_dim(orders, begin - first * per_epoch, num)


@functools.partial(jax.jit, static_argnames=("num_rows", "batch", "num"))
def _batches(
    key: PRNGKeyArray, begin: Int[Array, ""], *, num_rows: int, batch: int, num: int
) -> Int[Array, "num b"]:
    return batches(named_key(key, "rows"), begin, num_rows, batch, num)


def in_blocks(function: Callable[..., Array], *rows: Array | RowsOnDisk) -> Array:
    """Return a row-by-row function of rows, called on one block at a time.

    >>> in_blocks(lambda x: x + 1, jnp.zeros(2 * BLOCK + 1)).shape
    (1001,)
    """
    starts = range(0, len(rows[0]), BLOCK)
    return jnp.concatenate([function(*(r[i : i + BLOCK] for r in rows)) for i in starts])


@functools.partial(jax.jit, static_argnames="trainer")
def _generate(generator: Arrays, z: Array, labels: Array, *, trainer: Trainer) -> Array:
    return trainer.generator.apply(generator, lambda g: g(z, labels, train=False))[0]


@functools.partial(jax.jit, static_argnames="trainer")
def _standing_statistics(
    generator: Arrays, key: PRNGKeyArray, partition: Partition, *, trainer: Trainer
) -> Any:
    """Return the running moments that a generator's batch norms have with these very weights."""
    method = trainer.method

    def follow(stats: Any, key: PRNGKeyArray) -> tuple[Any, Any]:
        key_label, key_code = jax.random.split(key)
        labels = method.sample_labels(key_label, partition, trainer.batch)
        z, z_labels = method.codes(key_code, labels, trainer.networks.latent_dim)
        arrays = Arrays(generator.params, stats)
        stats = trainer.generator.apply(arrays, lambda g: g(z, z_labels, train=True))[1]
        return stats, stats

    keys = jax.random.split(key, WARM_UP + AVERAGED)
    history = jax.lax.scan(follow, generator.stats, keys)[1]
    return jax.tree.map(lambda leaf: jnp.mean(leaf[WARM_UP:], axis=0), history)


@functools.partial(jax.jit, static_argnames="trainer")
def _encode(generator: Arrays, rows: Array, *, trainer: Trainer) -> Array:
    x = trainer.prepare(rows)
    return trainer.generator.apply(generator, lambda g: g.encode(x, train=False))[0]


@functools.partial(jax.jit, static_argnames="trainer")
def _features(discriminator: Arrays, rows: Array, *, trainer: Trainer) -> Array:
    pack = trainer.method.pack
    packs = packed(jnp.repeat(trainer.prepare(rows), pack, axis=0), pack)
    features, _ = trainer.discriminator.apply(
        discriminator, lambda d: d.features(packs, train=False)
    )
    return features.reshape(len(rows), -1)
