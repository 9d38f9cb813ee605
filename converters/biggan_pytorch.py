"""BigGAN files of ajbrock's BigGAN-PyTorch: a bare state dict, `G_ema.pth` or `G.pth`.

Shapes tell everything but eps. Spectral norms are baked in here, in double precision: the code does
not store them, it takes one power step from the stored vector u0 whenever it runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from cgjax.errors import UserError
from converters.conversion import Conversion, conv_kernel, dense_kernel, pixel_kernel
from converters.networks import Network
from converters.settings import Settings
from converters.tensors import Tensors

# Where a norm keeps its statistics: its own, the code's `myBN` and synchronised ones.
_STATISTICS = ("stored_{}", "bn.stored_{}", "bn.running_{}", "running_{}")


def convert(network: Network, given: Mapping[str, str]) -> Conversion:
    """Convert BigGAN-PyTorch's generator."""
    tensors, settings = network.tensors(), Settings(given)
    assumed: list[str] = []
    eps = settings.get("BN_eps", 1e-5, low=1e-12, high=1)
    power_eps = settings.get("SN_eps", 1e-12, low=1e-30, high=1)
    if not settings.is_given("BN_eps"):
        assumed.append(
            f"BN_eps: {eps:g}, the code's default: the file does not say; --set BN_eps=..."
        )
    settings.finish()
    reader = _Reader(tensors, power_eps)
    blocks = [f"blocks.{i}.0" for i in range(tensors.count("blocks.{}.0.conv1.weight"))]
    shapes = [tensors.shape(f"{name}.conv1.weight", 4)[:2] for name in blocks]
    widths = [shapes[0][1], *(o for o, _ in shapes)]
    first, piece = tensors.shape("linear.weight", 2)
    size = math.isqrt(first // widths[0])
    if first != size * size * widths[0]:
        raise UserError(
            f"{network.path}: linear has {first} outputs, not a square map of {widths[0]} channels"
        )
    gain = tensors.shape("blocks.0.0.bn1.gain.weight", 2)
    if "shared.weight" in tensors:
        num_classes, embedding_dim = tensors.shape("shared.weight", 2)
        reader.arrays["embedding"] = tensors.take("shared.weight", (num_classes, embedding_dim))
        condition, extra = gain[1], gain[1] - embedding_dim
    else:
        (num_classes, extra), embedding_dim = (gain[0], 0), None
        condition = num_classes
    if extra not in (0, piece):
        raise UserError(
            f"{network.path}: blocks.0.0.bn1.gain.weight has shape {tuple(gain)}: it reads "
            f"{condition} values; expected {embedding_dim} of the class's embedding (the rows of "
            f"shared.weight), and {piece} of the latent where it is hierarchical"
        )
    reader.dense(("dense", "dense_bias"), "linear", (first, piece))
    attention: list[int] = []
    for i, name in enumerate(blocks):
        width_in, width_out = widths[i : i + 2]
        prefix = f"blocks.{i}"
        for j, width in enumerate((width_in, width_out)):
            norm = f"{name}.bn{j + 1}"
            reader.statistics(f"{prefix}.norms.{j}", norm, width)
            for theirs, ours in (("gain", "scale"), ("bias", "offset")):
                reader.condition(
                    f"{prefix}.norms.{j}.{ours}",
                    f"{norm}.{theirs}",
                    (width, condition),
                    is_table=embedding_dim is None,
                )
            kernel = (width_out, width, 3, 3)
            ours_pair = f"{prefix}.kernels.{j}", f"{prefix}.biases.{j}"
            reader.convolution(ours_pair, f"{name}.conv{j + 1}", kernel)
        shortcut = f"{prefix}.shortcut", f"{prefix}.shortcut_bias"
        reader.convolution(shortcut, f"{name}.conv_sc", (width_out, width_in, 1, 1))
        if f"blocks.{i}.1.gamma" in tensors:
            reader.attention(f"attentions.{len(attention)}", f"blocks.{i}.1", width_out)
            attention.append(i)
    channels = tensors.shape("output_layer.2.weight", 4)[0]
    reader.statistics("final", "output_layer.0", widths[-1], separator="_")
    for theirs, ours in (("gain", "final_scale"), ("bias", "final_offset")):
        reader.arrays[ours] = tensors.take(f"output_layer.0.{theirs}", (widths[-1],))
    reader.convolution(("to_rgb", "to_rgb_bias"), "output_layer.2", (channels, widths[-1], 3, 3))
    # The logged norms, the vectors of further singular values, and counters of averages.
    tensors.ignore(r".*\.(sv\d+|u[1-9]\d*|accumulation_counter|num_batches_tracked)")
    tensors.finish()
    architecture = {
        "latent_dim": piece * (len(blocks) + 1) if extra else piece,
        "num_classes": num_classes,
        "widths": widths,
        "embedding_dim": embedding_dim,
        "hierarchical": bool(extra),
        "attention": attention,
        "first_size": size,
        "eps": eps,
        "image_channels": channels,
    }
    return Conversion("biggan_pytorch", architecture, reader.arrays, tuple(assumed))


class _Reader:
    """Takes layers out of a state dict, spectral norms baked in, and keeps our arrays."""

    def __init__(self, tensors: Tensors, eps: float):
        self.tensors, self.eps = tensors, eps
        self.arrays: dict[str, np.ndarray] = {}

    def weight(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Read a weight, divided by its spectral norm where it has one."""
        weight = self.tensors.take(f"{name}.weight", shape)
        if f"{name}.u0" not in self.tensors:
            return weight
        matrix = weight.reshape(shape[0], -1).astype(np.float64)
        u = self.tensors.take(f"{name}.u0", (1, shape[0])).astype(np.float64)[0]
        v = self._normalized(u @ matrix)
        u = self._normalized(matrix @ v)
        sigma = float(u @ matrix @ v)
        if sigma == 0 or not np.isfinite(sigma):
            self.tensors.note(f"{name} has a spectral norm of {sigma}")
            sigma = 1.0
        return (weight / sigma).astype(np.float32)

    def _normalized(self, x: np.ndarray) -> np.ndarray:
        return x / max(float(np.linalg.norm(x)), self.eps)

    def dense(self, ours: tuple[str, str], name: str, shape: tuple[int, int]) -> None:
        """Read a dense layer."""
        self.arrays[ours[0]] = dense_kernel(self.weight(name, shape))
        self.arrays[ours[1]] = self.tensors.take(f"{name}.bias", shape[:1])

    def convolution(
        self, ours: tuple[str, str], name: str, shape: tuple[int, int, int, int]
    ) -> None:
        """Read a convolution, of one pixel or more."""
        turn = pixel_kernel if shape[2] == 1 else conv_kernel
        self.arrays[ours[0]] = turn(self.weight(name, shape))
        self.arrays[ours[1]] = self.tensors.take(f"{name}.bias", shape[:1])

    def condition(self, ours: str, name: str, shape: tuple[int, int], *, is_table: bool) -> None:
        """Read what a norm makes of its condition: a dense layer, or a row for each class."""
        if is_table:
            self.arrays[ours] = self.tensors.take(f"{name}.weight", shape[::-1])
        else:
            self.arrays[ours] = dense_kernel(self.weight(name, shape))

    def statistics(self, ours: str, name: str, width: int, separator: str = ".") -> None:
        """Read a norm's mean and variance."""
        for kind, part in (("mean", "mean"), ("var", "variance")):
            names = [f"{name}.{form.format(kind)}" for form in _STATISTICS]
            found = next((n for n in names if n in self.tensors), names[0])
            values = self.tensors.take(found, (width,))
            if kind == "var" and (values < 0).any():
                self.tensors.note(f"{found} has negative values")
            self.arrays[f"{ours}{separator}{part}"] = values

    def attention(self, ours: str, name: str, width: int) -> None:
        """Read a block's attention."""
        for theirs, part, o, i in (
            ("theta", "query", width // 8, width),
            ("phi", "key", width // 8, width),
            ("g", "value", width // 2, width),
            ("o", "out", width, width // 2),
        ):
            self.arrays[f"{ours}.{part}"] = pixel_kernel(
                self.weight(f"{name}.{theirs}", (o, i, 1, 1))
            )
        self.arrays[f"{ours}.gamma"] = self.tensors.take(f"{name}.gamma", ())
