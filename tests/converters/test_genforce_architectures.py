"""Networks of genforce besides the fixtures, compared with torch.

Every layer and the image are compared; the random state dicts use the formats' names.
"""

import itertools

import pytest
import torch

from tests.converters import reference as ref
from tests.converters.comparing import check, latents, one_hot

pytestmark = pytest.mark.torch


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
