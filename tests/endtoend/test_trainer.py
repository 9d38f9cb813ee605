"""The training loop: the same numbers in any calls, one pass for two steps, packs, every method."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cgjax.endtoend.data import ring
from cgjax.endtoend.methods.base import Gan, of_packs, packed
from cgjax.endtoend.methods.labelled import ClassConditional, FixedClusters, RandomLabels
from cgjax.endtoend.methods.mgan import Mgan
from cgjax.endtoend.methods.selfcond import Online, SelfConditioned
from cgjax.endtoend.networks.layers import with_label
from cgjax.endtoend.networks.planar import Planar
from cgjax.endtoend.state import Learner, Losses, Partition, updated
from cgjax.endtoend.trainer import Trainer, batches, run_
from cgjax.numerics.networks import Arrays
from cgjax.runtime.keys import named_key
from tests.endtoend.counting import count_parameters

SMALL = Planar(width=8, depth=2, critic_width=6, pieces=2, embedding_dim=3)
METHODS = {
    "gan": Gan(),
    "pacgan2": Gan(pack=2),
    "conditional": ClassConditional(8),
    "random_labels": RandomLabels(5),
    "fixed_clusters": FixedClusters(4, num_init=1),
    "scgan": SelfConditioned(4, num=40, num_init=1),
    "scgan_online": Online(4, num=40, num_init=1),
    "mgan": Mgan(4, per_generator=3),
}
KEYS = jax.random.split(jax.random.key(7), 2)


def points_of(keys, num=40):
    drawn = [ring().draw(key, num) for key in keys]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *drawn)


def start(trainer, keys):
    points = points_of(keys)
    states = [
        trainer.init(key, jax.tree.map(lambda leaf, i=i: leaf[i], points))
        for i, key in enumerate(keys)
    ]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states), points


def leaves_of(state):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_and_generates(name):
    trainer = Trainer(METHODS[name], SMALL, batch=10)
    state, points = start(trainer, KEYS[:1])
    before = leaves_of(state.generator.arrays.params)
    state, losses = trainer.run(state, points, KEYS[:1], 0, 6)
    assert losses.generator.shape == (1, 6)
    assert np.isfinite(np.concatenate([losses.generator, losses.discriminator])).all()
    after = leaves_of(state.generator.arrays.params)
    assert all((a != b).any() for a, b in zip(before, after, strict=True) if b.size > 1)
    one = jax.tree.map(lambda leaf: leaf[0], state)
    labels = trainer.method.sample_labels(jax.random.key(1), one.partition, 33)
    assert int(labels.min()) >= 0
    assert int(labels.max()) < trainer.method.num_labels
    assert trainer.generate(one.generator.arrays, jax.random.key(2), labels).shape == (33, 2)


def test_two_calls_give_the_same_bits_as_one():
    trainer = Trainer(METHODS["scgan"], SMALL, batch=10)
    state, points = start(trainer, KEYS[:1])
    whole, losses = trainer.run(state, points, KEYS[:1], 0, 7)
    state, points = start(trainer, KEYS[:1])
    state, first = trainer.run(state, points, KEYS[:1], 0, 3)
    state, second = trainer.run(state, points, KEYS[:1], 3, 4)
    for a, b in zip(leaves_of(whole), leaves_of(state), strict=True):
        np.testing.assert_array_equal(a, b)
    both = np.concatenate([first.generator, second.generator], axis=1)
    np.testing.assert_array_equal(losses.generator, both)


def test_trials_in_one_program_equal_each_alone():
    trainer = Trainer(METHODS["gan"], SMALL, batch=10)
    state, points = start(trainer, KEYS)
    together, _ = trainer.run(state, points, KEYS, 0, 3)
    for i in range(2):
        state, points = start(trainer, KEYS[i : i + 1])
        alone, _ = trainer.run(state, points, KEYS[i : i + 1], 0, 3)
        # Of two programs: equal up to the order of the sums, which Adam's first steps enlarge.
        for a, b in zip(leaves_of(together), leaves_of(alone), strict=True):
            np.testing.assert_allclose(a[i], b[0], atol=1e-4)


def test_one_generator_pass_gives_the_same_steps_as_two():
    """Written out with two passes, as the reference trains."""
    trainer = Trainer(METHODS["gan"], SMALL, batch=10, learning_rate=1e-2)
    state, points = start(trainer, KEYS[:1])
    key = KEYS[0]
    g, d = (
        jax.tree.map(lambda leaf: leaf[0], part) for part in (state.generator, state.discriminator)
    )
    after, losses = trainer.run(state, points, KEYS[:1], 0, 1)
    rows = points.rows[0][batches(named_key(key, "rows"), jnp.int32(0), 40, 10, 1)[0]]
    _, key_code = jax.random.split(jax.random.fold_in(key, 0))
    z = jax.random.normal(key_code, (10, 2), jnp.float32)
    zeros = jnp.zeros(10, jnp.int32)

    def fake(params):
        arrays = Arrays(params, g.arrays.stats)
        return trainer.generator.apply(arrays, lambda net: net(z, zeros, train=True))[0]

    def logits(params, x):
        arrays = Arrays(params, d.arrays.stats)
        return trainer.discriminator.apply(arrays, lambda net: net(x, train=True))[0][:, 0]

    def d_loss(params):
        made = jax.lax.stop_gradient(fake(g.arrays.params))
        told = jnp.mean(jax.nn.softplus(-logits(params, rows)))
        return told + jnp.mean(jax.nn.softplus(logits(params, made)))

    def stepped(optimiser, params, moments, slope):
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an int32 power
            change, _ = optimiser.update(slope, moments, params)
        return optax.apply_updates(params, change)

    loss_d, slope = jax.value_and_grad(d_loss)(d.arrays.params)
    d_params = stepped(trainer.discriminator_adam, d.arrays.params, d.moments, slope)
    loss_g, slope = jax.value_and_grad(
        lambda params: jnp.mean(jax.nn.softplus(-logits(d_params, fake(params))))
    )(g.arrays.params)
    g_params = stepped(trainer.generator_adam, g.arrays.params, g.moments, slope)
    np.testing.assert_allclose(losses.discriminator[0, 0], loss_d, rtol=1e-5)
    np.testing.assert_allclose(losses.generator[0, 0], loss_g, rtol=1e-5)
    for a, b in zip(leaves_of(after.discriminator.arrays.params), leaves_of(d_params), strict=True):
        np.testing.assert_allclose(a[0], b, atol=1e-5)
    # A bias before a batch norm has no gradient but rounding, of which Adam makes a step.
    both = zip(leaves_of(after.generator.arrays.params), leaves_of(g_params), strict=True)
    assert np.mean([np.abs(a[0] - b).max() < 1e-5 for a, b in both]) > 0.6


def test_every_epoch_visits_each_row_once_in_a_fresh_order():
    rows = np.asarray(batches(jax.random.key(3), jnp.int32(0), 23, 5, 12)).reshape(3, 20)
    assert all(len(set(epoch.tolist())) == 20 for epoch in rows)
    assert not np.array_equal(rows[0], rows[1])
    late = batches(jax.random.key(3), jnp.int32(5), 23, 5, 4)
    np.testing.assert_array_equal(np.asarray(late).ravel(), rows.ravel()[25:45])


def test_a_pack_is_consecutive_rows_and_has_the_label_of_the_first():
    x = jnp.arange(14.0).reshape(7, 2)
    np.testing.assert_array_equal(packed(x, 3), np.arange(12.0).reshape(2, 6))
    np.testing.assert_array_equal(of_packs(jnp.arange(7), 3), [0, 3])


@pytest.mark.parametrize("name", ["scgan", "mgan"])
def test_planar_products_use_full_float32_forward_and_backward(name):
    trainer = Trainer(METHODS[name], SMALL, batch=10, penalty=0.1)
    state, points = start(trainer, KEYS[:1])
    begin = jnp.int32(0)
    program = jax.jit(run_, static_argnames=("num", "trainer"))
    text = program.lower(state, points, KEYS[:1], begin, num=2, trainer=trainer).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert len(products) > 10
    assert all("precision = [HIGHEST, HIGHEST]" in line for line in products)


def test_mgan_trains_without_batch_norms():
    plain = dataclasses.replace(SMALL, normed=False)
    trainer = Trainer(METHODS["mgan"], plain, batch=10)
    state, points = start(trainer, KEYS[:1])
    assert not jax.tree.leaves(state.generator.arrays.stats)
    _, losses = trainer.run(state, points, KEYS[:1], 0, 3)
    assert np.isfinite(np.concatenate([losses.generator, losses.discriminator])).all()


def test_mgan_gives_every_generator_the_same_latents():
    z, labels = METHODS["mgan"].codes(jax.random.key(0), jnp.zeros(10, jnp.int32), 2)
    np.testing.assert_array_equal(labels, np.repeat(np.arange(4), 3))
    np.testing.assert_array_equal(z.reshape(4, 3, 2), np.broadcast_to(z[:3], (4, 3, 2)))


@pytest.mark.parametrize("weight", [0.0, 10.0])
def test_a_penalty_flattens_the_discriminator_on_real_rows(weight):
    trainer = Trainer(METHODS["gan"], SMALL, batch=10, penalty=weight, learning_rate=1e-2)
    state, points = start(trainer, KEYS[:1])
    state, _ = trainer.run(state, points, KEYS[:1], 0, 200)
    arrays = jax.tree.map(lambda leaf: leaf[0], state.discriminator.arrays)

    def total(x):
        return trainer.discriminator.apply(arrays, lambda net: net(x, train=True))[0].sum()

    slope = float(jnp.sqrt(jnp.square(jax.grad(total)(points.rows[0])).sum(axis=1)).mean())
    assert (slope < 0.3) == (weight > 0), slope


def trained_on_average():
    """Return a trainer that keeps an average, and one trial whose weights moved far from theirs."""
    trainer = Trainer(METHODS["conditional"], SMALL, batch=20, average=0.99, learning_rate=1e-2)
    state, points = start(trainer, KEYS[:1])
    state, _ = trainer.run(state, points, KEYS[:1], 0, 100)
    return trainer, jax.tree.map(lambda leaf: leaf[0], state)


def test_the_average_is_updated_after_every_iteration():
    trainer = Trainer(METHODS["gan"], SMALL, batch=10, average=0.9, learning_rate=1e-2)
    state, points = start(trainer, KEYS[:1])
    expected = jax.tree.map(np.asarray, state.generator.arrays.params)
    for number in range(2):
        state, _ = trainer.run(state, points, KEYS[:1], number, 1)
        new = state.generator.arrays.params
        expected = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * np.asarray(new), expected, new)
    for a, b in zip(leaves_of(state.average), leaves_of(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_an_average_generates_with_its_own_running_moments():
    trainer, state = trained_on_average()
    settled = trainer.for_sampling(jax.random.key(3), state)
    labels = trainer.method.sample_labels(jax.random.key(4), state.partition, 5_000)
    z = trainer.method.latents(jax.random.key(5), len(labels), trainer.networks.latent_dim)

    def first(stats):
        """Return the first batch norm's outputs over its scale: mean 0, deviation 1."""
        arrays = Arrays(state.average, stats)

        def call(net):
            x = net.first(with_label(z, labels, net.embedding))
            return net.norm(x, train=False) - net.norm.bias[...][None]

        made = np.asarray(trainer.generator.apply(arrays, call)[0])
        return made / np.abs(state.average["norm"]["scale"])

    def error(stats):
        return max(
            np.abs(first(stats).mean(axis=0)).max(), np.abs(first(stats).std(axis=0) - 1).max()
        )

    assert error(settled.stats) < 0.1
    assert error(state.generator.arrays.stats) > 0.3, "those of the newest weights are not its own"
    for mine, kept in zip(*map(jax.tree.leaves, (settled.params, state.average)), strict=True):
        np.testing.assert_array_equal(mine, kept)


