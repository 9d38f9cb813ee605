"""Other widths, resolutions and options than the fixtures', against the formats written in torch.

Every layer and the image are compared; the random state dicts have the names of the notes.
"""

import itertools
import json
import math

import jax
import numpy as np
import pytest
import torch

from tests.converters import reference as ref
from tests.converters.comparing import check, latents, one_hot

pytestmark = pytest.mark.torch


# pytorch_GAN_zoo


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


# genforce


@pytest.mark.parametrize(
    ("depths", "channels", "classes", "options", "settings"),
    [
        ([6], 3, 0, {}, {}),
        ([5, 4, 3], 1, 3, {}, {"label_size": "3"}),
        ([6, 6, 6], 3, 0, {"fused": True}, {"fused_scale": "true"}),
        ([6, 5, 4, 4, 3], 3, 0, {"fused": True, "wscale": False},
         {"fused_scale": "true", "use_wscale": "false"}),
        ([6, 5, 4, 3], 3, 0, {"lod": 1.3}, {}),
        ([6, 5, 4, 3], 3, 0, {"lod": 2.0, "tanh": True}, {"final_tanh": "true"}),
        ([6, 5], 3, 0, {"lod": 1.0}, {"lod": "1"}),
    ],
    ids=["4x4", "labels_gray", "fused_alike", "fused_64_unscaled", "lod_1.3", "lod_2", "lod_max"],
)  # fmt: skip
def test_pggan_genforce(depths, channels, classes, options, settings, tmp_path):
    w, latent = ref.Weights(), 9
    std = 0.2 if options.get("wscale") is False else 1.0
    for layer in range(2 * len(depths)):
        b, up = layer // 2, layer > 0 and layer % 2 == 0
        pair = (depths[b], depths[b - 1] if up else depths[b])
        if layer == 0:
            w.draw("layer0.weight", depths[0], latent + classes, 4, 4, std=std)
        else:
            pair = pair[::-1] if up and options.get("fused") else pair
            w.draw(f"layer{layer}.weight", *pair, 3, 3, std=std)
        w.draw(f"layer{layer}.bias", depths[b])
    for b, depth in enumerate(depths):
        w.draw(f"output{b}.weight", channels, depth, 1, 1)
        w.draw(f"output{b}.bias", channels)
    stored = 0.0 if "lod" in settings else options.get("lod", 0.0)
    state = {**w, "lod": torch.tensor(stored)}
    z = 2 * latents(2, latent)
    label = one_hot(2, classes) if classes else None
    expected = ref.pggan_genforce(w, z, len(depths), label, **options)
    keywords = {"condition": label.numpy()} if classes else {}
    content = {"generator_smooth": state, "discriminator": {"x": torch.zeros(1)}}
    gen = check("pgan", content, expected, z, tmp_path, settings, **keywords)
    assert gen.image_size == 4 * 2 ** (len(depths) - 1)


def _mapping_state(w, latent, classes, widths):
    first = latent
    if classes:
        w.draw("mapping.label_weight", classes, latent)
        first = 2 * latent
    for i, (a, b) in enumerate(itertools.pairwise([first, *widths])):
        w.draw(f"mapping.dense{i}.weight", b, a, std=100.0)
        w.draw(f"mapping.dense{i}.bias", b, std=30.0)


