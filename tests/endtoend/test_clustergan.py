"""ClusterGAN: its losses against hand-written ones, its step, latents, codes and networks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cgjax.endtoend.data import Points
from cgjax.endtoend.methods.clustergan import (
    ClusterGan,
    codes_of,
    critic_loss,
    generator_loss,
    step,
)
from cgjax.endtoend.networks.encoding import Encoding
from cgjax.endtoend.state import Partition
from cgjax.endtoend.trainer import Trainer
from tests.endtoend.counting import count_parameters

SMALL = Encoding(rows=(6,), latent_dim=3, width=16)
METHOD = ClusterGan(4, critic_steps=2, num_init=2)
TRAINER = Trainer(METHOD, SMALL, batch=8, learning_rate=1e-3, beta1=0.5, beta2=0.9)
KEYS = jax.random.split(jax.random.key(0), 1)


def rows_of(num, shape=(6,)):
    return jax.random.uniform(jax.random.key(3), (num, *shape), jnp.float32)


def start(trainer=TRAINER, points=None):
    points = points or Points(rows_of(80, trainer.networks.rows), jnp.zeros(80, jnp.int32))
    one = trainer.init(KEYS[0], points)
    return jax.tree.map(lambda leaf: leaf[None], (one, points))


def test_the_critics_loss_is_the_wasserstein_distance_plus_the_gradient_penalty():
    state, _ = start()
    d = jax.tree.map(lambda leaf: leaf[0], state.discriminator.arrays)
    real, fake, place = rows_of(8), -rows_of(8), jnp.linspace(0.0, 1.0, 8)
    loss, _ = critic_loss(TRAINER, d, real, fake, place)

    def judge(rows):
        return TRAINER.discriminator.apply(d, lambda net: net(rows, train=True))[0][:, 0]

    between = place[:, None] * real + (1 - place[:, None]) * fake
    slopes = jax.vmap(jax.grad(lambda row: judge(row[None])[0]))(between)
    penalty = ((jnp.linalg.norm(slopes, axis=1) - 1) ** 2).mean()
    expected = judge(fake).mean() - judge(real).mean() + 10 * penalty
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_the_generators_loss_includes_the_encoders_errors():
    state, _ = start()
    g, d = (jax.tree.map(lambda leaf: leaf[0], part.arrays) for part in state[:2])
    z, labels = METHOD.latents(jax.random.key(1), 8, 3), jnp.arange(8, dtype=jnp.int32) % 4
    loss, _ = generator_loss(TRAINER, g, d, z, labels)
    fake = TRAINER.generator.apply(g, lambda net: net(z, labels, train=True))[0]
    judged = TRAINER.discriminator.apply(d, lambda net: net(fake, train=True))[0]
    encoded = TRAINER.generator.apply(g, lambda net: net.encode(fake, train=True))[0]
    expected = -judged.mean() + 10 * ((z - encoded[:, :3]) ** 2).mean()
    expected += 10 * optax.softmax_cross_entropy(encoded[:, 3:], jax.nn.one_hot(labels, 4)).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_a_cooldown_lowers_all_learning_rates():
    cooled = dataclasses.replace(TRAINER, cooldown=4, iterations=4)

    def lengths(trainer):
        state, points = start(trainer)
        old = [jax.tree.map(np.asarray, learner.arrays.params) for learner in state[:2]]
        state, _ = trainer.run(state, points, KEYS, 3, 1)
        new = [learner.arrays.params for learner in state[:2]]
        return np.asarray([float(optax.tree.norm(step)) for step in optax.tree.sub(new, old)])

    # Adam's first steps are equally long, whatever the slope.
    np.testing.assert_allclose(lengths(cooled) / lengths(TRAINER), 0.25, rtol=0.05)


def test_latents_have_standard_deviation_sigma_and_labels_are_uniform():
    z = METHOD.latents(jax.random.key(1), 20_000, 3)
    assert abs(float(z.std()) - 0.1) < 0.002
    known = Partition.unclustered(jnp.zeros(5, jnp.int32))
    counts = np.bincount(METHOD.sample_labels(jax.random.key(2), known, 20_000), minlength=4)
    assert np.abs(counts / 20_000 - 0.25).max() < 0.02


def test_codes_are_probabilities_and_noise_only_where_it_was_learnt():
    encoded = jnp.concatenate([jnp.ones((5, 3)), jnp.zeros((5, 4))], axis=1)
    both = codes_of(encoded, METHOD)
    np.testing.assert_allclose(both, np.hstack([np.ones((5, 3)), np.full((5, 4), 0.25)]))
    assert codes_of(encoded, ClusterGan(4, noise_weight=0.0)).shape == (5, 4)


def test_two_calls_give_the_same_bits_as_one():
    state, points = start()
    whole, losses = TRAINER.run(state, points, KEYS, 0, 4)
    state, points = start()
    state, first = TRAINER.run(state, points, KEYS, 0, 2)
    state, second = TRAINER.run(state, points, KEYS, 2, 2)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(a, b)
    both = np.concatenate([first.generator, second.generator], axis=1)
    np.testing.assert_array_equal(losses.generator, both)


def test_images_are_generated_and_encoded_with_the_papers_parameter_counts():
    networks = Encoding(rows=(28, 28, 1), latent_dim=30)
    trainer = Trainer(ClusterGan(10), networks, batch=8)
    g = jax.eval_shape(lambda key: trainer.generator.init(key), KEYS[0])
    d = jax.eval_shape(lambda key: trainer.discriminator.init(key), KEYS[0])
    body = (16 * 1 * 64 + 64) + (16 * 64 * 128 + 128) + (7 * 7 * 128 * 1024 + 1024)
    assert count_parameters(d) == body + 1024 + 1
    made = (40 * 1024 + 1024) + (1024 * 6272 + 6272) + (16 * 128 * 64 + 64) + (16 * 64 + 1)
    norms = 2 * (1024 + 6272 + 64)
    assert count_parameters(g) == made + norms + body + 1024 * 40 + 40
    small = Trainer(METHOD, Encoding(rows=(8, 8, 1), latent_dim=3), batch=4)
    state, points = start(small)
    state, losses = small.run(state, points, KEYS, 0, 2)
    one = jax.tree.map(lambda leaf: leaf[0], state)
    images = small.generate(one.generator.arrays, KEYS[0], jnp.arange(4, dtype=jnp.int32))
    assert images.shape == (4, 8, 8, 1)
    assert -1 <= float(images.min()) < float(images.max()) <= 1
    assert np.isfinite(losses.discriminator).all()


def test_each_critic_step_has_its_own_batch_and_the_generator_step_new_codes():
    state, _ = jax.tree.map(lambda leaf: leaf[0], start())
    rows, numbers, key = rows_of(16), jnp.arange(16, dtype=jnp.int32), KEYS[0]

    @jax.jit
    def taken(rows):
        return step(state, rows, numbers, key, TRAINER)

    after, losses = taken(rows)
    other, _ = taken(rows.at[8:].add(0.5))  # the second batch alone
    kept, changed = (jax.tree.leaves(made.discriminator.arrays.params) for made in (after, other))
    assert not all(map(np.allclose, kept, changed))
    key_label, key_noise = jax.random.split(jax.random.split(key, 3)[-1])
    labels = METHOD.sample_labels(key_label, state.partition, 8)
    z = METHOD.latents(key_noise, 8, 3)
    # In training a network normalises by its batch: what the critic's steps left of G is as it was.
    g, d = state.generator.arrays, after.discriminator.arrays
    expected, _ = generator_loss(TRAINER, g, d, z, labels)
    np.testing.assert_allclose(losses.generator, expected, rtol=1e-5)
