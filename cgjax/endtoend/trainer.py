"""The one loop of all methods: a discriminator step and a generator step an iteration.

In an iteration the discriminator and the generator see the same latents and labels, and the
generator does not change in between. So one pass of the generator serves both steps: its result is
what the discriminator learns from, and its derivative waits for the discriminator's new gradient.
That is what two passes compute; that the second one moves the batch norms' running moments again by
the same batch is made up for by `layers.moved_again`.

Training between two clusterings is one compiled program, a scan over iterations. Everything random
in iteration i comes from fold_in(key, i): how a training is cut into calls changes no number. Rows
that do not fit into memory come with the call, which is then cut into chunks of iterations: the
next one's are read while one is learnt from.
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
import optax
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from cgjax.endtoend.data import Points
from cgjax.endtoend.data.on_disk import RowsOnDisk
from cgjax.endtoend.fixed_features import FixedFeatures
from cgjax.endtoend.methods.base import Features, Method, of_packs, packed
from cgjax.endtoend.networks.base import Architecture, Arrays, Network
from cgjax.endtoend.networks.layers import moved_again
from cgjax.endtoend.state import Learner, Losses, Partition, TrainState, moved
from cgjax.runtime.keys import named_key

# Rows that go through a network at a time outside training.
BLOCK = 500

# Bytes of rows on disk that are read at a time.
CHUNK = 2**27

# Batches that the running moments of an average follow before they are used, and are averaged over.
FOLLOWED, AVERAGED = 100, 100


def as_they_are(rows: Array, key: PRNGKeyArray | None = None) -> Array:
    """Return rows that need nothing done."""
    return rows


@dataclasses.dataclass(frozen=True)
class Trainer:
    """How a method is trained.

    Attributes:
        method: see `methods`.
        networks: see `networks`.
        batch: real rows of an iteration; those of an epoch are a fresh permutation, what does not
            fill a batch is left out.
        learning_rate: Adam's, of G, and of D times `critic_factor`.
        beta1: decay of its first moment.
        beta2: decay of its second one.
        penalty: weight of E ||grad_x D(x)||^2 over real rows, without the 1/2 of its paper
            [Mescheder et al. 2018].
        average: decay of the running average of G's parameters; 0 for none. Only `step` keeps one.
        critic_factor: D's learning rate over G's [Heusel et al. 2017].
        cooldown: how many of the last iterations both learning rates fall in, linearly to zero
            [Zhu et al. 2017]; 0 for none.
        iterations: of the whole training; 0 without a cooldown, for which they do not matter.
        prepare: rows as they are kept to rows as networks see them; see `DataSet.prepare`.
    """

    method: Method
    networks: Architecture
    batch: int = 100
    learning_rate: float = 1e-4
    beta1: float = 0.8
    beta2: float = 0.999
    penalty: float = 0.0
    average: float = 0.0
    critic_factor: float = 1.0
    cooldown: int = 0
    iterations: int = 0
    prepare: Callable[..., Array] = as_they_are

    @functools.cached_property
    def generator(self) -> Network:
        """G as pure functions."""
        return Network(lambda rngs: self.method.generator(self.networks, rngs))

    @functools.cached_property
    def discriminator(self) -> Network:
        """D as pure functions."""
        return Network(lambda rngs: self.method.discriminator(self.networks, rngs))

    @functools.cached_property
    def generators_adam(self) -> optax.GradientTransformation:
        """The optimiser of G."""
        return optax.adam(self.learning_rate, self.beta1, self.beta2)

    @functools.cached_property
    def critics_adam(self) -> optax.GradientTransformation:
        """The optimiser of D."""
        return optax.adam(self.critic_factor * self.learning_rate, self.beta1, self.beta2)

    def rate(self, number: Int[Array, ""]) -> Float[Array, ""] | float:
        """Return the share of the learning rates that an iteration learns at.

        Example:
            >>> from cgjax.endtoend.methods.base import Gan
            >>> from cgjax.endtoend.networks.planar import Planar
            >>> trainer = Trainer(Gan(), Planar(), cooldown=4, iterations=10)
            >>> [float(trainer.rate(jnp.int32(number))) for number in (0, 6, 7, 9)]
            [1.0, 1.0, 0.75, 0.25]
        """
        if not self.cooldown:
            return 1.0
        left = (self.iterations - number).astype(jnp.float32)
        return jnp.clip(left / self.cooldown, 0, 1)

    def init(self, key: PRNGKeyArray, points: Points) -> TrainState:
        """Return fresh networks and the first labels of one trial."""
        g = self.generator.init(named_key(key, "g"))
        d = self.discriminator.init(named_key(key, "d"))
        generator = Learner(g, self.generators_adam.init(g.params))
        discriminator = Learner(d, self.critics_adam.init(d.params))
        features = self.features(d)
        if self.method.fixed is not None:
            fixed = FixedFeatures(self.method.fixed, self.networks, self.prepare)
            known = fixed.learnt(named_key(key, "features"), points.rows)
            features = functools.partial(in_blocks, known)
        partition = self.method.start(named_key(key, "start"), points, features)
        average = generator.arrays.params if self.average else ()
        return TrainState(generator, discriminator, partition, average)

    def renew(
        self, key: PRNGKeyArray, iteration: int, state: TrainState, points: Points
    ) -> TrainState:
        """Return one trial's state with the labels that its method makes before an iteration."""
        features = self.features(state.discriminator.arrays)
        own = named_key(key, "renew", iteration)
        return state._replace(partition=self.method.renew(own, points, features, state.partition))

    def relabelled(self, state: TrainState, points: Points) -> TrainState:
        """Return one trial's state with the labels that its training rows have now."""
        features = self.features(state.discriminator.arrays)
        return state._replace(partition=self.method.relabel(points, features, state.partition))

    def features(self, discriminator: Arrays) -> Features:
        """Return D's features as a function of kept rows, packs of one row repeated."""
        return lambda rows: in_blocks(
            functools.partial(_features, discriminator, trainer=self), rows
        )

    def encoder(self, generator: Arrays) -> Callable[[Array], Array]:
        """Return G's encoder as a function of kept rows, for a method that has one."""
        return lambda rows: in_blocks(functools.partial(_encode, generator, trainer=self), rows)

    def run(
        self, state: TrainState, points: Points, keys: Key[Array, " trials"], begin: int, num: int
    ) -> tuple[TrainState, Losses]:
        """Train for `num` iterations, the first of which has the number `begin`.

        Args:
            state: of all trials, stacked; donated.
            points: each trial's training rows, stacked; those of one trial may come as they are,
                and be on disk.
            keys: (trials,) each trial's key, the same in every call.
            begin: iterations before.
            num: iterations of this call; a program is compiled for each.
        """
        if isinstance(points.rows, RowsOnDisk):
            return self._run_from_disk(state, points.rows, keys, begin, num)
        return _run(state, points, keys, jnp.int32(begin), num=num, trainer=self)

    def _run_from_disk(
        self, state: TrainState, rows: RowsOnDisk, keys: Key[Array, " trials"], begin: int, num: int
    ) -> tuple[TrainState, Losses]:
        """Train one trial as `run` does, some iterations at a time."""
        batch = self.batch * self.method.batches
        each = math.prod(rows.shape[1:]) * batch
        chunks = min(num, -(-num * each // CHUNK))
        chosen = _batches(keys[0], jnp.int32(begin), num_rows=len(rows), batch=batch, num=num)
        made = []
        for part in np.array_split(np.asarray(chosen), chunks):
            read = rows[part]  # While what was begun before goes on.
            state, losses = _learn(state, read, part, keys, jnp.int32(begin), trainer=self)
            begin += len(part)
            made.append(losses)
        return state, jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), *made)

    def settled(self, key: PRNGKeyArray, state: TrainState) -> Arrays:
        """Return what generates, of one trial: G, or where there is one its average.

        The running moments of G's batch norms belong to its newest weights, and average weights
        normalised by them make something else. They get moments of their own, those of batches that
        they generate themselves ("standing statistics" [Brock et al. 2019]).
        """
        arrays = state.generator.arrays
        if not self.average:
            return arrays
        averaged = arrays._replace(params=state.average)
        if not jax.tree.leaves(arrays.stats):
            return averaged
        return averaged._replace(stats=_standing(averaged, key, state.partition, trainer=self))

    def generate(
        self, generator: Arrays, key: PRNGKeyArray, labels: Int[Array, " n"]
    ) -> Float[Array, "n ..."]:
        """Generate a row for each label, batch norms in inference mode."""
        z = self.method.latents(key, len(labels), self.networks.latent_dim)
        return in_blocks(functools.partial(_generate, generator, trainer=self), z, labels)


