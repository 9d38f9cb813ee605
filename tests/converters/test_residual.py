"""Residual generators of GAN_stability and of Self-Conditioned GAN, compared with torch."""

import numpy as np
import pytest
import torch

from cgjax.errors import UserError
from converters.__main__ import convert
from tests.converters import reference as ref
from tests.converters.comparing import check, latents, one_hot
from tests.converters.files import command, write

pytestmark = pytest.mark.torch

LATENT, EMBEDDED, CLASSES = 5, 4, 3
SIZES = {  # two blocks at each of three sizes
    "resnet_0_0": (8, 8),
    "resnet_0_1": (8, 8),
    "": None,
    "resnet_1_0": (8, 6),
    "resnet_1_1": (6, 6),
    " ": None,
    "resnet_2_0": (6, 4),
    "resnet_2_1": (4, 4),
}
RESNET3 = {"resnet_0_0": (8, 6), "": None, "resnet_1_0": (6, 4), " ": None}
RESNET4 = {"resnet_0_0": (8, 8), "": None, "resnet_1_0": (8, 4)}
SEQUENCE = {"resnet.0": (8, 8), "": None, "resnet.2": (8, 6), " ": None, "resnet.4": (6, 6)}


def _state(blocks, embedding="", classes=CLASSES, size=4, kernel=3):
    w = ref.Weights()
    inputs = LATENT + (EMBEDDED if embedding else 0)
    if embedding:
        w.draw(embedding, classes, EMBEDDED)
    sides = [pair for pair in blocks.values() if pair]
    w.draw("fc.weight", size * size * sides[0][0], inputs, std=0.5)
    w.draw("fc.bias", size * size * sides[0][0])
    for name, pair in blocks.items():
        if pair:
            a, b = pair
            for part, o, i in (("conv_0", min(a, b), a), ("conv_1", b, min(a, b))):
                w.draw(f"{name}.{part}.weight", o, i, 3, 3, std=0.3)
                w.draw(f"{name}.{part}.bias", o)
            if a != b:
                w.draw(f"{name}.conv_s.weight", b, a, 1, 1, std=0.5)
    w.draw("conv_img.weight", 3, sides[-1][1], kernel, kernel, std=0.3 / kernel)
    w.draw("conv_img.bias", 3, std=0.1)
    return w


def _expected(w, blocks, z, classes, normalize=True):
    return ref.residual(w, z, classes, [name.strip() for name in blocks], normalize)


@pytest.mark.parametrize(
    ("blocks", "embedding", "size"),
    [
        (SIZES, "get_latent.embedding.weight", 4),
        (SIZES, "embedding.weight", 2),
        (SEQUENCE, "embedding.weight", 4),
    ],
    ids=["self_conditioned", "resnet2", "resnet"],
)
def test_every_layer_of_a_network_with_classes_equals_torch(blocks, embedding, size, tmp_path):
    w, z = _state(blocks, embedding, size=size), latents(4, LATENT)
    classes = one_hot(4, CLASSES)
    expected = _expected(w, blocks, z, classes)
    gen = check("residual", dict(w), expected, z, tmp_path, condition=classes.numpy())
    assert (gen.latent_dim, gen.network.num_classes) == (LATENT, CLASSES)
    assert gen.image_size == size * 4
    assert np.abs(expected["image"].numpy()).mean() < 0.9  # tanh hides nothing


@pytest.mark.parametrize("embedding", ["", "embedding.weight"], ids=["none", "one"])
def test_with_one_class_or_none_the_latent_is_the_only_input(embedding, tmp_path):
    w, z = _state(SEQUENCE, embedding, classes=1), latents(4, LATENT)
    expected = _expected(w, SEQUENCE, z, None)
    gen = check("residual", dict(w), expected, z, tmp_path)
    assert (gen.latent_dim, gen.network.num_classes) == (LATENT, 0)
    assert len(gen.manifest["source"].get("assumed", [])) == bool(embedding)


