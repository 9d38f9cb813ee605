"""BigGAN-deep files of Hugging Face: `pytorch_model.bin` with a `config.json` beside it.

The tensors determine everything but which blocks upsample, and eps; without a config the published
layouts are recognised by their widths. Spectral norms are folded in here, in double precision, with
the stored vectors u and v: recomputing these would give another sigma than the reference divides
by.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cgjax.errors import UserError
from cgjax.generators.biggan import REDUCTION
from cgjax.runtime.files import user_path
from converters import biggan_pytorch
from converters.axes import conv_kernel, dense_kernel, pixel_kernel
from converters.conversion import Companion, Conversion, Layout
from converters.networks import Network, has_tensors
from converters.settings import Settings
from converters.spectral import attention_layers, spectrally_normalized
from converters.tensors import Tensors

IMAGE_CHANNELS = 3

# The published layouts: (upsamples, channels in, channels out), channels in units of the width.
_START = ((0, 16, 16), (1, 16, 16), (0, 16, 16), (1, 16, 8), (0, 8, 8))
_MIDDLE = ((1, 8, 8), (0, 8, 8), (1, 8, 4), (0, 4, 4), (1, 4, 2), (0, 2, 2), (1, 2, 1))
PUBLISHED_LAYOUTS = (
    (*_START, (1, 8, 4), (0, 4, 4), (1, 4, 2), (0, 2, 2), (1, 2, 1)),
    (*_START, *_MIDDLE),
    (*_START, *_MIDDLE, (0, 1, 1), (1, 1, 1)),
)


class Config(NamedTuple):
    """A model's config.json.

    Attributes:
        file: the file; None if there is none.
        entries: its content; empty if there is none.
    """

    file: Companion | None
    entries: Mapping[str, Any]

    @property
    def path(self) -> Path | None:
        """The file's path."""
        return self.file and self.file.path

    def blocks(self, width: int) -> list[tuple[int, int, int]] | None:
        """Return (upsamples, channels in, channels out) of each block; None without `layers`.

        Raises:
            UserError: if `layers` has another form.
        """
        layers = self.entries.get("layers")
        if layers is None:
            return None
        if not isinstance(layers, list) or not all(map(_is_block, layers)):
            raise UserError(
                f"{self.path}: layers is not a list of [upsamples, channels in, channels out]"
            )
        return [(int(up), i * width, o * width) for up, i, o in layers]

    def check(self, weights: Path, **sizes: int) -> None:
        """Check the config's sizes against those of the tensors in the file of weights.

        Raises:
            UserError: one differs; it is named.
        """
        for name, size in sizes.items():
            stated = self.entries.get(name)
            if stated is not None and (type(stated) is not int or stated != size):
                raise UserError(
                    f"{self.path} has {name}={json.dumps(stated)[:60]}, the shapes in {weights} "
                    f"say {size}; it is another model's config.json, or a tensor has a wrong shape"
                )


def _is_block(block: Any) -> bool:
    if not isinstance(block, list) or len(block) != 3 or block[0] not in (0, 1):
        return False
    return all(type(channels) is int and channels > 0 for channels in block[1:])