def test_no_running_moments_are_computed_without_an_average_or_batch_norms():
    trainer = Trainer(METHODS["gan"], SMALL)
    state = trainer.init(KEYS[0], ring().draw(KEYS[0], 40))
    assert trainer.for_sampling(KEYS[0], state) is state.generator.arrays
    plain = dataclasses.replace(
        trainer, networks=dataclasses.replace(SMALL, normed=False), average=0.5
    )
    state = plain.init(KEYS[0], ring().draw(KEYS[0], 40))
    assert not jax.tree.leaves(state.generator.arrays.stats)
    assert plain.for_sampling(KEYS[0], state).params is state.average


def test_critic_factor_scales_the_discriminators_step():
    trainer = Trainer(METHODS["gan"], SMALL, learning_rate=0.1, critic_factor=10.0)
    for optimiser, step in ((trainer.generator_adam, 0.1), (trainer.discriminator_adam, 1.0)):
        params = {"x": jnp.zeros(3)}
        learner = Learner(Arrays(params, {}), optimiser.init(params))
        learner = updated(learner, {"x": jnp.ones(3)}, {}, optimiser)
        np.testing.assert_allclose(learner.arrays.params["x"], np.full(3, -step), rtol=1e-5)


def test_the_rate_scales_a_step_but_not_the_moments():
    trainer = Trainer(METHODS["gan"], SMALL, learning_rate=0.1)
    optimiser, params = trainer.generator_adam, {"x": jnp.zeros(3)}
    before = Learner(Arrays(params, {}), optimiser.init(params))
    whole = updated(before, {"x": jnp.ones(3)}, {}, optimiser)
    part = updated(before, {"x": jnp.ones(3)}, {}, optimiser, 0.25)
    x = part.arrays.params["x"]
    np.testing.assert_allclose(x, 0.25 * whole.arrays.params["x"], rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, part.moments, whole.moments)


