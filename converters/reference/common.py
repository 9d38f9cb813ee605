"""What the reference networks have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

State = Mapping[str, Tensor]
Activations = dict[str, Tensor]


def pixel_norm(x: Tensor) -> Tensor:
    """Divide by the root of the mean square over axis 1."""
    return x / torch.sqrt((x**2).mean(dim=1, keepdim=True) + 1e-8)


def double(x: Tensor) -> Tensor:
    """Repeat every pixel along both axes."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def gain(weight: Tensor, value: float, wscale: bool = True) -> Tensor:
    """Scale a weight by value / sqrt(fan_in)."""
    return weight * (value / math.sqrt(math.prod(weight.shape[1:])) if wscale else 1.0)


def full(w: State, x: Tensor, name: str, factor: float = 1.0) -> Tensor:
    """Apply a dense layer of NVIDIA's form: scaled by factor / sqrt(fan_in), its bias by factor."""
    weight = w[f"{name}.weight"]
    return F.linear(x, weight * (factor / math.sqrt(weight.shape[1])), w[f"{name}.bias"] * factor)


def act2(x: Tensor) -> Tensor:
    """Leaky ReLU 0.2 times sqrt 2."""
    return math.sqrt(2) * F.leaky_relu(x, 0.2)


def fused_up(x: Tensor, weight: Tensor) -> Tensor:
    """Apply a fused up-convolution, weight [in, out, 3, 3]: sum four shifts, then transpose."""
    padded = F.pad(weight, (1, 1, 1, 1))
    kernel = torch.stack([padded[:, :, a : a + 4, b : b + 4] for a in (0, 1) for b in (0, 1)]).sum(
        dim=0
    )
    return F.conv_transpose2d(x, kernel, stride=2, padding=1)


def blend_lod(images: Sequence[Callable[[], Tensor]], lod: float) -> Tensor:
    """Blend the images of all resolutions, lowest first, at a level of detail."""
    image: Tensor | None = None
    for b, make in enumerate(images):
        level = len(images) - 1 - b
        if level - 1 < lod <= level:
            image = make()
        elif level < lod < level + 1:
            share = math.ceil(lod) - lod
            image = make() * share + double(image) * (1 - share) if image is not None else make()
        elif lod >= level + 1 and image is not None:
            image = double(image)
    assert image is not None
    return image


def mapping_genforce(
    w: State,
    z: Tensor,
    layers: int,
    value: float,
    activation: Callable[[Tensor], Tensor],
    label: Tensor | None = None,
    wscale: bool = True,
    rate: float = 0.01,
) -> Tensor:
    """Run genforce's mapping network."""
    x = z
    if label is not None:
        x = torch.cat((x, label @ w["mapping.label_weight"]), dim=1)
    x = pixel_norm(x)
    for i in range(layers):
        weight = gain(w[f"mapping.dense{i}.weight"], value, wscale) * rate
        x = activation(F.linear(x, weight, w[f"mapping.dense{i}.bias"] * rate))
    return x


def mapping_nvidia(
    w: State,
    z: Tensor,
    label: Tensor | None = None,
    rate: float = 0.01,
    name: str = "mapping.fc{}",
    first: int = 0,
) -> Tensor:
    """Run NVIDIA's mapping network, or rosinality's: its layers are `style.1`, ...."""
    y, i = pixel_norm(z), first
    if label is not None:
        y = torch.cat((y, pixel_norm(full(w, label, "mapping.embed"))), dim=1)
    while f"{name.format(i)}.weight" in w:
        y = act2(full(w, y, name.format(i), rate))
        i += 1
    return y


def truncate(
    y: Tensor, mean: Tensor, num: int, style_dim: int, psi: float, layers: int | None
) -> Tensor:
    """Return the styles of every layer, the first `layers` of them (None: all) truncated."""
    wp = y.view(len(y), -1, style_dim)
    mean = mean.view(1, -1, style_dim)
    wp = wp.expand(len(y), num, style_dim)
    mean = mean.expand(len(y), num, style_dim)
    count = num if layers is None else layers
    truncated = mean + (wp - mean) * psi
    return torch.cat((truncated[:, :count], wp[:, count:]), dim=1)
