"""Networks of pytorch_GAN_zoo and the PyTorch examples besides the fixtures, compared with torch.

Every layer and the image are compared; the random state dicts use the formats' names.
"""

import itertools

import jax
import numpy as np
import pytest
import torch

from converters.__main__ import convert
from tests.converters import reference as ref
from tests.converters.comparing import check, latents
from tests.converters.files import CASES, load, write

pytestmark = pytest.mark.torch


def _zoo_pgan_state(latent, depths, channels, infix):
    w = ref.Weights()

    def layer(name, *shape):
        w.draw(f"{name}.weight", *shape)
        w.draw(f"{name}.bias", shape[0])

    layer("formatLayer", 16 * depths[0], latent)
    layer("groupScale0.0", depths[0], depths[0], 3, 3)
    for i, (a, b) in enumerate(itertools.pairwise(depths)):
        layer(f"scaleLayers.{i}.0", b, a, 3, 3)
        layer(f"scaleLayers.{i}.1", b, b, 3, 3)
    for i, depth in enumerate(depths):
        layer(f"toRGBLayers.{i}", channels, depth, 1, 1)
    return w, {n.replace(".weight", f"{infix}.weight").replace(".bias", f"{infix}.bias"): v
               for n, v in w.items()}  # fmt: skip


@pytest.mark.parametrize(
    ("depths", "channels", "infix", "config", "options"),
    [
        ([7], 3, ".module", {}, {}),
        ([6, 5], 1, "", {"alpha": 0.25, "leakyReluLeak": 0.1}, {"alpha": 0.25, "leak": 0.1}),
        # Not narrower: where a pixel's few channels are all near 0 its norm magnifies rounding, and
        # the reference in float32 is itself off by more than the tolerance.
        ([8, 9, 7, 6, 5], 3, ".module", {"equalizedlR": False}, {"equalized": False}),
        ([4, 6, 5], 3, "", {"lossCriterion": "MSE", "alpha": 1}, {"tanh": True, "alpha": 1.0}),
        ([4, 5], 3, ".module", {"lossCriterion": "Logistic", "attribKeysOrder": None}, {}),
    ],
    ids=["4x4", "fading_gray", "64_unscaled", "mse", "logistic"],
)
def test_pgan_zoo(depths, channels, infix, config, options, tmp_path):
    w, state = _zoo_pgan_state(11, depths, channels, infix)
    z = 3 * latents(2, 11)
    expected = ref.pgan_zoo(w, z, depths, **options)
    check("pgan", {"config": config, "netG": {}, "avgG": state}, expected, z, tmp_path)


def test_pgan_zoo_with_categories_samples_one_hot_ends(tmp_path):
    w, state = _zoo_pgan_state(9, [4, 5], 3, ".module")
    order = {"b": {"order": 1, "values": ["x", "y"]}, "a": {"order": 0, "values": [1, 2, 3]}}
    config = {"attribKeysOrder": order, "categoryVectorDim": 5, "noiseVectorDim": 4}
    z = latents(2, 9)
    expected = ref.pgan_zoo(w, z, [4, 5])
    gen = check("pgan", {"config": config, "avgG": state}, expected, z, tmp_path)
    assert gen.network.categories == (3, 2)


