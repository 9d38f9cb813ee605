"""What all files of pytorch_GAN_zoo have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cgjax.errors import UserError
from converters.axes import Transform
from converters.networks import Network
from converters.rows import Row, layer_rows
from converters.settings import Settings, as_mapping

LOSSES = ("WGANGP", "Logistic", "DCGAN", "MSE")


def zoo_settings(network: Network, given: Mapping[str, str]) -> Settings:
    """Return the settings of a GAN-zoo file: the user's, and its pickled config.

    If there is no config, `assumed` says so: the tensors alone do not determine the network.

    Raises:
        UserError: if the file's config is not a mapping.
    """
    config = _config(network)
    settings = Settings(given, config)
    if not config:
        settings.assumed.append(
            "the file has no config: the GAN zoo's defaults for what --set does not give"
        )
    return settings


def zoo_rows(
    ours: tuple[str, str],
    theirs: str,
    shape: tuple[int, ...],
    transform: Transform,
    *,
    factor: float = 1.0,
    is_equalized: bool = True,
) -> tuple[Row, Row]:
    """Return the rows of a layer whose output, bias included, is scaled by sqrt(2 / fan_in).

    Args:
        ours: our names of the kernel and the bias.
        theirs: the layer's name.
        shape: shape of the weight, outputs first.
        transform: from the weight's order of axes to ours.
        factor: a further factor of the output.
        is_equalized: False for layers without the scale sqrt(2 / fan_in).
    """
    scale = factor * (math.sqrt(2 / math.prod(shape[1:])) if is_equalized else 1.0)
    return layer_rows(ours, theirs, shape, transform, scale, scale)


def get_tanh(settings: Settings, default: str) -> bool:
    """Return whether the network ends in a tanh, which depends on the training loss.

    Args:
        settings: the file's settings.
        default: the loss if the file does not name one.
    """
    return settings.get("lossCriterion", default, words=LOSSES) in ("DCGAN", "MSE")


def get_categories(network: Network, settings: Settings, latent_dim: int) -> list[int]:
    """Return the sizes of the one-hot vectors at the end of an AC-GAN's latent, in order.

    `attribKeysOrder` maps each attribute to its order and its values; a file without it is assumed
    to have one category of `categoryVectorDim` values.

    Raises:
        UserError: if the file's entries have another form or contradict each other.
    """
    what = f"{network.path}: attribKeysOrder of the file's config"
    attributes = as_mapping(_config(network).get("attribKeysOrder"), what)
    entries = [as_mapping(e, f"{what}, {name}") for name, e in attributes.items()]
    try:
        entries.sort(key=lambda entry: int(entry.get("order", 0)))
        sizes = [len(entry.get("values", ())) for entry in entries]
    except (TypeError, ValueError) as error:
        raise UserError(f"{what}: expected orders and lists of values ({error})") from error
    total = settings.get("categoryVectorDim", sum(sizes), low=0, high=latent_dim)
    if sum(sizes) > latent_dim or (sizes and sum(sizes) != total):
        raise UserError(
            f"{what} has {sum(sizes)} values, its categoryVectorDim is {total} and the latents "
            f"have {latent_dim}"
        )
    return sizes or [total] * (total > 0)


def _config(network: Network) -> dict[str, Any]:
    content, config = network.checkpoint.content, network.beside("config")
    if not isinstance(config, Mapping):
        config = content.get("config") if isinstance(content, Mapping) else None
    return as_mapping(config, f"{network.path}: the file's config")