def test_steps_shrink_linearly_in_a_cooldown_and_are_unchanged_before_it():
    plain = Trainer(METHODS["gan"], SMALL, batch=10)
    trainers = plain, dataclasses.replace(plain, cooldown=4, iterations=8)
    begun, points = start(plain, KEYS[:1])

    def lengths(trainer):
        state, found = jax.tree.map(jnp.copy, begun), []
        for number in range(8):
            old = [jax.tree.map(np.asarray, learner.arrays.params) for learner in state[:2]]
            state, _ = trainer.run(state, points, KEYS[:1], number, 1)
            new = [learner.arrays.params for learner in state[:2]]
            found.append([float(optax.tree.norm(step)) for step in optax.tree.sub(new, old)])
        return np.asarray(found)

    as_ever, falling = map(lengths, trainers)
    np.testing.assert_array_equal(falling[:5], as_ever[:5])
    # Adam's steps are about equally long so early, wherever they are taken.
    shares = np.repeat([[0.75], [0.5], [0.25]], 2, axis=1)
    np.testing.assert_allclose(falling[5:] / as_ever[5:], shares, rtol=0.1)


# By hand: a generator of 34 -> 400 x 4 -> 2 with embeddings of 50 x 32, and batch norms.
def test_the_networks_have_the_papers_parameter_counts():
    method = SelfConditioned(50)
    trainer = Trainer(method, Planar())
    g = trainer.generator.init(jax.random.key(0))
    d = trainer.discriminator.init(jax.random.key(0))
    dense = [(34, 400), (400, 400), (400, 400), (400, 400), (400, 2)]
    expected = sum(i * o + o for i, o in dense) + 4 * 2 * 400 + 50 * 32
    assert count_parameters(g) == expected
    maxout = sum(5 * (i * 200 + 200) for i in (2, 200, 200))
    assert count_parameters(d) == maxout + 200 * 50 + 50


