"""StyleGAN2 in rosinality's form at other sizes, compared with torch."""

import itertools

import numpy as np
import pytest
import torch

from cgjax.errors import UserError
from converters.__main__ import convert
from converters.reference.common import mapping_nvidia
from tests.converters import reference as ref
from tests.converters.comparing import check, latents

pytestmark = pytest.mark.torch


def _rosinality_state(depths, channels, widths, stored, mlp_std, taps=ref.TAPS):
    w, style_dim, filter4 = ref.Weights(), widths[-1], 4 * torch.outer(taps, taps)
    for i, (a, b) in enumerate(itertools.pairwise(widths), start=1):
        w.draw(f"style.{i}.weight", b, a, std=mlp_std)
        w.draw(f"style.{i}.bias", b, std=mlp_std / 3)
    w.draw("input.input", 1, depths[0], 4, 4)

    def styled(name, width_out, width_in, k):
        w.draw(f"{name}.conv.weight", 1, width_out, width_in, k, k)
        w.draw(f"{name}.conv.modulation.weight", width_in, style_dim, std=0.5)
        w.draw(f"{name}.conv.modulation.bias", width_in, std=0.3, mean=1.0)

    for layer in range(2 * len(depths) - 1):
        name, r, up = f"convs.{layer - 1}" if layer else "conv1", (layer + 1) // 2, layer % 2
        styled(name, depths[r], depths[r - up], 3)
        w.draw(f"{name}.noise.weight", 1)
        w.draw(f"{name}.activate.bias", depths[r])
        if up:
            w[f"{name}.conv.blur.kernel"] = filter4
        if stored:
            w.draw(f"noises.noise_{layer}", 1, 1, 4 * 2**r, 4 * 2**r)
    for r, depth in enumerate(depths):
        name = f"to_rgbs.{r - 1}" if r else "to_rgb1"
        styled(name, channels, depth, 1)
        w.draw(f"{name}.bias", 1, channels, 1, 1)
        if r:
            w[f"{name}.upsample.kernel"] = filter4
    return w


@pytest.mark.parametrize(
    ("depths", "channels", "widths", "stored", "options", "settings"),
    [
        ([6], 3, [7, 7], True, {"psi": 0.6}, {}),
        ([5, 6, 4, 3], 3, [9, 8, 7], False, {"psi": 1.5}, {}),
        ([6, 5, 4], 1, [8] * 9, True, {"rate": 0.5, "psi": 0.3}, {"lr_mlp": "0.5"}),
        ([6, 5, 4], 3, [7, 7], True, {"psi": 1, "taps": torch.tensor([1.0, 2.0, 1.0]) / 4}, {}),
        ([6, 5], 3, [7, 7], True, {"psi": 1, "taps": torch.tensor([1.0, 2, 3, 4, 5, 5]) / 20}, {}),
    ],
    ids=["4x4", "no_noise", "gray_mapping_rate", "three_taps", "six_taps"],
)
def test_stylegan2_rosinality(depths, channels, widths, stored, options, settings, tmp_path):
    taps = options.get("taps", ref.TAPS)
    w = _rosinality_state(depths, channels, widths, stored, 1.0 if settings else 100.0, taps)
    w.draw("latent_avg", widths[-1])
    z = latents(2, widths[0])
    expected = ref.stylegan2_rosinality(w, z, 4 * 2 ** (len(depths) - 1), **options)
    state = {n: v for n, v in w.items() if n != "latent_avg"}
    content = {"g_ema": state, "g": {**state, "input.input": w["input.input"] + 1},
               "latent_avg": w["latent_avg"], "d": {"x": torch.zeros(2)}}  # fmt: skip
    gen = check("stylegan2", content, expected, z, tmp_path, settings, truncation=options["psi"])
    assert gen.network.has_noise == stored
    assert len(gen.manifest["source"].get("assumed", [])) == (not settings)


def test_without_a_mean_style_one_is_estimated_and_reported(tmp_path):
    w = _rosinality_state([5, 4], 3, [6, 6], True, 100.0)
    torch.save({"g_ema": dict(w)}, tmp_path / "f.pt")
    gen = convert("stylegan2", tmp_path / "f.pt", tmp_path / "out")
    assert any("10000 latents" in text for text in gen.manifest["source"]["assumed"])
    mapped = mapping_nvidia(w, latents(4000, 6), name="style.{}", first=1)
    mean = np.asarray(gen.network.mean_style[...])
    spread = mapped.std(dim=0).numpy()
    np.testing.assert_array_less(np.abs(mean - mapped.mean(dim=0).numpy()), 0.1 * spread)


def test_a_filter_that_is_not_separable_or_differs_between_layers_is_named(tmp_path):
    for change, message in (
        (lambda k: k + torch.eye(4), "is not the product of a filter"),
        (lambda k: torch.ones(4, 4) / 4, "is not the filter of"),
    ):
        w = _rosinality_state([6, 5, 4], 3, [7, 7], True, 100.0)
        name = "to_rgbs.1.upsample.kernel"
        w[name] = change(w[name])
        torch.save({"g_ema": dict(w)}, tmp_path / "f.pt")
        with pytest.raises(UserError, match=f"{name} {message}"):
            convert("stylegan2", tmp_path / "f.pt", tmp_path / "out")