def in_blocks(function: Callable[..., Array], *rows: Array) -> Array:
    """Return what a function of rows makes, called for a block of them at a time.

    >>> in_blocks(lambda x: x + 1, jnp.zeros(2 * BLOCK + 1)).shape
    (1001,)
    """
    made = [function(*(r[i : i + BLOCK] for r in rows)) for i in range(0, len(rows[0]), BLOCK)]
    return jnp.concatenate(made)


@functools.partial(jax.jit, static_argnames="trainer")
def _generate(generator: Arrays, z: Array, labels: Array, *, trainer: Trainer) -> Array:
    return trainer.generator.apply(generator, lambda g: g(z, labels, train=False))[0]


@functools.partial(jax.jit, static_argnames="trainer")
def _standing(
    generator: Arrays, key: PRNGKeyArray, partition: Partition, *, trainer: Trainer
) -> Any:
    """Return the moments that a generator's batch norms have with its weights as they are."""
    method = trainer.method

    def follow(stats: Any, key: PRNGKeyArray) -> tuple[Any, Any]:
        key_label, key_code = jax.random.split(key)
        labels = method.sample_labels(key_label, partition, trainer.batch)
        z, wanted = method.codes(key_code, labels, trainer.networks.latent_dim)
        arrays = Arrays(generator.params, stats)
        stats = trainer.generator.apply(arrays, lambda g: g(z, wanted, train=True))[1]
        return stats, stats

    keys = jax.random.split(key, FOLLOWED + AVERAGED)
    followed = jax.lax.scan(follow, generator.stats, keys)[1]
    return jax.tree.map(lambda leaf: jnp.mean(leaf[FOLLOWED:], axis=0), followed)


