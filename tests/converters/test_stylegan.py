"""StyleGAN and StyleGAN2: keywords, and resuming from every layer."""

import functools
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgjax.errors import UserError
from converters.__main__ import convert
from tests.golden_cases import TOLERANCE, error, load_golden, run_everything

pytestmark = pytest.mark.torch

NAMES = {
    "stylegan_zoo_a": "stylegan",
    "stylegan_genforce_a": "stylegan",
    "stylegan2_genforce_a": "stylegan2",
    "stylegan2_nvidia_a": "stylegan2",
    "stylegan2_rosinality_a": "stylegan2",
}
LAYERS = {
    "stylegan_zoo_a": ("w", "s0_a0", "s0_a1", "s1_a0"),
    "stylegan_genforce_a": ("w", "layer0", "layer1", "layer2"),
    "stylegan2_genforce_a": ("w", "early_layer", "layer0", "layer1"),
    "stylegan2_nvidia_a": ("w", "b4_conv1", "b8_conv0", "b8_conv1"),
    "stylegan2_rosinality_a": ("w", "input", "conv1", "convs_00"),
}


@functools.cache
def _converted(name):
    golden = load_golden(name)
    with tempfile.TemporaryDirectory() as folder:
        return golden, convert(NAMES[name], golden.checkpoint, folder), name


@pytest.fixture(params=NAMES)
def every(request):
    return _converted(request.param)


@pytest.fixture(params=["stylegan_zoo_a", "stylegan2_nvidia_a"])
def case(request):
    """One of each class, for the keywords that they share."""
    return _converted(request.param)


def test_layers_are_named_as_the_reference_s_activations(every):
    _, gen, name = every
    assert gen.layers[:4] == LAYERS[name]


def test_resuming_equals_the_whole_pass_from_every_layer(every):
    golden, gen, _ = every
    activations, resumed = run_everything(gen, golden.arrays["z"], truncation=0.7)
    assert set(resumed) == set(gen.layers)
    image = np.asarray(activations["image"])
    for layer in gen.layers:
        np.testing.assert_allclose(resumed[layer], image, atol=1e-5 * np.abs(image).max())


def test_resuming_with_w_equals_resuming_with_latents(case):
    golden, gen, _ = case
    z, layer = golden.arrays["z"], gen.layers[3]
    h, w = gen.features(z, layer), gen.features(z, "w")
    with_latents = gen.resume(h, layer, latents=z)
    # From two different programs, so equal up to the last bits.
    atol = 1e-6 * np.abs(with_latents).max()
    np.testing.assert_allclose(gen.resume(h, layer, w=w), with_latents, rtol=0.0, atol=atol)
    assert error(with_latents, np.asarray(gen.images(z)).transpose(0, 3, 1, 2)) < TOLERANCE


@pytest.mark.usefixtures("untyped")
def test_resuming_without_either_is_refused_and_says_what_to_give(case):
    golden, gen, _ = case
    h = gen.features(golden.arrays["z"], gen.layers[2])
    with pytest.raises(UserError, match=r"latents=z.*or w=features\(z, 'w'\)"):
        gen.resume(h, gen.layers[2])
    with pytest.raises(UserError, match=r"2 activations but 1 latents"):
        gen.resume(h, gen.layers[2], latents=golden.arrays["z"][:1])
    with pytest.raises(UserError, match="w has shape"):
        gen.resume(h, gen.layers[2], w=np.zeros((2, 3), np.float32))


def test_an_edited_activation_reaches_the_image(case):
    golden, gen, _ = case
    z, layer = golden.arrays["z"], gen.layers[3]
    h = gen.features(z, layer)
    plain, edited = gen.resume(h, layer, latents=z), gen.resume(h + 1.0, layer, latents=z)
    assert np.abs(np.asarray(plain - edited)).max() > 1e-3


def test_one_style_a_layer_can_be_given(case):
    golden, gen, _ = case
    z = golden.arrays["z"]
    w = gen.features(z, "w")
    by_layer = jnp.broadcast_to(w[:, None], (len(w), gen.network.num_styles, w.shape[1]))
    np.testing.assert_allclose(
        gen.resume(by_layer, "w", truncation=1), gen.images(z, truncation=1), atol=1e-5
    )
    mixed = by_layer.at[:, 4:].set(by_layer[::-1, 4:])  # fine styles of the other row
    assert np.abs(np.asarray(gen.resume(mixed, "w") - gen.images(z))).max() > 1e-3


def test_w_is_the_same_whatever_the_truncation(case):
    golden, gen, _ = case
    z = golden.arrays["z"]
    np.testing.assert_array_equal(gen.features(z, "w"), gen.features(z, "w", truncation=0.1))


