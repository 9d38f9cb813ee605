"""Small versions of common PyTorch generators: a StyleGAN2 and a VAE decoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class ModulatedConv(nn.Module):
    def __init__(self, inner, outer, style, demodulate=True, size=3):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outer, inner, size, size) / (size * inner**0.5))
        self.affine = nn.Linear(style, inner)
        self.demodulate = demodulate

    def forward(self, x, w):
        n, _, height, width = x.shape
        weight = self.weight[None] * (1 + self.affine(w))[:, None, :, None, None]
        if self.demodulate:
            weight = weight * (weight.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
        x = x.reshape(1, -1, height, width)
        x = F.conv2d(x, weight.flatten(0, 1), padding=self.weight.shape[-1] // 2, groups=n)
        return x.reshape(n, -1, height, width)


class Block(nn.Module):
    """One resolution: two convolutions, and a to-RGB layer that adds to the running image."""

    def __init__(self, inner, outer, style, is_first=False):
        super().__init__()
        self.is_first = is_first
        if is_first:
            self.const = nn.Parameter(torch.randn(inner, 4, 4))
        self.conv0 = ModulatedConv(inner, outer, style)
        self.conv1 = ModulatedConv(outer, outer, style)
        self.to_rgb = ModulatedConv(outer, 3, style, demodulate=False, size=1)
        self.bias = nn.Parameter(0.1 * torch.randn(outer))
        size = 4 if is_first else 8
        self.register_buffer("noise", 0.1 * torch.randn(size, size))

    def forward(self, x, image, w):
        if self.is_first:
            x = self.const.expand(len(w), -1, -1, -1)
        else:
            x = F.interpolate(x, scale_factor=2)
            image = F.interpolate(image, scale_factor=2, mode="bilinear")
        x = self.conv0(x, w)
        noise = F.interpolate(self.noise[None, None], x.shape[2:])
        x = F.leaky_relu(self.conv1(x, w) + noise + self.bias[:, None, None], 0.2)
        rgb = self.to_rgb(x, w)
        return x, rgb if image is None else image + rgb


class Synthesis(nn.Module):
    def __init__(self, style, widths):
        super().__init__()
        self.num = len(widths)
        for i, (inner, outer) in enumerate(zip([widths[0], *widths], widths, strict=False)):
            setattr(self, f"b{4 * 2**i}", Block(inner, outer, style, is_first=i == 0))

    def forward(self, w):
        x = image = None
        for i in range(self.num):
            x, image = getattr(self, f"b{4 * 2**i}")(x, image, w)
        return torch.tanh(image)


class StyleGAN2(nn.Module):
    """Mapping network, modulated convolutions, skips; `forward` also takes a condition."""

    def __init__(self, latent=16, style=16, widths=(16, 12, 8)):
        super().__init__()
        torch.manual_seed(0)
        self.mapping = nn.Sequential(
            nn.Linear(latent, style), nn.LeakyReLU(0.2), nn.Linear(style, style)
        )
        self.synthesis = Synthesis(style, widths)

    def forward(self, z, c):
        assert c is None
        z = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        return self.synthesis(self.mapping(z))


class Decoder(nn.Module):
    """A VAE decoder with batch norm and dropout, in training mode, with images from 0 to 1."""

    def __init__(self, latent=8, width=16):
        super().__init__()
        torch.manual_seed(1)
        self.fc = nn.Linear(latent, width * 16)
        self.blocks = nn.Sequential(
            nn.Unflatten(1, (width, 4, 4)),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.ConvTranspose2d(width, 8, 4, 2, 1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 1, 4, 2, 1),
        )
        for norm in (self.blocks[1], self.blocks[5]):
            norm.running_mean.uniform_(-0.5, 0.5)
            norm.running_var.uniform_(0.5, 2)
        self.train()

    def decode(self, z):
        return torch.sigmoid(3 * self.blocks(self.fc(z))), "log variance"


STYLEGAN_LAYERS = {
    "w": "mapping",
    "b4": "synthesis.b4",
    "b8": "synthesis.b8",
    "conv": "synthesis.b16.conv0",
}
DECODER_LAYERS = {"hidden": "fc", "early": "blocks.2", "late": "blocks.6"}


def from_stylegan(module, **options):
    from cgjax.generators.torch_module import from_torch

    options = {"layers": STYLEGAN_LAYERS, "call": lambda m, z: m(z, None), **options}
    return from_torch(module, latent_dim=16, **options)


def from_decoder(module, **options):
    from cgjax.generators.torch_module import from_torch

    options = {"layers": DECODER_LAYERS, "call": lambda m, z: m.decode(z), **options}
    return from_torch(module, latent_dim=8, **{"image_range": (0, 1), **options})


def make_stylegan():
    return from_stylegan(StyleGAN2())


def make_decoder():
    return from_decoder(Decoder())