@pytest.mark.parametrize("blocks", [RESNET3, RESNET4], ids=["resnet3", "resnet4"])
def test_networks_with_a_wide_last_kernel_read_class_vectors_unscaled(blocks, tmp_path):
    w, z = _state(blocks, "embedding.weight", kernel=7), latents(4, LATENT)
    classes = one_hot(4, CLASSES)
    expected = _expected(w, blocks, z, classes, normalize=False)
    gen = check("residual", dict(w), expected, z, tmp_path, condition=classes.numpy())
    assert gen.image_size == 4 * 2 ** sum(pair is None for pair in blocks.values())
    assert gen.manifest["source"]["assumed"] == [
        "normalize_classes false (--set normalize_classes=true)",
        f"doubles_last {str(blocks is RESNET3).lower()} "
        f"(--set doubles_last={str(blocks is not RESNET3).lower()})",
    ]


def test_what_the_tensors_do_not_determine_can_be_given(tmp_path):
    w, z = _state(RESNET3, "embedding.weight", kernel=7), latents(4, LATENT)
    given = {"normalize_classes": "true", "doubles_last": "false"}
    classes = one_hot(4, CLASSES)
    expected = _expected(w, list(RESNET3)[:-1], z, classes)
    gen = check("residual", dict(w), expected, z, tmp_path, given, condition=classes.numpy())
    assert gen.image_size == 8
    assert "assumed" not in gen.manifest["source"]


def test_the_average_of_a_training_checkpoint_is_taken(tmp_path):
    raw, average = ({f"module.{n}": v for n, v in _state(SIZES).items()} for _ in range(2))
    average["module.fc.bias"] = average["module.fc.bias"] + 1
    content = {"it": 7, "generator": raw, "generator_test": average}
    path = write(tmp_path / "model.pt", content)
    gen = convert("residual", path, tmp_path / "out")
    assert gen.manifest["source"]["network"] == "generator_test"
    bias = average["module.fc.bias"].reshape(8, 4, 4).permute(1, 2, 0)
    np.testing.assert_array_equal(gen.network.first_bias[...], bias)


def test_verifying_runs_the_file_s_own_network(tmp_path, capsys):
    for name, blocks, kernel in (
        ("sizes", SIZES, 3),
        ("sequence", SEQUENCE, 3),
        ("resnet3", RESNET3, 7),
    ):
        state = _state(blocks, "embedding.weight", kernel=kernel)
        path = write(tmp_path / f"{name}.pt", dict(state))
        out = f"--dst={tmp_path / name}"
        assert command("residual", f"--src={path}", out, "--verify=torch") == 0
        lines = [line for line in capsys.readouterr().out.splitlines() if "verified: " in line]
        assert len(lines) == 2 + sum(pair is not None for pair in blocks.values())
        assert float(lines[-1].split()[2]) < 3e-5


def _without(name):
    return lambda w: {key: value for key, value in w.items() if not key.startswith(name)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("resnet_1_0"), "missing resnet_1_0.conv_1.weight"),
        (_without("resnet_2_0.conv_s"), "missing resnet_2_0.conv_s.weight"),
        (lambda w: w | {"stray": torch.zeros(1)}, "extra stray"),
        (lambda w: w | {"fc.weight": torch.zeros(50, 9)}, "not a square map of 8 channels"),
        (lambda w: w | {"embedding.weight": torch.zeros(3, 9)}, "expected a latent too"),
        (lambda w: w | {"embedding.weight": torch.zeros(3, 4)}, "has a zero vector"),
        (lambda w: w | {"conv_img.weight": torch.zeros(3, 4, 4, 4)}, "expected an odd one"),
        (
            lambda w: w | {"conv_img.weight": torch.zeros(3, 5, 3, 3)},
            r"conv_img.weight has shape \(3, 5, 3, 3\), expected \(3, 4, 3, 3\)",
        ),
        (
            lambda w: w | {"resnet_1_1.conv_0.weight": torch.zeros(6, 8, 3, 3)},
            r"expected \(6, 6, 3, 3\)",
        ),
    ],
)
def test_tensors_that_do_not_match_are_refused_in_one_line(change, message, tmp_path):
    path = write(tmp_path / "f.pt", change(dict(_state(SIZES, "embedding.weight"))))
    with pytest.raises(UserError, match=message):
        convert("residual", path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
