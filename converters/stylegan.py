"""StyleGAN files: pytorch_GAN_zoo, and genforce (NVIDIA's weights; SeFa's copy too).

The run-time weight scales, the mapping network's learning-rate factor and the 1 added to the style
scales are folded into the arrays.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from cgjax.errors import UserError
from cgjax.generators.stylegan import BLUR_TAPS
from converters.axes import (
    channels_last,
    constant,
    conv_kernel,
    dense_kernel,
    first_kernel,
    flipped_kernel,
    pixel_kernel,
)
from converters.conversion import Conversion, Layout
from converters.genforce import WeightScale, label_rows, split_lod
from converters.mapping import RATE, mapping_rows
from converters.networks import Network, has_tensors
from converters.rows import Row, layer_rows, take_rows
from converters.settings import Settings
from converters.tensors import Tensors
from converters.zoo import get_categories, get_tanh, zoo_rows, zoo_settings

FUSED_FROM = 128


def convert_zoo(network: Network, given: Mapping[str, str]) -> Conversion:
    """Convert a GAN-zoo StyleGAN.

    Every layer's output, bias included, is scaled by sqrt(2 / fan_in), and the mapping network's by
    0.01 too. `mean_w` is used as stored, as the reference does in evaluation mode.
    """
    tensors, settings = network.tensors(), zoo_settings(network, given)
    latent_dim = tensors.shape("mapping.FC.0.weight", 2)[1]
    leak = settings.get("leakyReluLeak", 0.2, low=0, high=1)
    alpha = settings.get("alpha", 0.0, low=0, high=1)
    phi = settings.get("phiTruncation", 0.5)
    tanh = get_tanh(settings, "Logistic")
    categories = get_categories(network, settings, latent_dim)
    # The reference ignores these: it always equalises the layers and normalises the latents.
    settings.get("equalizedlR", True)
    settings.get("perChannelNormalization", True)
    settings.finish()

    scales = tensors.count("scaleLayers.{}.0.weight")
    width = tensors.shape("baseScale0", 4)[1]
    depths = [width]
    depths += [tensors.shape(f"scaleLayers.{i}.0.weight", 4)[0] for i in range(scales)]
    if not scales:
        raise UserError(f"{network.path}: no scaleLayers; a StyleGAN of 4x4 pixels has no image")
    if alpha and scales == 1:
        raise UserError(f"{network.path}: alpha={alpha} cannot be used here; give --set alpha=0")
    channels = tensors.shape("toRGBLayers.0.weight", 4)[0]
    mapping = tensors.count("mapping.FC.{}.weight")
    rows = [
        Row("mean_style", "mean_w", (1, width), transform=np.ravel),
        Row("first", "baseScale0", (1, width, 4, 4), transform=constant),
    ]
    for i in range(mapping):
        shape = (width, latent_dim if i == 0 else width)
        ours = f"mapping.{i}", f"mapping_biases.{i}"
        rows += zoo_rows(ours, f"mapping.FC.{i}", shape, dense_kernel, factor=RATE)
    for layer in range(2 * scales + 2):
        rows += _zoo_layer(layer, depths)
    for i, depth in enumerate(depths[1:]):
        ours = f"to_rgb.{i}", f"to_rgb_biases.{i}"
        rows += zoo_rows(ours, f"toRGBLayers.{i}", (channels, depth, 1, 1), pixel_kernel)
    arrays = take_rows(tensors, rows)
    tensors.finish()
    architecture = {
        "form": "zoo",
        "latent_dim": latent_dim,
        "style_dim": width,
        "mapping_widths": [width] * mapping,
        "depths": depths,
        "image_channels": channels,
        "leak": leak,
        "tanh": tanh,
        "blend": alpha,
        "truncation": phi,
        "categories": categories,
    }
    return Conversion("stylegan", architecture, arrays, tuple(settings.assumed))


def _zoo_layer(layer: int, depths: Sequence[int]) -> Iterator[Row]:
    """Yield the rows of a layer's convolution (the first layer has none), AdaIN and noise."""
    r, second = divmod(layer, 2)
    depth, width = depths[r], depths[0]
    if r == 0:
        convolution, adain, noise = "conv0", f"adain0{second}", f"noiseMod0{second}"
    else:
        scale = f"scaleLayers.{r - 1}"
        convolution, adain = f"{scale}.{2 * second}", f"{scale}.{2 * second + 1}"
        noise = f"noiseModulators.{r - 1}.{second}"
    if layer:
        shape = (depth, depth if second else depths[r - 1], 3, 3)
        ours = f"kernels.{layer - 1}", f"biases.{layer - 1}"
        yield from zoo_rows(ours, convolution, shape, conv_kernel)
    ours = f"style_kernels.{layer}", f"style_biases.{layer}"
    yield from zoo_rows(ours, f"{adain}.styleModulator", (2 * depth, width), dense_kernel)
    yield Row(f"noise_weights.{layer}", f"{noise}.weight", (1, 1, 1, 1), transform=np.ravel)