@functools.partial(jax.jit, static_argnames="trainer")
def _encode(generator: Arrays, rows: Array, *, trainer: Trainer) -> Array:
    seen = trainer.prepare(rows)
    return trainer.generator.apply(generator, lambda g: g.encode(seen, train=False))[0]


@functools.partial(jax.jit, static_argnames="trainer")
def _features(discriminator: Arrays, rows: Array, *, trainer: Trainer) -> Array:
    seen = trainer.prepare(rows)
    whole = packed(jnp.repeat(seen, trainer.method.pack, axis=0), trainer.method.pack)
    made = trainer.discriminator.apply(discriminator, lambda d: d.features(whole, train=False))[0]
    return made.reshape(len(rows), -1)


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
        chosen = batches(named_key(key, "rows"), begin, len(points.rows), batch, num)
        return _learn_one(state, (chosen, None), key, begin, trainer=trainer, rows=points.rows)

    if len(keys) > 1:
        return jax.vmap(one)(state, points, keys)
    # A leading axis of one costs XLA's products on CPUs a lot.
    state, key = jax.tree.map(lambda leaf: leaf[0], (state, keys))
    if points.classes.ndim == 2:
        points = jax.tree.map(lambda leaf: leaf[0], points)
    return jax.tree.map(lambda leaf: leaf[None], one(state, points, key))


_run = jax.jit(run_, static_argnames=("num", "trainer"), donate_argnames=("state",))


def _learn_one(
    state: TrainState,
    given: tuple[Int[Array, "num b"], Array | None],
    key: PRNGKeyArray,
    begin: Int[Array, ""],
    *,
    trainer: Trainer,
    rows: Any = None,
) -> tuple[TrainState, Losses]:
    """Train one trial on given rows.

    Args:
        state: of the trial.
        given: the numbers of every iteration's rows, and the rows; or None, and they are taken out
            of `rows`.
        key: of the trial.
        begin: the number of the first iteration.
        trainer: the settings.
        rows: all training rows.
    """
    take = trainer.method.own_step() or step

    def body(state: TrainState, now: tuple[Array, Any]) -> tuple[TrainState, Losses]:
        number, (chosen, kept) = now
        own = jax.random.fold_in(key, number)
        seen = trainer.prepare(rows[chosen] if kept is None else kept, named_key(own, "augment"))
        return take(state, seen, chosen, own, trainer, trainer.rate(number))

    numbers = begin + jnp.arange(len(given[0]), dtype=jnp.int32)
    return jax.lax.scan(body, state, (numbers, given))


@functools.partial(jax.jit, static_argnames="trainer", donate_argnames="state")
def _learn(
    state: TrainState,
    rows: Array,
    chosen: Int[Array, "num b"],
    keys: Key[Array, " 1"],
    begin: Int[Array, ""],
    *,
    trainer: Trainer,
) -> tuple[TrainState, Losses]:
    """Train one trial, stacked, on the rows of every iteration."""
    alone = jax.tree.map(lambda leaf: leaf[0], state)
    made = _learn_one(alone, (chosen, rows), keys[0], begin, trainer=trainer)
    return jax.tree.map(lambda leaf: leaf[None], made)


@functools.partial(jax.jit, static_argnames=("num_rows", "batch", "num"))
def _batches(
    key: PRNGKeyArray, begin: Int[Array, ""], *, num_rows: int, batch: int, num: int
) -> Int[Array, "num b"]:
    return batches(named_key(key, "rows"), begin, num_rows, batch, num)