def _read_config(path: Path, given: str) -> Config:
    """Read the config that --set config= names, or else the one beside the file."""
    beside = [path.with_name("config.json")]
    if path.name.endswith("pytorch_model.bin"):
        beside.insert(0, path.with_name(path.name.replace("pytorch_model.bin", "config.json")))
    candidates = [user_path(given)] if given else [p for p in beside if p.is_file()]
    if not candidates:
        return Config(None, {})
    where = candidates[0]
    try:
        data = where.read_bytes()
        entries = json.loads(data.decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{where} is not a config.json of BigGAN: {error}") from error
    if not isinstance(entries, dict):
        raise UserError(f"{where} is not a config.json of BigGAN: expected an object {{...}}")
    return Config(Companion(where, hashlib.sha256(data).hexdigest()), entries)


def _find_blocks(
    tensors: Tensors, config: Config, width: int, path: Path
) -> tuple[list[tuple[int, int, int]], int | None]:
    """Return the blocks (upsamples, channels in, channels out) and the attention's index."""
    pattern = r"generator\.layers\.(\d{1,9})\.gamma"
    places = [int(re.sub(pattern, r"\1", name)) for name in tensors.names(pattern)]
    attention = places[0] if places else None
    shapes = []
    for i in range(tensors.count("generator.layers.{}.conv_0.weight_orig")):
        if i != attention:
            name = f"generator.layers.{i}"
            width_in = tensors.shape(f"{name}.conv_0.weight_orig", 4)[1]
            shapes.append((width_in, tensors.shape(f"{name}.conv_3.weight_orig", 4)[0]))
    blocks = config.blocks(width)
    if blocks is None:
        scaled = ([(up, i * width, o * width) for up, i, o in b] for b in PUBLISHED_LAYOUTS)
        blocks = next((layout for layout in scaled if [b[1:] for b in layout] == shapes), None)
    if blocks is None:
        raise UserError(
            f"{path}: its blocks are not those of a published BigGAN-deep, so config.json must "
            "say which of them upsample; put it beside the file or give --set config=PATH"
        )
    if [b[1:] for b in blocks] != shapes:
        raise UserError(
            f"{path}: the config's layers have channels {[b[1:] for b in blocks]}, the file's "
            f"{shapes}; it is another model's config.json"
        )
    return blocks, attention


def convert(network: Network, given: Mapping[str, str]) -> Conversion:
    """Convert a BigGAN-deep."""
    config = _read_config(network.path, given.get("config", ""))
    settings, tensors = Settings(given, {**config.entries, "config": None}), network.tensors()
    settings.get("config", "")
    eps = settings.get("eps", 1e-4, low=1e-12, high=1)
    settings.finish()
    width = tensors.shape("generator.bn.weight", 1)[0]
    latent_dim, num_classes = tensors.shape("embeddings.weight", 2)
    num_stats = tensors.shape("generator.bn.running_means", 2)[0]
    config.check(
        network.path,
        z_dim=latent_dim,
        num_classes=num_classes,
        channel_width=width,
        n_stats=num_stats,
    )
    blocks, attention = _find_blocks(tensors, config, width, network.path)
    if not blocks or num_stats < 2:
        raise UserError(
            f"{network.path}: {len(blocks)} blocks and statistics of {num_stats} truncations; "
            "expected one block and two truncations at least"
        )
    reader = _Reader(tensors, eps, num_stats, condition=2 * latent_dim)
    arrays, first = reader.arrays, 16 * 16 * width
    embedding = tensors.take("embeddings.weight", (latent_dim, num_classes))
    arrays["embedding"] = dense_kernel(embedding)
    arrays["dense"] = dense_kernel(reader.weight("generator.gen_z", (first, reader.condition)))
    arrays["dense_bias"] = tensors.take("generator.gen_z.bias", (first,))
    index = 0
    for i, (_, width_in, width_out) in enumerate(blocks):
        if i == attention:
            reader.attention(index, width_in)
            index += 1
        reader.block(index, width_in, width_out)
        index += 1
    reader.statistics("final_statistics", "generator.bn", width)
    arrays["final_scale"] = tensors.take("generator.bn.weight", (width,))
    arrays["final_offset"] = tensors.take("generator.bn.bias", (width,))
    # The last convolution outputs as many channels as it reads; the image is the first three.
    channels = min(IMAGE_CHANNELS, width)
    rgb = reader.weight("generator.conv_to_rgb", (width, width, 3, 3))
    arrays["to_rgb"] = conv_kernel(rgb)[..., :channels]
    arrays["to_rgb_bias"] = tensors.take("generator.conv_to_rgb.bias", (width,))[:channels]
    tensors.ignore(re.escape("generator.") + r".*num_batches_tracked")
    tensors.finish()
    architecture = {
        "latent_dim": latent_dim,
        "num_classes": num_classes,
        "width": width,
        "blocks": [list(block) for block in blocks],
        "attention": attention,
        "num_stats": num_stats,
        "eps": eps,
        "image_channels": channels,
    }
    companions = (config.file,) if config.file else ()
    return Conversion("biggan", architecture, arrays, companions=companions)


class _Reader:
    """Takes layers out of a state dict, with their spectral norms folded in."""

    def __init__(self, tensors: Tensors, eps: float, num_stats: int, condition: int):
        self.tensors, self.eps, self.num_stats, self.condition = tensors, eps, num_stats, condition
        self.arrays: dict[str, np.ndarray] = {}

    def weight(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Return a weight, divided by its spectral norm."""
        weight = self.tensors.take(f"{name}.weight_orig", shape)
        u, v = self.tensors.take(f"{name}.weight_u", shape[:1]), None
        # Files of torch 1.0 hold u alone; its forward pass took one power step from it.
        if f"{name}.weight_v" in self.tensors:
            v = self.tensors.take(f"{name}.weight_v", (math.prod(shape[1:]),))
        return spectrally_normalized(self.tensors, name, weight, u, v, self.eps)

    def statistics(self, ours: str, theirs: str, width: int) -> None:
        """Take a norm's means and variances, a row for each truncation."""
        shape = (self.num_stats, width)
        self.arrays[f"{ours}.means"] = self.tensors.take(f"{theirs}.running_means", shape)
        variances = self.tensors.take_variance(f"{theirs}.running_vars", shape)
        self.arrays[f"{ours}.variances"] = variances

    def block(self, index: int, width_in: int, width_out: int) -> None:
        """Take a block: four conditional norms, each with a convolution after it."""
        theirs, ours = f"generator.layers.{index}", f"modules.{index}"
        inner = width_in // REDUCTION
        sizes = ((1, width_in, inner), (3, inner, inner), (3, inner, inner), (1, inner, width_out))
        for j, (k, i, o) in enumerate(sizes):
            self.statistics(f"{ours}.norms.{j}.statistics", f"{theirs}.bn_{j}", i)
            for part in ("scale", "offset"):
                weight = self.weight(f"{theirs}.bn_{j}.{part}", (i, self.condition))
                self.arrays[f"{ours}.norms.{j}.{part}"] = dense_kernel(weight)
            kernel = self.weight(f"{theirs}.conv_{j}", (o, i, k, k))
            self.arrays[f"{ours}.kernels.{j}"] = conv_kernel(kernel)
            self.arrays[f"{ours}.biases.{j}"] = self.tensors.take(f"{theirs}.conv_{j}.bias", (o,))

    def attention(self, index: int, width: int) -> None:
        """Take an attention block."""
        theirs, ours = f"generator.layers.{index}", f"modules.{index}"
        for their_part, our_part, o, i in attention_layers(width):
            name = f"{theirs}.snconv1x1_{'o_conv' if their_part == 'o' else their_part}"
            self.arrays[f"{ours}.{our_part}"] = pixel_kernel(self.weight(name, (o, i, 1, 1)))
        self.arrays[f"{ours}.gamma"] = self.tensors.take(f"{theirs}.gamma", (1,))[0]


LAYOUTS = (
    Layout(
        "huggingface",
        "pytorch-pretrained-BigGAN (BigGAN-deep): pytorch_model.bin with config.json beside it",
        lambda s: has_tensors(s, "embeddings.weight", "generator.gen_z.weight_orig"),
        convert,
        parts=r"generator\..*\.weight_(orig|u|v)",
    ),
    Layout(
        "ajbrock",
        "BigGAN-PyTorch (ajbrock): state dict G_ema.pth",
        lambda s: has_tensors(s, "linear.weight", "blocks.0.0.conv1.weight"),
        biggan_pytorch.convert,
    ),
)
