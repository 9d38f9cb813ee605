"""StyleGAN3's filters equal the reference, and its filtered nonlinearity equals its definition."""

import jax
import numpy as np
import pytest
import scipy.signal
import torch

from cgjax.generators.resampling import Resampling, filtered_activation
from cgjax.generators.stylegan3_filters import (
    Schedule,
    down_filter,
    low_pass,
    plan_layers,
    up_filter,
)
from converters.reading import read_checkpoint
from converters.reference.stylegan3 import resample
from tests.golden_cases import error, load_golden

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("dense", [0, 1000], ids=["sums", "products"])
@pytest.mark.parametrize(
    ("up", "down", "taps", "padding", "is_round"),
    [
        (2, 2, (12, 12), (9, 8), False),
        (4, 2, (24, 12), (-6, -9), False),
        (2, 2, (12, 12), (11, 10), True),
        (1, 1, (1, 1), (0, 0), False),
        (3, 1, (5, 1), (2, -3), False),
        (1, 2, (1, 7), (-1, 2), True),
    ],
)
def test_filtered_activation_equals_its_definition(
    dense, up, down, taps, padding, is_round, monkeypatch
):
    monkeypatch.setattr("cgjax.generators.resampling.DENSE", dense)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 17, 14, generator=generator)
    first = torch.rand(taps[0], generator=generator)  # not symmetric, so the order matters
    shape = (taps[1], taps[1]) if is_round else (taps[1],)
    second = torch.rand(shape, generator=generator)
    y = torch.nn.functional.leaky_relu(resample(x, first, up, 1, padding), 0.3) * 2
    expected = resample(y.clamp(-3, 3), second, 1, down)
    how = Resampling(up, down, padding, 0.3, 2.0, 3.0)
    ours = jax.jit(filtered_activation, static_argnames="how")(
        x.permute(0, 2, 3, 1).numpy(), first.numpy(), second.numpy(), how=how
    )
    assert error(ours, expected.numpy()) < 1e-5


@pytest.mark.parametrize("name", ["stylegan3_t_a", "stylegan3_r_a"])
def test_designed_filters_equal_the_reference(name):
    golden = load_golden(name)
    state = read_checkpoint(golden.checkpoint).content["G_ema"]
    is_round = name == "stylegan3_r_a"
    _, plan = plan_layers(Schedule(32, kernel=1 if is_round else 3, radial=is_round))
    stated = sorted(golden.meta["layers"].items(), key=lambda item: int(item[0][1:].split("_")[0]))
    for (layer, expected), ours in zip(stated, plan, strict=True):
        assert [*ours.padding, *ours.padding] == expected["padding"]
        assert (ours.up, ours.down, ours.radial) == tuple(
            expected[key] for key in ("up", "down", "radial")
        )
        for part, designed in (("up", up_filter(ours)), ("down", down_filter(ours))):
            stored = state.get(f"synthesis.{layer}.{part}_filter")
            if stored is not None:
                np.testing.assert_allclose(designed, stored, atol=1e-7)


def test_a_low_pass_filter_passes_its_band_and_stops_higher_frequencies():
    taps, rate, cutoff, half = 48, 64, 8.0, 4.0
    for is_round in (False, True):
        design = low_pass(taps, cutoff, half, rate, radial=is_round)
        line = design.sum(axis=0) if is_round else design
        frequencies, response = scipy.signal.freqz(line, fs=rate, worN=512)
        assert abs(design.sum() - 1) < 1e-5
        assert np.abs(response[frequencies < cutoff - half]).min() > 0.98
        assert np.abs(response[frequencies > cutoff + half]).max() < 0.02