def batches(
    key: PRNGKeyArray, begin: Int[Array, ""], num_rows: int, batch: int, num: int
) -> Int[Array, "num b"]:
    """Return the rows of iterations `begin` to `begin + num`, every epoch in its own order."""
    per_epoch = num_rows // batch
    first = begin // per_epoch

    def order(epoch: Array) -> Array:
        shuffled = jax.random.permutation(jax.random.fold_in(key, epoch), num_rows)
        return shuffled[: per_epoch * batch].reshape(per_epoch, batch).astype(jnp.int32)

    epochs = first + jnp.arange(-(-num // per_epoch) + 1, dtype=jnp.int32)
    orders = jax.lax.map(order, epochs).reshape(-1, batch)
    return jax.lax.dynamic_slice_in_dim(orders, begin - first * per_epoch, num)


def step(
    state: TrainState,
    x: Float[Array, "b ..."],
    rows: Int[Array, " b"],
    key: PRNGKeyArray,
    trainer: Trainer,
    rate: Float[Array, ""] | float = 1.0,
) -> tuple[TrainState, Losses]:
    """Take one step of the discriminator and one of the generator.

    Args:
        state: of one trial.
        x: the real rows.
        rows: their numbers among the training rows.
        key: of this iteration.
        trainer: the settings.
        rate: the share of the learning rates to take.
    """
    method, pack = trainer.method, trainer.method.pack
    g, d = state.generator, state.discriminator
    key_label, key_code = jax.random.split(key)

    def live_features() -> Array:
        return trainer.discriminator.apply(d.arrays, lambda net: net.features(x, train=False))[0]

    labels, partition = method.label(key_label, state.partition, rows, live_features)
    z, wanted = method.codes(key_code, labels, trainer.networks.latent_dim)
    real_labels, fake_labels = of_packs(labels, pack), of_packs(wanted, pack)

    def generate(params: Any) -> tuple[Array, Any]:
        arrays = Arrays(params, g.arrays.stats)
        return trainer.generator.apply(arrays, lambda net: net(z, wanted, train=True))

    fake, pull, g_stats = jax.vjp(generate, g.arrays.params, has_aux=True)

    def d_loss(params: Any) -> tuple[Array, Any]:
        arrays = Arrays(params, d.arrays.stats)
        real, made, stats = _both(trainer, arrays, packed(x, pack), packed(fake, pack))
        loss = method.discriminator_loss(real, real_labels, made, fake_labels)
        if trainer.penalty:
            loss = loss + trainer.penalty * _slope(trainer, arrays, packed(x, pack), real_labels)
        return loss, stats

    (loss_d, d_stats), slope = jax.value_and_grad(d_loss, has_aux=True)(d.arrays.params)
    d = moved(d, slope, d_stats, trainer.critics_adam, rate)

    def g_loss(fake: Array) -> tuple[Array, Any]:
        made, stats = trainer.discriminator.apply(
            d.arrays, lambda net: net(packed(fake, pack), train=True)
        )
        return method.generator_loss(made, fake_labels), stats

    (loss_g, d_stats), slope = jax.value_and_grad(g_loss, has_aux=True)(fake)
    d = d._replace(arrays=Arrays(d.arrays.params, d_stats))
    g_stats = moved_again(g.arrays.stats, g_stats)
    g = moved(g, pull(slope)[0], g_stats, trainer.generators_adam, rate)
    average = state.average
    if trainer.average:
        average = jax.tree.map(
            lambda old, new: trainer.average * old + (1 - trainer.average) * new,
            state.average,
            g.arrays.params,
        )
    return TrainState(g, d, partition, average), Losses(loss_g, loss_d)


def _both(trainer: Trainer, d: Arrays, x: Array, fake: Array) -> tuple[Array, Array, Any]:
    """Return the logits of real and generated rows, in one pass where that is the same."""
    apply = trainer.discriminator.apply
    if trainer.networks.is_rowwise:
        both, stats = apply(d, lambda net: net(jnp.concatenate([x, fake]), train=True))
        return both[: len(x)], both[len(x) :], stats
    real, stats = apply(d, lambda net: net(x, train=True))
    made, stats = apply(Arrays(d.params, stats), lambda net: net(fake, train=True))
    return real, made, stats


def _slope(trainer: Trainer, d: Arrays, x: Array, labels: Array) -> Array:
    """Return the mean of ||grad_x D(x, y)||^2."""

    def total(x: Array) -> Array:
        logits = trainer.discriminator.apply(d, lambda net: net(x, train=True))[0]
        return jnp.sum(trainer.method.score(logits, labels))

    squares = jnp.square(jax.grad(total)(x))
    return jnp.sum(squares) / len(x)