@pytest.mark.parametrize(
    ("depths", "widths", "classes", "options", "settings"),
    [
        ([6], [5, 7], 0, {}, {}),
        ([6, 5, 4], [8, 8, 7], 3, {"psi": 0.6}, {}),
        ([6, 5, 4], [9, 7], 0, {"fused": lambda r: True, "tanh": True},
         {"fused_scale": "true", "final_tanh": "true"}),
        ([6, 5, 4, 4, 3, 3], [7], 0, {"psi": 0.7, "psi_layers": 5}, {}),
        ([6, 5, 4, 4, 3, 3], [7], 0, {"fused": lambda r: False}, {"fused_scale": "false"}),
        ([5, 5, 4], [6, 6 * 7], 0, {"psi": 0.4, "psi_layers": 3}, {}),
        ([6, 5, 4], [7, 7], 0, {"lod": 0.7, "wscale": False}, {"use_wscale": "false"}),
        ([6, 5, 4], [7, 7], 0, {"rate": 0.1}, {"mapping_lr_mul": "0.1"}),
    ],
    ids=[
        "4x4", "labels", "fused_tanh", "auto_128", "unfused_128", "style_by_layer", "fading",
        "mapping_rate",
    ],
)  # fmt: skip
def test_stylegan_genforce(depths, widths, classes, options, settings, tmp_path):
    w, latent, style_dim = ref.Weights(), 8, 7
    scale = 0.1 if options.get("wscale") is False else 1.0
    _mapping_state(w, latent, classes, widths)
    w.draw("truncation.w_avg", widths[-1])
    for layer in range(2 * len(depths)):
        name, (b, second) = f"synthesis.layer{layer}", divmod(layer, 2)
        depth, size = depths[b], 4 * 2**b
        if layer == 0:
            w.draw(f"{name}.const", 1, depth, 4, 4)
        else:
            w.draw(f"{name}.weight", depth, depth if second else depths[b - 1], 3, 3, std=scale)
        w.draw(f"{name}.bias", depth)
        w.draw(f"{name}.apply_noise.weight", depth)
        w.draw(f"{name}.apply_noise.noise", 1, 1, size, size)
        w.draw(f"{name}.style.weight", 2 * depth, style_dim, std=scale)
        w.draw(f"{name}.style.bias", 2 * depth)
        if layer and not second:
            taps = torch.tensor([1.0, 2.0, 1.0]) / 4
            kernel = torch.outer(taps, taps).expand(depth, 1, 3, 3).contiguous()
            w[f"{name}.blur.kernel"] = kernel
    for b, depth in enumerate(depths):
        w.draw(f"synthesis.output{b}.weight", 3, depth, 1, 1)
        w.draw(f"synthesis.output{b}.bias", 3)
    state = {**w, "synthesis.lod": torch.tensor(options.get("lod", 0.0))}
    z = latents(2, latent)
    label = one_hot(2, classes) if classes else None
    expected = ref.stylegan_genforce(w, z, len(depths), len(widths), label, **options)
    keywords = {"condition": label.numpy()} if classes else {}
    keywords |= {"truncation": options.get("psi"), "truncation_layers": options.get("psi_layers")}
    check("stylegan", {"generator_smooth": state}, expected, z, tmp_path, settings, **keywords)


# StyleGAN2


