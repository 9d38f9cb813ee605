"""StyleGAN3: other architectures compared with torch, and the placement of its plane."""

import tempfile

import numpy as np
import pytest
import torch

from cgjax.errors import UserError
from cgjax.generators.stylegan3_filters import low_pass
from converters.__main__ import convert, inspect
from converters.reference.stylegan3 import plan_layers, stylegan3
from tests.converters import reference as ref
from tests.converters.comparing import check, latents, one_hot
from tests.converters.files import command
from tests.converters.pickles import as_nvidia_s, dumps, module
from tests.golden_cases import TOLERANCE, error, load_golden, run_everything

pytestmark = pytest.mark.torch

SMALL = {"num_layers": 3, "num_critical": 1, "margin_size": 3}


def _state(size, widths, channels=3, classes=0, latent=6, style_dim=5, mapping=(7,), **options):
    """Draw a state dict with the formats' names."""
    w, plan = ref.Weights(), plan_layers(size, **options)

    def dense(name, o, i, std=1.0, mean=0.0):
        w.draw(f"{name}.weight", o, i, std=std)
        w.draw(f"{name}.bias", o, std=std / 3, mean=mean)

    first = latent
    if classes:
        dense("mapping.embed", style_dim, classes)
        first += style_dim
    for i, width in enumerate((*mapping, style_dim)):
        dense(f"mapping.fc{i}", width, first, std=100.0)
        first = width
    w.draw("mapping.w_avg", style_dim)
    w.draw("synthesis.input.freqs", widths[0], 2, std=2.0)
    w.draw("synthesis.input.phases", widths[0], std=0.3)
    w["synthesis.input.transform"] = torch.eye(3)
    w.draw("synthesis.input.weight", widths[0], widths[0])
    dense("synthesis.input.affine", 4, style_dim)
    outputs = (*widths[1:], channels)
    for i, (layer, a, b) in enumerate(zip(plan, widths, outputs, strict=True)):
        name = f"synthesis.L{i}_{layer.after.pixels}_{b}"
        w.draw(f"{name}.weight", b, a, layer.kernel, layer.kernel)
        w.draw(f"{name}.bias", b, std=0.3)
        dense(f"{name}.affine", a, style_dim, std=0.5, mean=1.0)
        w[f"{name}.magnitude_ema"] = torch.rand((), generator=w.generator) + 0.5
        filters = ("up", layer.up_taps, layer.before), ("down", layer.down_taps, layer.after)
        for part, taps, band in filters:
            radial = layer.is_round and part == "down"
            if taps > 1:
                how = (taps, band.cutoff, band.half_width, layer.middle_rate)
                design = low_pass(*how, radial=radial)
                w[f"{name}.{part}_filter"] = torch.from_numpy(np.array(design))
    return w


@pytest.mark.parametrize(
    ("size", "widths", "classes", "options", "call", "settings"),
    [
        (16, [5, 6, 4, 3], 0, SMALL, {"psi": 0.6, "cutoff": 2},
         {"margin_size": "3", "num_critical": "1"}),
        (32, [4, 5, 4, 3, 4], 3,
         {"num_layers": 4, "num_critical": 2, "margin_size": 4, "conv_kernel": 1,
          "use_radial_filters": True, "conv_clamp": 0.5, "output_scale": 0.7},
         {"psi": 1.3}, None),
        (64, [4, 4, 3, 3, 4, 3], 0,
         {"num_layers": 5, "num_critical": 0, "margin_size": 2, "first_cutoff": 3.0,
          "first_stopband": 5.0, "last_stopband_rel": 1.5, "filter_size": 4,
          "lrelu_upsampling": 4, "conv_clamp": None}, {"rate": 0.5}, None),
        (16, [4, 3, 3, 5], 2, {**SMALL, "lrelu_upsampling": 1, "filter_size": 3}, {}, None),
    ],
    ids=["state_dict", "round_conditional_clamped", "own_cutoffs", "gray_odd_taps"],
)  # fmt: skip
def test_stylegan3(size, widths, classes, options, call, settings, tmp_path, monkeypatch):
    channels = 1 if classes == 2 else 3
    w = _state(size, widths, channels, classes, **options)
    z, label = latents(2, 6), one_hot(2, classes) if classes else None
    expected = stylegan3(w, z, size, label, **call, **options)
    keywords = {"condition": label.numpy()} if classes else {}
    keywords |= {"truncation": call.get("psi"), "truncation_layers": call.get("cutoff")}
    if settings is not None:
        gen = check("stylegan3", {"G_ema": dict(w)}, expected, z, tmp_path, settings, **keywords)
        assert any("conv_clamp: 256" in text for text in gen.manifest["source"]["assumed"])
        return
    as_nvidia_s(monkeypatch)
    kept = {"mapping.fc0.bias_gain": call.get("rate", 0.01)}
    content = {"G_ema": module("training.networks_stylegan3.Generator", "", w, kept, **options)}
    path = tmp_path / "f.pkl"
    path.write_bytes(dumps(content))
    gen = convert("stylegan3", path, tmp_path / "out")
    found, _ = run_everything(gen, z.numpy(), resume=False, **keywords)
    assert set(found) == set(expected)
    errors = {name: error(found[name], expected[name].numpy()) for name in expected}
    assert {name: e for name, e in errors.items() if e >= TOLERANCE} == {}
    assert gen.network.synthesis[0].clamp == options.get("conv_clamp", 256)


