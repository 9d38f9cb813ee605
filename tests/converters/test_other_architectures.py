"""Other widths, resolutions and options than the fixtures', against the formats written in torch.

Every layer and the image are compared; the random state dicts have the names of the notes.
"""

import itertools
import json
import math

import pytest
import torch

from tests.converters import reference as ref
from tests.converters.comparing import check, latents, one_hot

pytestmark = pytest.mark.torch


# StyleGAN2


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
    expected = ref.stylegan2_nvidia(w, z, len(depths), label, **options)
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
