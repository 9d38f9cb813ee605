"""Progressive GAN files: pytorch_GAN_zoo, genforce (and SeFa), GANDissect.

The run-time weight scales ("equalised learning rate") are baked in here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from cgjax.errors import UserError
from converters.conversion import Container, Conversion, conv_kernel, has_tensors
from converters.reading import Checkpoint, Tensors, choose_state
from converters.settings import Settings
from converters.zoo import has_tanh, read_categories, read_zoo


def convert_zoo(checkpoint: Checkpoint, given: Mapping[str, str]) -> Conversion:
    """Convert a GAN-zoo PGAN file.

    The equalised scale s = sqrt(2 / fan_in) multiplies the layer's output, bias included, for every
    layer; `alpha` is the weight of the *lower* resolution.
    """
    tensors, config = read_zoo(checkpoint)
    settings = Settings(given, config)
    leak = settings.get("leakyReluLeak", 0.2)
    alpha = settings.get("alpha", 0.0)
    equalized = settings.get("equalizedlR", True)
    normalized = settings.get("perChannelNormalization", True)
    loss = settings.get("lossCriterion", "WGANGP")
    settings.finish()
    if not normalized:
        raise UserError(
            f"{checkpoint.path}: perChannelNormalization=False; the reference code cannot run such "
            "a file, so there is nothing to be equal to"
        )
    if not 0 <= alpha <= 1:
        raise UserError(f"{checkpoint.path}: alpha={alpha} is not in [0, 1]; give --set alpha=0")

    rows, latent_dim = tensors.shape("formatLayer.weight", 2)
    if rows % 16:
        raise UserError(
            f"{checkpoint.path}: formatLayer.weight has {rows} rows, not 16 times a width"
        )
    scales = tensors.count("scaleLayers.{}.0.weight")
    depths = [rows // 16]
    depths += [tensors.shape(f"scaleLayers.{i}.0.weight", 4)[0] for i in range(scales)]
    channels = tensors.shape("toRGBLayers.0.weight", 4)[0]

    def take(name: str, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        scale = math.sqrt(2 / math.prod(shape[1:])) if equalized else 1.0
        weight = tensors.take(f"{name}.weight", shape) * np.float32(scale)
        return weight, tensors.take(f"{name}.bias", shape[:1]) * np.float32(scale)

    weight, bias = take("formatLayer", (rows, latent_dim))
    arrays = {
        "dense": weight.reshape(depths[0], 4, 4, latent_dim).transpose(3, 1, 2, 0),
        "dense_bias": bias.reshape(depths[0], 4, 4).transpose(1, 2, 0),
    }
    layers = [("groupScale0.0", depths[0], depths[0])]
    for i in range(scales):
        layers += [(f"scaleLayers.{i}.0", depths[i], depths[i + 1])]
        layers += [(f"scaleLayers.{i}.1", depths[i + 1], depths[i + 1])]
    for i, (name, width_in, width_out) in enumerate(layers):
        weight, arrays[f"biases.{i}"] = take(name, (width_out, width_in, 3, 3))
        arrays[f"kernels.{i}"] = conv_kernel(weight)
    for i, depth in enumerate(depths):
        weight, arrays[f"to_rgb_biases.{i}"] = take(f"toRGBLayers.{i}", (channels, depth, 1, 1))
        arrays[f"to_rgb.{i}"] = conv_kernel(weight)[0, 0]
    tensors.finish()
    architecture = {
        "form": "zoo",
        "latent_dim": latent_dim,
        "depths": depths,
        "image_channels": channels,
        "leak": leak,
        "tanh": has_tanh(loss),
        "blend": alpha if scales else 0.0,
        "categories": read_categories(config),
    }
    return Conversion("pgan", architecture, arrays)


def _scaled(weight: np.ndarray, gain: float) -> np.ndarray:
    """Bake gain / sqrt(fan_in) of an OIHW kernel whose bias stays unscaled."""
    return weight * np.float32(gain / math.sqrt(math.prod(weight.shape[1:])))


def _first_kernel(weight: np.ndarray) -> np.ndarray:
    """Turn the 4x4 kernel over a padded 1x1 map into a dense one: it is read spatially flipped."""
    return _scaled(weight, math.sqrt(2))[:, :, ::-1, ::-1].transpose(1, 2, 3, 0)


def split_lod(lod: float, resolutions: int, source: object) -> tuple[int, float]:
    """Read a genforce level of detail.

    A level l leaves the last floor(l) resolutions out and fades in the one before.

    Returns:
        How many resolutions are active, and the weight of the lower one's upsampled image.

    Raises:
        UserError: if the network has no such level.
    """
    if not 0 <= lod <= resolutions - 1:
        raise UserError(f"{source}: lod={lod} is not in [0, {resolutions - 1}]; give --set lod=0")
    return resolutions - math.floor(lod), lod - math.floor(lod)


def _is_fused(tensors: Tensors, depths: Sequence[int]) -> bool:
    """Whether up-convolutions are stored (in, out): visible only where the two differ."""
    for r in range(1, len(depths)):
        name = f"layer{2 * r}.weight"
        if depths[r] != depths[r - 1] and name in tensors:
            return tensors.shape(name, 4)[:2] == (depths[r - 1], depths[r])
    return False


def convert_genforce(checkpoint: Checkpoint, given: Mapping[str, str]) -> Conversion:
    """Convert a genforce (or SeFa) PGAN file; kernels are scaled, biases are not."""
    tensors = Tensors(choose_state(checkpoint, ("generator_smooth", "generator")), checkpoint.path)
    stored_lod = tensors.scalar("lod", 0.0)
    settings = Settings(given)
    lod = settings.get("lod", stored_lod)
    tanh = settings.get("final_tanh", False)
    wscale = settings.get("use_wscale", True)
    num_classes = settings.get("label_size", 0)

    scaled = _scaled if wscale else (lambda weight, gain: weight)
    width, latent_dim = tensors.shape("layer0.weight", 4)[:2]
    resolutions = tensors.count("output{}.weight")
    depths = [tensors.shape(f"output{b}.weight", 4)[1] for b in range(resolutions)]
    fused = settings.get("fused_scale", _is_fused(tensors, depths))
    settings.finish()
    channels = tensors.shape("output0.weight", 4)[0]
    if width != depths[0]:
        raise UserError(
            f"{checkpoint.path}: layer0 makes {width} channels, output0 reads {depths[0]}"
        )
    active, blend = split_lod(lod, resolutions, checkpoint.path)

    first = tensors.take("layer0.weight", (width, latent_dim, 4, 4))
    if not wscale:
        first = first * np.float32(math.sqrt(16 * latent_dim / 2))  # undone by _first_kernel
    arrays = {"dense": _first_kernel(first), "dense_bias": tensors.take("layer0.bias", (width,))}
    for layer in range(1, 2 * resolutions):
        b, upsampling = divmod(layer, 2)[0], layer % 2 == 0
        width_in, width_out = depths[b - 1] if upsampling else depths[b], depths[b]
        name = f"layer{layer}"
        if fused and upsampling:
            # Stored (in, out) and used by a transposed convolution, which equals upsampling and
            # convolving with the flipped kernel; the reference takes its fan_in from the first
            # axis.
            stored = tensors.take(f"{name}.weight", (width_in, width_out, 3, 3))
            kernel = stored.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1]
        else:
            kernel = tensors.take(f"{name}.weight", (width_out, width_in, 3, 3))
        bias = tensors.take(f"{name}.bias", (width_out,))
        if b < active:
            arrays[f"kernels.{layer - 1}"] = conv_kernel(scaled(kernel, math.sqrt(2)))
            arrays[f"biases.{layer - 1}"] = bias
    for b in range(resolutions):
        weight = tensors.take(f"output{b}.weight", (channels, depths[b], 1, 1))
        bias = tensors.take(f"output{b}.bias", (channels,))
        if b < active:
            arrays[f"to_rgb.{b}"] = conv_kernel(scaled(weight, 1.0))[0, 0]
            arrays[f"to_rgb_biases.{b}"] = bias
    tensors.finish()
    architecture = {
        "form": "genforce",
        "latent_dim": latent_dim - num_classes,
        "num_classes": num_classes,
        "depths": depths[:active],
        "image_channels": channels,
        "tanh": tanh,
        "blend": blend,
        "extra_doublings": resolutions - active,
    }
    return Conversion("pgan", architecture, arrays)


def convert_netdissect(checkpoint: Checkpoint, given: Mapping[str, str]) -> Conversion:
    """Convert a GANDissect PGAN file: genforce's arithmetic, layers counted from 1."""
    settings = Settings(given)
    tanh = settings.get("final_tanh", False)
    settings.finish()
    state = choose_state(checkpoint, ("state_dict", "generator"))
    # Old files say features.{n-1} and output.
    state = {re.sub(r"^features\.(\d+)", _renumber, name): v for name, v in state.items()}
    outputs = sorted({name.split(".")[0] for name in state if name.startswith("output")})
    if len(outputs) != 1:
        raise UserError(f"{checkpoint.path}: expected one output layer, found {outputs or 'none'}")
    tensors = Tensors(state, checkpoint.path)
    latent_dim = tensors.shape("layer1.conv.weight", 4)[1]
    layers = max(int(n.split(".")[0][5:]) for n in tensors.names(r"layer\d+\.conv\.weight"))
    channels, depth_last = tensors.shape(f"{outputs[0]}.conv.weight", 4)[:2]
    if layers % 2:
        raise UserError(f"{checkpoint.path}: {layers} layers; expected two for each resolution")
    depths = [tensors.shape(f"layer{2 * b + 2}.conv.weight", 4)[0] for b in range(layers // 2)]
    if depth_last != depths[-1]:
        tensors.note(f"{outputs[0]} reads {depth_last} channels, expected {depths[-1]}")

    arrays = {
        "dense": _first_kernel(tensors.take("layer1.conv.weight", (depths[0], latent_dim, 4, 4))),
        "dense_bias": tensors.take("layer1.wscale.b", (depths[0],)),
    }
    for n in range(2, layers + 1):
        b, upsampling = (n - 1) // 2, n % 2 == 1
        width_in = depths[b - 1] if upsampling else depths[b]
        kernel = tensors.take(f"layer{n}.conv.weight", (depths[b], width_in, 3, 3))
        arrays[f"kernels.{n - 2}"] = conv_kernel(_scaled(kernel, math.sqrt(2)))
        arrays[f"biases.{n - 2}"] = tensors.take(f"layer{n}.wscale.b", (depths[b],))
    weight = tensors.take(f"{outputs[0]}.conv.weight", (channels, depths[-1], 1, 1))
    arrays["to_rgb.0"] = conv_kernel(_scaled(weight, 1.0))[0, 0]
    arrays["to_rgb_biases.0"] = tensors.take(f"{outputs[0]}.wscale.b", (channels,))
    tensors.finish()
    architecture = {
        "form": "netdissect",
        "latent_dim": latent_dim,
        "depths": depths,
        "image_channels": channels,
        "tanh": tanh,
    }
    return Conversion("pgan", architecture, arrays)


def _renumber(match: re.Match[str]) -> str:
    return f"layer{int(match.group(1)) + 1}"


CONTAINERS = (
    Container(
        "zoo",
        "pytorch_GAN_zoo PGAN: dict with config, netG, avgG",
        lambda c: (
            has_tensors(c, "formatLayer.weight", "groupScale0.0.weight")
            or has_tensors(c, "formatLayer.module.weight", "groupScale0.0.module.weight")
        ),
        convert_zoo,
    ),
    Container(
        "genforce",
        "genforce and SeFa pggan_*: dict with generator, generator_smooth",
        lambda c: has_tensors(c, "layer0.weight", "output0.weight"),
        convert_genforce,
    ),
    Container(
        "netdissect",
        "GANDissect PGAN: state dict layer1.conv.weight, layer1.wscale.b, ...",
        lambda c: has_tensors(c, "layer1.conv.weight") or has_tensors(c, "features.0.conv.weight"),
        convert_netdissect,
    ),
)
