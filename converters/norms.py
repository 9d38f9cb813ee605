"""Weights that are stored in parts: spectral norm, weight norm, pruning masks.

torch stores the parts side by side, under old or new names: `weight_orig`, `weight_u`, `weight_v`
or `weight_g`, `weight_v` (torch.nn.utils), and `parametrizations.weight.original...`
(torch.nn.utils.parametrizations). In inference a layer uses a single weight; folding computes it.
Spectral norm divides by sigma = u . (W v) with the stored u and v [Miyato et al. 2018, equation 8];
weight norm is g v / |v| [Salimans & Kingma 2016, equation 2].
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

EPS = 1e-12
ALIKE = 0.9  # least cosine of u and W v after a power iteration
_USUAL_AXIS = (
    "the outputs' axis is the module type's default, since the stored vectors have had no power "
    "iteration; if spectral_norm was given another dim, save the folded weights instead"
)
_OLD = re.compile(r"(.*)_(orig|g)")
_NEW = re.compile(r"(?:(.*)\.)?parametrizations\.([^.]+)\.original(0?)")


class Folded(NamedTuple):
    """A state dict whose weights are no longer stored in parts.

    Attributes:
        state: the tensors by name.
        folded: the weights that were assembled, with the kind of norm.
        assumed: what the parts of some do not determine.
    """

    state: dict[Any, Any]
    folded: tuple[str, ...]
    assumed: tuple[str, ...]


def fold_norms(state: Mapping[Any, Any], *, transposed: bool = False, kept: str = "") -> Folded:
    """Replace the parts of every weight by the weight.

    Args:
        state: tensors by name.
        transposed: whether 4-D weights are those of transposed convolutions, (in, out, h, w), which
            matters if their first two axes have the same length and u does not decide.
        kept: a pattern of names that are left alone.

    Returns:
        The state, and what was folded. Parts that are incomplete or do not fit together are left
        alone.
    """
    whole = dict(state)
    folded: list[str] = []
    assumed: list[str] = []
    for name in list(state):
        match = isinstance(name, str) and (_OLD.fullmatch(name) or _NEW.fullmatch(name))
        if not match or re.fullmatch(kept, name):
            continue
        parts = _old_parts(match[1]) if match.re is _OLD else _new_parts(match)
        for kind, make, names in parts:
            values = [whole.get(part) for part in names]
            if not all(isinstance(v, np.ndarray) and v.dtype.kind in "fb" for v in values):
                continue
            with np.errstate(all="ignore"):  # values that are not finite are refused later, by name
                arrays = [np.asarray(v, np.float32) for v in values]
                weight = make(*arrays, transposed)
            if weight is not None:
                target = _target(match)
                for part in names:
                    del whole[part]
                whole[target] = weight.astype(np.float32)
                folded.append(f"{target} ({kind})")
                if make is _spectral and not _tells_axis(*arrays):
                    assumed.append(f"{target}: {_USUAL_AXIS}")
                break
    return Folded(whole, tuple(folded), tuple(assumed))


def _target(match: re.Match[str]) -> str:
    if match.re is _OLD:
        return match[1]
    return f"{match[1]}.{match[2]}" if match[1] else match[2]


def _old_parts(name: str) -> list[tuple[str, Any, list[str]]]:
    return [
        ("spectral norm", _spectral, [f"{name}_orig", f"{name}_u", f"{name}_v"]),
        ("spectral norm", _spectral_without_v, [f"{name}_orig", f"{name}_u"]),
        ("weight norm", _weight_norm, [f"{name}_g", f"{name}_v"]),
        ("pruned", _masked, [f"{name}_orig", f"{name}_mask"]),
    ]


def _new_parts(match: re.Match[str]) -> list[tuple[str, Any, list[str]]]:
    stem = match.string.removesuffix("0").removesuffix("original")
    if match[3]:
        return [("weight norm", _weight_norm, [f"{stem}original0", f"{stem}original1"])]
    names = [f"{stem}original", f"{stem}0._u", f"{stem}0._v"]
    return [("spectral norm", _spectral, names)]


def _matrix(weight: np.ndarray, axis: int) -> np.ndarray:
    return np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)


def _cosines(weight: np.ndarray, u: np.ndarray, v: np.ndarray) -> dict[int, float]:
    """Return the cosine of u and W v for every possible axis of the outputs."""
    return {
        axis: _cosine(u, _matrix(weight, axis) @ v)
        for axis in range(min(weight.ndim, 2))
        if weight.shape[axis] == u.size and u.size * v.size == weight.size > 0
    }


def _tells_axis(weight: np.ndarray, u: np.ndarray, v: np.ndarray) -> bool:
    """Whether the parts determine the outputs' axis: by lengths, or since u = W v / |W v|."""
    cosines = _cosines(weight, u.ravel(), v.ravel())
    return len(cosines) < 2 or max(cosines.values()) > ALIKE


def _spectral(
    weight: np.ndarray, u: np.ndarray, v: np.ndarray, transposed: bool
) -> np.ndarray | None:
    import torch

    u, v = u.ravel(), v.ravel()
    cosines = _cosines(weight, u, v)
    if not cosines:
        return None
    # The outputs' axis: the usual one, unless u fits only the other one.
    usual = 1 if transposed and weight.ndim == 4 else 0
    axis = max(cosines, key=lambda a: (cosines[a] > ALIKE, a == usual))
    # Bit for bit as torch does it: sigma may be a small difference of large numbers.
    matrix, *vectors = (
        torch.tensor(np.ascontiguousarray(x)) for x in (_matrix(weight, axis), u, v)
    )
    sigma = float(torch.dot(vectors[0], torch.mv(matrix, vectors[1])))
    return weight / np.float32(sigma) if sigma else None


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length else 0.0


def _spectral_without_v(weight: np.ndarray, u: np.ndarray, transposed: bool) -> np.ndarray | None:
    """Fold a weight stored by torch 1.0: one power iteration gives v, and u again."""
    usual = 1 if transposed and weight.ndim == 4 else 0
    axes = [axis for axis in (usual, 1 - usual) if weight.shape[axis : axis + 1] == (u.size,)]
    if not axes:
        return None
    matrix = _matrix(weight, axes[0])
    v = matrix.T @ u.ravel()
    v /= max(float(np.linalg.norm(v)), EPS)
    sigma = float(np.linalg.norm(matrix @ v))
    return weight / sigma if sigma else None


def _weight_norm(g: np.ndarray, v: np.ndarray, transposed: bool) -> np.ndarray | None:
    """Fold g and v; g has the length of v along one axis, or is a single number."""
    if g.size != 1 and (
        g.ndim != v.ndim
        or any(a not in (1, b) for a, b in zip(g.shape, v.shape, strict=True))
        or g.size not in v.shape
    ):
        return None
    axis = next((i for i, n in enumerate(g.shape) if n > 1), None)
    wide = v.astype(np.float64)
    others = tuple(i for i in range(v.ndim) if i != axis)
    norm = np.sqrt(np.square(wide).sum(axis=others, keepdims=True))
    if not math.isfinite(float(norm.max(initial=0))) or not norm.all():
        return None
    return wide * (g.astype(np.float64).reshape(g.shape or (1,) * v.ndim) / norm)


def _masked(weight: np.ndarray, mask: np.ndarray, transposed: bool) -> np.ndarray | None:
    return weight * mask if weight.shape == mask.shape else None
