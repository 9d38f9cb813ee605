"""BigGAN-deep of pytorch-pretrained-BigGAN, and BigGAN-PyTorch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from converters.reference.common import Activations, State, double


def spectral(w: State, name: str, eps: float) -> Tensor:
    """Divide a weight by its stored spectral norm."""
    weight = w[f"{name}.weight_orig"]
    matrix, u = weight.reshape(len(weight), -1), w[f"{name}.weight_u"]
    if f"{name}.weight_v" in w:
        v = w[f"{name}.weight_v"]
    else:
        v = F.normalize(matrix.T @ u, dim=0, eps=eps)
        u = F.normalize(matrix @ v, dim=0, eps=eps)
    return weight / torch.dot(u, matrix @ v)


def biggan(
    w: State, z: Tensor, classes: Tensor, t: float, config: Mapping[str, Any]
) -> Activations:
    """Run BigGAN-deep, in inference mode."""
    eps, ch = config["eps"], config["channel_width"]
    activations: Activations = {}
    cond = torch.cat((z, F.linear(classes, w["embeddings.weight"])), dim=1)

    def statistics(name: str) -> list[Tensor]:
        step = 1.0 / (config["n_stats"] - 1)
        coefficient, start = math.modf(t / step)
        start = int(start)
        rows = []
        for kind in ("running_means", "running_vars"):
            table = w[f"{name}.{kind}"]
            row = table[start]
            if coefficient != 0.0:
                row = table[start] * coefficient + table[start + 1] * (1 - coefficient)
            rows.append(row[None, :, None, None])
        return rows

    def norm(x: Tensor, name: str) -> Tensor:
        mean, variance = statistics(name)
        scale = 1 + F.linear(cond, spectral(w, f"{name}.scale", eps))
        offset = F.linear(cond, spectral(w, f"{name}.offset", eps))
        x = (x - mean) / torch.sqrt(variance + eps)
        return x * scale[:, :, None, None] + offset[:, :, None, None]

    x = F.linear(cond, spectral(w, "generator.gen_z", eps), w["generator.gen_z.bias"])
    activations["gen_z"] = x
    x = x.view(-1, 4, 4, 16 * ch).permute(0, 3, 1, 2)
    index = 0
    for number, (up, width_in, width_out) in enumerate(config["layers"]):
        if number == config["attention_layer_position"]:
            x = activations[f"layers_{index:02d}"] = attention(
                w, x, f"generator.layers.{index}", eps
            )
            index += 1
        name, h = f"generator.layers.{index}", x
        for j in range(4):
            h = torch.relu(norm(h, f"{name}.bn_{j}"))
            if up and j == 1:
                h = double(h)
            kernel = spectral(w, f"{name}.conv_{j}", eps)
            h = F.conv2d(h, kernel, w[f"{name}.conv_{j}.bias"], padding=kernel.shape[-1] // 2)
        if width_in != width_out:
            x = x[:, : x.shape[1] // 2]
        x = activations[f"layers_{index:02d}"] = h + (double(x) if up else x)
        index += 1
    mean, variance = statistics("generator.bn")
    x = (x - mean) / torch.sqrt(variance + eps)
    x = x * w["generator.bn.weight"][:, None, None] + w["generator.bn.bias"][:, None, None]
    kernel = spectral(w, "generator.conv_to_rgb", eps)
    x = F.conv2d(torch.relu(x), kernel, w["generator.conv_to_rgb.bias"], padding=1)
    activations["image"] = torch.tanh(x[:, :3])
    return activations


def attention(w: State, x: Tensor, name: str, eps: float) -> Tensor:
    """Run an attention block."""
    n, c, h, width = x.shape

    def conv(x: Tensor, part: str) -> Tensor:
        return F.conv2d(x, spectral(w, f"{name}.snconv1x1_{part}", eps))

    theta = conv(x, "theta").flatten(2)
    phi = F.max_pool2d(conv(x, "phi"), 2).flatten(2)
    g = F.max_pool2d(conv(x, "g"), 2).flatten(2)
    scores = torch.softmax(theta.transpose(1, 2) @ phi, dim=-1)
    out = (g @ scores.transpose(1, 2)).view(n, c // 2, h, width)
    return x + w[f"{name}.gamma"] * conv(out, "o_conv")


def biggan_pytorch(
    w: State,
    z: Tensor,
    classes: Tensor,
    blocks: int,
    eps: float = 1e-5,
    statistics: str = "stored_{}",
) -> Activations:
    """Run BigGAN-PyTorch, in inference mode."""

    def normed(name: str) -> Tensor:
        weight = w[f"{name}.weight"]
        if f"{name}.u0" not in w:
            return weight
        matrix = weight.reshape(len(weight), -1)
        v = F.normalize(w[f"{name}.u0"] @ matrix, eps=1e-12)
        u = F.normalize(v @ matrix.T, eps=1e-12)
        return weight / (v @ matrix.T @ u.T)

    def conv(x: Tensor, name: str) -> Tensor:
        kernel = normed(name)
        return F.conv2d(x, kernel, w.get(f"{name}.bias"), padding=kernel.shape[-1] // 2)

    def norm(x: Tensor, name: str, scale: Tensor, shift: Tensor) -> Tensor:
        mean, variance = (w[f"{name}.{statistics.format(part)}"] for part in ("mean", "var"))
        x = F.batch_norm(x, mean, variance, None, None, False, 0.1, eps)
        return x * scale[:, :, None, None] + shift[:, :, None, None]

    def conditional(x: Tensor, name: str, y: Tensor) -> Tensor:
        if "shared.weight" in w:
            scale, shift = (F.linear(y, normed(f"{name}.{part}")) for part in ("gain", "bias"))
        else:
            scale, shift = (y @ w[f"{name}.{part}.weight"] for part in ("gain", "bias"))
        return norm(x, name, 1 + scale, shift)

    embedded = classes @ w["shared.weight"] if "shared.weight" in w else classes
    piece = w["linear.weight"].shape[1]
    pieces = z.split(piece, dim=1)
    conditions = [torch.cat((embedded, p), dim=1) for p in pieces[1:]] or [embedded] * blocks
    activations: Activations = {}
    x = activations["linear"] = F.linear(pieces[0], normed("linear"), w["linear.bias"])
    first = w["blocks.0.0.conv1.weight"].shape[1]
    size = math.isqrt(x.shape[1] // first)
    x = x.view(len(z), first, size, size)
    for i in range(blocks):
        name, y = f"blocks.{i}.0", conditions[i]
        h = double(torch.relu(conditional(x, f"{name}.bn1", y)))
        h = conv(
            torch.relu(conditional(conv(h, f"{name}.conv1"), f"{name}.bn2", y)), f"{name}.conv2"
        )
        x = h + conv(double(x), f"{name}.conv_sc")
        name = f"blocks.{i}.1"
        if f"{name}.gamma" in w:
            n, c, height, width = x.shape
            theta = conv(x, f"{name}.theta").flatten(2)
            phi, g = (F.max_pool2d(conv(x, f"{name}.{p}"), 2).flatten(2) for p in ("phi", "g"))
            scores = torch.softmax(theta.transpose(1, 2) @ phi, dim=-1)
            out = conv((g @ scores.transpose(1, 2)).view(n, c // 2, height, width), f"{name}.o")
            x = w[f"{name}.gamma"] * out + x
        activations[f"block{i}"] = x
    name = "output_layer.0"
    x = norm(x, name, w[f"{name}.gain"][None], w[f"{name}.bias"][None])
    activations["image"] = torch.tanh(conv(torch.relu(x), "output_layer.2"))
    return activations
