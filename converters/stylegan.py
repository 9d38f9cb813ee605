"""StyleGAN files: pytorch_GAN_zoo, and genforce (NVIDIA's weights; SeFa's copy too).

The run-time weight scales, the mapping network's learning-rate factor and the 1 of the style
scales are baked in here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from cgjax.errors import UserError
from cgjax.generators.stylegan import BLUR_TAPS
from converters.conversion import (
    Container,
    Conversion,
    Row,
    channels_last,
    constant,
    conv_kernel,
    dense_kernel,
    first_kernel,
    flipped_kernel,
    pixel_kernel,
    take_rows,
)
from converters.networks import Network, has_tensors
from converters.pgan import split_lod
from converters.settings import Settings
from converters.tensors import Tensors
from converters.zoo import get_categories, get_tanh, layer_rows, zoo_settings

MAPPING_RATE = 0.01
FUSED_FROM = 128


def convert_zoo(network: Network, given: Mapping[str, str]) -> Conversion:
    """Convert a GAN-zoo StyleGAN.

    Every layer's output, bias included, is scaled by sqrt(2 / fan_in), the mapping network's by
    0.01 besides. `mean_w` is taken as it is: the reference in evaluation mode.
    """
    tensors, settings = network.tensors(), zoo_settings(network, given)
    latent_dim = tensors.shape("mapping.FC.0.weight", 2)[1]
    leak = settings.get("leakyReluLeak", 0.2, low=0, high=1)
    alpha = settings.get("alpha", 0.0, low=0, high=1)
    phi = settings.get("phiTruncation", 0.5)
    tanh = get_tanh(settings, "Logistic")
    categories = get_categories(network, settings, latent_dim)
    # The reference equalises StyleGAN's layers and normalises its latents whatever these say.
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
        Row("mean_style", "mean_w", (1, width), turn=np.ravel),
        Row("first", "baseScale0", (1, width, 4, 4), turn=constant),
    ]
    for i in range(mapping):
        shape = (width, latent_dim if i == 0 else width)
        ours = f"mapping.{i}", f"mapping_biases.{i}"
        rows += layer_rows(ours, f"mapping.FC.{i}", shape, dense_kernel, factor=MAPPING_RATE)
    for layer in range(2 * scales + 2):
        rows += _zoo_layer(layer, depths)
    for i, depth in enumerate(depths[1:]):
        ours = f"to_rgb.{i}", f"to_rgb_biases.{i}"
        rows += layer_rows(ours, f"toRGBLayers.{i}", (channels, depth, 1, 1), pixel_kernel)
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
    return Conversion("stylegan", architecture, arrays)


def _zoo_layer(layer: int, depths: Sequence[int]) -> Iterator[Row]:
    """Yield the rows of a layer's convolution (the first has none), AdaIN and noise."""
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
        yield from layer_rows(ours, convolution, shape, conv_kernel)
    ours = f"style_kernels.{layer}", f"style_biases.{layer}"
    yield from layer_rows(ours, f"{adain}.styleModulator", (2 * depth, width), dense_kernel)
    yield Row(f"noise_weights.{layer}", f"{noise}.weight", (1, 1, 1, 1), turn=np.ravel)


def mapping_rows(
    tensors: Tensors, name: str, gain: Callable[[int], float], rate: float, first: int = 0
) -> tuple[list[int], list[Row]]:
    """Return the widths of a mapping network of dense layers, its input's first, and its rows.

    Args:
        tensors: the file.
        name: the layers' name with one {}.
        gain: the weights' run-time scale by their fan-in.
        rate: the mapping network's learning-rate factor, which weights and biases are scaled by.
        first: the first layer's number.
    """
    widths = [tensors.shape(f"{name.format(first)}.weight", 2)[1]]
    rows = []
    for i in range(tensors.count(f"{name}.weight") - first):
        layer, width_in = name.format(first + i), widths[-1]
        widths.append(tensors.shape(f"{layer}.weight", 2)[0])
        shape = (widths[-1], width_in)
        scale = rate * gain(width_in)
        rows += [
            Row(f"mapping.{i}", f"{layer}.weight", shape, scale, dense_kernel),
            Row(f"mapping_biases.{i}", f"{layer}.bias", shape[:1], rate),
        ]
    return widths, rows


def label_rows(tensors: Tensors, inputs: int) -> tuple[int, int, list[Row]]:
    """Return genforce's number of classes, its latents' width, and the embedding's row."""
    label = "mapping.label_weight"
    if label not in tensors:
        return 0, inputs, []
    num_classes, latent_dim = shape = tensors.shape(label, 2)
    if inputs != 2 * latent_dim:
        tensors.note(f"mapping.dense0.weight reads {inputs} values, expected {2 * latent_dim}")
    return num_classes, latent_dim, [Row("embedding", label, shape)]


