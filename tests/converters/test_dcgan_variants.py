"""DCGANs of common training scripts equal their torch modules; others are refused in one line."""

import itertools

import jax
import numpy as np
import pytest
import torch
from torch import nn

from cgjax.errors import UserError
from converters.__main__ import convert
from converters.chains import find_chain
from tests.converters.files import command, write
from tests.golden_cases import TOLERANCE, error

pytestmark = pytest.mark.torch

T, B, R = nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU
LATENT = 6


def _trained(network):
    """Give a network weights and statistics as after training, and inference mode."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, T | nn.Conv2d):
            nn.init.normal_(module.weight, std=0.3)
        if isinstance(module, B) and module.running_mean is not None:
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                nn.init.normal_(module.weight, 1, 0.2)
                nn.init.normal_(module.bias)
    return network.eval()


def _stack(*layers, act=R, last=nn.Tanh):
    """Make a Sequential: (convolution, norm or None) pairs, all but the last one activated."""
    modules = []
    for i, (convolution, norm) in enumerate(layers):
        modules += [convolution, *([norm] if norm else [])]
        modules += [act()] if i < len(layers) - 1 else [last()] if last else []
    return nn.Sequential(*modules)


def _leaky():
    return nn.LeakyReLU(0.3)


NETWORKS = {
    "dropout": (
        nn.Sequential(T(6, 8, 4), B(8), R(), nn.Dropout(0.2), T(8, 5, 4, 2, 1), B(5), R(),
                      nn.Dropout2d(0.5), T(5, 3, 4, 2, 1), nn.Tanh()),
        {}, 16,
    ),
    "biases_7_to_28": (
        _stack((T(6, 8, 7), B(8)), (T(8, 5, 4, 2, 1), B(5)), (T(5, 1, 4, 2, 1), None)), {}, 28,
    ),
    "kernel_3_to_28": (
        _stack((T(6, 8, 4, bias=False), B(8)), (T(8, 6, 3, 2, 1), B(6)), (T(6, 5, 4, 2, 1), B(5)),
               (T(5, 1, 4, 2, 1), None)),
        {"image_size": "28"}, 28,
    ),
    "unpadded_to_28": (
        _stack((T(6, 8, 3, 2), B(8)), (T(8, 6, 4, 1), B(6)), (T(6, 5, 3, 2), B(5)),
               (T(5, 1, 4, 2), None)),
        {"strides": "2,1,2,2", "paddings": "0,0,0,0"}, 28,
    ),
    "stride_1_stage": (
        _stack((T(6, 8, 4), B(8)), (T(8, 8, 3, 1, 1), B(8)), (T(8, 3, 4, 2, 1), None)), {}, 8,
    ),
    "output_padding": (
        _stack((T(6, 8, 5, 1, 1), None), (T(8, 6, 5, 2, 2, 1), B(6)), (T(6, 3, 6, 2, 2), None)),
        {"strides": "1,2,2", "paddings": "1,2,2", "output_paddings": "0,1,0"}, 12,
    ),
    "leaky_sigmoid_eps": (
        _stack((T(6, 8, 4), B(8, 0.1)), (T(8, 5, 4, 2, 1), B(5, 0.1)), (T(5, 4, 2, 2), None),
               act=_leaky, last=nn.Sigmoid),
        {"leak": "0.3", "output": "sigmoid", "eps": "0.1"}, 16,
    ),
    "no_affine_no_output": (
        _stack((T(6, 8, 4), B(8, affine=False)), (T(8, 3, 4, 2, 1), None), last=None),
        {"output": "none"}, 8,
    ),
    "norm_at_the_end": (
        _stack((T(6, 8, 4), B(8)), (T(8, 3, 4, 2, 1), B(3))), {}, 8,
    ),
    "plain_convolution_at_the_end": (
        _stack((T(6, 8, 4), B(8)), (T(8, 6, 4, 2, 1), None), (nn.Conv2d(6, 3, 3, 1, 1), None)),
        {}, 8,
    ),
    "plain_convolution_by_name": (
        _stack((T(6, 8, 4), B(8)), (nn.Conv2d(8, 8, 3, 1, 1), B(8)), (T(8, 3, 4, 2, 1), None)),
        {"convolutions": "3"}, 8,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_images_equal_the_module_s_own(name, tmp_path):
    network, settings, size = NETWORKS[name]
    _trained(network)
    gen = convert(
        "dcgan", write(tmp_path / "f.pth", network.state_dict()), tmp_path / "o", settings
    )
    z = torch.randn(2, LATENT)
    with torch.no_grad():
        expected = network(z[:, :, None, None]).numpy()
    if settings.get("output") == "sigmoid":
        expected = 2 * expected - 1  # the contract's range is [-1, 1]
    assert gen.image_size == size
    assert error(gen.images(z.numpy()), expected) < TOLERANCE


def test_strides_that_reach_a_size_are_found_among_many_layers(tmp_path):
    middle = [(T(8, 8, 3, 1, 1), None)] * 15  # 5 usual strides and paddings each: 3e10 sets
    network = _stack((T(6, 8, 4), None), *middle, (T(8, 3, 4, 2, 1), None))
    path = write(tmp_path / "f.pth", network.state_dict())
    gen = convert("dcgan", path, tmp_path / "o", {"image_size": "16"})
    assert gen.image_size == 16


def test_layers_are_those_after_the_activation(tmp_path):
    network, settings, _ = NETWORKS["leaky_sigmoid_eps"]
    path = write(tmp_path / "f.pth", _trained(network).state_dict())
    gen = convert("dcgan", path, tmp_path / "o", settings)
    z = torch.randn(2, LATENT)
    for layer, count in (("layer1", 3), ("layer2", 6)):
        with torch.no_grad():
            expected = network[:count](z[:, :, None, None]).numpy()
        h = gen.features(z.numpy(), layer)
        assert error(h, expected) < TOLERANCE
        np.testing.assert_allclose(gen.resume(h, layer), gen.images(z.numpy()), atol=1e-5)


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    """A network whose input ends in a one-hot vector of three colours, converted."""
    network = _trained(_stack((T(LATENT + 3, 8, 4), B(8)), (T(8, 3, 4, 2, 1), None)))
    folder = tmp_path_factory.mktemp("conditional")
    path = write(folder / "f.pth", network.state_dict())
    settings = {"num_classes": "3", "class_names": "red, sea green,blue"}
    return network, convert("dcgan", path, folder / "o", settings), path


@pytest.mark.parametrize("condition", [1, "1", "sea green", "Sea_Green", [0, 1, 0]], ids=str)
def test_a_class_is_given_by_id_name_or_vector(condition, conditional):
    network, gen, _ = conditional
    z = gen.sample_latents(jax.random.key(0), 2)
    assert z.shape == (2, LATENT)
    one_hot = np.array([[0, 1, 0]] * 2, np.float32)
    joined = torch.tensor(np.concatenate([np.asarray(z), one_hot], axis=1))[:, :, None, None]
    expected = network(joined).detach().numpy()
    given = np.array([condition], np.float32) if isinstance(condition, list) else condition
    assert error(gen.images(z, condition=given), expected) < TOLERANCE


def test_a_wrong_class_is_refused_in_one_line(conditional, tmp_path):
    _, gen, path = conditional
    z = gen.sample_latents(jax.random.key(0), 1)
    for condition, message in (
        (None, "needs a class"),
        (3, "not a class"),
        ("pink", "not a class"),
    ):
        with pytest.raises(UserError, match=message):
            gen.images(z, condition=condition)
    with pytest.raises(UserError, match="2 names for num_classes=3; give one for each class"):
        convert("dcgan", path, tmp_path / "o", {"num_classes": "3", "class_names": "a,b"})
    with pytest.raises(UserError, match="different words"):
        convert("dcgan", path, tmp_path / "o", {"num_classes": "2", "class_names": "a,a"})
    with pytest.raises(UserError, match="from 0 to 8"):
        convert("dcgan", path, tmp_path / "o", {"num_classes": "9"})


def test_a_class_vector_in_front_of_the_latent(conditional, tmp_path):
    network, _, path = conditional
    gen = convert("dcgan", path, tmp_path / "o", {"num_classes": "3", "classes_first": "true"})
    z = np.asarray(gen.sample_latents(jax.random.key(1), 1))
    joined = torch.tensor(np.concatenate([[[0, 0, 1]], z], axis=1, dtype=np.float32))
    expected = network(joined[:, :, None, None]).detach().numpy()
    assert error(gen.images(z, condition=2), expected) < TOLERANCE


def _state(*layers):
    return _trained(_stack(*layers)).state_dict()


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (
            lambda: _state((T(6, 8, (4, 3)), B(8)), (T(8, 3, 4, 2, 1), None)),
            {}, "0.weight has shape .* rectangular kernels are not supported",
        ),
        (
            lambda: _state((T(6, 8, 4), B(8, track_running_stats=False)), (T(8, 3, 4), None)),
            {}, "1 has no running statistics, so it normalises by the batch",
        ),
        (
            lambda: _state((T(6, 8, 4), nn.InstanceNorm2d(8, affine=True)), (T(8, 3, 4), None)),
            {}, "instance or group norm",
        ),
        (
            lambda: {
                k: v
                for k, v in NETWORKS["kernel_3_to_28"][0].state_dict().items()
                if k not in ("3.weight", "3.bias")
            },
            {}, r"6.weight has shape \(6, 5, 4, 4\), but 0 outputs 8 channels; is a layer missing",
        ),
        (lambda: NETWORKS["dropout"][0].state_dict(), {"strides": "1,2"}, "expected 3 whole"),
        (lambda: NETWORKS["dropout"][0].state_dict(), {"strides": "1,a,2"}, "expected 3 whole"),
        (lambda: NETWORKS["dropout"][0].state_dict(), {"strides": "1,2,0"}, "from 1 up"),
        (lambda: NETWORKS["dropout"][0].state_dict(), {"paddings": "2,9,9"}, "would have sizes"),
        (lambda: NETWORKS["dropout"][0].state_dict(), {"image_size": "29"}, "cannot be reached"),
        (lambda: NETWORKS["dropout"][0].state_dict(), {"output": "relu"}, "tanh, sigmoid, none"),
        (lambda: NETWORKS["dropout"][0].state_dict(), {"convolutions": "x"}, "no such layer"),
        (
            lambda: NETWORKS["plain_convolution_at_the_end"][0].state_dict(),
            {"strides": "1,2,2"}, "ordinary convolution",
        ),
        (
            lambda: {**NETWORKS["dropout"][0].state_dict(), "2.weight": torch.full((1,), 0.25)},
            {}, "extra 2.weight",
        ),
    ],
    ids=["rectangular", "batch_statistics", "instance_norm", "missing", "too_few", "no_number",
         "stride_0", "no_pixels", "no_size", "output", "no_layer", "strided", "prelu"],
)  # fmt: skip
def test_an_unsupported_network_is_refused_in_one_line(make, settings, message, tmp_path):
    path = write(tmp_path / "f.pth", make())
    with pytest.raises(UserError, match=message) as caught:
        convert("dcgan", path, tmp_path / "o", settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "o").exists()


def test_assumptions_are_printed_with_their_flag_unless_given(tmp_path, capsys):
    path = write(tmp_path / "f.pth", _trained(NETWORKS["stride_1_stage"][0]).state_dict())
    flags = ("--set strides=1,1,2 --set paddings=0,1,1", "--set leak=", "--set eps=",
             "--set output=", "--set num_classes=", "--set convolutions=3")  # fmt: skip
    assert command("dcgan", f"--src={path}", f"--dst={tmp_path / 'o'}") == 0
    said = capsys.readouterr().err
    assert all(flag in said for flag in flags)
    given = ("strides=1,1,2", "paddings=0,1,1", "leak=0", "eps=1e-5", "output=tanh",
             "num_classes=0")  # fmt: skip
    arguments = [f"--set={setting}" for setting in given]
    assert command("dcgan", f"--src={path}", f"--dst={tmp_path / 'o'}", *arguments) == 0
    assert "assumed" not in capsys.readouterr().err


def test_the_chain_is_found_in_any_order_of_names():
    state = {k: v.numpy() for k, v in NETWORKS["kernel_3_to_28"][0].state_dict().items()}
    renamed = {f"main.{k}": v for k, v in state.items()}
    expected = find_chain(renamed, "f")
    # By name, `main.10` comes before `main.3`.
    assert find_chain(dict(sorted(renamed.items())), "f") == expected
    assert [link.width_out for link in expected] == [8, 6, 5, 1]
    assert all(a.width_out == b.width_in for a, b in itertools.pairwise(expected))
