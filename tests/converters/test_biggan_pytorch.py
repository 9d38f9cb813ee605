"""BigGAN in ajbrock's form: other sizes compared with torch, conditions, truncation."""

import functools
import itertools
import tempfile

import jax
import numpy as np
import pytest
import torch

from cgjax.errors import UserError
from converters.__main__ import convert
from tests.converters import reference as ref
from tests.converters.comparing import check, latents, one_hot
from tests.golden_cases import TOLERANCE, error, load_golden, run_everything

pytestmark = pytest.mark.torch

CLASSES = 5


def _state(
    widths, piece, shared, hier, attention=(), size=4, channels=3, statistics="stored_{}",
    spectral=True,
):  # fmt: skip
    w = ref.Weights()
    condition = (shared or CLASSES) + (piece if hier else 0)

    def layer(name, *shape, bias=True):
        # Without spectral norms, values that saturate the tanh would magnify rounding.
        w.draw(f"{name}.weight", *shape, std=0.5 if spectral else 0.15)
        if bias:
            w.draw(f"{name}.bias", shape[0], std=0.3)
        if spectral:
            w.draw(f"{name}.u0", 1, shape[0])
            w.draw(f"{name}.sv0", 1)

    def averages(name, width):
        w.draw(f"{name}.{statistics.format('mean')}", width, std=0.3)
        random = torch.rand(width, generator=w.generator)
        w[f"{name}.{statistics.format('var')}"] = 0.2 + random

    if shared:
        w.draw("shared.weight", CLASSES, shared)
    layer("linear", size * size * widths[0], piece)
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        name = f"blocks.{i}.0"
        layer(f"{name}.conv1", b, a, 3, 3)
        layer(f"{name}.conv2", b, b, 3, 3)
        layer(f"{name}.conv_sc", b, a, 1, 1)
        for norm, width in (("bn1", a), ("bn2", b)):
            averages(f"{name}.{norm}", width)
            for part in ("gain", "bias"):
                if shared:
                    layer(f"{name}.{norm}.{part}", width, condition, bias=False)
                else:
                    w.draw(f"{name}.{norm}.{part}.weight", CLASSES, width, std=0.3)
        if i in attention:
            name = f"blocks.{i}.1"
            for part, o, c in (("theta", b // 8, b), ("phi", b // 8, b), ("g", b // 2, b),
                               ("o", b, b // 2)):  # fmt: skip
                layer(f"{name}.{part}", o, c, 1, 1, bias=False)
            w.draw(f"{name}.gamma")
    averages("output_layer.0", widths[-1])
    w.draw("output_layer.0.gain", widths[-1])
    w.draw("output_layer.0.bias", widths[-1])
    layer("output_layer.2", channels, widths[-1], 3, 3)
    return w


@pytest.mark.parametrize(
    ("widths", "options", "settings"),
    [
        ([16, 8], {"piece": 3, "shared": 4, "hier": True, "attention": (0,)}, {}),
        ([8, 8, 6, 4], {"piece": 7, "shared": 6, "hier": False, "channels": 1}, {}),
        ([8, 16, 8], {"piece": 5, "shared": None, "hier": False, "attention": (0, 1)}, {}),
        (
            [8, 6, 4],
            {"piece": 4, "shared": 4, "hier": True, "spectral": False, "size": 3},
            {"BN_eps": "0.01"},
        ),
        ([8, 4], {"piece": 4, "shared": 3, "hier": True, "statistics": "bn.stored_{}"}, {}),
    ],
    ids=["hierarchical", "embedding_gray", "no_embedding", "plain_eps_odd_size", "own_batch_norm"],
)
def test_biggan_pytorch(widths, options, settings, tmp_path):
    w = _state(widths, **options)
    blocks, hier = len(widths) - 1, options["hier"]
    z = latents(2, options["piece"] * (blocks + 1 if hier else 1))
    statistics = options.get("statistics", "stored_{}")
    expected = ref.biggan_pytorch(
        w, z, one_hot(2, CLASSES), blocks, float(settings.get("BN_eps", 1e-5)), statistics
    )
    state = {**w, "blocks.0.0.conv1.u1": torch.zeros(1, widths[1])}
    state["output_layer.0.accumulation_counter"] = torch.zeros(1)
    gen = check("biggan", state, expected, z, tmp_path, settings, condition=np.eye(CLASSES)[:2])
    assert gen.image_size == options.get("size", 4) * 2**blocks
    assert gen.resume_needs_latents == hier
    assert len(gen.manifest["source"].get("assumed", [])) == (not settings)


@functools.cache
def _converted():
    golden = load_golden("biggan_pytorch_a")
    with tempfile.TemporaryDirectory() as folder:
        return golden, convert("biggan", golden.checkpoint, folder)


def test_resuming_equals_the_whole_pass_from_every_layer():
    golden, gen = _converted()
    activations, resumed = run_everything(gen, golden.arrays["z"], condition=golden.arrays["y"])
    assert gen.layers == ("linear", "block0", "block1", "block2")
    assert set(resumed) == set(gen.layers)
    image = np.asarray(activations["image"]).transpose(0, 3, 1, 2)
    for layer in gen.layers:
        assert error(resumed[layer], image) < TOLERANCE


def test_the_public_calls_equal_the_reference():
    golden, gen = _converted()
    z, y = golden.arrays["z"], golden.arrays["y"]
    assert error(gen.images(z, condition=y), golden.arrays["image"]) < TOLERANCE
    h = gen.features(z, "block0", condition=y)
    assert error(h, golden.arrays["act_block0"]) < TOLERANCE
    with pytest.raises(UserError, match="needs latents=z"):
        gen.resume(h, "block0", condition=y)
    with pytest.raises(UserError, match="needs a class"):
        gen.images(z)
    with pytest.raises(UserError, match="takes no 'noise'"):
        gen.images(z, condition=y, noise="zeros")


def test_truncation_affects_only_drawn_latents():
    golden, gen = _converted()
    key, z = jax.random.key(0), golden.arrays["z"]
    drawn = np.asarray(gen.sample_latents(key, 500, truncation=0.5))
    assert np.abs(drawn).max() <= 1
    assert np.abs(np.asarray(gen.sample_latents(key, 500))).max() > 2
    y = golden.arrays["y"]
    np.testing.assert_array_equal(
        gen.images(z, condition=y, truncation=0.5), gen.images(z, condition=y)
    )
    with pytest.raises(UserError, match=r"\(0, 1\]"):
        gen.images(z, condition=y, truncation=2)


def test_sefa_reads_the_dense_layer_with_zeros_for_the_other_pieces():
    _, gen = _converted()
    weights = np.asarray(gen.network.latent_weights())
    assert weights.shape == (24, 128)
    assert not weights[6:].any()
    assert weights[:6].any()
