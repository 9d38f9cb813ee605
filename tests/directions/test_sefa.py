"""SeFa equals an independent eigendecomposition, and finds a planted direction."""

import jax
import numpy as np
import pytest

import cgjax
from cgjax.directions import sefa as module
from cgjax.directions.sefa import fit_sefa, sefa
from cgjax.errors import UserError
from cgjax.generators.base import PretrainedGenerator
from cgjax.generators.families import build_network


def matrix(d: int = 12, m: int = 60) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(d, m)) * np.linspace(0.3, 3, d)[:, None]).astype(np.float32)


def test_directions_equal_a_general_eigendecomposition_as_the_authors_use():
    a = matrix()
    directions, eigenvalues = sefa(a)
    unit = (a / np.linalg.norm(a, axis=0)).astype(np.float64)
    values, vectors = np.linalg.eig(unit @ unit.T)
    order = np.argsort(-values.real)
    np.testing.assert_allclose(eigenvalues, values.real[order], rtol=1e-5)
    for ours, theirs in zip(directions, vectors.real.T[order], strict=True):
        # Up to sign; float32 output.
        assert abs(ours @ theirs) == pytest.approx(1, abs=1e-6)


def test_directions_equal_the_left_singular_vectors():
    a = matrix()
    left, singular, _ = np.linalg.svd(a / np.linalg.norm(a, axis=0), full_matrices=False)
    directions, eigenvalues = sefa(a, 5)
    np.testing.assert_allclose(np.abs(directions @ left[:, :5]), np.eye(5), atol=1e-5)
    np.testing.assert_allclose(eigenvalues, singular[:5] ** 2, rtol=1e-5)


def test_directions_are_orthonormal_sorted_and_of_fixed_sign():
    directions, eigenvalues = sefa(matrix())
    np.testing.assert_allclose(directions @ directions.T, np.eye(12), atol=1e-6)
    assert (np.diff(eigenvalues) <= 0).all()
    largest = np.argmax(np.abs(directions), axis=1)
    assert (directions[np.arange(12), largest] > 0).all()
    assert eigenvalues.sum() == pytest.approx(60, rel=1e-6)  # 60 unit columns


def test_scaling_a_column_or_adding_a_zero_one_changes_nothing():
    a = matrix()
    want = sefa(a)[0]
    scales = np.random.default_rng(1).uniform(0.1, 10, 60).astype(np.float32)
    np.testing.assert_allclose(sefa(a * scales)[0], want, atol=1e-5)
    padded = np.concatenate([a, np.zeros((12, 3), np.float32)], axis=1)
    np.testing.assert_allclose(sefa(padded)[0], want, atol=1e-6)


def test_a_planted_direction_comes_first():
    rng = np.random.default_rng(2)
    planted = rng.normal(size=20)
    planted /= np.linalg.norm(planted)
    a = 0.3 * rng.normal(size=(20, 400)) + 3 * np.outer(planted, rng.normal(size=400))
    assert abs(sefa(a, 1)[0][0] @ planted) > 0.99


@pytest.mark.parametrize(
    ("a", "k", "message"),
    [
        (np.ones(4), None, "expected a finite"),
        (np.full((3, 4), np.nan), None, "expected a finite"),
        (np.ones((3, 4)), 4, "expected 1 to 3"),
    ],
)
def test_sefa_refuses_anything_but_a_matrix(a, k, message):
    with pytest.raises(UserError, match=message):
        sefa(a, k)


def test_embedded_generators_matrix_is_its_first_layers_weight():
    generator = cgjax.load_generator("dcgan_faces")
    a = module.latent_weights(generator)
    assert a.shape == (100, 4 * 4 * 512)
    # The features before batch norm and ReLU are z @ A: a direction's images must move with it.
    found = fit_sefa(generator, num_directions=10)
    assert found.vectors.shape == (10, 100)
    z = generator.sample_latents(jax.random.key(0), 64)
    rng = np.random.default_rng(3)
    random = rng.normal(size=100)
    moved = [
        float(np.abs(generator.images(found.edit(z, 0, 2.0)) - generator.images(z)).mean()),
        float(np.abs(generator.images(module_edit(z, random)) - generator.images(z)).mean()),
    ]
    assert moved[0] > 1.2 * moved[1]


def module_edit(z, direction):
    from cgjax.directions import edit

    return edit(z, direction, 2.0)


class StyleLike:
    def latent_weights(self, layers=("a", "b")):
        return np.concatenate([np.full((3, 2), 1.0 + ord(name)) for name in layers], axis=1)


def test_layers_are_passed_on_if_the_family_can_choose():
    assert module.latent_weights(StyleLike()).shape == (3, 4)
    assert module.latent_weights(StyleLike(), ["b"]).shape == (3, 2)
    found = fit_sefa(StyleLike(), ["b"], num_directions=1, space="w", mean=np.ones(3))
    assert (found.space, found.layers, found.method) == ("w", ("b",), "sefa")
    np.testing.assert_array_equal(found.mean, 1)


SMALL = {"mapping_widths": [16], "depths": [8, 4], "style_dim": 16}
FORMS = {"stylegan": "genforce", "stylegan2": "nvidia"}


@pytest.mark.parametrize("latent_dim", [16, 20])
@pytest.mark.parametrize("family", FORMS)
def test_directions_of_a_stylegan_move_w_and_images_are_made_of_it(family, latent_dim):
    architecture = {**SMALL, "form": FORMS[family], "latent_dim": latent_dim}
    gen = PretrainedGenerator(build_network(family, architecture))
    found = fit_sefa(gen, num_directions=3)
    assert found.space == "w"
    w = np.asarray(gen.features(gen.sample_latents(jax.random.key(0), 8), "w"))
    edited = found.edit(w, 0, 2.0)
    moved = np.abs(gen.resume(edited, "w") - gen.resume(w, "w")).mean()
    assert moved > 1e-3
    with pytest.raises(UserError, match="space='z': this generator's weights read 'w'"):
        fit_sefa(gen, space="z")


@pytest.mark.parametrize("family", FORMS)
@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], r"layers=\[\]: expected some layers' names"),
        ("layer0", "layers='layer0': expected some layers' names"),
        (3, "layers=3: expected some layers' names"),
        (["w"], "'w' reads no style; expected some of "),
        (["layer9"], "not one of this generator's"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_layers_that_read_no_style_are_refused(family, layers, message):
    architecture = {**SMALL, "form": FORMS[family], "latent_dim": 16}
    with pytest.raises(UserError, match=message):
        fit_sefa(PretrainedGenerator(build_network(family, architecture)), layers)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("mean", [np.ones(2), [np.nan] * 3, [[1, 2], [3]], "abc"])
def test_a_wrong_mean_is_refused(mean):
    with pytest.raises(UserError, match="mean"):
        fit_sefa(StyleLike(), mean=mean)


def test_a_generator_without_such_a_weight_is_refused():
    with pytest.raises(UserError, match="latent_weights"):
        module.latent_weights(object())


def test_layers_are_refused_if_there_is_no_choice():
    with pytest.raises(UserError, match="at one place only; leave layers out"):
        fit_sefa(cgjax.load_generator("dcgan_faces"), ["layer1"])


def test_an_unknown_layer_is_refused():
    named = StyleLike()
    named.layers = ("a", "b")
    with pytest.raises(UserError, match="layer9"):
        fit_sefa(named, ["layer9"])