class _Form:
    """What the layers of a genforce StyleGAN have in common."""

    def __init__(self, tensors: Tensors, resolutions: int, fused: str, wscale: bool):
        outputs = [f"synthesis.output{r}.weight" for r in range(resolutions)]
        self.channels = tensors.shape(outputs[0], 4)[0]
        self.depths = [tensors.shape(name, 4)[1] for name in outputs]
        self.style_dim = tensors.shape("synthesis.layer0.style.weight", 2)[1]
        self.const_input = "synthesis.layer0.const" in tensors
        noise = tensors.shape("synthesis.layer0.apply_noise.weight", -1)
        self.channel_noise = noise == (4, 4)
        self.fused, self.wscale = fused, wscale

    def gain(self, value: float, fan_in: int) -> float:
        """Return the run-time scale of a weight."""
        return value / math.sqrt(fan_in) if self.wscale else 1.0

    def layer(self, layer: int) -> Iterator[Row]:
        """Yield the rows of a layer, its blur kernel left out."""
        name, (r, second) = f"synthesis.layer{layer}", divmod(layer, 2)
        depth, size = self.depths[r], 4 * 2**r
        width = depth if second else self.depths[r - 1]
        styles = (2 * depth, self.style_dim)
        if layer:
            scale = self.gain(math.sqrt(2), 9 * width)
            # The fused form (a transposed convolution) equals upsampling and convolving with the
            # flipped kernel.
            fused = self.fused == "true" or (self.fused == "auto" and size >= FUSED_FROM)
            turn = flipped_kernel if fused and not second else conv_kernel
            yield Row(f"kernels.{layer - 1}", f"{name}.weight", (depth, width, 3, 3), scale, turn)
        elif self.const_input:
            yield Row("first", f"{name}.const", (1, depth, 4, 4), turn=constant)
        else:
            scale = self.gain(math.sqrt(2), 16 * self.style_dim)
            shape = (depth, self.style_dim, 4, 4)
            yield Row("first", f"{name}.weight", shape, scale, first_kernel)
        yield Row(f"biases.{layer}", f"{name}.bias", (depth,))
        scale = self.gain(1.0, self.style_dim)
        yield Row(f"style_kernels.{layer}", f"{name}.style.weight", styles, scale, dense_kernel)
        yield Row(f"style_biases.{layer}", f"{name}.style.bias", styles[:1], turn=_with_one)
        weight, noise = f"{name}.apply_noise.weight", f"{name}.apply_noise.noise"
        if self.channel_noise:
            yield Row(f"noise_weights.{layer}", weight, (size, size))
            yield Row(f"noise.{layer}", noise, (1, depth, 1, 1), turn=channels_last)
        else:
            yield Row(f"noise_weights.{layer}", weight, (depth,))
            yield Row(f"noise.{layer}", noise, (1, 1, size, size), turn=channels_last)

    def image(self, r: int) -> Iterator[Row]:
        """Yield the rows of a resolution's image layer."""
        name, shape = f"synthesis.output{r}", (self.channels, self.depths[r], 1, 1)
        scale = self.gain(1.0, self.depths[r])
        yield Row(f"to_rgb.{r}", f"{name}.weight", shape, scale, pixel_kernel)
        yield Row(f"to_rgb_biases.{r}", f"{name}.bias", shape[:1])


def _with_one(bias: np.ndarray) -> np.ndarray:
    """Add the 1 of the style scales, the first half."""
    return bias + np.repeat(np.array([1, 0], np.float32), len(bias) // 2)


def convert_genforce(network: Network, given: Mapping[str, str]) -> Conversion:
    """Convert a genforce (or SeFa) StyleGAN."""
    tensors, settings = network.tensors(), Settings(given)
    lod = settings.get("lod", tensors.scalar("synthesis.lod", 0.0))
    fused = settings.get("fused_scale", "auto", words=("auto", "true", "false"))
    tanh = settings.get("final_tanh", False)
    wscale = settings.get("use_wscale", True)
    rate = settings.get("mapping_lr_mul", MAPPING_RATE)
    settings.finish()
    resolutions = tensors.count("synthesis.output{}.weight")
    if not resolutions:
        raise UserError(f"{network.path}: no synthesis.output0.weight, ...: no image layers")
    active, blend = split_lod(lod, resolutions, network.path)
    form = _Form(tensors, resolutions, fused, wscale)
    widths, rows = mapping_rows(
        tensors, "mapping.dense{}", lambda fan_in: form.gain(math.sqrt(2), fan_in), rate
    )
    if widths[-1] not in (form.style_dim, 2 * resolutions * form.style_dim):
        tensors.note(f"the mapping network ends in {widths[-1]} values, expected {form.style_dim}")
    num_classes, latent_dim, embedding = label_rows(tensors, widths[0])
    rows += [*embedding, Row("mean_style", "truncation.w_avg", (widths[-1],))]
    arrays = take_rows(tensors, rows)
    blur = np.outer(BLUR_TAPS, BLUR_TAPS).astype(np.float32)
    for r, depth in enumerate(form.depths):
        # Every resolution is checked; those above the level of detail are not kept.
        rows = [*form.layer(2 * r), *form.layer(2 * r + 1), *form.image(r)]
        taken = take_rows(tensors, rows)
        if r < active:
            arrays |= taken
        if r:
            name = f"synthesis.layer{2 * r}.blur.kernel"
            tensors.check_constant(name, np.broadcast_to(blur, (depth, 1, 3, 3)))
    tensors.finish()
    architecture = {
        "form": "genforce",
        "latent_dim": latent_dim,
        "style_dim": form.style_dim,
        "mapping_widths": widths[1:],
        "depths": form.depths[:active],
        "image_channels": form.channels,
        "tanh": tanh,
        "blend": blend,
        "extra_doublings": resolutions - active,
        "num_classes": num_classes,
        "const_input": form.const_input,
        "channel_noise": form.channel_noise,
    }
    return Conversion("stylegan", architecture, arrays)


CONTAINERS = (
    Container(
        "zoo",
        "pytorch_GAN_zoo StyleGAN: dict with config, netG, avgG",
        lambda s: has_tensors(s, "baseScale0", "mean_w"),
        convert_zoo,
    ),
    Container(
        "genforce",
        "genforce and SeFa stylegan_*: dict with generator, generator_smooth",
        lambda s: has_tensors(s, "synthesis.layer0.apply_noise.weight"),
        convert_genforce,
    ),
)