@pytest.mark.parametrize(
    ("layers", "critical", "margin", "taps", "dtype"),
    [
        (4, 3, 10, 6, torch.float32),
        (4, 1, 3, 6, torch.float16),
        (3, 2, 2, 5, torch.bfloat16),
        (1, 0, 4, 6, torch.float8_e4m3fn),
    ],
    ids=["critical", "margin_half", "taps_bfloat16", "one_layer_float8"],
)
def test_the_schedule_is_recovered_from_names_and_filters(
    layers, critical, margin, taps, dtype, tmp_path
):
    options = {"num_layers": layers, "num_critical": critical, "margin_size": margin}
    w = _state(32, [4] * (layers + 1), filter_size=taps, **options)
    torch.save({name: value.to(dtype) for name, value in w.items()}, tmp_path / "f.pt")
    gen = convert("stylegan3", tmp_path / "f.pt", tmp_path / "out")
    found = gen.manifest["architecture"]["schedule"]
    assert (found["num_critical"], found["margin"]) == (critical, margin if layers > 1 else 10)
    assert found["filter_size"] == taps


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (
            lambda w: w,
            {"margin_size": "4"},
            "L0_22_6 is 24 pixels wide with num_critical=2.*--set num_critical=",
        ),
        (lambda w: w, {"margin_size": "3", "num_critical": "3"}, "num_critical=3 of 3 layers"),
        (
            lambda w: {**w, "synthesis.L0_22_6.up_filter": torch.rand(12)},
            {"margin_size": "3", "num_critical": "1"},
            "up_filter is another filter",
        ),
        (
            lambda w: {n: v for n, v in w.items() if "L1_" not in n},
            {},
            "layers L0_22_6, L2_16_3, L3_16_3; expected",
        ),
        (lambda w: {**w, "mapping.embed_proj.weight": torch.ones(1)}, {}, "is a StyleGAN-XL"),
        (
            lambda w: {**w, "synthesis.L0_22_6.magnitude_ema": torch.zeros(())},
            {"margin_size": "3", "num_critical": "1"},
            "expected a positive number",
        ),
    ],
    ids=["margin", "critical", "filter", "gap", "xl", "magnitude"],
)
def test_a_mismatch_with_the_schedule_is_refused_in_one_line(change, settings, message, tmp_path):
    w = change(dict(_state(16, [5, 6, 4, 3], **SMALL)))
    torch.save({"G_ema": w}, tmp_path / "f.pt")
    with pytest.raises(UserError, match=message) as caught:
        convert("stylegan3", tmp_path / "f.pt", tmp_path / "out", settings)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def small():
    """A network of few layers, and its state dict."""
    w = _state(16, [5, 6, 4, 3], **SMALL)
    with tempfile.TemporaryDirectory() as folder:
        torch.save({"G_ema": dict(w)}, f"{folder}/f.pt")
        settings = {"margin_size": "3", "num_critical": "1"}
        return w, convert("stylegan3", f"{folder}/f.pt", f"{folder}/out", settings)


def test_resuming_equals_the_whole_pass_from_every_layer(small):
    _, gen = small
    activations, resumed = run_everything(gen, latents(2, 6).numpy(), truncation=0.7)
    assert set(resumed) == set(gen.layers)
    image = np.asarray(activations["image"])
    for layer in gen.layers:
        np.testing.assert_allclose(resumed[layer], image, atol=1e-5 * np.abs(image).max())


def test_resuming_needs_the_style_and_takes_one_a_layer(small):
    _, gen = small
    z = latents(2, 6).numpy()
    h, w = gen.features(z, "L0_22_6"), gen.features(z, "w")
    whole = np.asarray(gen.images(z)).transpose(0, 3, 1, 2)
    assert error(gen.resume(h, "L0_22_6", w=w), whole) < TOLERANCE
    with pytest.raises(UserError, match="latents=z"):
        gen.resume(h, "L0_22_6")
    by_layer = np.repeat(np.asarray(w)[:, None], gen.network.num_styles, axis=1)
    assert error(gen.resume(by_layer, "w"), whole) < TOLERANCE