@pytest.mark.parametrize(
    ("depths", "mappings", "channels", "config", "options"),
    [
        ([6, 5], 3, 3, {}, {}),
        ([7, 6, 5, 4], 8, 1, {"alpha": 0.3, "leakyReluLeak": 0.05, "phiTruncation": 0.8},
         {"alpha": 0.3, "leak": 0.05, "phi": 0.8}),
        ([5, 4, 4], 1, 3, {"phiTruncation": 1.0, "lossCriterion": "DCGAN"},
         {"phi": 1.0, "tanh": True}),
    ],
    ids=["8x8", "fading_gray", "no_truncation"],
)  # fmt: skip
def test_stylegan_zoo(depths, mappings, channels, config, options, tmp_path):
    w, d0 = ref.Weights(), depths[0]

    def layer(name, *shape, std=1.0):
        w.draw(f"{name}.weight", *shape, std=std)
        w.draw(f"{name}.bias", shape[0], std=std)

    for i in range(mappings):
        layer(f"mapping.FC.{i}", d0, 10 if i == 0 else d0, std=100.0)
    w.draw("baseScale0", 1, d0, 4, 4)
    w.draw("mean_w", 1, d0)
    names = [("", "adain00", "noiseMod00", d0, d0), ("conv0", "adain01", "noiseMod01", d0, d0)]
    for i, (a, b) in enumerate(itertools.pairwise(depths)):
        for c, width in enumerate((a, b)):
            prefix = f"scaleLayers.{i}.{2 * c}"
            adain = f"scaleLayers.{i}.{2 * c + 1}"
            names.append((prefix, adain, f"noiseModulators.{i}.{c}", width, b))
        layer(f"toRGBLayers.{i}", channels, b, 1, 1)
    for conv, adain, noise, a, b in names:
        if conv:
            layer(conv, b, a, 3, 3)
        layer(f"{adain}.styleModulator", 2 * b, d0)
        w.draw(f"{noise}.weight", 1, 1, 1, 1)
    sizes = [4 * 2 ** (i // 2) for i in range(2 * len(depths))]
    noise = [latents(2, s * s, s).view(2, 1, s, s) for s in sizes]
    z = latents(2, 10)
    expected = ref.stylegan_zoo(w, z, depths, mappings, noise, **options)
    plain = ("baseScale0", "mean_w")
    state = {n if n in plain else n.replace(".weight", ".module.weight")
             .replace(".bias", ".module.bias"): v for n, v in w.items()}  # fmt: skip
    config = {"nMappings": mappings, "categoryVectorDim": 4, **config}
    content = {"config": config, "avgG": state, "netD": {}}
    gen = check("stylegan", content, expected, z, tmp_path, noise=noise)
    ends = np.asarray(gen.sample_latents(jax.random.key(0), 20))[:, -4:]
    assert sorted(set(map(tuple, ends.tolist()))) == sorted(map(tuple, np.eye(4).tolist()))


def _batch_norm(w, name, width):
    for part in ("weight", "bias", "running_mean"):
        w.draw(f"{name}.{part}", width)
    w[f"{name}.running_var"] = torch.rand(width) + 0.1
    w[f"{name}.num_batches_tracked"] = torch.tensor(3)


@pytest.mark.parametrize(("widths", "channels"), [([7, 5], 1), ([9, 8, 6, 5, 4], 3)])
def test_dcgan_of_the_examples_at_another_size(widths, channels, tmp_path):
    w, sizes = ref.Weights(), [13, *widths, channels]
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        w.draw(f"main.{3 * i}.weight", a, b, 4, 4, std=0.3)
        if i < len(widths):
            _batch_norm(w, f"main.{3 * i + 1}", b)
    z = latents(2, 13)
    convolutions = [f"main.{3 * i}" for i in range(len(widths) + 1)]
    norms = [f"main.{3 * i + 1}" for i in range(len(widths))]
    expected = ref.dcgan(w, z, convolutions, norms)
    gen = check("dcgan", dict(w), expected, z, tmp_path)
    assert gen.image_size == 8 * 2 ** (len(widths) - 1)


@pytest.mark.parametrize(
    ("depth", "channels", "loss", "categories"), [(1, 1, "DCGAN", [3]), (4, 3, "WGANGP", [])]
)
def test_dcgan_zoo_at_another_depth(depth, channels, loss, categories, tmp_path):
    w = ref.Weights()
    widths = [3 * 2 ** (depth - i) for i in range(depth + 1)]
    latent = 8 + sum(categories)
    w.draw("formatLayer.weight", latent, widths[0], 4, 4, std=0.3)
    _batch_norm(w, "main.batchNorm0", widths[0])
    for i, (a, b) in enumerate(itertools.pairwise(widths), start=1):
        w.draw(f"main.convTranspose{i}.weight", a, b, 4, 4, std=0.3)
        _batch_norm(w, f"main.batchNorm{i}", b)
    w.draw("main.outlayer.weight", widths[-1], channels, 4, 4, std=0.3)
    middle = [f"main.convTranspose{i}" for i in range(1, depth + 1)]
    norms = [f"main.batchNorm{i}" for i in range(depth + 1)]
    z = latents(2, latent)
    expected = ref.dcgan(
        w, z, ["formatLayer", *middle, "main.outlayer"], norms, tanh=loss == "DCGAN"
    )
    config = {"lossCriterion": loss, "categoryVectorDim": sum(categories)}
    gen = check("dcgan", {"config": config, "avgG": dict(w)}, expected, z, tmp_path)
    assert gen.network.categories == tuple(categories)


@pytest.mark.parametrize("name", ["dcgan_zoo_a", "pgan_zoo_a", "stylegan_zoo_a"])
def test_a_config_is_found_beside_the_network_and_a_missing_one_is_reported(name, tmp_path):
    content, family = load(name), CASES[name][0]
    kept = {key: content[key] for key in ("config", "avgG")}
    files = {"plain": kept, "nested": {"epoch": 3, "model": kept}, "bare": content["avgG"]}
    sources = {
        how: convert(family, write(tmp_path / how, file), tmp_path / f"{how}_out").manifest[
            "source"
        ]
        for how, file in files.items()
    }
    assert "assumed" not in sources["plain"]
    assert "assumed" not in sources["nested"]
    assert sources["bare"]["assumed"][0].startswith("the file has no config: ")
