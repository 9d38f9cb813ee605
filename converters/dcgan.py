"""DCGAN files: the PyTorch examples', scripts derived from them, and the GAN zoo's."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from cgjax.errors import UserError
from cgjax.generators.dcgan import DOUBLING
from converters.chains import Link, find_chain, is_chain
from converters.conversion import Conversion, Layout
from converters.dcgan_stages import Shape, choose_shape
from converters.networks import Network, has_tensors
from converters.settings import Settings
from converters.tensors import Tensors
from converters.zoo import get_categories, get_tanh, zoo_settings

BATCH_NORM_EPS = 1e-5
OUTPUTS = ("tanh", "sigmoid", "none")


def convert_chain(network: Network, given: Mapping[str, str]) -> Conversion:
    """Convert a chain of transposed convolutions, whatever the names of its layers."""
    links, options = read_chain(network, given)
    tensors = network.tensors()
    is_sigmoid = options.output == "sigmoid"
    converted = _convert_layers(tensors, links, options.shape, options.eps, is_sigmoid)
    converted.arrays["first"] = options.order_rows(converted.arrays["first"])
    optional = {
        "leak": options.leak,
        "num_classes": options.num_classes,
        "class_names": list(options.class_names),
    }
    converted.architecture.update(
        {name: value for name, value in optional.items() if value},
        latent_dim=links[0].width_in - options.num_classes,
        tanh=options.output != "none",
    )
    return converted._replace(assumed=(*options.assumed, *converted.assumed))


def read_chain(network: Network, given: Mapping[str, str]) -> tuple[list[Link], ChainOptions]:
    """Return a network's layers, and the options that the tensors do not determine."""
    settings = Settings(given)
    links = find_chain(network.state, network.place, settings.get_words("convolutions"))
    return links, ChainOptions(settings, links, network.place)


def convert_zoo(network: Network, given: Mapping[str, str]) -> Conversion:
    """Convert a GAN-zoo DCGAN."""
    tensors, settings = network.tensors(), zoo_settings(network, given)
    tanh = get_tanh(settings, "DCGAN")
    latent_dim = tensors.shape("formatLayer.weight", 4)[0]
    categories = get_categories(network, settings, latent_dim)
    settings.finish()
    depth = tensors.count("main.convTranspose{}.weight") - 1
    middle = [f"main.convTranspose{i}" for i in range(1, depth + 1)]
    links: list[Link] = []
    for i, name in enumerate(["formatLayer", *middle, "main.outlayer"]):
        width = tensors.shape(f"{name}.weight", 4)[1]
        width_in = links[-1].width_out if links else latent_dim
        norm = f"main.batchNorm{i}" if i <= max(depth, 0) else ""
        links.append(Link(name, (4, 4), width_in, width, True, False, norm))
    shape = Shape(0, 0, tuple(DOUBLING for _ in links[1:]))
    converted = _convert_layers(tensors, links, shape)
    converted.architecture.update(tanh=tanh, categories=categories)
    return converted._replace(assumed=(*settings.assumed, *converted.assumed))


class ChainOptions:
    """What the tensors of a chain do not determine: given by the user, or assumed and listed."""

    def __init__(self, settings: Settings, links: Sequence[Link], place: str):
        self.shape, text = choose_shape(settings, links, place)
        if text:
            settings.assumed.append(text)
        self.leak = settings.get("leak", 0.0, low=0, high=1)
        settings.assume("leak", "ReLU (--set leak=0.2 for LeakyReLU)")
        self.eps = settings.get("eps", BATCH_NORM_EPS, low=0)
        if any(link.norm for link in links):
            settings.assume("eps", f"batch norm's eps {self.eps:g} (--set eps={BATCH_NORM_EPS:g})")
        tanh = settings.get("tanh", True)  # the older name of `output`
        self.output = settings.get("output", "tanh" if tanh else "none", words=OUTPUTS)
        if not settings.is_given("tanh"):
            settings.assume("output", "tanh at the end (--set output=sigmoid, or none)")
        width = links[0].width_in
        self.num_classes = settings.get("num_classes", 0, low=0, high=width - 1)
        text = f"no classes among the {width} inputs (--set num_classes=8 for a one-hot vector)"
        settings.assume("num_classes", text)
        self.class_names = settings.get_words("class_names")
        self.classes_first = settings.get("classes_first", False)
        if self.num_classes:
            text = "the class vector after the latent (--set classes_first=true)"
            settings.assume("classes_first", text)
        settings.finish()
        self.assumed = tuple(settings.assumed)
        if self.class_names and len(self.class_names) != self.num_classes:
            raise UserError(
                f"--set class_names: {len(self.class_names)} names for num_classes="
                f"{self.num_classes}; give one for each class, in order"
            )

    def order_rows(self, first: np.ndarray) -> np.ndarray:
        """Move the rows of the class vector after the latent's."""
        if not self.classes_first:
            return first
        return np.concatenate([first[self.num_classes :], first[: self.num_classes]])


