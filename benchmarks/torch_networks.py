"""The operations of the public implementations in PyTorch, at full size, with random weights.

Each function takes the memory layout of the kernels and returns the forward pass: (number of rows,
layer to stop at) -> activation. `benchmarks/generators.py` compares our times with these. They are
not references for correctness; `converters.reference` is, with one kernel a row and slowly.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from cgjax.generators.stylegan3_filters import (
    Schedule,
    cutoffs,
    down_filter,
    plan_layers,
    up_filter,
)

DEPTHS = [512, 512, 512, 512, 256, 128, 64]
BIGGAN = [
    (0, 16, 16), (1, 16, 16), (0, 16, 16), (1, 16, 8), (0, 8, 8),
    (1, 8, 4), (0, 4, 4), (1, 4, 2), (0, 2, 2), (1, 2, 1),
]  # fmt: skip

STYLEGAN3 = Schedule(256)
STYLEGAN3_WIDTHS = [round(min(16384 / c, 512)) for c in cutoffs(STYLEGAN3)]


def _weights(layout: Any) -> Callable[..., Any]:
    """Return a function that draws a weight of a shape, its kernels in a memory layout."""
    import torch

    def draw(*shape: int) -> Any:
        weight = torch.randn(*shape) * (2 / math.prod(shape[1:])) ** 0.5
        return weight.to(memory_format=layout) if len(shape) == 4 else weight

    return draw


def torch_pgan(layout: Any) -> Callable[[int, str], Any]:
    """Return the forward pass of a progressive GAN: (rows, where to stop) -> activation."""
    import torch
    import torch.nn.functional as F

    _weight = _weights(layout)
    dense, dense_bias = _weight(16 * 512, 512), torch.zeros(16 * 512)
    plan = [(0, 512, 512, False, "s0_c0")]
    for r in range(1, len(DEPTHS)):
        plan += [(r, DEPTHS[r - 1], DEPTHS[r], True, f"s{r}_c0")]
        plan += [(r, DEPTHS[r], DEPTHS[r], False, f"s{r}_c1")]
    kernels = [(_weight(o, i, 3, 3), torch.zeros(o)) for _, i, o, _, _ in plan]
    rgb = (_weight(3, DEPTHS[-1], 1, 1), torch.zeros(3))

    def norm(x: Any) -> Any:
        return x * ((x**2).mean(dim=1, keepdim=True) + 1e-8).rsqrt()

    def forward(n: int, stop: str) -> Any:
        z = torch.randn(n, 512)
        x = F.leaky_relu(F.linear(norm(z), dense, dense_bias), 0.2).view(n, 512, 4, 4)
        x = norm(x)
        if stop == "format":
            return x
        for (_, _, _, up, name), (weight, bias) in zip(plan, kernels, strict=True):
            if up:
                x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = norm(F.leaky_relu(F.conv2d(x, weight, bias, padding=1), 0.2))
            if stop == name:
                return x
        return F.conv2d(x, *rgb)

    return forward


def torch_stylegan(layout: Any) -> Callable[[int, str], Any]:
    """Return the forward pass of StyleGAN with stored noise."""
    import torch
    import torch.nn.functional as F

    _weight = _weights(layout)
    mapping = [(_weight(512, 512), torch.zeros(512)) for _ in range(8)]
    layers = []
    for r, depth in enumerate(DEPTHS):
        for c in (0, 1):
            width_in = DEPTHS[r - 1] if c == 0 and r else depth
            taps = torch.tensor([1.0, 2.0, 1.0]) / 4
            layers.append(
                {
                    "up": c == 0 and r > 0,
                    "weight": _weight(depth, width_in, 3, 3) if r or c else None,
                    "blur": torch.outer(taps, taps).expand(depth, 1, 3, 3).contiguous(),
                    "noise": torch.randn(1, 1, 4 * 2**r, 4 * 2**r),
                    "noise_weight": torch.randn(1, depth, 1, 1) * 0.1,
                    "bias": torch.zeros(1, depth, 1, 1),
                    "style": (_weight(2 * depth, 512), torch.ones(2 * depth)),
                }
            )
    const = torch.ones(1, 512, 4, 4)
    rgb = (_weight(3, DEPTHS[-1], 1, 1), torch.zeros(3))

    def forward(n: int, stop: str) -> Any:
        w = torch.randn(n, 512)
        w = w * ((w**2).mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        for weight, bias in mapping:
            w = F.leaky_relu(F.linear(w, weight, bias), 0.2)
        if stop == "w":
            return w
        x = const.repeat(n, 1, 1, 1)
        for index, layer in enumerate(layers):
            if layer["up"]:
                x = F.interpolate(x, scale_factor=2, mode="nearest")
            if layer["weight"] is not None:
                x = F.conv2d(x, layer["weight"], padding=1)
            if layer["up"]:
                x = F.conv2d(x, layer["blur"], padding=1, groups=x.shape[1])
            x = F.leaky_relu(x + layer["noise"] * layer["noise_weight"] + layer["bias"], 0.2)
            x = x - x.mean(dim=(2, 3), keepdim=True)
            x = x / torch.sqrt((x**2).mean(dim=(2, 3), keepdim=True) + 1e-8)
            style = F.linear(w, *layer["style"]).view(n, 2, -1, 1, 1)
            x = x * (style[:, 0] + 1) + style[:, 1]
            if stop == f"layer{index}":
                return x
        return F.conv2d(x, *rgb)

    return forward


def torch_stylegan3(layout: Any) -> Callable[[int, str], Any]:
    """Return the forward pass of StyleGAN3, config-t, as it runs where its own kernels cannot."""
    import torch
    import torch.nn.functional as F

    _weight = _weights(layout)
    source, plan = plan_layers(STYLEGAN3)
    widths = [STYLEGAN3_WIDTHS[0], *STYLEGAN3_WIDTHS[:-1], 3]
    mapping = [(_weight(512, 512), torch.zeros(512)) for _ in range(2)]
    frequencies, mix = torch.randn(widths[0], 2), _weight(widths[0], widths[0])
    placing, start = _weight(4, 512), torch.eye(4)[0]
    layers = [
        {
            "plan": p,
            "name": f"L{i}_{p.out_size}_{widths[i + 1]}",
            "weight": torch.randn(widths[i + 1], widths[i], p.kernel, p.kernel),
            "bias": torch.zeros(widths[i + 1]),
            "style": (_weight(widths[i], 512), torch.ones(widths[i])),
            "filters": [torch.tensor(f) for f in (up_filter(p), down_filter(p))],
        }
        for i, p in enumerate(plan)
    ]

    def waves(w: Any) -> Any:
        t = F.linear(w, placing, start)
        t = t / t[:, :2].norm(dim=1, keepdim=True)
        turned = torch.stack([t[:, 0], -t[:, 1], t[:, 1], t[:, 0]], dim=1).reshape(-1, 2, 2)
        phases = -(frequencies @ turned @ t[:, 2:, None]).squeeze(2)
        rates = frequencies @ turned
        fade = (rates.norm(dim=2) - source.cutoff) / (source.rate / 2 - source.cutoff)
        line = (torch.arange(source.size) + 0.5 - source.size / 2) / source.rate
        grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)
        x = (grid[None, :, :, None] @ rates.mT[:, None, None]).squeeze(3)
        x = (
            torch.sin(2 * math.pi * (x + phases[:, None, None]))
            * (1 - fade).clamp(0, 1)[:, None, None]
        )
        return x @ mix.T

    def filtered(x: Any, taps: Any) -> Any:
        channels = x.shape[1]
        rows = taps[None, None, :, None].expand(channels, 1, -1, 1)
        return F.conv2d(F.conv2d(x, rows, groups=channels), rows.transpose(2, 3), groups=channels)

    def nonlinear(x: Any, layer: dict[str, Any]) -> Any:
        p, (up, down) = layer["plan"], layer["filters"]
        n, c, h, w = x.shape
        x = F.pad(x.reshape(n, c, h, 1, w, 1), [0, p.up - 1, 0, 0, 0, p.up - 1])
        x = F.pad(x.reshape(n, c, h * p.up, w * p.up), [*p.padding, *p.padding])
        x = filtered(x, up * p.up) if len(up) > 1 else x
        x = (F.leaky_relu(x, 0.2) * 2**0.5).clamp(-256, 256)
        x = filtered(x, down) if len(down) > 1 else x
        return x[:, :, :: p.down, :: p.down]

    def convolve(x: Any, layer: dict[str, Any], style: Any) -> Any:
        p, weight, n = layer["plan"], layer["weight"], len(x)
        if p.is_image:
            kernels = weight[None] * style[:, None, :, None, None] / weight.shape[1] ** 0.5
        else:
            weight = weight * weight.square().mean(dim=(1, 2, 3), keepdim=True).rsqrt()
            kernels = weight[None] * (style * style.square().mean().rsqrt())[:, None, :, None, None]
            kernels = kernels * (kernels.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()
        kernels = kernels.reshape(-1, *weight.shape[1:]).to(memory_format=layout)
        size = x.shape[2:]
        y = F.conv2d(x.reshape(1, -1, *size), kernels, padding=p.kernel - 1, groups=n)
        return y.reshape(n, -1, *y.shape[2:]) + layer["bias"][None, :, None, None]

    def forward(n: int, stop: str) -> Any:
        w = torch.randn(n, 512)
        w = w * ((w**2).mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        for weight, bias in mapping:
            w = F.leaky_relu(F.linear(w, weight, bias), 0.2) * 2**0.5
        if stop == "w":
            return w
        x = waves(w).permute(0, 3, 1, 2).contiguous(memory_format=layout)
        if stop == "input":
            return x
        for layer in layers:
            x = nonlinear(convolve(x, layer, F.linear(w, *layer["style"])), layer)
            if stop == layer["name"]:
                return x
        return x * 0.25

    return forward


def torch_biggan(layout: Any) -> Callable[[int, str], Any]:
    """Return the forward pass of BigGAN-deep-128, spectral norms baked in."""
    import torch
    import torch.nn.functional as F

    _weight = _weights(layout)

    def block(i: int, o: int) -> dict[str, Any]:
        m = i // 4
        return {
            "norms": [
                (torch.zeros(c), torch.ones(c), _weight(c, 256) * 0.1, _weight(c, 256) * 0.1)
                for c in (i, m, m, m)
            ],
            "convs": [
                (_weight(m, i, 1, 1), torch.zeros(m)),
                (_weight(m, m, 3, 3), torch.zeros(m)),
                (_weight(m, m, 3, 3), torch.zeros(m)),
                (_weight(o, m, 1, 1), torch.zeros(o)),
            ],
        }

    embedding = _weight(128, 1000)
    dense = (_weight(16 * 16 * 128, 256), torch.zeros(16 * 16 * 128))
    blocks = [(up, i * 128, o * 128, block(i * 128, o * 128)) for up, i, o in BIGGAN]
    theta, phi = _weight(32, 256, 1, 1), _weight(32, 256, 1, 1)
    g, out = _weight(128, 256, 1, 1), _weight(256, 128, 1, 1)
    rgb = (_weight(128, 128, 3, 3), torch.zeros(128))

    def attend(x: Any) -> Any:
        n, c, h, w = x.shape
        query = F.conv2d(x, theta).view(n, c // 8, h * w)
        key = F.max_pool2d(F.conv2d(x, phi), 2).view(n, c // 8, h * w // 4)
        value = F.max_pool2d(F.conv2d(x, g), 2).view(n, c // 2, h * w // 4)
        scores = torch.softmax(torch.bmm(query.permute(0, 2, 1), key), dim=-1)
        attended = torch.bmm(value, scores.permute(0, 2, 1)).view(n, c // 2, h, w)
        return x + F.conv2d(attended, out)

    def forward(n: int, stop: str) -> Any:
        classes = torch.zeros(n, 1000)
        classes[:, 207] = 1
        condition = torch.cat((torch.randn(n, 128), F.linear(classes, embedding)), dim=1)
        x = F.linear(condition, *dense)
        if stop == "gen_z":
            return x
        x = x.view(n, 4, 4, -1).permute(0, 3, 1, 2).contiguous()
        index = 0
        for b, (up, i, o, parts) in enumerate(blocks):
            if b == 8:
                x = attend(x)
                index += 1
            skipped, h = x, x
            for j in range(4):
                mean, variance, scale, offset = parts["norms"][j]
                h = (h - mean[None, :, None, None]) / torch.sqrt(variance + 1e-4)[
                    None, :, None, None
                ]
                h = h * (1 + F.linear(condition, scale))[:, :, None, None]
                h = torch.relu(h + F.linear(condition, offset)[:, :, None, None])
                if up and j == 1:
                    h = F.interpolate(h, scale_factor=2, mode="nearest")
                weight, bias = parts["convs"][j]
                h = F.conv2d(h, weight, bias, padding=weight.shape[-1] // 2)
            if i != o:
                skipped = skipped[:, : i // 2]
            if up:
                skipped = F.interpolate(skipped, scale_factor=2, mode="nearest")
            x = h + skipped
            if stop == f"layers_{index:02d}":
                return x
            index += 1
        return torch.tanh(F.conv2d(torch.relu(x), *rgb, padding=1)[:, :3])

    return forward


NETWORKS: dict[str, Callable[[Any], Callable[[int, str], Any]]] = {
    "pgan": torch_pgan,
    "stylegan": torch_stylegan,
    "stylegan3": torch_stylegan3,
    "biggan": torch_biggan,
}
