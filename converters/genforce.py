"""What all files of genforce (and SeFa) have in common."""

from __future__ import annotations

import math

from cgjax.errors import UserError
from converters.rows import Row
from converters.tensors import Tensors


class WeightScale:
    """The run-time scale of weights ("wscale"): gain / sqrt(fan_in), or 1 where it is off."""

    def __init__(self, is_on: bool):
        self._is_on = is_on

    def __call__(self, fan_in: int, gain: float = 1.0) -> float:
        """Return a weight's scale."""
        return gain / math.sqrt(fan_in) if self._is_on else 1.0


def split_lod(lod: float, resolutions: int, source: object) -> tuple[int, float]:
    """Split a level of detail l: the last floor(l) resolutions are off, the one before fades in.

    Returns:
        How many resolutions are active, and the weight of the lower one's upsampled image.

    Raises:
        UserError: if the network has no such level.
    """
    if not 0 <= lod <= resolutions - 1:
        raise UserError(f"{source}: lod={lod} is not in [0, {resolutions - 1}]; give --set lod=0")
    return resolutions - math.floor(lod), lod - math.floor(lod)


def label_rows(tensors: Tensors, inputs: int) -> tuple[int, int, list[Row]]:
    """Return the number of classes, the latents' width, and the rows of the class embedding.

    Args:
        tensors: the file's tensors.
        inputs: width of the mapping network's input.
    """
    label = "mapping.label_weight"
    if label not in tensors:
        return 0, inputs, []
    num_classes, latent_dim = shape = tensors.shape(label, 2)
    if inputs != 2 * latent_dim:
        tensors.note(f"mapping.dense0.weight reads {inputs} values, expected {2 * latent_dim}")
    return num_classes, latent_dim, [Row("embedding", label, shape)]
