"""DCGAN files: the PyTorch examples' `netG_epoch_N.pth` and the GAN zoo's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from cgjax.errors import UserError
from converters.conversion import Container, Conversion
from converters.networks import Network, has_tensors
from converters.settings import Settings
from converters.tensors import Tensors
from converters.zoo import get_categories, get_tanh, zoo_settings

BATCH_NORM_EPS = 1e-5


def _convert_layers(
    tensors: Tensors, convolutions: Sequence[str], norms: Sequence[str], tanh: bool
) -> Conversion:
    """Convert a chain of transposed convolutions, all but the last followed by a batch norm."""
    latent_dim, first = tensors.shape(f"{convolutions[0]}.weight", 4)[:2]
    widths = [first]
    kernels = [tensors.take(f"{convolutions[0]}.weight", (latent_dim, first, 4, 4))]
    for name in convolutions[1:]:
        out = tensors.shape(f"{name}.weight", 4)[1]
        kernels.append(tensors.take(f"{name}.weight", (widths[-1], out, 4, 4)))
        widths.append(out)
    channels = widths.pop()
    # torch's ConvTranspose2d keeps (in, out, h, w); ours are (h, w, in, out), the first one dense.
    arrays = {
        "first": kernels[0].transpose(0, 2, 3, 1),
        "output": kernels[-1].transpose(2, 3, 0, 1),
    }
    for i, kernel in enumerate(kernels[1:-1]):
        arrays[f"kernels.{i}"] = kernel.transpose(2, 3, 0, 1)
    for i, (name, width) in enumerate(zip(norms, widths, strict=True)):
        weight, bias, mean, variance = (
            tensors.take(f"{name}.{part}", (width,)).astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        tensors.ignore(re.escape(f"{name}.num_batches_tracked"))
        if (variance < 0).any():
            tensors.note(f"{name}.running_var has negative values")
        scale = weight / np.sqrt(np.maximum(variance, 0) + BATCH_NORM_EPS)
        arrays[f"scales.{i}"] = scale.astype(np.float32)
        arrays[f"shifts.{i}"] = (bias - mean * scale).astype(np.float32)
    tensors.finish()
    architecture = {
        "latent_dim": latent_dim,
        "widths": widths,
        "image_channels": channels,
        "tanh": tanh,
    }
    return Conversion("dcgan", architecture, arrays)


def convert_examples(network: Network, given: Mapping[str, str]) -> Conversion:
    """Convert a network of the PyTorch examples' DCGAN."""
    settings = Settings(given)
    tanh = settings.get("tanh", True)
    settings.finish()
    tensors = network.tensors()
    names = sorted({int(n.split(".")[1]) for n in tensors.names(r"main\.\d{1,9}\.weight")})
    # `main` alternates convolution, batch norm, ReLU; the last convolution stands alone.
    convolutions = [f"main.{i}" for i in names if i % 3 == 0]
    norms = [f"main.{i}" for i in names if i % 3 == 1]
    if len(convolutions) < 2 or len(norms) != len(convolutions) - 1:
        ends_in_norm = names[-1:] != [] and names[-1] % 3 == 1
        raise UserError(
            f"{network.path}: expected convolutions main.0, main.3, ... each but the last "
            f"followed by its batch norm; the weights are at {names}"
            + f"; main.{names[-1] + 2}.weight is missing"
            * ends_in_norm
        )
    return _convert_layers(tensors, convolutions, norms, tanh)


def convert_zoo(network: Network, given: Mapping[str, str]) -> Conversion:
    """Convert a GAN-zoo DCGAN."""
    tensors, settings = network.tensors(), zoo_settings(network, given)
    tanh = get_tanh(settings, "DCGAN")
    latent_dim = tensors.shape("formatLayer.weight", 4)[0]
    categories = get_categories(network, settings, latent_dim)
    settings.finish()
    depth = tensors.count("main.convTranspose{}.weight") - 1
    middle = [f"main.convTranspose{i}" for i in range(1, depth + 1)]
    convolutions = ["formatLayer", *middle, "main.outlayer"]
    norms = [f"main.batchNorm{i}" for i in range(max(depth, 0) + 1)]
    converted = _convert_layers(tensors, convolutions, norms, tanh)
    converted.architecture["categories"] = categories
    return converted


CONTAINERS = (
    Container(
        "examples",
        "PyTorch examples: state dict main.0.weight, ... (netG_epoch_N.pth)",
        # Their discriminator has a main.0 too, and a convolution where the generator has a ReLU.
        lambda s: has_tensors(s, "main.0.weight") and "main.2.weight" not in s,
        convert_examples,
    ),
    Container(
        "zoo",
        "pytorch_GAN_zoo DCGAN: dict with config, netG, avgG",
        lambda s: has_tensors(s, "formatLayer.weight", "main.outlayer.weight"),
        convert_zoo,
    ),
)
