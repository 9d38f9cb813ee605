"""What all files of pytorch_GAN_zoo have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cgjax.errors import UserError
from converters.reading import Checkpoint, Tensors, choose_state


def read_zoo(checkpoint: Checkpoint) -> tuple[Tensors, dict[str, Any]]:
    """Return the averaged generator's tensors under their canonical names, and the config.

    `avgG` is preferred over `netG` (its images are better). The `.module.` infix that newer files
    have before the last part of a name is dropped.

    Raises:
        UserError: if there is no generator in the file.
    """
    state = choose_state(checkpoint, ("avgG", "netG"))
    canonical = {name.replace(".module.", "."): value for name, value in state.items()}
    if len(canonical) != len(state):
        raise UserError(f"{checkpoint.path}: names with and without .module. stand side by side")
    config = checkpoint.content.get("config") if isinstance(checkpoint.content, Mapping) else None
    return Tensors(canonical, checkpoint.path), dict(config or {})


def has_tanh(loss: str) -> bool:
    """Whether a model trained with this loss ends in a tanh."""
    return loss in ("DCGAN", "MSE")


def read_categories(config: Mapping[str, Any]) -> list[int]:
    """Return the sizes of the one-hot vectors that an AC-GAN's latent ends in, in order.

    `attribKeysOrder` maps each attribute to its order and its values; a file that lacks it is taken
    to have one category.
    """
    total = int(config.get("categoryVectorDim") or 0)
    order = config.get("attribKeysOrder")
    if isinstance(order, Mapping):
        entries = [e for e in order.values() if isinstance(e, Mapping)]
        entries.sort(key=lambda entry: int(entry.get("order", 0)))
        sizes = [len(entry.get("values", ())) for entry in entries]
        if sum(sizes) == total:
            return sizes
    return [total] if total > 0 else []