@pytest.mark.parametrize(
    ("depths", "channels", "classes", "options", "settings"),
    [
        ([6], 3, 0, {}, {}),
        ([6, 5], 1, 3, {"psi": 0.5, "psi_layers": 2}, {}),
        ([6, 5, 4], 3, 0, {"skip": False, "tanh": True}, {"final_tanh": "true"}),
        ([5, 4, 4, 3, 3], 3, 0, {"demodulate": False}, {"demodulate": "false"}),
        ([6, 5], 3, 0, {"wscale": False, "rate": 0.02},
         {"use_wscale": "false", "mapping_lr_mul": "0.02"}),
    ],
    ids=["4x4", "labels_gray", "orig_tanh", "plain_64", "unscaled"],
)  # fmt: skip
def test_stylegan2_genforce(depths, channels, classes, options, settings, tmp_path):
    w, latent, style_dim = ref.Weights(), 8, 7
    scale = 0.2 if options.get("wscale") is False else 1.0
    _mapping_state(w, latent, classes, [9, style_dim])
    w.draw("truncation.w_avg", style_dim)
    w.draw("synthesis.early_layer.const", 1, depths[0], 4, 4)
    filter4 = 4 * torch.outer(ref.TAPS, ref.TAPS)[None, None]
    w["synthesis.upsample.kernel"] = filter4

    def styled(name, width_out, width_in, k):
        w.draw(f"{name}.weight", width_out, width_in, k, k, std=scale)
        w.draw(f"{name}.bias", width_out)
        w.draw(f"{name}.style.weight", width_in, style_dim, std=0.3)
        w.draw(f"{name}.style.bias", width_in, std=0.3)

    for layer in range(2 * len(depths) - 1):
        name, r, up = f"synthesis.layer{layer}", (layer + 1) // 2, layer % 2
        styled(name, depths[r], depths[r - up], 3)
        w.draw(f"{name}.noise", 1, 1, 4 * 2**r, 4 * 2**r)
        w.draw(f"{name}.noise_strength")
        if up:
            w[f"{name}.filter.kernel"] = filter4
    for r in range(len(depths)) if options.get("skip", True) else [len(depths) - 1]:
        styled(f"synthesis.output{r}", channels, depths[r], 1)
    z = latents(2, latent)
    label = one_hot(2, classes) if classes else None
    expected = ref.stylegan2_genforce(w, z, len(depths), 2, label, **options)
    keywords = {"condition": label.numpy()} if classes else {}
    keywords |= {"truncation": options.get("psi"), "truncation_layers": options.get("psi_layers")}
    check("stylegan2", {"models": {"generator_smooth": dict(w)}}, expected, z, tmp_path,
           settings, **keywords)  # fmt: skip


@pytest.mark.parametrize(
    ("depths", "channels", "classes", "stored", "options", "settings"),
    [
        ([6], 3, 0, True, {}, {}),
        ([6, 5], 1, 4, True, {"psi": 1.4, "cutoff": 3}, {}),
        ([6, 5, 4], 3, 0, False, {"skip": False}, {}),
        ([6, 6, 5, 4], 4, 2, True, {"clamp": 0.8, "psi": 0.5}, {"conv_clamp": "0.8"}),
        ([6, 5], 3, 0, True, {"rate": 1.0}, {"lr_multiplier": "1"}),
        ([6, 5], 3, 0, True, {"taps": torch.tensor([1.0, 1.0]) / 2}, {}),
        ([6, 5], 3, 0, True, {"taps": torch.tensor([1.0, 2, 3, 4, 4, 3, 2, 1]) / 20}, {}),
    ],
    ids=[
        "4x4",
        "classes_psi_above_1",
        "orig_no_noise",
        "clamped_rgba",
        "mapping_rate",
        "two_taps",
        "eight_taps",
    ],
)
def test_stylegan2_nvidia(depths, channels, classes, stored, options, settings, tmp_path):
    w, latent, style_dim, embedding = ref.Weights(), 8, 7, 5
    mapping_std = 1.0 if "rate" in options else 100.0
    first = latent + (embedding if classes else 0)
    if classes:
        w.draw("mapping.embed.weight", embedding, classes)
        w.draw("mapping.embed.bias", embedding)
    for i, (a, b) in enumerate(itertools.pairwise([first, 9, style_dim])):
        w.draw(f"mapping.fc{i}.weight", b, a, std=mapping_std)
        w.draw(f"mapping.fc{i}.bias", b, std=mapping_std / 3)
    w.draw("mapping.w_avg", style_dim)
    taps = options.get("taps", ref.TAPS)
    filter4 = torch.outer(taps, taps) if len(taps) < 8 else taps
    w.draw("synthesis.b4.const", depths[0], 4, 4)

    def affine(name, width_in):
        w.draw(f"{name}.affine.weight", width_in, style_dim, std=0.5)
        w.draw(f"{name}.affine.bias", width_in, std=0.3, mean=1.0)

    for r, depth in enumerate(depths):
        block = f"synthesis.b{4 * 2**r}"
        w[f"{block}.resample_filter"] = filter4
        for part in ("conv1",) if r == 0 else ("conv0", "conv1"):
            name, width_in = f"{block}.{part}", depths[r - (part == "conv0")]
            w.draw(f"{name}.weight", depth, width_in, 3, 3)
            w.draw(f"{name}.bias", depth)
            w[f"{name}.resample_filter"] = filter4
            affine(name, width_in)
            if stored:
                w.draw(f"{name}.noise_const", 4 * 2**r, 4 * 2**r)
                w.draw(f"{name}.noise_strength")
        if options.get("skip", True) or r == len(depths) - 1:
            w.draw(f"{block}.torgb.weight", channels, depth, 1, 1)
            w.draw(f"{block}.torgb.bias", channels)
            affine(f"{block}.torgb", depth)
    z = latents(2, latent)
    label = one_hot(2, classes) if classes else None
    expected = ref.stylegan2_nvidia(w, z, len(depths), 2, label, **options)
    keywords = {"condition": label.numpy()} if classes else {}
    keywords |= {"truncation": options.get("psi"), "truncation_layers": options.get("cutoff")}
    check("stylegan2", {"G_ema": dict(w)}, expected, z, tmp_path, settings, **keywords)


