"""A trained generator makes the same images as a folder of converted weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.endtoend import bridge
from cgjax.endtoend.methods.base import Gan
from cgjax.endtoend.methods.clustergan import ClusterGan
from cgjax.endtoend.methods.mgan import Mgan
from cgjax.endtoend.methods.selfcond import SelfConditioned
from cgjax.endtoend.networks.dcgan import Dcgan
from cgjax.endtoend.networks.encoding import Encoding, EncodingDcgan
from cgjax.endtoend.networks.planar import Planar
from cgjax.endtoend.networks.residual import Residual
from cgjax.endtoend.trainer import Trainer
from cgjax.errors import UserError
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.generators.contract import check_generator
from cgjax.generators.registry import load_generator
from cgjax.numerics.networks import Arrays

SIZES = {"rows": (16, 16, 3), "latent_dim": 5, "embedding_dim": 7, "width": 4}
SOURCE = {"name": "mine", "data": "digits"}
KEY = jax.random.key(0)

# Method, networks, classes of the folder.
CASES = {
    "labels": (SelfConditioned(3), Dcgan(**SIZES), 3),
    "one_label": (Gan(), Dcgan(**SIZES), 0),
    "flat": (SelfConditioned(3), Dcgan(**SIZES, flat=True), 3),
    "flat_one_label": (Gan(), Dcgan(**SIZES, flat=True), 0),
    "clustergan": (ClusterGan(3, sigma=0.3), EncodingDcgan(**SIZES), 3),
    "clustergan_one_label": (ClusterGan(1, sigma=0.3), EncodingDcgan(**SIZES), 1),
    "clustergan_flat": (ClusterGan(3, sigma=0.3), EncodingDcgan(**SIZES, flat=True), 3),
    "mgan": (Mgan(3), Dcgan(**SIZES), 3),
    "mgan_flat": (Mgan(3), Dcgan(**SIZES, flat=True), 3),
    "mgan_smallest": (Mgan(2), Dcgan((8, 8, 1), 5, 7, 4), 2),
    "residual": (SelfConditioned(3), Residual((8, 8, 3), 5, 7, 2), 3),
    "residual_one_label": (Gan(), Residual((8, 8, 1), 5, 7, 2), 0),
    "residual_mgan": (Mgan(3), Residual((8, 8, 3), 5, 7, 2), 3),
    "smallest_of_one_channel": (SelfConditioned(2), Dcgan((8, 8, 1), 5, 7, 4), 2),
}

every_case = pytest.mark.parametrize("case", CASES)


def trained(case):
    """Return a trainer and arrays as after training: no parameter or moment is at its start."""
    method, networks, _ = CASES[case]
    trainer = Trainer(method, networks)
    shapes = jax.eval_shape(trainer.generator.init, KEY)
    rng = np.random.default_rng(0)

    def drawn(path, leaf):
        is_var = jax.tree_util.keystr(path, simple=True).endswith("var")
        values = rng.uniform(0.5, 2, leaf.shape) if is_var else rng.normal(size=leaf.shape) / 2
        return jnp.asarray(values, jnp.float32)

    return trainer, jax.tree_util.tree_map_with_path(drawn, shapes)


def converted(case, folder):
    trainer, arrays = trained(case)
    made = bridge.save(folder, trainer.networks, trainer.method, arrays, SOURCE, "none")
    assert made == folder
    return trainer, arrays, load_generator(folder)


def of_label(gen, label):
    return {"condition": label} if gen.network.num_classes else {}


@every_case
def test_the_folder_generates_the_trainers_images_for_every_label(case, tmp_path):
    trainer, arrays, gen = converted(case, tmp_path)
    num = CASES[case][2]
    assert gen.network.num_classes == num
    z = gen.sample_latents(KEY, 6)
    seen = []
    for label in range(max(num, 1)):
        expected = trainer.generate(arrays, KEY, jnp.full(6, label, jnp.int32))
        seen.append(gen.images(z, **of_label(gen, label)))
        assert seen[-1].shape == (6, *trainer.networks.rows)
        np.testing.assert_allclose(seen[-1], expected, atol=1e-5)
    assert np.asarray(seen[0]).std() > 0.1
    assert np.mean(np.abs(seen[0]) < 0.99) > 0.2  # tanh hides nothing
    assert all(np.abs(seen[0] - other).max() > 0.1 for other in seen[1:])


def test_one_call_takes_a_class_for_every_row(tmp_path):
    trainer, arrays, gen = converted("labels", tmp_path)
    labels = jnp.asarray([2, 0, 1, 1], jnp.int32)
    expected = trainer.generate(arrays, KEY, labels)
    found = gen.images(gen.sample_latents(KEY, 4), condition=np.asarray(labels))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_clustergans_latents_are_the_folders_times_sigma(tmp_path):
    trainer, arrays, gen = converted("clustergan", tmp_path)
    z, labels = jax.random.normal(KEY, (4, 5)), jnp.full(4, 1, jnp.int32)
    sigma = trainer.method.sigma
    expected, _ = trainer.generator.apply(arrays, lambda g: g(sigma * z, labels, train=False))
    np.testing.assert_allclose(gen.images(z, condition=1), expected, atol=1e-5)
    np.testing.assert_array_equal(
        trainer.method.latents(KEY, 4, 5), sigma * gen.sample_latents(KEY, 4)
    )


@every_case
def test_the_folder_meets_the_generator_contract_at_every_layer(case, tmp_path):
    _, _, gen = converted(case, tmp_path)
    keywords = of_label(gen, 0)
    found = check_generator(ConditionedGenerator(gen, gen.layers[0], keywords, 4))
    assert [layer.name for layer in found.layers] == [*gen.layers, "images"]
    assert all(layer.can_resume for layer in found.layers[:-1])


@pytest.mark.parametrize(("case", "shape"), [("labels", (8, 8, 4)), ("flat", (8, 8, 8))])
def test_features_of_a_class_can_be_clustered(case, shape, tmp_path):
    _, _, gen = converted(case, tmp_path)
    z = gen.sample_latents(KEY, 3)
    one, other = (gen.features(z, "layer2", condition=c) for c in (1, 2))
    assert one.shape == (3, *shape)
    assert np.abs(one - other).max() > 0.1


def test_the_manifest_says_where_the_generator_comes_from(tmp_path):
    _, _, gen = converted("flat", tmp_path)
    assert gen.manifest["source"] == SOURCE
    assert gen.manifest["licence"] == "none"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_diverged_training_is_refused_and_writes_nothing(value, tmp_path):
    trainer, arrays = trained("labels")

    def broken(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        return leaf.at[0].set(value) if name == "rest.norms.1.var" else leaf

    stats = jax.tree_util.tree_map_with_path(broken, arrays.stats)
    bad = Arrays(arrays.params, stats)
    with pytest.raises(UserError, match=r"infinite values in rest\.norms\.1\.var;"):
        bridge.save(tmp_path / "g", trainer.networks, trainer.method, bad, SOURCE, "none")
    assert not (tmp_path / "g").exists()


@pytest.mark.parametrize(
    ("method", "networks"),
    [(Gan(), Planar()), (ClusterGan(3), Encoding()), (ClusterGan(3), Encoding((8, 8, 1), 3))],
)
def test_an_architecture_without_a_family_is_not_converted(method, networks, tmp_path):
    nothing = Arrays({}, {})
    assert bridge.convert(networks, method, nothing) is None
    assert bridge.save(tmp_path / "g", networks, method, nothing, SOURCE, "none") is None
    assert not (tmp_path / "g").exists()
