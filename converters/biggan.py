"""BigGAN-deep files of Hugging Face: `pytorch_model.bin` with a `config.json` beside it.

The tensors tell everything but which blocks upsample, eps, and where the config calls for other
than the published layouts; without a config the published layouts are recognised by their widths.
Spectral norms are baked in here, in double precision, with the stored vectors u and v: recomputing
them would give another sigma than the reference divides by.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cgjax.errors import UserError
from cgjax.generators.biggan import REDUCTION
from converters.conversion import Container, Conversion, conv_kernel, dense_kernel, has_tensors
from converters.reading import Checkpoint, Tensors, choose_state
from converters.settings import Settings

IMAGE_CHANNELS = 3

# (upsamples, channels in, channels out) in units of the width; published layouts.
_START = ((0, 16, 16), (1, 16, 16), (0, 16, 16), (1, 16, 8), (0, 8, 8))
_MIDDLE = ((1, 8, 8), (0, 8, 8), (1, 8, 4), (0, 4, 4), (1, 4, 2), (0, 2, 2), (1, 2, 1))
PUBLISHED_LAYOUTS = (
    (*_START, (1, 8, 4), (0, 4, 4), (1, 4, 2), (0, 2, 2), (1, 2, 1)),
    (*_START, *_MIDDLE),
    (*_START, *_MIDDLE, (0, 1, 1), (1, 1, 1)),
)


def _read_config(checkpoint: Checkpoint, given: str) -> dict[str, Any]:
    """Read the config named with --set config=, or the one beside the file."""
    path = checkpoint.path
    beside = [path.with_name("config.json")]
    if path.name.endswith("pytorch_model.bin"):
        beside.insert(0, path.with_name(path.name.replace("pytorch_model.bin", "config.json")))
    candidates = [Path(given)] if given else [p for p in beside if p.is_file()]
    if not candidates:
        return {}
    try:
        config = json.loads(candidates[0].read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{candidates[0]} is no config.json of BigGAN: {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"{candidates[0]} is no config.json of BigGAN: expected an object")
    return config


def _spectral(tensors: Tensors, name: str, shape: tuple[int, ...], eps: float) -> np.ndarray:
    """Read a spectrally normalised weight: weight_orig / (u . W v)."""
    weight = tensors.take(f"{name}.weight_orig", shape)
    matrix = weight.reshape(shape[0], -1).astype(np.float64)
    u = tensors.take(f"{name}.weight_u", shape[:1]).astype(np.float64)
    if f"{name}.weight_v" in tensors:
        v = tensors.take(f"{name}.weight_v", (matrix.shape[1],)).astype(np.float64)
    else:
        # Files of torch 1.0 hold u alone; its forward pass took one power step from it.
        v = _normalized(matrix.T @ u, eps)
        u = _normalized(matrix @ v, eps)
    sigma = float(u @ matrix @ v)
    if sigma == 0 or not np.isfinite(sigma):
        tensors.note(f"{name} has a spectral norm of {sigma}")
        sigma = 1.0
    return (weight / sigma).astype(np.float32)


def _normalized(x: np.ndarray, eps: float) -> np.ndarray:
    return x / max(float(np.linalg.norm(x)), eps)


def _layout(
    tensors: Tensors, config: Mapping[str, Any], source: object
) -> tuple[list[tuple[int, int, int]], int | None, int]:
    """Return the blocks (upsamples, in, out), the attention's place, and the width."""
    width = tensors.shape("generator.bn.weight", 1)[0]
    attention = next(
        (int(n.split(".")[2]) for n in tensors.names(r"generator\.layers\.\d+\.gamma")), None
    )
    count = tensors.count("generator.layers.{}.conv_0.weight_orig")
    shapes = []
    for i in (i for i in range(count) if i != attention):
        width_in = tensors.shape(f"generator.layers.{i}.conv_0.weight_orig", 4)[1]
        width_out = tensors.shape(f"generator.layers.{i}.conv_3.weight_orig", 4)[0]
        shapes.append((width_in, width_out))
    layers = config.get("layers")
    if layers is None:
        layers = next(
            (
                layout
                for layout in PUBLISHED_LAYOUTS
                if [(i * width, o * width) for _, i, o in layout] == shapes
            ),
            None,
        )
    if layers is None:
        raise UserError(
            f"{source}: its blocks are not those of a published BigGAN-deep, so config.json must "
            "say which of them upsample; put it beside the file or give --set config=PATH"
        )
    blocks = [(int(bool(up)), int(i) * width, int(o) * width) for up, i, o in layers]
    if [(i, o) for _, i, o in blocks] != shapes:
        raise UserError(
            f"{source}: the config's layers have channels {[b[1:] for b in blocks]}, the file's "
            f"{shapes}; it is another model's config.json"
        )
    return blocks, attention, width