# GANDissect


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("depths", [[5], [7, 6, 5, 4, 3]])
def test_pggan_netdissect(depths, old, tmp_path):
    w, layers = ref.Weights(), 2 * len(depths)
    output = f"output_{4 * 2 ** (len(depths) - 1)}x{4 * 2 ** (len(depths) - 1)}"
    w.draw("layer1.conv.weight", depths[0], 9, 4, 4)
    for n in range(2, layers + 1):
        b = (n - 1) // 2
        w.draw(f"layer{n}.conv.weight", depths[b], depths[b - n % 2], 3, 3)
    for n in range(1, layers + 1):
        w.draw(f"layer{n}.wscale.b", depths[(n - 1) // 2])
    w.draw(f"{output}.conv.weight", 3, depths[-1], 1, 1)
    w.draw(f"{output}.wscale.b", 3)
    z = latents(2, 9)
    expected = ref.pggan_netdissect(w, z, layers, output)
    state = dict(w)
    if old:
        names = {f"layer{n}.": f"features.{n - 1}." for n in range(1, layers + 1)}
        names[f"{output}."] = "output."
        state = {
            next(names[p] for p in names if n.startswith(p)) + n.split(".", 1)[1]: v
            for n, v in w.items()
        }
    check("pgan", {"state_dict": state} if old else state, expected, z, tmp_path)


# BigGAN-deep

START = [[0, 16, 16], [1, 16, 16], [0, 16, 16], [1, 16, 8], [0, 8, 8]]
MIDDLE = [[1, 8, 8], [0, 8, 8], [1, 8, 4], [0, 4, 4], [1, 4, 2], [0, 2, 2], [1, 2, 1]]
LAYOUTS = {
    128: [*START, [1, 8, 4], [0, 4, 4], [1, 4, 2], [0, 2, 2], [1, 2, 1]],
    256: [*START, *MIDDLE],
    512: [*START, *MIDDLE, [0, 1, 1], [1, 1, 1]],
}


def _biggan_state(config, stored_v=True):
    w, z_dim, ch = ref.Weights(), config["z_dim"], config["channel_width"]

    def spectral(name, *shape):
        w.draw(f"{name}.weight_orig", *shape)
        matrix = w[f"{name}.weight_orig"].reshape(shape[0], -1)
        # Near the leading pair, as a few power steps leave them, but not on it.
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        for part, vector in (("weight_u", left[:, 0]), ("weight_v", right[0])):
            moved = vector + 0.05 * torch.randn(vector.shape, generator=w.generator)
            w[f"{name}.{part}"] = moved / moved.norm()
        if not stored_v:
            del w[f"{name}.weight_v"]

    def statistics(name, width):
        w.draw(f"{name}.running_means", config["n_stats"], width, std=0.3)
        table = torch.rand(config["n_stats"], width, generator=w.generator)
        w[f"{name}.running_vars"] = 0.2 + table

    w.draw("embeddings.weight", z_dim, config["num_classes"])
    spectral("generator.gen_z", 256 * ch, 2 * z_dim)
    w.draw("generator.gen_z.bias", 256 * ch)
    index = 0
    for b, (_, i, o) in enumerate(config["layers"]):
        i, o = i * ch, o * ch
        if b == config["attention_layer_position"]:
            name = f"generator.layers.{index}"
            for part, rows, columns in (
                ("theta", i // 8, i), ("phi", i // 8, i), ("g", i // 2, i), ("o_conv", i, i // 2),
            ):  # fmt: skip
                spectral(f"{name}.snconv1x1_{part}", rows, columns, 1, 1)
            w.draw(f"{name}.gamma", 1)
            index += 1
        name, m = f"generator.layers.{index}", i // 4
        sizes = ((m, i, 1), (m, m, 3), (m, m, 3), (o, m, 1))
        for j, (rows, columns, k) in enumerate(sizes):
            statistics(f"{name}.bn_{j}", columns)
            spectral(f"{name}.bn_{j}.scale", columns, 2 * z_dim)
            spectral(f"{name}.bn_{j}.offset", columns, 2 * z_dim)
            spectral(f"{name}.conv_{j}", rows, columns, k, k)
            w.draw(f"{name}.conv_{j}.bias", rows, std=0.3)
        index += 1
    statistics("generator.bn", ch)
    w.draw("generator.bn.weight", ch)
    w.draw("generator.bn.bias", ch)
    spectral("generator.conv_to_rgb", ch, ch, 3, 3)
    w.draw("generator.conv_to_rgb.bias", ch)
    return w


@pytest.mark.parametrize(
    ("layers", "attention", "width", "n_stats", "eps", "t", "stored_v", "beside"),
    [
        (LAYOUTS[128], 8, 4, 51, 1e-4, 0.58, True, False),
        (LAYOUTS[256], 8, 4, 51, 1e-4, 0.28, False, False),
        (LAYOUTS[512], 8, 4, 51, 1e-4, 1.0, True, False),
        ([[1, 16, 8], [0, 8, 8], [1, 8, 4], [0, 4, 2], [1, 2, 1]], 2, 6, 21, 1e-2, 0.333, True,
         True),
        ([[1, 16, 8], [1, 8, 4], [0, 4, 2], [0, 2, 1]], 9, 4, 11, 1e-3, 0.14, False, True),
    ],
    ids=["128", "256", "512", "own_layout", "no_attention"],
)  # fmt: skip
def test_biggan(layers, attention, width, n_stats, eps, t, stored_v, beside, tmp_path):
    config = {
        "output_dim": 4 * 2 ** sum(up for up, _, _ in layers),
        "z_dim": 6,
        "class_embed_dim": 6,
        "channel_width": width,
        "num_classes": 5,
        "layers": layers,
        "attention_layer_position": attention,
        "eps": eps,
        "n_stats": n_stats,
    }
    w = _biggan_state(config, stored_v)
    n = 2 if len(layers) < 8 else 1
    z, classes = latents(n, 6), torch.softmax(latents(n, 5), dim=1)
    expected = ref.biggan(w, z, classes, t, config)
    name = "biggan-deep-x-pytorch_model.bin"
    if beside:
        beside_name = name.replace("pytorch_model.bin", "config.json")
        (tmp_path / beside_name).write_text(json.dumps(config))
    gen = check("biggan", dict(w), expected, z, tmp_path, name=name,
                 condition=classes.numpy(), truncation=t)  # fmt: skip
    assert gen.image_size == config["output_dim"]
    assert math.isclose(gen.network.eps, eps)
