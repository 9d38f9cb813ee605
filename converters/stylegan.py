"""StyleGAN files: pytorch_GAN_zoo, and genforce (NVIDIA's weights; SeFa's copy too).

The run-time weight scales, the mapping network's learning-rate factor and the 1 of the style
scales are baked in here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from cgjax.errors import UserError
from cgjax.generators.stylegan import BLUR_TAPS
from converters.conversion import Container, Conversion, conv_kernel, dense_kernel, has_tensors
from converters.pgan import split_lod
from converters.reading import Checkpoint, Tensors, choose_state
from converters.settings import Settings
from converters.zoo import has_tanh, read_categories, read_zoo

MAPPING_RATE = 0.01
FUSED_FROM = 128


def convert_zoo(checkpoint: Checkpoint, given: Mapping[str, str]) -> Conversion:
    """Convert a GAN-zoo StyleGAN file.

    Every layer's output, bias included, is scaled by sqrt(2 / fan_in), the mapping network's by
    0.01 besides. `mean_w` is taken as it is: the reference in evaluation mode.
    """
    tensors, config = read_zoo(checkpoint)
    settings = Settings(given, config)
    leak = settings.get("leakyReluLeak", 0.2)
    alpha = settings.get("alpha", 0.0)
    phi = settings.get("phiTruncation", 0.5)
    loss = settings.get("lossCriterion", "Logistic")
    # The reference equalises StyleGAN's layers and normalises its latents whatever these say.
    settings.get("equalizedlR", True)
    settings.get("perChannelNormalization", True)
    settings.finish()

    scales = tensors.count("scaleLayers.{}.0.weight")
    width = tensors.shape("baseScale0", 4)[1]
    depths = [width]
    depths += [tensors.shape(f"scaleLayers.{i}.0.weight", 4)[0] for i in range(scales)]
    if not scales:
        raise UserError(f"{checkpoint.path}: no scaleLayers; a StyleGAN of 4x4 pixels has no image")
    if not 0 <= alpha <= 1 or (alpha and scales == 1):
        raise UserError(f"{checkpoint.path}: alpha={alpha} cannot be used here; give --set alpha=0")
    channels = tensors.shape("toRGBLayers.0.weight", 4)[0]

    def take(
        name: str, shape: tuple[int, ...], factor: float = 1.0
    ) -> tuple[np.ndarray, np.ndarray]:
        scale = np.float32(factor * math.sqrt(2 / math.prod(shape[1:])))
        return tensors.take(f"{name}.weight", shape) * scale, tensors.take(
            f"{name}.bias", shape[:1]
        ) * scale

    arrays: dict[str, np.ndarray] = {}
    latent_dim = tensors.shape("mapping.FC.0.weight", 2)[1]
    mapping = tensors.count("mapping.FC.{}.weight")
    for i in range(mapping):
        shape = (width, latent_dim if i == 0 else width)
        weight, arrays[f"mapping_biases.{i}"] = take(f"mapping.FC.{i}", shape, MAPPING_RATE)
        arrays[f"mapping.{i}"] = dense_kernel(weight)
    arrays["mean_style"] = tensors.take("mean_w", (1, width))[0]
    arrays["first"] = tensors.take("baseScale0", (1, width, 4, 4))[0].transpose(1, 2, 0)

    # Convolution, AdaIN and noise of each layer; the first has no convolution.
    names = [(None, "adain00", "noiseMod00"), ("conv0", "adain01", "noiseMod01")]
    for i in range(scales):
        for c in (0, 1):
            names.append(
                (
                    f"scaleLayers.{i}.{2 * c}",
                    f"scaleLayers.{i}.{2 * c + 1}",
                    f"noiseModulators.{i}.{c}",
                )
            )
    for index, (convolution, adain, noise) in enumerate(names):
        r, second = divmod(index, 2)
        depth = depths[r]
        if convolution is not None:
            width_in = depth if second else depths[r - 1]
            weight, arrays[f"biases.{index - 1}"] = take(convolution, (depth, width_in, 3, 3))
            arrays[f"kernels.{index - 1}"] = conv_kernel(weight)
        weight, bias = take(f"{adain}.styleModulator", (2 * depth, width))
        arrays[f"style_kernels.{index}"] = dense_kernel(weight)
        arrays[f"style_biases.{index}"] = bias
        arrays[f"noise_weights.{index}"] = tensors.take(f"{noise}.weight", (1, 1, 1, 1)).ravel()
    for i in range(scales):
        weight, arrays[f"to_rgb_biases.{i}"] = take(
            f"toRGBLayers.{i}", (channels, depths[i + 1], 1, 1)
        )
        arrays[f"to_rgb.{i}"] = conv_kernel(weight)[0, 0]
    tensors.finish()
    architecture = {
        "form": "zoo",
        "latent_dim": latent_dim,
        "style_dim": width,
        "mapping_widths": [width] * mapping,
        "depths": depths,
        "image_channels": channels,
        "leak": leak,
        "tanh": has_tanh(loss),
        "blend": alpha,
        "truncation": phi,
        "categories": read_categories(config),
    }
    return Conversion("stylegan", architecture, arrays)


def take_mapping(
    tensors: Tensors,
    name: str,
    weight_scale: float,
    arrays: dict[str, np.ndarray],
    *,
    rate: float,
    wscale: bool = True,
) -> tuple[int, list[int]]:
    """Read a mapping network of dense layers; returns its inputs and its layers' outputs.

    Args:
        tensors: the file.
        name: the layers' name with one {}.
        weight_scale: gain of the equalised learning rate.
        arrays: receives the kernels and biases.
        rate: the mapping network's learning-rate factor, which weights and biases are scaled by.
        wscale: whether the file's weights are scaled at run time.
    """
    count = tensors.count(f"{name}.weight")
    inputs = tensors.shape(f"{name}.weight".format(0), 2)[1]
    widths: list[int] = []
    for i in range(count):
        layer = name.format(i)
        width_in = widths[-1] if widths else inputs
        width_out = tensors.shape(f"{layer}.weight", 2)[0]
        scale = rate * (weight_scale / math.sqrt(width_in) if wscale else 1.0)
        weight = tensors.take(f"{layer}.weight", (width_out, width_in)) * np.float32(scale)
        arrays[f"mapping.{i}"] = dense_kernel(weight)
        bias = tensors.take(f"{layer}.bias", (width_out,)) * np.float32(rate)
        arrays[f"mapping_biases.{i}"] = bias
        widths.append(width_out)
    return inputs, widths


def convert_genforce(checkpoint: Checkpoint, given: Mapping[str, str]) -> Conversion:
    """Convert a genforce (or SeFa) StyleGAN file."""
    tensors = Tensors(choose_state(checkpoint, ("generator_smooth", "generator")), checkpoint.path)
    stored_lod = tensors.scalar("synthesis.lod", 0.0)
    settings = Settings(given)
    lod = settings.get("lod", stored_lod)
    fused_text = settings.get("fused_scale", "auto").lower()
    tanh = settings.get("final_tanh", False)
    wscale = settings.get("use_wscale", True)
    rate = settings.get("mapping_lr_mul", MAPPING_RATE)
    settings.finish()
    if fused_text not in ("auto", "true", "false"):
        raise UserError(f"--set fused_scale={fused_text}: expected auto, true or false")

    resolutions = tensors.count("synthesis.output{}.weight")
    if not resolutions:
        raise UserError(f"{checkpoint.path}: no synthesis.output0.weight, ...: no image layers")
    depths = [tensors.shape(f"synthesis.output{b}.weight", 4)[1] for b in range(resolutions)]
    channels = tensors.shape("synthesis.output0.weight", 4)[0]
    active, blend = split_lod(lod, resolutions, checkpoint.path)
    style_dim = tensors.shape("synthesis.layer0.style.weight", 2)[1]

    def gain(value: float, fan_in: int) -> np.float32:
        return np.float32(value / math.sqrt(fan_in) if wscale else 1.0)

    arrays: dict[str, np.ndarray] = {}
    label = "mapping.label_weight"
    inputs, widths = take_mapping(
        tensors, "mapping.dense{}", math.sqrt(2), arrays, rate=rate, wscale=wscale
    )
    num_classes, latent_dim = tensors.shape(label, 2) if label in tensors else (0, inputs)
    if num_classes:
        arrays["embedding"] = tensors.take(label, (num_classes, latent_dim))
        if inputs != 2 * latent_dim:
            tensors.note(f"mapping.dense0.weight reads {inputs} values, expected {2 * latent_dim}")
    if not widths or widths[-1] not in (style_dim, 2 * resolutions * style_dim):
        tensors.note(f"the mapping network ends in {widths[-1:]} values, expected {style_dim}")
    arrays["mean_style"] = tensors.take("truncation.w_avg", (widths[-1] if widths else style_dim,))

    const_input = "synthesis.layer0.const" in tensors
    channel_noise = tensors.shape("synthesis.layer0.apply_noise.weight", -1) == (4, 4)
    for layer in range(2 * resolutions):
        name, (r, second) = f"synthesis.layer{layer}", divmod(layer, 2)
        depth, resolution = depths[r], 4 * 2**r
        upsampling = layer > 0 and not second
        keep = r < active
        taken: dict[str, np.ndarray] = {}
        if layer == 0 and const_input:
            const = tensors.take(f"{name}.const", (1, depth, 4, 4))
            taken["first"] = const[0].transpose(1, 2, 0)
        elif layer == 0:
            # A 4x4 kernel over a padded pixel: a dense layer that reads the kernel flipped.
            weight = tensors.take(f"{name}.weight", (depth, style_dim, 4, 4))
            weight = weight * gain(math.sqrt(2), 16 * style_dim)
            taken["first"] = weight[:, :, ::-1, ::-1].transpose(1, 2, 3, 0)
        else:
            width_in = depth if second else depths[r - 1]
            weight = tensors.take(f"{name}.weight", (depth, width_in, 3, 3))
            weight = weight * gain(math.sqrt(2), 9 * width_in)
            if upsampling and (
                fused_text == "true" or (fused_text == "auto" and resolution >= FUSED_FROM)
            ):
                # The fused form (a transposed convolution) equals upsampling and convolving with
                # the flipped kernel.
                weight = weight[:, :, ::-1, ::-1]
            taken[f"kernels.{layer - 1}"] = conv_kernel(weight)
        taken[f"biases.{layer}"] = tensors.take(f"{name}.bias", (depth,))
        style = tensors.take(f"{name}.style.weight", (2 * depth, style_dim))
        taken[f"style_kernels.{layer}"] = dense_kernel(style * gain(1.0, style_dim))
        style_bias = tensors.take(f"{name}.style.bias", (2 * depth,)).copy()
        style_bias[:depth] += 1
        taken[f"style_biases.{layer}"] = style_bias
        noise = f"{name}.apply_noise"
        if channel_noise:
            weight = tensors.take(f"{noise}.weight", (resolution, resolution))
            stored = tensors.take(f"{noise}.noise", (1, depth, 1, 1))
        else:
            weight = tensors.take(f"{noise}.weight", (depth,))
            stored = tensors.take(f"{noise}.noise", (1, 1, resolution, resolution))
        taken[f"noise_weights.{layer}"] = weight
        taken[f"noise.{layer}"] = stored.transpose(0, 2, 3, 1)
        if upsampling:
            taps = np.outer(BLUR_TAPS, BLUR_TAPS).astype(np.float32)
            tensors.check_constant(f"{name}.blur.kernel", np.broadcast_to(taps, (depth, 1, 3, 3)))
        if keep:
            arrays |= taken
    for r, depth in enumerate(depths):
        weight = tensors.take(f"synthesis.output{r}.weight", (channels, depth, 1, 1))
        bias = tensors.take(f"synthesis.output{r}.bias", (channels,))
        if r < active:
            arrays[f"to_rgb.{r}"] = conv_kernel(weight * gain(1.0, depth))[0, 0]
            arrays[f"to_rgb_biases.{r}"] = bias
    tensors.finish()
    architecture = {
        "form": "genforce",
        "latent_dim": latent_dim,
        "style_dim": style_dim,
        "mapping_widths": widths,
        "depths": depths[:active],
        "image_channels": channels,
        "tanh": tanh,
        "blend": blend,
        "extra_doublings": resolutions - active,
        "num_classes": num_classes,
        "const_input": const_input,
        "channel_noise": channel_noise,
    }
    return Conversion("stylegan", architecture, arrays)


CONTAINERS = (
    Container(
        "zoo",
        "pytorch_GAN_zoo StyleGAN: dict with config, netG, avgG",
        lambda c: has_tensors(c, "baseScale0", "mean_w"),
        convert_zoo,
    ),
    Container(
        "genforce",
        "genforce and SeFa stylegan_*: dict with generator, generator_smooth",
        lambda c: has_tensors(c, "synthesis.layer0.apply_noise.weight"),
        convert_genforce,
    ),
)
