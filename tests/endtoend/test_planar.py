"""The plane's modulated generator: latents act in every layer, and training cannot change how."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.endtoend.methods.base import Gan
from cgjax.endtoend.methods.mgan import Mgan
from cgjax.endtoend.methods.selfcond import SelfConditioned
from cgjax.endtoend.networks.planar import Planar, waves
from cgjax.endtoend.trainer import Trainer
from tests.endtoend.counting import count_parameters
from tests.endtoend.test_trainer import KEYS, start

KEY = jax.random.key(0)
SMALL = Planar(
    width=16, depth=3, critic_width=6, pieces=2, embedding_dim=3, normed=False, modulation=0.1
)
METHODS = {
    "scgan": SelfConditioned(3, num=30, num_init=1),
    "gan": Gan(),
    "mgan": Mgan(2, per_generator=5),
}


def generator(method, networks=SMALL):
    trainer = Trainer(method, networks, batch=10)
    return trainer.generator, trainer.generator.init(KEY)


def generated(network, arrays, z, labels, *, train=False):
    return network.apply(arrays, lambda g: g(z, labels, train=train))[0]


def test_waves_have_mean_0_and_deviation_1_and_differ_between_layers():
    z = jax.random.normal(KEY, (20_000, 8))
    made = np.stack([waves(z, 50, layer) for layer in range(2)])
    # A unit's own mean is off by up to 1.4 exp(-|w|^2 / 2), 0.03 for |w|^2 = 8; over 100, less.
    assert abs(made.mean()) < 0.02
    assert abs(made.std() - 1) < 0.02
    # A million pairs, of 20,000 latents: independent ones correlate by less than 1 / sqrt(20,000).
    assert np.abs(np.corrcoef(*made.reshape(2, -1))[0, 1]) < 0.02
    np.testing.assert_array_equal(waves(z, 50, 1), made[1])


@pytest.mark.parametrize("name", METHODS)
def test_a_row_depends_only_on_its_own_latent_and_label(name):
    trainer = Trainer(METHODS[name], SMALL, batch=10, average=0.9)
    state, points = start(trainer, KEYS[:1])
    assert not jax.tree.leaves(state.generator.arrays.stats)
    state, losses = trainer.run(state, points, KEYS[:1], 0, 4)
    assert np.isfinite(np.concatenate([losses.generator, losses.discriminator])).all()
    arrays = jax.tree.map(lambda leaf: leaf[0], state.generator.arrays)
    z, labels = jax.random.normal(KEY, (10, 2)), jnp.repeat(jnp.arange(2), 5)
    labels = jnp.minimum(labels, METHODS[name].num_labels - 1)
    # 1e-6: points of size 1, summed in another order.
    whole = generated(trainer.generator, arrays, z, labels)
    alone = [generated(trainer.generator, arrays, z[i : i + 1], labels[i : i + 1]) for i in (0, 7)]
    np.testing.assert_allclose(whole[jnp.array([0, 7])], jnp.concatenate(alone), atol=1e-6)
    trained = generated(trainer.generator, arrays, z, labels, train=True)
    np.testing.assert_allclose(trained, whole, atol=1e-6)


def test_latents_spread_points_when_the_first_layer_ignores_them():
    network, arrays = generator(METHODS["scgan"])
    kernel = arrays.params["first"]["kernel"]
    arrays.params["first"]["kernel"] = kernel.at[: SMALL.latent_dim].set(0)
    z, labels = jax.random.normal(KEY, (100, 2)), jnp.zeros(100, jnp.int32)
    # Without the waves all were one point.
    assert generated(network, arrays, z, labels).std(axis=0).min() > 1e-3


# By hand: 34 -> 400 x 4 -> 2 with embeddings of 50 x 32; layer norms have a scale and a bias.
def test_it_has_the_same_number_of_parameters_as_the_published_generator():
    arrays = generator(SelfConditioned(50), Planar(normed=False, modulation=0.1))[1]
    dense = [(34, 400), (400, 400), (400, 400), (400, 400), (400, 2)]
    assert count_parameters(arrays) == sum(i * o + o for i, o in dense) + 4 * 2 * 400 + 50 * 32
