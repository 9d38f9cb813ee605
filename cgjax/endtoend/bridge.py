"""Converts a generator trained end to end into a pretrained one, to cluster like any other.

DCGANs become networks of the family `dcgan`, residual networks of the family `residual`. In
inference mode a batch norm is an affine map,

    y = a x + b,    a = scale / sqrt(var + eps),    b = bias - a mean,

with the running moments. A label's vector e_c is constant: its product e_c W_e with its rows W_e of
the first layer becomes that layer's row of class c, which a one-hot class vector picks. Latents are
N(0, sigma^2 I) here and N(0, I) there, so the latent's rows are multiplied by sigma. MGAN's first
layers, one per label, become the families' `per_class`, with their batch norms' a and b folded in.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from cgjax.endtoend.methods.base import Method
from cgjax.endtoend.methods.clustergan import ClusterGan
from cgjax.endtoend.methods.mgan import Mgan
from cgjax.endtoend.networks.base import Architecture
from cgjax.endtoend.networks.dcgan import FIRST, Dcgan
from cgjax.endtoend.networks.encoding import EncodingDcgan
from cgjax.endtoend.networks.layers import EPS
from cgjax.endtoend.networks.residual import Residual
from cgjax.errors import UserError
from cgjax.generators.dcgan import DOUBLING
from cgjax.generators.weights import save_generator
from cgjax.numerics.networks import Arrays

SAME = (3, 1, 1, 0)
"""The family's settings of a 3x3 convolution that keeps a map's size."""


Tree = Mapping[str, Any]
"""A network's arrays by part: NumPy, double precision."""


class Converted(NamedTuple):
    """A network of a generator family.

    Attributes:
        family: the family's name.
        architecture: the family's keyword arguments.
        arrays: float32, by dotted path.
    """

    family: str
    architecture: dict[str, Any]
    arrays: dict[str, np.ndarray]


def save(
    folder: str | os.PathLike[str],
    networks: Architecture,
    method: Method,
    arrays: Arrays,
    source: Mapping[str, Any],
    licence: str,
) -> Path | None:
    """Write a trained generator as a folder of converted weights.

    Args:
        folder: created if it does not exist; a generator in it is replaced.
        networks: the architecture that was trained.
        method: the method that trained it.
        arrays: the generator's, of one trial.
        source: where it comes from: its "name", its training data, and whatever else is known.
        licence: of the weights, in words.

    Returns:
        The folder; None, and nothing is written, for an architecture that no family has.

    Raises:
        UserError: arrays that are not finite.
    """
    converted = convert(networks, method, arrays)
    if converted is None:
        return None
    return save_generator(folder, *converted, source=source, licence=licence)


def convert(networks: Architecture, method: Method, arrays: Arrays) -> Converted | None:
    """Return a trained generator as a network of a family.

    Its classes are the labels, by number. ClusterGAN's encoder is dropped.

    Args:
        networks: the architecture that was trained.
        method: the method that trained it.
        arrays: the generator's, of one trial.

    Returns:
        The network; None for an architecture that no family has.

    Raises:
        UserError: arrays that are not finite.
    """
    if not isinstance(networks, (Dcgan, Residual)):
        return None
    check_finite(arrays)
    params, stats = (jax.tree.map(_exact, tree) for tree in arrays)
    if isinstance(networks, Dcgan):
        converted = _dcgan(networks, method, params, stats)
    else:
        converted = _residual(networks, method, params)
    floats = {name: np.asarray(array, np.float32) for name, array in converted.arrays.items()}
    return converted._replace(arrays=floats)


def _dcgan(networks: Dcgan, method: Method, params: Tree, stats: Tree) -> Converted:
    per_class = isinstance(method, Mgan)
    rest, moments = (params, stats) if per_class else (params["rest"], stats["rest"])
    # MGAN's smallest generator has no norms after its first layers.
    means = moments.get("norms", {})
    norms = [folded(rest["norms"][i], means[i]) for i in sorted(means)]
    widths = networks.widths[::-1]
    if per_class and not networks.flat:
        # The rows already contain the scale and shift of the first maps.
        norms = [(np.ones(widths[0]), np.zeros(widths[0])), *norms]
    shape = (FIRST, FIRST, widths[0])
    settings, first = first_layer(networks, method, rest["first"], params, stats)
    architecture = settings | {"widths": list(widths)}
    ups = rest.get("ups", {})
    named = {"first": first.reshape(-1, *shape)}
    named |= {f"kernels.{i}": ups[i]["kernel"] for i in ups}
    named |= {f"scales.{i}": scale for i, (scale, _) in enumerate(norms)}
    named |= {f"shifts.{i}": shift for i, (_, shift) in enumerate(norms)}
    named["output"] = rest["last"]["kernel"]
    if networks.flat:
        stages = [*[DOUBLING] * len(ups), SAME]
        architecture |= {"plain_first": True, "output_bias": True, "stages": stages}
        named["first_bias"] = np.zeros(shape) if per_class else rest["first"]["bias"].reshape(shape)
        # The family's layers are transposed convolutions, whose kernels are flipped.
        named["output"] = named["output"][::-1, ::-1]
        named["output_bias"] = rest["last"]["bias"]
    return Converted("dcgan", architecture, named)