def convert(checkpoint: Checkpoint, given: Mapping[str, str]) -> Conversion:
    """Convert a BigGAN-deep file."""
    chosen = Settings(given)
    config = _read_config(checkpoint, chosen.get("config", ""))
    settings = Settings({k: v for k, v in given.items() if k != "config"}, config)
    eps = settings.get("eps", 1e-4)
    settings.finish()
    tensors = Tensors(choose_state(checkpoint, ("state_dict", "generator")), checkpoint.path)
    blocks, attention, width = _layout(tensors, config, checkpoint.path)
    latent_dim, num_classes = tensors.shape("embeddings.weight", 2)
    num_stats = tensors.shape("generator.bn.running_means", 2)[0]
    condition = 2 * latent_dim

    arrays = {
        "embedding": dense_kernel(tensors.take("embeddings.weight", (latent_dim, num_classes)))
    }
    first = 16 * 16 * width
    dense = _spectral(tensors, "generator.gen_z", (first, condition), eps)
    arrays["dense"] = dense_kernel(dense)
    arrays["dense_bias"] = tensors.take("generator.gen_z.bias", (first,))

    def take_statistics(name: str, channels: int, prefix: str) -> None:
        for theirs, ours in (("running_means", "means"), ("running_vars", "variances")):
            table = tensors.take(f"{name}.{theirs}", (num_stats, channels))
            if ours == "variances" and (table < 0).any():
                tensors.note(f"{name}.{theirs} has negative values")
            arrays[f"{prefix}.{ours}"] = table

    index = 0
    for b, (_, width_in, width_out) in enumerate(blocks):
        if b == attention:
            _take_attention(tensors, index, width_in, eps, arrays)
            index += 1
        name, prefix = f"generator.layers.{index}", f"modules.{index}"
        inner = width_in // REDUCTION
        sizes = ((1, width_in, inner), (3, inner, inner), (3, inner, inner), (1, inner, width_out))
        for j, (k, i, o) in enumerate(sizes):
            take_statistics(f"{name}.bn_{j}", i, f"{prefix}.norms.{j}.statistics")
            for part in ("scale", "offset"):
                weight = _spectral(tensors, f"{name}.bn_{j}.{part}", (i, condition), eps)
                arrays[f"{prefix}.norms.{j}.{part}"] = dense_kernel(weight)
            kernel = _spectral(tensors, f"{name}.conv_{j}", (o, i, k, k), eps)
            arrays[f"{prefix}.kernels.{j}"] = conv_kernel(kernel)
            arrays[f"{prefix}.biases.{j}"] = tensors.take(f"{name}.conv_{j}.bias", (o,))
        index += 1
    take_statistics("generator.bn", width, "final_statistics")
    arrays["final_scale"] = tensors.take("generator.bn.weight", (width,))
    arrays["final_offset"] = tensors.take("generator.bn.bias", (width,))
    # The last convolution makes as many channels as it reads; the image is the first three.
    channels = min(IMAGE_CHANNELS, width)
    rgb = _spectral(tensors, "generator.conv_to_rgb", (width, width, 3, 3), eps)
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
    return Conversion("biggan", architecture, arrays)


def _take_attention(
    tensors: Tensors, index: int, width: int, eps: float, arrays: dict[str, np.ndarray]
) -> None:
    name, prefix = f"generator.layers.{index}", f"modules.{index}"
    for theirs, ours, o, i in (
        ("theta", "query", width // 8, width),
        ("phi", "key", width // 8, width),
        ("g", "value", width // 2, width),
        ("o_conv", "out", width, width // 2),
    ):
        weight = _spectral(tensors, f"{name}.snconv1x1_{theirs}", (o, i, 1, 1), eps)
        arrays[f"{prefix}.{ours}"] = conv_kernel(weight)[0, 0]
    arrays[f"{prefix}.gamma"] = tensors.take(f"{name}.gamma", (1,))[0]


CONTAINERS = (
    Container(
        "huggingface",
        "pytorch-pretrained-BigGAN (BigGAN-deep): pytorch_model.bin with config.json beside it",
        lambda c: has_tensors(c, "embeddings.weight", "generator.gen_z.weight_orig"),
        convert,
    ),
)
