"""The networks for images: published sizes, and refused image sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cgjax.endtoend.data import Points
from cgjax.endtoend.methods.labelled import ClassConditional
from cgjax.endtoend.networks import Dcgan, Residual, Sngan
from cgjax.endtoend.networks.encoding import EncodingDcgan
from cgjax.endtoend.networks.layers import EPS, BatchNorm, LinearPerLabel, moved_again
from cgjax.endtoend.trainer import Trainer
from cgjax.errors import UserError
from cgjax.numerics.networks import Network
from tests.endtoend.counting import count_parameters

FLAT = Dcgan((32, 32, 3), flat=True)
LABELS = 100


def conv(side, inputs, outputs, bias=True):
    return side * side * inputs * outputs + (outputs if bias else 0)


def dense(inputs, outputs, bias=True):
    return inputs * outputs + (outputs if bias else 0)


def norms(*widths):
    return 2 * sum(widths)


def parameters(network):
    return count_parameters(jax.eval_shape(Network(network).init, jax.random.key(0)))


UPS = sum(conv(4, i, o, bias=False) for i, o in ((512, 256), (256, 128), (128, 64)))
DOWNS = sum(conv(4, i, o, bias=False) for i, o in ((64, 128), (128, 256), (256, 512)))


def test_the_networks_for_stacked_digits_have_the_published_sizes():
    """[Liu et al. 2020]: z 128, label 256, 512 to 64 channels, and 2,048 features."""
    made = LABELS * 256 + dense(384, 4 * 4 * 512) + UPS + norms(256, 128, 64) + conv(3, 64, 3)
    assert parameters(lambda rngs: FLAT.generator(LABELS, rngs)) == made
    told = conv(4, 3, 64, bias=False) + DOWNS + norms(64, 128, 256, 512) + dense(2048, LABELS)
    assert parameters(lambda rngs: FLAT.discriminator(LABELS, 1, rngs)) == told
    packed = told + conv(4, 3, 64, bias=False)
    assert parameters(lambda rngs: FLAT.discriminator(LABELS, 2, rngs)) == packed


def test_the_networks_for_faces_are_dcgans():
    """[Radford et al. 2016], 64 pixels: no norm before D's second convolution or after G's last."""
    made = dense(128, 4 * 4 * 512, bias=False) + UPS + norms(512, 256, 128, 64)
    made += conv(4, 64, 3, bias=False)
    assert parameters(lambda rngs: Dcgan().generator(1, rngs)) == made
    told = conv(4, 3, 64, bias=False) + DOWNS + norms(128, 256, 512) + dense(8192, 2)
    assert parameters(lambda rngs: Dcgan().discriminator(2, 1, rngs)) == told


def test_the_discriminator_for_cifar_has_the_published_sizes():
    sides = ((3, 3, 64), (4, 64, 64), (3, 64, 128), (4, 128, 128), (3, 128, 256), (4, 256, 256))
    told = sum(conv(*layer) for layer in (*sides, (3, 256, 512))) + dense(8192, LABELS)
    assert parameters(lambda rngs: Sngan((32, 32, 3)).discriminator(LABELS, 1, rngs)) == told
    made = [
        parameters(lambda rngs, net=net: net.generator(2, rngs))
        for net in (FLAT, Sngan((32, 32, 3)))
    ]
    assert made[0] == made[1]


def test_the_residual_networks_have_the_published_sizes():
    """[Mescheder et al. 2018] at 128 pixels: the widths of every block, written out."""

    def block(inputs, outputs):
        hidden = min(inputs, outputs)
        shortcut = conv(1, inputs, outputs, bias=False) if inputs != outputs else 0
        return conv(3, inputs, hidden) + conv(3, hidden, outputs) + shortcut

    up = "16,16 16,16 16,16 16,16 16,8 8,8 8,4 4,4 4,2 2,2 2,1 1,1"
    down = "1,1 1,2 2,2 2,4 4,4 4,8 8,8 8,16 16,16 16,16 16,16 16,16"

    def blocks(widths):
        return sum(block(*(64 * int(n) for n in pair.split(","))) for pair in widths.split())

    sizes = Residual()
    made = LABELS * 256 + dense(512, 16 * 1024) + blocks(up) + conv(3, 64, 3)
    assert parameters(lambda rngs: sizes.generator(LABELS, rngs)) == made
    told = conv(3, 3, 64) + blocks(down) + dense(16384, LABELS)
    assert parameters(lambda rngs: sizes.discriminator(LABELS, 1, rngs)) == told


SMALL = {
    "dcgan": Dcgan((32, 32, 3), width=4, latent_dim=5, embedding_dim=3),
    "dcgan_flat": Dcgan((16, 16, 1), width=4, latent_dim=5, embedding_dim=3, flat=True),
    "sngan": Sngan((16, 16, 3), width=4, latent_dim=5, embedding_dim=3),
    "residual": Residual((16, 16, 3), width=2, latent_dim=5, embedding_dim=3),
}


@pytest.mark.parametrize("name", SMALL)
def test_every_architecture_generates_images_and_features(name):
    sizes = SMALL[name]
    rngs = nnx.Rngs(0)
    z = jax.random.normal(jax.random.key(1), (6, 5), jnp.float32)
    labels = jnp.arange(6, dtype=jnp.int32) % 3
    images = sizes.generator(3, rngs)(z, labels, train=True)
    assert images.shape == (6, *sizes.rows)
    assert float(jnp.abs(images).max()) <= 1
    discriminator = sizes.discriminator(3, 1, rngs)
    assert discriminator(images, train=True).shape == (6, 3)
    features = discriminator.features(images, train=False)
    assert features.ndim == 2
    if sizes.is_rowwise:  # then each row's logits are its own
        alone = discriminator(images[:1], train=True)
        np.testing.assert_allclose(alone, discriminator(images, train=True)[:1], atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_both_networks_train_in_a_compiled_step_with_a_penalty(name):
    sizes = SMALL[name]
    trainer = Trainer(ClassConditional(3), sizes, batch=6, penalty=1.0)
    rows = jax.random.uniform(jax.random.key(2), (12, *sizes.rows), jnp.float32, -1, 1)
    points = Points(rows, jnp.arange(12, dtype=jnp.int32) % 3)
    keys = jax.random.split(jax.random.key(3), 1)
    begun = trainer.init(keys[0], points)
    before = jax.tree.map(np.asarray, begun[:2])
    stacked = jax.tree.map(lambda leaf: leaf[None], begun)
    state, losses = trainer.run(stacked, points, keys, 0, 1)
    assert all(np.isfinite(each).all() for each in losses)
    for old, new in zip(before, state[:2], strict=True):
        same = jax.tree.map(
            lambda a, b: np.array_equal(a, b[0]), old.arrays.params, new.arrays.params
        )
        assert not any(jax.tree.leaves(same)), same


@pytest.mark.parametrize("name", SMALL)
def test_a_label_changes_the_image(name):
    generator = SMALL[name].generator(2, nnx.Rngs(0))
    z = jax.random.normal(jax.random.key(1), (4, 5), jnp.float32)
    one, other = (generator(z, jnp.full(4, c, jnp.int32), train=False) for c in (0, 1))
    assert float(jnp.abs(one - other).max()) > 0


@pytest.mark.parametrize("rows", [(2,), (64, 32, 3), (48, 48, 3), (4, 4, 3)])
@pytest.mark.parametrize("build", [Dcgan, Residual, EncodingDcgan])
def test_images_of_an_unsupported_size_are_refused(build, rows):
    with pytest.raises(UserError, match="square images whose side is 8, 16, 32"):
        build(rows)


@pytest.mark.parametrize("name", SMALL)
def test_mgans_generators_share_all_but_their_first_layer(name):
    generators = SMALL[name].generators(3, nnx.Rngs(0))
    z = jax.random.normal(jax.random.key(1), (4, 5), jnp.float32)
    labels = jnp.repeat(jnp.arange(3, dtype=jnp.int32), 4)
    assert generators(jnp.tile(z, (3, 1)), labels, train=True).shape == (12, *SMALL[name].rows)
    one, other = (generators(z, jnp.full(4, c, jnp.int32), train=False) for c in (0, 2))
    assert float(jnp.abs(one - other).max()) > 0
    generators.first.kernel[...] = jnp.repeat(generators.first.kernel[...][:1], 3, axis=0)
    generators.first.bias[...] = jnp.repeat(generators.first.bias[...][:1], 3, axis=0)
    if generators.first.norm is not None:  # the running moments, which the first pass moved
        for moments in (generators.first.norm.mean, generators.first.norm.var):
            moments[...] = jnp.repeat(moments[...][:1], 3, axis=0)
    one, other = (generators(z, jnp.full(4, c, jnp.int32), train=False) for c in (0, 2))
    np.testing.assert_array_equal(one, other)


def test_a_layer_per_label_equals_separate_layers_each_with_its_own_batch_norm():
    layer = LinearPerLabel(2, 3, 8, channels=4, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (10, 3), jnp.float32)
    labels = jnp.repeat(jnp.arange(2, dtype=jnp.int32), 5)
    trained = layer(x, labels, train=True)
    alone = layer(x[::-1], labels[::-1], train=False)[::-1]
    for c in range(2):
        maps = np.asarray(x[labels == c] @ layer.kernel[c] + layer.bias[c][None]).reshape(-1, 4)
        own = (maps - maps.mean(axis=0)) / np.sqrt(maps.var(axis=0) + EPS)
        np.testing.assert_allclose(trained[labels == c].reshape(-1, 4), own, atol=1e-5)
        mean, var = (np.asarray(moments[c]) for moments in (layer.norm.mean, layer.norm.var))
        running = (maps - mean) / np.sqrt(var + EPS)
        np.testing.assert_allclose(alone[labels == c].reshape(-1, 4), running, atol=1e-5)


def test_moved_again_gives_the_running_moments_of_two_passes():
    norm, twice = BatchNorm(3), BatchNorm(3)
    x = jax.random.normal(jax.random.key(0), (7, 3), jnp.float32) + 2
    for module, passes in ((norm, 1), (twice, 2)):
        for _ in range(passes):
            module(x, train=True)
    fresh = BatchNorm(3)
    before, after = ({"m": n.mean[...], "v": n.var[...]} for n in (fresh, norm))
    again = moved_again(before, after)
    np.testing.assert_allclose(again["m"], twice.mean[...], atol=1e-6)
    np.testing.assert_allclose(again["v"], twice.var[...], atol=1e-6)