def test_truncation_to_zero_gives_the_mean_image_and_one_gives_none(case):
    golden, gen, _ = case
    z = golden.arrays["z"]
    mean = np.asarray(gen.images(z, truncation=0.0))
    np.testing.assert_allclose(mean[0], mean[1], atol=1e-5)
    none = gen.images(z, truncation=0.5, truncation_layers=0)
    np.testing.assert_array_equal(none, gen.images(z, truncation=1))


def test_truncation_defaults_to_the_file_s_own(every):
    golden, gen, name = every
    default = golden.meta.get("phiTruncation", 1.0)
    assert (default == 0.5) == (name == "stylegan_zoo_a")
    z = golden.arrays["z"]
    np.testing.assert_array_equal(gen.images(z), gen.images(z, truncation=default))


def test_noise_by_key_is_the_same_for_every_row_and_call(case):
    golden, gen, _ = case
    z = golden.arrays["z"]
    layer, key = gen.layers[2], jax.random.key(3)
    both = gen.features(z, layer, noise=key)
    np.testing.assert_array_equal(gen.features(z, layer, noise=key), both)
    np.testing.assert_allclose(gen.features(z[1:], layer, noise=key), both[1:], atol=1e-5)
    other = gen.features(z, layer, noise=jax.random.key(4))
    assert np.abs(np.asarray(both - other)).max() > 1e-3
    split = gen.features(z[[0, 0]], layer, noise=jax.random.split(key))
    assert np.abs(np.asarray(split[0] - split[1])).max() > 1e-3
    for raw in (jax.random.PRNGKey(3), np.asarray(jax.random.PRNGKey(3))):
        np.testing.assert_array_equal(gen.features(z, layer, noise=raw), both)


def test_given_arrays_of_zeros_are_no_noise(case):
    golden, gen, _ = case
    z = golden.arrays["z"]
    zeros = [np.zeros((1, *shape), np.float32) for shape in gen.network.noise_shapes]
    given, none = gen.images(z, noise=zeros), np.asarray(gen.images(z, noise="zeros"))
    assert error(given, none.transpose(0, 3, 1, 2)) < TOLERANCE


def test_noise_defaults_to_the_stored_where_the_file_has_some(every):
    golden, gen, name = every
    z = golden.arrays["z"]
    default = "zeros" if name == "stylegan_zoo_a" else "stored"
    np.testing.assert_array_equal(gen.images(z), gen.images(z, noise=default))


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"truncation": "strong"}, "expected a number"),
        ({"truncation": float("nan")}, "not a finite number"),
        ({"truncation": 0.5, "truncation_layers": -1}, "is negative"),
        ({"noise": "random"}, "expected .*zeros, a random key or a list"),
        ({"noise": [np.zeros((1, 4, 4, 1))]}, "arrays .* in the network's order, got 1"),
        ({"condition": 3}, "takes no 'condition'"),
        ({"tructation": 0.5}, "takes no 'tructation'"),
    ],
)
def test_a_wrong_keyword_is_refused(case, keywords, message):
    golden, gen, _ = case
    with pytest.raises(UserError, match=message):
        gen.images(golden.arrays["z"], **keywords)


def test_noise_of_a_wrong_shape_is_named(case):
    golden, gen, _ = case
    noise = [np.zeros((1, *shape), np.float32) for shape in gen.network.noise_shapes]
    noise[2] = noise[2][:, :-1]
    with pytest.raises(UserError, match=r"noise\[2\] has shape"):
        gen.images(golden.arrays["z"], noise=noise)


def test_a_zoo_file_has_no_stored_noise(tmp_path):
    golden = load_golden("stylegan_zoo_a")
    gen = convert("stylegan", golden.checkpoint, tmp_path / "out")
    with pytest.raises(UserError, match="has no noise of its own"):
        gen.images(golden.arrays["z"], noise="stored")


def test_style_weights_read_w(every):
    _, gen, _ = every
    chosen = gen.layers[-2:]
    weights = gen.network.latent_weights(chosen)
    assert weights.shape[0] == gen.network.style_dim
    everything = gen.network.latent_weights()
    assert everything.shape[1] > weights.shape[1]
    np.testing.assert_array_equal(everything[:, -weights.shape[1] :], weights)


def test_fused_scale_flips_the_kernels_from_128_pixels_on_only(tmp_path):
    golden = load_golden("stylegan_genforce_b")
    psi = {"truncation": 0.7, "truncation_layers": 8}
    z, reference = golden.arrays["z"], golden.arrays["run0_act_layer10"]
    for fused, right in (("auto", True), ("false", False)):
        gen = convert("stylegan", golden.checkpoint, tmp_path / fused, {"fused_scale": fused})
        assert (error(gen.features(z, "layer10", **psi), reference) < TOLERANCE) == right
        h = golden.arrays["run0_act_layer7"]
        assert error(gen.features(z, "layer7", **psi), h) < TOLERANCE