def _convert_layers(
    tensors: Tensors,
    links: Sequence[Link],
    shape: Shape,
    eps: float = BATCH_NORM_EPS,
    sigmoid: bool = False,
) -> Conversion:
    """Convert a chain; biases and batch norms become a scale and a shift per channel."""
    arrays, assumed = {}, []
    affine = []
    for i, link in enumerate(links):
        kernel = _take_kernel(tensors, link)  # (h, w, in, out)
        if i == 0:
            arrays["first"] = _cropped(kernel, shape).transpose(2, 0, 1, 3)
        elif i < len(links) - 1:
            arrays[f"kernels.{i - 1}"] = kernel
        scale, shift = _take_norm(tensors, link, eps)
        if link.has_bias:
            shift = shift + scale * tensors.take(f"{link.name}.bias", (link.width_out,))
        if link.norm and not any(f"{link.norm}.{part}" in tensors for part in ("weight", "bias")):
            assumed.append(f"{link.norm} has no weight and bias: 1 and 0")
        affine.append((scale, shift))
    # A sigmoid mapped to [-1, 1], 2 sigmoid(x) - 1, is tanh(x / 2).
    scale, shift = (value * (0.5 if sigmoid else 1.0) for value in affine.pop())
    arrays["output"] = (kernel * scale).astype(np.float32)
    if has_shift := bool(shift.any()) or links[-1].has_bias:
        arrays["output_bias"] = shift.astype(np.float32)
    for i, (scale, shift) in enumerate(affine):
        arrays[f"scales.{i}"] = scale.astype(np.float32)
        arrays[f"shifts.{i}"] = shift.astype(np.float32)
    tensors.finish()
    architecture = {
        "latent_dim": links[0].width_in,
        "widths": [link.width_out for link in links[:-1]],
        "image_channels": links[-1].width_out,
        "tanh": True,
    }
    if arrays["first"].shape[1] != 4 or any(stage != DOUBLING for stage in shape.stages):
        architecture["first_size"] = arrays["first"].shape[1]
        architecture["stages"] = [list(stage) for stage in shape.stages]
    if has_shift:
        architecture["output_bias"] = True
    return Conversion("dcgan", architecture, arrays, tuple(assumed))


def _take_kernel(tensors: Tensors, link: Link) -> np.ndarray:
    """Return a kernel (h, w, in, out) as a transposed convolution uses it."""
    widths = (link.width_in, link.width_out)
    if link.is_transposed:
        return tensors.take(f"{link.name}.weight", (*widths, *link.size)).transpose(2, 3, 0, 1)
    # A convolution that keeps the size is a transposed one with the kernel flipped.
    weight = tensors.take(f"{link.name}.weight", (*widths[::-1], *link.size))
    return weight[:, :, ::-1, ::-1].transpose(2, 3, 1, 0)


def _cropped(kernel: np.ndarray, shape: Shape) -> np.ndarray:
    """Return the output of the first kernel for a single pixel: its padding crops pixels."""
    low, high = shape.first_padding, shape.first_extra - shape.first_padding
    sides = (0, max(high, 0))
    kernel = np.pad(kernel, (sides, sides, (0, 0), (0, 0)))
    stop = kernel.shape[0] + min(high, 0)
    return kernel[low:stop, low:stop]


def _take_norm(tensors: Tensors, link: Link, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a batch norm as scale and shift; 1 and 0 without one."""
    width, name = link.width_out, link.norm
    if not name:
        return np.ones(width), np.zeros(width)
    parts = {"weight": np.ones(width), "bias": np.zeros(width)}
    if any(f"{name}.{part}" in tensors for part in parts):
        parts = {part: tensors.take(f"{name}.{part}", (width,)) for part in parts}
    if not any(f"{name}.{part}" in tensors for part in ("running_mean", "running_var")):
        tensors.note(
            f"missing {name}.running_mean and {name}.running_var: {name} has no running "
            "statistics, so it normalises by the batch or the image (batch norm without "
            "track_running_stats, instance or group norm), which is not supported"
        )
        return np.ones(width), np.zeros(width)
    mean = tensors.take(f"{name}.running_mean", (width,)).astype(np.float64)
    variance = tensors.take_variance(f"{name}.running_var", (width,)).astype(np.float64)
    tensors.ignore(re.escape(f"{name}.num_batches_tracked"))
    deviation = np.sqrt(np.maximum(variance, 0) + eps)
    if not deviation.all() or not math.isfinite(float(deviation.max())):
        tensors.note(f"{name}.running_var has zeros, and eps is 0")
        deviation = np.ones(width)
    scale = parts["weight"].astype(np.float64) / deviation
    return scale, parts["bias"].astype(np.float64) - mean * scale


LAYOUTS = (
    Layout(
        "examples",
        "PyTorch examples and similar: state dict main.0.weight, ... (netG_epoch_N.pth)",
        is_chain,
        convert_chain,
        is_loose=True,
        transposed=True,
    ),
    Layout(
        "zoo",
        "pytorch_GAN_zoo DCGAN: dict with config, netG, avgG",
        lambda s: has_tensors(s, "formatLayer.weight", "main.outlayer.weight"),
        convert_zoo,
    ),
)