def test_noise_and_classes_are_refused_by_a_network_without_them(small):
    _, gen = small
    with pytest.raises(UserError, match="takes no 'noise'"):
        gen.images(latents(1, 6).numpy(), noise="zeros")
    with pytest.raises(UserError, match="takes no 'condition'"):
        gen.images(latents(1, 6).numpy(), condition=0)


def test_rotation_and_translation_are_the_reference_s_transform(small):
    w, gen = small
    z = latents(2, 6)
    angle = np.deg2rad(25.0)
    # As in the authors' script: rotated and shifted, then inverted.
    moved = np.eye(3)
    moved[:2, :2] = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    moved[:2, 2] = [0.2, -0.1]
    placed = torch.from_numpy(np.linalg.inv(moved)).float()
    expected = stylegan3(w, z, 16, placed=placed, **SMALL)
    ours, _ = run_everything(gen, z.numpy(), rotation=25, translation=(0.2, -0.1), resume=False)
    for name in ("input", "L0_22_6", "image"):
        assert error(ours[name], expected[name].numpy()) < TOLERANCE


def test_a_shift_moves_the_input_s_pixels_to_the_right_and_down(small):
    _, gen = small
    z = latents(2, 6).numpy()
    rate = gen.network.source.plan.rate
    plain = np.asarray(gen.features(z, "input"))
    moved = np.asarray(gen.features(z, "input", translation=(3 / rate, 1 / rate)))
    np.testing.assert_allclose(moved[:, 1:, 3:], plain[:, :-1, :-3], atol=1e-4)


def test_a_quarter_turn_anticlockwise_turns_the_input_s_map(small):
    _, gen = small
    z = latents(2, 6).numpy()
    plain = np.asarray(gen.features(z, "input"))
    turned = np.asarray(gen.features(z, "input", rotation=90))
    np.testing.assert_allclose(turned, np.rot90(plain, axes=(1, 2)), atol=1e-4)


def test_each_row_may_be_placed_separately(small):
    _, gen = small
    z = latents(2, 6).numpy()
    both = gen.features(z, "input", rotation=[0, 40], translation=[(0, 0), (0.1, 0.2)])
    # The style shifts by up to 1.9, in float32 and by products of other sizes by 4e-7 otherwise:
    # with frequencies of up to 4.3 a phase by 2 pi * 4.3 * 4e-7 = 1.1e-5, of each of the sines that
    # are mixed. A placement changes the map by more than 1.
    rounding = 3e-5
    np.testing.assert_allclose(both[:1], gen.features(z[:1], "input"), atol=rounding)
    second = gen.features(z[1:], "input", rotation=40, translation=(0.1, 0.2))
    np.testing.assert_allclose(both[1:], second, atol=rounding)
    assert np.abs(both[1:] - gen.features(z[1:], "input")).max() > 1


@pytest.mark.parametrize(
    "keywords",
    [
        {"rotation": "left"},
        {"rotation": float("nan")},
        {"rotation": [1, 2, 3]},
        {"translation": (1, 2, 3)},
        {"translation": [(0, 0)] * 3},
    ],
    ids=str,
)
def test_a_wrong_placement_is_refused(small, keywords):
    _, gen = small
    with pytest.raises(UserError, match=r"expected degrees, such as 30, and \(right, down\)"):
        gen.features(latents(2, 6).numpy(), "input", **keywords)


def test_style_weights_read_w(small):
    _, gen = small
    weights = gen.network.latent_weights(gen.layers[-2:])
    assert weights.shape == (5, 4 + 3)
    np.testing.assert_array_equal(gen.network.latent_weights()[:, -7:], weights)


def test_verifying_in_torch_uses_the_schedule_and_the_rate_of_the_pickle(
    tmp_path, monkeypatch, capsys
):
    options = SMALL | {"conv_kernel": 1, "use_radial_filters": True, "output_scale": 0.4}
    as_nvidia_s(monkeypatch)
    w = _state(16, [5, 6, 4, 3], classes=2, **options)
    kept = {"mapping.fc0.bias_gain": 0.5}
    made = module("training.networks_stylegan3.Generator", "", w, kept, **options)
    (tmp_path / "f.pkl").write_bytes(dumps({"G_ema": made}))
    flags = (f"--src={tmp_path / 'f.pkl'}", f"--dst={tmp_path / 'out'}", "--verify=torch")
    assert command("stylegan3", *flags) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "verified: " in line]
    assert len(said) == 8
    assert float(said[-1].split()[2]) < 3e-5
    assert command("stylegan3", *flags, "--dtype=float16") == 2
    assert "verify first" in capsys.readouterr().err


def test_inspect_names_the_schedule_of_a_conditional_pickle():
    said = inspect(load_golden("stylegan3_r_a").checkpoint)
    assert "family: stylegan3" in said.splitlines()
    assert "'radial': True" in said
    assert "num_classes: 4" in said
