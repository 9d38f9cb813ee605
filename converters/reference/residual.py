"""The residual generators of GAN_stability and of Self-Conditioned GAN."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from converters.reference.common import Activations, State, double


def residual(
    w: State, z: Tensor, classes: Tensor | None, names: Sequence[str], normalize: bool = True
) -> Activations:
    """Run a dense layer and residual blocks.

    Args:
        w: the state dict.
        z: (n, d).
        classes: (n, k) one-hot class vectors; None where the file has one class or none.
        names: the blocks in order; an empty name doubles the maps.
        normalize: whether class vectors are scaled to length 1.
    """
    table = next((w[name] for name in w if name.endswith("embedding.weight")), None)
    if table is not None:
        rows = table.expand(len(z), -1) if classes is None else classes @ table
        rows = rows / rows.norm(dim=1, keepdim=True) if normalize else rows
        z = torch.cat((z, rows), dim=1)
    x = F.linear(z, w["fc.weight"], w["fc.bias"])
    width = w[f"{names[0]}.conv_0.weight"].shape[1]
    size = round((x.shape[1] / width) ** 0.5)
    x = x.view(len(z), width, size, size)
    activations: Activations = {}
    for name in names:
        if not name:
            x = double(x)
            continue
        branch = x
        for part in ("conv_0", "conv_1"):
            weight, bias = w[f"{name}.{part}.weight"], w[f"{name}.{part}.bias"]
            branch = F.conv2d(F.leaky_relu(branch, 0.2), weight, bias, padding=1)
        shortcut = w.get(f"{name}.conv_s.weight")
        x = (x if shortcut is None else F.conv2d(x, shortcut)) + 0.1 * branch
        activations[f"block{len(activations) + 1}"] = x
    kernel = w["conv_img.weight"]
    x = F.conv2d(F.leaky_relu(x, 0.2), kernel, w["conv_img.bias"], padding=kernel.shape[2] // 2)
    return {**activations, "image": torch.tanh(x)}
