"""Inception-v3 up to its pooled 2,048 features, in the variant that defines FID.

This is the network of [Szegedy et al. 2016] as in the 2015 TensorFlow graph, whose average pools
exclude the padding and whose last block takes a maximum. The PyTorch port of that graph names its
tensors `Mixed_5b.branch1x1.conv.weight` and so on; this module reads files with these names. No
weights are shipped.

Kernel sizes come with the tensors; convolutions of stride 1 inside the mixed blocks keep the size.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cgjax.errors import UserError
from cgjax.evaluation.weight_files import check_tensors, read_tensors

Weights = dict[str, tuple[Array, Array]]
"""Each convolution's kernel (h, w, in, out), with batch norm folded in, and bias (out,)."""

SIZE, FEATURES = 299, 2048
CLASSIFIER = "fc.weight"
BATCH_NORM_EPSILON = 1e-3
SOURCE = "pt_inception-2015-12-05-6726825d.pth"
HOW = (
    f"FID needs the tensors of {SOURCE} (pytorch-fid's; its SHA-256 begins with 6726825d) as "
    "safetensors under their own names: torch.load(FILE, weights_only=True), then "
    "safetensors.torch.save_file"
)

# Every convolution: its name, kernel height, kernel width, channels in, channels out.
_STEM = (
    ("Conv2d_1a_3x3", 3, 3, 3, 32),
    ("Conv2d_2a_3x3", 3, 3, 32, 32),
    ("Conv2d_2b_3x3", 3, 3, 32, 64),
    ("Conv2d_3b_1x1", 1, 1, 64, 80),
    ("Conv2d_4a_3x3", 3, 3, 80, 192),
)


def _block_a(width: int, pool: int) -> dict[str, tuple[int, int, int, int]]:
    return {
        "branch1x1": (1, 1, width, 64),
        "branch5x5_1": (1, 1, width, 48),
        "branch5x5_2": (5, 5, 48, 64),
        "branch3x3dbl_1": (1, 1, width, 64),
        "branch3x3dbl_2": (3, 3, 64, 96),
        "branch3x3dbl_3": (3, 3, 96, 96),
        "branch_pool": (1, 1, width, pool),
    }


def _block_b(width: int) -> dict[str, tuple[int, int, int, int]]:
    return {
        "branch3x3": (3, 3, width, 384),
        "branch3x3dbl_1": (1, 1, width, 64),
        "branch3x3dbl_2": (3, 3, 64, 96),
        "branch3x3dbl_3": (3, 3, 96, 96),
    }


def _block_c(inner: int) -> dict[str, tuple[int, int, int, int]]:
    return {
        "branch1x1": (1, 1, 768, 192),
        "branch7x7_1": (1, 1, 768, inner),
        "branch7x7_2": (1, 7, inner, inner),
        "branch7x7_3": (7, 1, inner, 192),
        "branch7x7dbl_1": (1, 1, 768, inner),
        "branch7x7dbl_2": (7, 1, inner, inner),
        "branch7x7dbl_3": (1, 7, inner, inner),
        "branch7x7dbl_4": (7, 1, inner, inner),
        "branch7x7dbl_5": (1, 7, inner, 192),
        "branch_pool": (1, 1, 768, 192),
    }


def _block_d() -> dict[str, tuple[int, int, int, int]]:
    return {
        "branch3x3_1": (1, 1, 768, 192),
        "branch3x3_2": (3, 3, 192, 320),
        "branch7x7x3_1": (1, 1, 768, 192),
        "branch7x7x3_2": (1, 7, 192, 192),
        "branch7x7x3_3": (7, 1, 192, 192),
        "branch7x7x3_4": (3, 3, 192, 192),
    }


def _block_e(width: int) -> dict[str, tuple[int, int, int, int]]:
    return {
        "branch1x1": (1, 1, width, 320),
        "branch3x3_1": (1, 1, width, 384),
        "branch3x3_2a": (1, 3, 384, 384),
        "branch3x3_2b": (3, 1, 384, 384),
        "branch3x3dbl_1": (1, 1, width, 448),
        "branch3x3dbl_2": (3, 3, 448, 384),
        "branch3x3dbl_3a": (1, 3, 384, 384),
        "branch3x3dbl_3b": (3, 1, 384, 384),
        "branch_pool": (1, 1, width, 192),
    }


BLOCKS = {
    "Mixed_5b": _block_a(192, 32),
    "Mixed_5c": _block_a(256, 64),
    "Mixed_5d": _block_a(288, 64),
    "Mixed_6a": _block_b(288),
    "Mixed_6b": _block_c(128),
    "Mixed_6c": _block_c(160),
    "Mixed_6d": _block_c(160),
    "Mixed_6e": _block_c(192),
    "Mixed_7a": _block_d(),
    "Mixed_7b": _block_e(1280),
    "Mixed_7c": _block_e(2048),
}


