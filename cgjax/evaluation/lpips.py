"""LPIPS, the learned perceptual distance of two images [Zhang et al. 2018].

With y_l the activations of layer l of a trunk trained on ImageNet, each position's channels scaled
to length 1, and w_l weights of its channels that were fitted to people's judgements,

    d(a, b) = sum over l of mean over positions of  w_l . (y_l(a) - y_l(b))^2 .

The trunk is AlexNet ("alex") or VGG-16 ("vgg"), the five layers are those before its poolings (in
AlexNet the convolutions). This is version 0.1, whose images are first shifted and scaled. No
weights are shipped; `python -m converters lpips` joins the published files of a trunk and its
weights w_l in one file, which is read here. Its tensors keep their PyTorch names.
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
from cgjax.evaluation.image_batches import images_at_a_time, in_full_batches
from cgjax.evaluation.weight_files import check_tensors, read_tensors
from cgjax.runtime.png import in_colour

FLAG = "--config.assign.lpips"
HOW = "python -m converters lpips --src=TRUNK --heads=HEADS --dst=FILE makes it, see docs/assign.md"

# By which pixels in [-1, 1] become what the trunks were trained on, for each colour.
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
EPSILON = 1e-10


class Convolution(NamedTuple):
    """A convolution of a trunk, with ReLU.

    Attributes:
        place: its index among the published network's `features`, which names its tensors.
        kernel: height and width.
        outputs: channels out.
        stride: in both directions.
        pool: size of the maximum pool of stride 2 before it; 0 for none.
        is_compared: whether its activations are among the five that are compared.
    """

    place: int
    kernel: int
    outputs: int
    stride: int = 1
    pool: int = 0
    is_compared: bool = True


class Trunk(NamedTuple):
    """A network whose activations are compared.

    Attributes:
        published: the file of its weights.
        smallest: the smallest images, in pixels, that leave every layer a position.
        convolutions: in order; each pads by half its kernel, the first of AlexNet by 2.
    """

    published: str
    smallest: int
    convolutions: tuple[Convolution, ...]

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor of the trunk, by its PyTorch name."""
        shapes: dict[str, tuple[int, ...]] = {}
        inputs = 3
        for one in self.convolutions:
            name = f"features.{one.place}"
            shapes[f"{name}.weight"] = (one.outputs, inputs, one.kernel, one.kernel)
            shapes[f"{name}.bias"] = (one.outputs,)
            inputs = one.outputs
        return shapes

    def expected_head_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every layer's weights w_l, by their PyTorch names."""
        widths = [one.outputs for one in self.convolutions if one.is_compared]
        return {f"lin{i}.model.1.weight": (1, width, 1, 1) for i, width in enumerate(widths)}


def _vgg_block(first: int, num: int, outputs: int) -> tuple[Convolution, ...]:
    """Return 3x3 convolutions, the first after a pool unless the images come in."""
    return tuple(
        Convolution(
            first + 2 * i,
            3,
            outputs,
            pool=2 if i == 0 and first else 0,
            is_compared=i == num - 1,
        )
        for i in range(num)
    )


TRUNKS = {
    "alex": Trunk(
        "alexnet-owt-7be5be79.pth",
        31,
        (
            Convolution(0, 11, 64, stride=4),
            Convolution(3, 5, 192, pool=3),
            Convolution(6, 3, 384, pool=3),
            Convolution(8, 3, 256),
            Convolution(10, 3, 256),
        ),
    ),
    "vgg": Trunk(
        "vgg16-397923af.pth",
        16,
        (
            *_vgg_block(0, 2, 64),
            *_vgg_block(5, 2, 128),
            *_vgg_block(10, 3, 256),
            *_vgg_block(17, 3, 512),
            *_vgg_block(24, 3, 512),
        ),
    ),
}


class Params(NamedTuple):
    """The weights of LPIPS.

    Attributes:
        kernels: of the trunk's convolutions, (h, w, in, out) each.
        biases: (out,) each.
        heads: the five layers' weights, (channels,) each.
    """

    kernels: tuple[Float[Array, "h w i o"], ...]
    biases: tuple[Float[Array, " o"], ...]
    heads: tuple[Float[Array, " c"], ...]

    @property
    def trunk(self) -> str:
        """The trunk's name: one of `TRUNKS`."""
        return next(t for t, one in TRUNKS.items() if len(one.convolutions) == len(self.kernels))


def trunk_of(names: Mapping[str, object]) -> str | None:
    """Return which trunk has tensors of these names; None for neither.

    Example:
        >>> trunk_of({"features.28.weight": 0}), trunk_of({"lin0.model.1.weight": 0})
        ('vgg', None)
    """
    last = {name: f"features.{one.convolutions[-1].place}.weight" for name, one in TRUNKS.items()}
    # VGG-16 also has a convolution at the place of AlexNet's last.
    return next((name for name in ("vgg", "alex") if last[name] in names), None)