def test_trainers_with_equal_settings_are_equal_and_hash_alike():
    trainer = Trainer(METHODS["gan"], SMALL)
    assert trainer == dataclasses.replace(trainer)
    assert hash(trainer) == hash(dataclasses.replace(trainer))


def test_the_penalty_is_the_mean_squared_gradient_on_real_rows_without_a_half():
    trainer = Trainer(METHODS["conditional"], SMALL, batch=10)
    losses = {}
    for weight in (0.0, 0.7):
        state, points = start(trainer, KEYS[:1])
        d = jax.tree.map(lambda leaf: jnp.copy(leaf[0]), state.discriminator.arrays)
        asked = dataclasses.replace(trainer, penalty=weight)
        losses[weight] = asked.run(state, points, KEYS[:1], 0, 1)[1].discriminator[0, 0]
    rows = batches(named_key(KEYS[0], "rows"), jnp.int32(0), 40, 10, 1)[0]
    labels = points.classes[0][rows]

    def judge(x, label):
        return trainer.discriminator.apply(d, lambda net: net(x[None], train=True))[0][0, label]

    slopes = jax.vmap(jax.grad(judge))(points.rows[0][rows], labels)
    expected = 0.7 * jnp.square(slopes).sum(axis=1).mean()
    np.testing.assert_allclose(losses[0.7] - losses[0.0], expected, rtol=1e-3)
    assert expected > 1e-3