def expected_shapes() -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor a file must contain, by its PyTorch name."""
    convolutions = {name: shape for name, *shape in _STEM}
    for block, branches in BLOCKS.items():
        convolutions |= {f"{block}.{branch}": list(shape) for branch, shape in branches.items()}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (height, width, inputs, outputs) in convolutions.items():
        shapes[f"{name}.conv.weight"] = (outputs, inputs, height, width)
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.bn.{part}"] = (outputs,)
    return shapes


def fold(tensors: Mapping[str, np.ndarray]) -> Weights:
    """Fold each batch norm into its convolution and transpose the kernels to (h, w, in, out).

    Raises:
        UserError: as `check_tensors`.
    """
    shapes = expected_shapes()
    if CLASSIFIER in tensors:  # of any number of classes
        shapes[CLASSIFIER] = (*tensors[CLASSIFIER].shape[:1], FEATURES)
    check_tensors(tensors, shapes, "Inception's tensors", HOW, ("running_var", "variance"))
    weights = {}
    for name in (n.removesuffix(".conv.weight") for n in shapes if n.endswith(".conv.weight")):
        kernel, *norm = (
            np.asarray(tensors[f"{name}.{part}"], np.float64)
            for part in ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
        )
        gain, bias, mean, variance = norm
        scale = gain / np.sqrt(variance + BATCH_NORM_EPSILON)
        folded = kernel.transpose(2, 3, 1, 0) * scale
        weights[name] = (
            jnp.asarray(folded, jnp.float32),
            jnp.asarray(bias - mean * scale, jnp.float32),
        )
    return weights


def load_weights(path: str | Path) -> tuple[Weights, Float[np.ndarray, "2048 classes"] | None]:
    """Read a safetensors file with the PyTorch names.

    Returns:
        The weights, and those of the classifier; None if the file has none.

    Raises:
        UserError: as `read_tensors` and `check_tensors`.
    """
    tensors = read_tensors(path, HOW)
    weights, classifier = fold(tensors), tensors.get(CLASSIFIER)
    return weights, None if classifier is None else classifier.T.astype(np.float32)


def check_file(path: str, option: str) -> None:
    """Check a file of weights before any work that needs it.

    Args:
        path: of the file.
        option: the flag it was given with, for the message.

    Raises:
        UserError: as `load_weights`.
    """
    try:
        load_weights(path)
    except UserError as error:
        raise UserError(f"{option}=inception:{path}: {error}") from error


def _pool_max(x: Array, stride: int, padding: str) -> Array:
    return jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, stride, stride, 1), padding
    )


def _pool_mean(x: Array) -> Array:
    """3x3 average pool of stride 1 that excludes the padding."""
    window, stride = (1, 3, 3, 1), (1, 1, 1, 1)
    total = jax.lax.reduce_window(x, 0.0, jax.lax.add, window, stride, "SAME")
    ones = jnp.ones((1, *x.shape[1:3], 1), x.dtype)
    return total / jax.lax.reduce_window(ones, 0.0, jax.lax.add, window, stride, "SAME")


class _Convolutions(NamedTuple):
    """The network's convolutions by name, each followed by ReLU."""

    weights: Weights

    def __call__(self, name: str, x: Array, stride: int = 1, padding: str = "SAME") -> Array:
        kernel, bias = self.weights[name]
        y = jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=jax.lax.Precision.HIGHEST,
        )
        return jax.nn.relu(y + bias[None, None, None, :])

    def chain(self, branch: str, x: Array, num: int, *, halves: bool = False) -> Array:
        """Apply a branch's `num` convolutions; with `halves` the last one has stride 2."""
        for i in range(1, num + 1):
            last = ((2, "VALID") if halves else ()) if i == num else ()
            x = self(f"{branch}_{i}", x, *last)
        return x


def _join(*branches: Array) -> Array:
    return jnp.concatenate(branches, axis=-1)


def pool3(weights: Weights, images: Float[Array, "n h w 3"]) -> Float[Array, "n 2048"]:
    """Return the pooled features of images in [-1, 1], which are resized without antialiasing."""
    conv = _Convolutions(weights)
    x = jax.image.resize(images, (images.shape[0], SIZE, SIZE, 3), "linear", antialias=False)
    x = conv("Conv2d_1a_3x3", x, 2, "VALID")
    x = conv("Conv2d_2a_3x3", x, 1, "VALID")
    x = _pool_max(conv("Conv2d_2b_3x3", x), 2, "VALID")
    x = conv("Conv2d_4a_3x3", conv("Conv2d_3b_1x1", x), 1, "VALID")
    x = _pool_max(x, 2, "VALID")
    for block in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        x = _mixed(conv, block, x, branch5x5=2, branch3x3dbl=3)
    x = _join(
        conv("Mixed_6a.branch3x3", x, 2, "VALID"),
        conv.chain("Mixed_6a.branch3x3dbl", x, 3, halves=True),
        _pool_max(x, 2, "VALID"),
    )
    for block in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        x = _mixed(conv, block, x, branch7x7=3, branch7x7dbl=5)
    x = _join(
        conv.chain("Mixed_7a.branch3x3", x, 2, halves=True),
        conv.chain("Mixed_7a.branch7x7x3", x, 4, halves=True),
        _pool_max(x, 2, "VALID"),
    )
    x = _mixed_7(conv, "Mixed_7b", x, _pool_mean(x))
    # The graph's last block takes the maximum where all others take the mean.
    x = _mixed_7(conv, "Mixed_7c", x, _pool_max(x, 1, "SAME"))
    return x.mean(axis=(1, 2))


def _mixed(conv: _Convolutions, block: str, x: Array, **lengths: int) -> Array:
    """Apply a block that keeps the size; `lengths` are those of its two longer branches."""
    return _join(
        conv(f"{block}.branch1x1", x),
        *(conv.chain(f"{block}.{branch}", x, num) for branch, num in lengths.items()),
        conv(f"{block}.branch_pool", _pool_mean(x)),
    )


def _mixed_7(conv: _Convolutions, block: str, x: Array, pooled: Array) -> Array:
    wide = conv.chain(f"{block}.branch3x3", x, 1)
    deep = conv.chain(f"{block}.branch3x3dbl", x, 2)
    return _join(
        conv(f"{block}.branch1x1", x),
        conv(f"{block}.branch3x3_2a", wide),
        conv(f"{block}.branch3x3_2b", wide),
        conv(f"{block}.branch3x3dbl_3a", deep),
        conv(f"{block}.branch3x3dbl_3b", deep),
        conv(f"{block}.branch_pool", pooled),
    )