def params_of(tensors: Mapping[str, np.ndarray]) -> Params:
    """Check the tensors of a trunk and its heads, and transpose the kernels to (h, w, in, out).

    Raises:
        UserError: the tensors of neither trunk, or as `check_tensors`.
    """
    name = trunk_of(tensors)
    if name is None:
        raise UserError(f"it has the tensors of neither AlexNet nor VGG-16; {HOW}")
    trunk = TRUNKS[name]
    shapes = trunk.expected_shapes() | trunk.expected_head_shapes()
    what = f"the tensors of LPIPS, {name}"
    check_tensors(tensors, shapes, what, HOW, ("lin", "weight"))

    def read(one: str) -> np.ndarray:
        return np.asarray(tensors[one], np.float32)

    places = [f"features.{one.place}" for one in trunk.convolutions]
    return Params(
        tuple(jnp.asarray(read(f"{p}.weight").transpose(2, 3, 1, 0)) for p in places),
        tuple(jnp.asarray(read(f"{p}.bias")) for p in places),
        tuple(jnp.asarray(read(one).reshape(-1)) for one in trunk.expected_head_shapes()),
    )


def load_params(path: str | Path) -> Params:
    """Read the file that `python -m converters lpips` writes.

    Raises:
        UserError: as `read_tensors` and `params_of`.
    """
    return params_of(read_tensors(path, HOW))


def check_file(path: str, image_size: int) -> None:
    """Check a file of weights, and that it can compare images, before any work.

    Args:
        path: of the file.
        image_size: height and width of the images.

    Raises:
        UserError: as `load_params`; images that are too small for the trunk.
    """
    try:
        name = load_params(path).trunk
        check_size(name, image_size)
    except UserError as error:
        raise UserError(f"{FLAG}={path}: {error}") from error


def check_size(trunk: str, image_size: int) -> None:
    """Refuse images so small that a layer of the trunk has no position.

    They are not enlarged: the distance would be one of other images.

    Raises:
        UserError: naming the smallest size.
    """
    smallest = TRUNKS[trunk].smallest
    if image_size < smallest:
        vgg = TRUNKS["vgg"].smallest
        other = f"; vgg takes {vgg}x{vgg}" if vgg <= image_size else ""
        raise UserError(
            f"LPIPS with {trunk} needs images of at least {smallest}x{smallest} pixels, and these "
            f"have {image_size}x{image_size}{other}"
        )


def lpips(
    params: Params, a: Float[Array, "n h w 3"], b: Float[Array, "n h w 3"]
) -> Float[Array, " n"]:
    """Return the distance of each pair of images, at least 0 and mostly below 1.

    Version 0.1 of [Zhang et al. 2018, equation 1]; see the module for the equation. A pure
    function, to be compiled.

    Args:
        params: the weights.
        a: (n, h, w, 3) images in [-1, 1], at least `Trunk.smallest` high and wide.
        b: the images to compare them with, of the same shape.

    Returns:
        (n,) distances; 0 for equal images.
    """
    total = jnp.zeros(a.shape[0], jnp.float32)
    layers = (_activations(params, images) for images in (a, b))
    for head, x, y in zip(params.heads, *layers, strict=True):
        squares = jnp.square(_normalized(x) - _normalized(y))
        total += (squares * head[None, None, None, :]).sum(axis=3).mean(axis=(1, 2))
    return total


def _normalized(x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    return x / (jnp.sqrt(jnp.square(x).sum(axis=3, keepdims=True)) + EPSILON)


def _activations(params: Params, images: Float[Array, "n h w 3"]) -> list[Array]:
    """Return the activations of the layers that are compared."""
    shift, scale = (jnp.asarray(v, jnp.float32)[None, None, None, :] for v in (SHIFT, SCALE))
    x = (images - shift) / scale
    compared = []
    for one, kernel, bias in zip(
        TRUNKS[params.trunk].convolutions, params.kernels, params.biases, strict=True
    ):
        if one.pool:
            window, strides = (1, one.pool, one.pool, 1), (1, 2, 2, 1)
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, "VALID")
        padding = 2 if one.stride > 1 else one.kernel // 2
        x = jax.lax.conv_general_dilated(
            x,
            kernel,
            (one.stride, one.stride),
            [(padding, padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=jax.lax.Precision.HIGHEST,
        )
        x = jax.nn.relu(x + bias[None, None, None, :])
        if one.is_compared:
            compared.append(x)
    return compared


class Lpips:
    """LPIPS of images on the host, in batches of one shape.

    Attributes:
        trunk: its name.
        batch: pairs of small images per call, see `images_at_a_time`; of 8 pairs of 256 pixels
            VGG-16 takes about a gigabyte.
    """

    def __init__(self, path: str | Path, batch: int = 8):
        """Read the weights.

        Raises:
            UserError: as `load_params`.
        """
        self._params, self.batch = load_params(path), batch
        self.trunk = self._params.trunk

    def __call__(
        self, a: Float[np.ndarray, "n h w c"], b: Float[np.ndarray, "n h w c"]
    ) -> Float[np.ndarray, " n"]:
        """Return the distance of each pair of images in [-1, 1]; grey ones become coloured.

        Raises:
            UserError: images that are too small.
        """
        check_size(self.trunk, min(a.shape[1:3]))
        pairs = np.stack([in_colour(np.asarray(images, np.float32)) for images in (a, b)], axis=1)
        size = images_at_a_time(self.batch, *a.shape[1:3])
        return in_full_batches(lambda part: _of_pairs(self._params, part), pairs, size)


@jax.jit
def _of_pairs(params: Params, pairs: Float[Array, "n 2 h w 3"]) -> Float[Array, " n"]:
    return lpips(params, pairs[:, 0], pairs[:, 1])
