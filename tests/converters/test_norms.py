"""Weights stored in parts are the weights that torch's own modules use in inference."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from converters.norms import fold_norms

pytestmark = pytest.mark.torch

LAYERS = {
    "transposed": lambda: nn.ConvTranspose2d(5, 7, 4, 2, 1),
    "transposed_square": lambda: nn.ConvTranspose2d(6, 6, 4, 2, 1),
    "convolution": lambda: nn.Conv2d(5, 7, 3),
    "convolution_square": lambda: nn.Conv2d(6, 6, 3),
    "dense": lambda: nn.Linear(5, 7),
}
NORMS = {
    "spectral_old": nn.utils.spectral_norm,
    "spectral": parametrizations.spectral_norm,
    "weight_old": nn.utils.weight_norm,
    "weight_old_dim_1": lambda m: nn.utils.weight_norm(m, dim=1),
    "weight_old_whole": lambda m: nn.utils.weight_norm(m, dim=None),
    "weight": parametrizations.weight_norm,
    "weight_dim_1": lambda m: parametrizations.weight_norm(m, dim=1),
    "pruned": lambda m: prune.random_unstructured(m, "weight", 0.3),
}


def _run(module, training):
    x = torch.randn(2, 5 if module.weight.shape[0] != 6 else 6, *[4] * (module.weight.ndim - 2))
    x = x if module.weight.ndim == 4 else torch.randn(2, 5)
    module.train(training)
    with torch.no_grad():
        module(x)
    return module


def _normed(norm, layer):
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the old forms say that they are old
        return _run(_run(NORMS[norm](LAYERS[layer]()), True), False)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("prefix", ["", "main.3."])
def test_a_folded_weight_is_the_module_s_own(prefix, norm, layer):
    module = _normed(norm, layer)
    state = {prefix + name: value.numpy() for name, value in module.state_dict().items()}
    folded, names, assumed = fold_norms(state, transposed="transposed" in layer)
    assert folded.keys() == {f"{prefix}weight", f"{prefix}bias"}
    np.testing.assert_allclose(
        folded[f"{prefix}weight"], module.weight.detach().numpy(), rtol=1e-5, atol=1e-6
    )
    assert len(names) == 1
    assert names[0].startswith(f"{prefix}weight (")
    assert assumed == ()


def test_spectral_norm_of_torch_1_0_has_no_v():
    module = _normed("spectral_old", "convolution")
    state = {n: v.numpy() for n, v in module.state_dict().items() if n != "weight_v"}
    # One power step more than torch has taken.
    matrix = state["weight_orig"].reshape(7, -1)
    v = matrix.T @ state["weight_u"]
    sigma = np.linalg.norm(matrix @ (v / np.linalg.norm(v)))
    folded, *_ = fold_norms(state)
    np.testing.assert_allclose(folded["weight"], state["weight_orig"] / sigma, rtol=1e-5)


def test_the_axis_of_u_is_found_when_the_shape_is_ambiguous():
    module = nn.ConvTranspose2d(6, 6, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = _run(nn.utils.spectral_norm(module, dim=0), True)
    module.eval()
    with torch.no_grad():
        module(torch.randn(1, 6, 2, 2))
    state = {name: value.numpy() for name, value in module.state_dict().items()}
    folded, *_ = fold_norms(state, transposed=True)
    np.testing.assert_allclose(folded["weight"], module.weight.detach().numpy(), rtol=1e-5)


@pytest.mark.parametrize("layer", ["transposed_square", "convolution_square"])
def test_an_untrained_square_kernel_has_the_module_type_s_axis_which_is_reported(layer):
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = _run(nn.utils.spectral_norm(LAYERS[layer]()), training=False)
    state = {name: value.numpy() for name, value in module.state_dict().items()}
    folded, _, assumed = fold_norms(state, transposed="transposed" in layer)
    np.testing.assert_allclose(folded["weight"], module.weight.detach().numpy(), rtol=1e-5)
    assert "the outputs' axis is the module type's default" in assumed[0]


@pytest.mark.parametrize(
    "state",
    [
        {"weight_orig": np.ones((2, 3), np.float32)},
        {"weight_orig": np.ones((2, 3), np.float32), "weight_u": np.ones(4, np.float32)},
        {"weight_g": np.ones((3, 1), np.float32), "weight_v": np.ones((2, 3), np.float32)},
        {"weight_g": np.ones((2, 1), np.float32), "weight_v": np.zeros((2, 3), np.float32)},
        {"weight_g": "text", "weight_v": np.ones((2, 3), np.float32)},
        {5: np.ones(3), "parametrizations.weight.original": np.ones(3, np.float32)},
    ],
    ids=["alone", "u", "g", "zeros", "text", "new"],
)
def test_parts_that_do_not_match_are_left_alone(state):
    assert fold_norms(state) == (state, (), ())