def _residual(networks: Residual, method: Method, params: Tree) -> Converted:
    shape = (FIRST, FIRST, networks.widths[0])
    settings, first = first_layer(networks, method, params["first"], params, {})
    architecture = settings | {"blocks": [[int(a), b, c] for a, b, c in networks.blocks]}
    named = {"first": first.reshape(-1, *shape)}
    if not isinstance(method, Mgan):
        named["first_bias"] = params["first"]["bias"].reshape(shape)
    for i, block in params["blocks"].items():
        for part in ("first", "second"):
            named[f"blocks.{i}.{part}"] = block[part]["kernel"]
            named[f"blocks.{i}.{part}_bias"] = block[part]["bias"]
        if "shortcut" in block:
            named[f"blocks.{i}.shortcut"] = block["shortcut"]["kernel"][0, 0]
    named["output"], named["output_bias"] = params["last"]["kernel"], params["last"]["bias"]
    return Converted("residual", architecture, named)


def first_layer(
    networks: Dcgan | Residual, method: Method, dense: Tree, params: Tree, stats: Tree
) -> tuple[dict[str, Any], Float[np.ndarray, "r m"]]:
    """Return the settings of a family's first layer, and its rows.

    Args:
        networks: the generator's architecture.
        method: the method that trained it.
        dense: the first layer's parameters.
        params: the generator's parameters.
        stats: its batch norms' running moments.
    """
    settings: dict[str, Any] = {
        "latent_dim": networks.latent_dim,
        "image_channels": networks.rows[2],
        "first_size": FIRST,
    }
    if isinstance(method, Mgan):
        settings |= {"num_classes": method.num_labels, "per_class": True}
        return settings, rows_per_label(dense, stats.get("first"))
    latent, classes = first_rows(networks, method, dense["kernel"], params.get("embedding"))
    return settings | {"num_classes": len(classes)}, np.concatenate([latent, classes])


def rows_per_label(
    params: Mapping[str, Any], moments: Mapping[str, Any] | None
) -> Float[np.ndarray, "r m"]:
    """Return the rows of MGAN's first layers: each label's latent rows, then its bias.

    Args:
        params: of a `LinearPerLabel`, in NumPy.
        moments: of its batch norms, which are folded in; None if it has none.
    """
    kernel, bias = params["kernel"], params["bias"]
    if moments:
        # Maps have channels last, so each label's channels repeat from position to position.
        scale, shift = (
            np.tile(channels, bias.shape[1] // channels.shape[1])
            for channels in folded(params["norm"], moments["norm"])
        )
        kernel, bias = kernel * scale[:, None], bias * scale + shift
    return np.concatenate([kernel, bias[:, None]], axis=1).reshape(-1, bias.shape[1])


def first_rows(
    networks: Dcgan | Residual,
    method: Method,
    kernel: Float[np.ndarray, "i m"],
    embedding: Tree | None,
) -> tuple[Float[np.ndarray, "d m"], Float[np.ndarray, "k m"]]:
    """Return the first layer's rows for latents that are N(0, I), and for one-hot classes.

    Args:
        networks: the generator's architecture.
        method: the method that trained it.
        kernel: the first layer's.
        embedding: the labels' vectors; None if there are none.

    Returns:
        A row for each coordinate of the latent, and one for each class; k = 0 classes if the
        layer's only input is the latent.
    """
    latent, labels = np.split(kernel, [networks.latent_dim])
    if isinstance(method, ClusterGan):
        latent = method.sigma * latent
    if isinstance(networks, EncodingDcgan) or embedding is None:
        return latent, labels
    table = embedding["table"]
    return latent, table / np.linalg.norm(table, axis=1, keepdims=True) @ labels


def folded(
    params: Mapping[str, np.ndarray], moments: Mapping[str, np.ndarray]
) -> tuple[Float[np.ndarray, "*k c"], Float[np.ndarray, "*k c"]]:
    """Return the scale and shift of each channel that a batch norm applies in inference mode.

    >>> scale, shift = folded(
    ...     {"scale": np.array([2.0]), "bias": np.array([1.0])},
    ...     {"mean": np.array([3.0]), "var": np.array([4.0 - EPS])},
    ... )
    >>> scale.tolist(), shift.tolist()
    ([1.0], [-2.0])
    """
    scale = params["scale"] / np.sqrt(moments["var"] + EPS)
    return scale, params["bias"] - scale * moments["mean"]


def check_finite(arrays: Arrays) -> None:
    """Refuse the arrays of a training that diverged.

    An infinite variance would silently fold into a scale of 0.

    Raises:
        UserError: naming every array with values that are not finite.
    """
    leaves = jax.tree.leaves_with_path(tuple(arrays))
    bad = [
        jax.tree_util.keystr(path[1:], simple=True, separator=".")
        for path, leaf in leaves
        if not np.isfinite(np.asarray(leaf)).all()
    ]
    if bad:
        raise UserError(
            f"the trained generator has NaN or infinite values in {', '.join(bad)}; train again "
            "with a lower --config.train.learning_rate"
        )


def _exact(leaf: Any) -> np.ndarray:
    """Return an array in double precision, used for folding moments."""
    return np.asarray(leaf, np.float64)