class _GenforceRows:
    """The rows of a genforce StyleGAN's layers, and the sizes that they are made from."""

    def __init__(self, tensors: Tensors, resolutions: int, fused: str, scale: WeightScale):
        outputs = [f"synthesis.output{r}.weight" for r in range(resolutions)]
        self.channels = tensors.shape(outputs[0], 4)[0]
        self.depths = [tensors.shape(name, 4)[1] for name in outputs]
        self.style_dim = tensors.shape("synthesis.layer0.style.weight", 2)[1]
        self.const_input = "synthesis.layer0.const" in tensors
        noise = tensors.shape("synthesis.layer0.apply_noise.weight", -1)
        self.channel_noise = noise == (4, 4)
        self._fused, self._scale = fused, scale

    def resolution(self, r: int) -> list[Row]:
        """Return the rows of a resolution, its blur kernel left out."""
        return [*self._layer(2 * r), *self._layer(2 * r + 1), *self._image(r)]

    def _layer(self, layer: int) -> Iterator[Row]:
        name, (r, second) = f"synthesis.layer{layer}", divmod(layer, 2)
        depth, size = self.depths[r], 4 * 2**r
        width = depth if second else self.depths[r - 1]
        styles = (2 * depth, self.style_dim)
        if layer:
            shape, scale = (depth, width, 3, 3), self._scale(9 * width, math.sqrt(2))
            # The fused form, a transposed convolution, equals upsampling and then convolving with
            # the flipped kernel.
            fused = self._fused == "true" or (self._fused == "auto" and size >= FUSED_FROM)
            transform = flipped_kernel if fused and not second else conv_kernel
            yield Row(f"kernels.{layer - 1}", f"{name}.weight", shape, scale, transform)
        elif self.const_input:
            yield Row("first", f"{name}.const", (1, depth, 4, 4), transform=constant)
        else:
            scale = self._scale(16 * self.style_dim, math.sqrt(2))
            shape = (depth, self.style_dim, 4, 4)
            yield Row("first", f"{name}.weight", shape, scale, first_kernel)
        yield Row(f"biases.{layer}", f"{name}.bias", (depth,))
        ours = f"style_kernels.{layer}", f"style_biases.{layer}"
        kernel, bias = layer_rows(
            ours, f"{name}.style", styles, dense_kernel, self._scale(self.style_dim)
        )
        yield from (kernel, bias._replace(transform=_with_one))
        weight, noise = f"{name}.apply_noise.weight", f"{name}.apply_noise.noise"
        if self.channel_noise:
            yield Row(f"noise_weights.{layer}", weight, (size, size))
            yield Row(f"noise.{layer}", noise, (1, depth, 1, 1), transform=channels_last)
        else:
            yield Row(f"noise_weights.{layer}", weight, (depth,))
            yield Row(f"noise.{layer}", noise, (1, 1, size, size), transform=channels_last)

    def _image(self, r: int) -> tuple[Row, Row]:
        depth, ours = self.depths[r], (f"to_rgb.{r}", f"to_rgb_biases.{r}")
        shape = (self.channels, depth, 1, 1)
        return layer_rows(ours, f"synthesis.output{r}", shape, pixel_kernel, self._scale(depth))


def _with_one(bias: np.ndarray) -> np.ndarray:
    """Add 1 to the style scales, which are the first half."""
    return bias + np.repeat(np.array([1, 0], np.float32), len(bias) // 2)


def convert_genforce(network: Network, given: Mapping[str, str]) -> Conversion:
    """Convert a genforce (or SeFa) StyleGAN."""
    tensors, settings = network.tensors(), Settings(given)
    lod = settings.get("lod", tensors.scalar("synthesis.lod"))
    fused = settings.get("fused_scale", "auto", words=("auto", "true", "false"))
    tanh = settings.get("final_tanh", False)
    scale = WeightScale(settings.get("use_wscale", True))
    rate = settings.get("mapping_lr_mul", RATE)
    settings.finish()
    resolutions = tensors.count("synthesis.output{}.weight")
    if not resolutions:
        raise UserError(f"{network.path}: no synthesis.output0.weight, ...: no image layers")
    active, blend = split_lod(lod, resolutions, network.path)
    layers = _GenforceRows(tensors, resolutions, fused, scale)
    widths, rows = mapping_rows(
        tensors, "mapping.dense{}", rate, lambda fan_in: scale(fan_in, math.sqrt(2))
    )
    if widths[-1] not in (layers.style_dim, 2 * resolutions * layers.style_dim):
        tensors.note(
            f"the mapping network ends in {widths[-1]} values, expected {layers.style_dim}"
        )
    num_classes, latent_dim, embedding_rows = label_rows(tensors, widths[0])
    rows += [*embedding_rows, Row("mean_style", "truncation.w_avg", (widths[-1],))]
    arrays = take_rows(tensors, rows)
    blur = np.outer(BLUR_TAPS, BLUR_TAPS).astype(np.float32)
    for r, depth in enumerate(layers.depths):
        # Every resolution is checked; those above the level of detail are dropped.
        taken = take_rows(tensors, layers.resolution(r))
        if r < active:
            arrays |= taken
        if r:
            name = f"synthesis.layer{2 * r}.blur.kernel"
            tensors.check_constant(name, np.broadcast_to(blur, (depth, 1, 3, 3)))
    tensors.finish()
    architecture = {
        "form": "genforce",
        "latent_dim": latent_dim,
        "style_dim": layers.style_dim,
        "mapping_widths": widths[1:],
        "depths": layers.depths[:active],
        "image_channels": layers.channels,
        "tanh": tanh,
        "blend": blend,
        "extra_doublings": resolutions - active,
        "num_classes": num_classes,
        "const_input": layers.const_input,
        "channel_noise": layers.channel_noise,
    }
    return Conversion("stylegan", architecture, arrays)


LAYOUTS = (
    Layout(
        "zoo",
        "pytorch_GAN_zoo StyleGAN: dict with config, netG, avgG",
        lambda s: has_tensors(s, "baseScale0", "mean_w"),
        convert_zoo,
    ),
    Layout(
        "genforce",
        "genforce and SeFa stylegan_*: dict with generator, generator_smooth",
        lambda s: has_tensors(s, "synthesis.layer0.apply_noise.weight"),
        convert_genforce,
    ),
)