def test_an_iteration_updates_the_generators_moments_like_two_passes():
    trainer = Trainer(METHODS["gan"], SMALL, batch=10)
    state, points = start(trainer, KEYS[:1])
    g = jax.tree.map(lambda leaf: jnp.copy(leaf[0]), state.generator.arrays)
    after, _ = trainer.run(state, points, KEYS[:1], 0, 1)
    _, key_code = jax.random.split(jax.random.fold_in(KEYS[0], 0))
    z, zeros = jax.random.normal(key_code, (10, 2), jnp.float32), jnp.zeros(10, jnp.int32)
    stats = g.stats
    for _ in range(2):
        arrays = Arrays(g.params, stats)
        stats = trainer.generator.apply(arrays, lambda net: net(z, zeros, train=True))[1]
    for a, b in zip(leaves_of(after.generator.arrays.stats), leaves_of(stats), strict=True):
        np.testing.assert_allclose(a[0], b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["generator_adam", "discriminator_adam"])
def test_both_optimisers_are_adam_with_the_given_decays(name):
    optimiser = getattr(
        Trainer(METHODS["gan"], SMALL, learning_rate=0.1, beta1=0.5, beta2=0.9), name
    )
    params = {"x": jnp.zeros(1)}
    learner = Learner(Arrays(params, {}), optimiser.init(params))
    for slope in (1.0, -3.0):
        learner = updated(learner, {"x": jnp.full(1, slope)}, {}, optimiser)
    # By hand, the first step being -0.1.
    first, second = (0.5 * 0.5 - 0.5 * 3) / (1 - 0.5**2), (0.9 * 0.1 + 0.1 * 9) / (1 - 0.9**2)
    expected = -0.1 - 0.1 * first / np.sqrt(second)
    np.testing.assert_allclose(learner.arrays.params["x"], [expected], rtol=1e-5)


def test_mgan_adds_the_generators_cross_entropy_to_both_losses():
    method = Mgan(2, weight=0.5)
    # One pack: even odds of real, and odds of 3 for its own generator.
    logits = jnp.asarray([[0.0, np.log(3.0), 0.0]], jnp.float32)
    own = jnp.zeros(1, jnp.int32)
    which = np.log(4 / 3)
    expected = np.log(2) + 0.5 * which
    np.testing.assert_allclose(method.generator_loss(logits, own), expected, rtol=1e-6)
    loss = method.discriminator_loss(logits, own, logits, own)
    np.testing.assert_allclose(loss, 2 * np.log(2) + which, rtol=1e-6)


@dataclasses.dataclass(frozen=True)
class Watching(Gan):
    """A method that learns nothing, and tells the first number that it saw as its loss."""

    def own_step(self):
        def step(state, x, rows, key, trainer, rate):
            return state, Losses(x[0, 0], x[0, 0])

        return step


def noisy(rows, key=None):
    return rows if key is None else jax.random.uniform(key, rows.shape, jnp.float32)


def test_every_iteration_augments_its_rows_differently():
    trainer = Trainer(Watching(), SMALL, batch=10, prepare=noisy)
    state, points = start(trainer, KEYS[:1])
    _, losses = trainer.run(state, points, KEYS[:1], 0, 6)
    assert len(set(np.asarray(losses.generator[0]).tolist())) == 6


def test_sampled_labels_have_the_training_rows_shares():
    known = Partition.unclustered(jnp.repeat(jnp.arange(2, dtype=jnp.int32), 5000))
    drawn = [Gan().sample_labels(jax.random.key(i), known, 400) for i in range(2)]
    assert not np.array_equal(*drawn)
    # Half of 400: a binomial's deviation is 10.
    assert all(150 < int(labels.sum()) < 250 for labels in drawn)
