"""DCGANs: the PyTorch examples', the GAN zoo's, and similar ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from converters.reference.common import Activations, State


def dcgan(
    w: State,
    z: Tensor,
    convolutions: Sequence[str],
    norms: Sequence[str],
    tanh: bool = True,
    stages: Sequence[Sequence[int]] = (),
    plain: Sequence[str] = (),
    leak: float = 0.0,
    eps: float = 1e-5,
    sigmoid: bool = False,
) -> Activations:
    """Run a chain of transposed convolutions.

    Args:
        w: the state dict.
        z: (n, d), the class vector included.
        convolutions: the modules in order.
        norms: their batch norms, "" for none.
        tanh: whether the network ends in a tanh.
        stages: stride, padding and output padding of each; empty for the PyTorch examples'.
        plain: those that are ordinary convolutions.
        leak: the activation's slope below 0.
        eps: epsilon of the batch norms.
        sigmoid: whether the network ends in a sigmoid; [0, 1] is then mapped to [-1, 1].
    """
    activations: Activations = {}
    x = z[:, :, None, None]
    usual = [(1, 0, 0), *[(2, 1, 0)] * (len(convolutions) - 1)]
    for i, name in enumerate(convolutions):
        stride, padding, extra = (stages or usual)[i]
        weight, bias = w[f"{name}.weight"], w.get(f"{name}.bias")
        if name in plain:
            x = F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
        else:
            x = F.conv_transpose2d(x, weight, bias, stride, padding, extra)
        if norm := dict(enumerate(norms)).get(i):
            mean, variance = w[f"{norm}.running_mean"], w[f"{norm}.running_var"]
            scale, shift = w.get(f"{norm}.weight"), w.get(f"{norm}.bias")
            x = F.batch_norm(x, mean, variance, scale, shift, eps=eps)
        if i < len(convolutions) - 1:
            x = F.leaky_relu(x, leak)
            activations[f"layer{i + 1}"] = x
    if sigmoid:
        x = 2 * torch.sigmoid(x) - 1
    activations["image"] = torch.tanh(x) if tanh else x
    return activations
