"""Strides and paddings of a DCGAN's layers, which the tensors do not determine."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from cgjax.errors import UserError
from cgjax.generators.dcgan import output_size
from converters.chains import Link
from converters.settings import Settings

Stage = tuple[int, int, int, int]  # kernel, stride, padding, output padding
LARGEST = 4096  # pixels of a map's side


class Shape(NamedTuple):
    """How the layers of a chain enlarge a latent's single pixel.

    Attributes:
        first_padding: padding of the first layer.
        first_extra: its output padding.
        stages: the others.
    """

    first_padding: int
    first_extra: int
    stages: tuple[Stage, ...]


def choose_shape(settings: Settings, links: Sequence[Link], place: str) -> tuple[Shape, str]:
    """Return the user's strides and paddings, or the usual ones for the kernels' sizes.

    The usual ones: no padding in the first layer; an even kernel doubles the size (4x4: stride 2,
    padding 1); an odd one keeps it (3x3: stride 1, padding 1). `image_size` selects among less
    usual ones those that lead to that size.

    Args:
        settings: `strides`, `paddings` and `output_paddings`, a number for each layer; or
            `image_size`.
        links: the layers.
        place: the file, for messages.

    Returns:
        The shape, and what was assumed, with the flags that change it; "" if nothing was.

    Raises:
        UserError: a list of another length, a map without pixels, or a size out of reach.
    """
    count = len(links)
    strides = settings.get_numbers("strides", count, low=1)
    paddings = settings.get_numbers("paddings", count)
    extras = settings.get_numbers("output_paddings", count)
    image_size = settings.get("image_size", 0, low=0, high=LARGEST)
    kernels = [link.size[0] for link in links]
    choices: list[list[Stage]] = []
    for i, link in enumerate(links):
        usual = [(1, 0, 0)] if i == 0 else _usual(link)
        fitting = [
            (kernels[i], s, p, e)
            for s, p, e in usual
            if _agrees(s, strides, i) and _agrees(p, paddings, i) and _agrees(e, extras, i)
        ]
        if not fitting:
            stride = strides[i] if strides else usual[0][0]
            padding = paddings[i] if paddings else usual[0][1]
            fitting = [(kernels[i], stride, padding, extras[i] if extras else 0)]
        choices.append(fitting if image_size else fitting[:1])
    stages = _pick(choices, image_size, place)
    sizes = _sizes(stages)
    if min(sizes) < 1 or max(sizes) > LARGEST:
        raise UserError(f"{place}: --set strides, paddings: the layers would have sizes {sizes}")
    for link, stage in zip(links, stages, strict=True):
        if not link.is_transposed and (stage[1], stage[2], stage[3]) != (1, stage[0] // 2, 0):
            raise UserError(
                f"{place}: {link.name} is an ordinary convolution: only stride 1 and padding "
                f"{stage[0] // 2} are supported"
            )
    shape = Shape(stages[0][2], stages[0][3], tuple(stages[1:]))
    return shape, "" if strides and paddings else _describe(links, stages, sizes)


def _usual(link: Link) -> list[tuple[int, int, int]]:
    """Return common strides, paddings and output paddings of a layer, the most usual first."""
    kernel = link.size[0]
    if not link.is_transposed or kernel == 1:
        return [(1, kernel // 2, 0)]
    if kernel % 2 == 0:
        return [(2, kernel // 2 - 1, 0), (1, 0, 0), (2, 0, 0)]
    half = kernel // 2
    return [(1, half, 0), (2, half, 1), (2, half, 0), (2, 0, 0), (1, 0, 0)]


def _agrees(value: int, given: Sequence[int], index: int) -> bool:
    return not given or given[index] == value


def _sizes(stages: Sequence[Stage]) -> list[int]:
    return list(itertools.accumulate(stages, output_size, initial=1))[1:]


def _pick(choices: list[list[Stage]], image_size: int, place: str) -> list[Stage]:
    """Return one choice for each layer: the first ones, or the most usual that give a size."""
    if not image_size:
        return [options[0] for options in choices]
    # The most usual stages that lead to each size, with the sum of their ranks and the ranks.
    reached: dict[int, tuple[int, list[int], list[Stage]]] = {1: (0, [], [])}
    for options in choices:
        before, reached = reached, {}
        for size, (total, ranks, stages) in before.items():
            for rank, stage in enumerate(options):
                path = total + rank, [*ranks, rank], [*stages, stage]
                after = output_size(size, stage)
                if 0 < after <= LARGEST:
                    reached[after] = min(path, reached.get(after, path))
    if image_size not in reached:
        raise UserError(
            f"{place}: --set image_size={image_size} cannot be reached with kernels "
            f"{[options[0][0] for options in choices]} and usual strides; give --set strides= and "
            "--set paddings=, a number for each layer"
        )
    return reached[image_size][2]


def _describe(links: Sequence[Link], stages: Sequence[Stage], sizes: Sequence[int]) -> str:
    columns = list(zip(*stages, strict=True))
    flags = [f"strides={_list(columns[1])}", f"paddings={_list(columns[2])}"]
    if any(columns[3]):
        flags.append(f"output_paddings={_list(columns[3])}")
    plain = [link.name for link in links if not link.is_transposed]
    # With equal numbers of inputs and outputs and an odd kernel, a weight may be of either kind.
    ambiguous = [
        link.name
        for link in links[1:]
        if link.is_transposed and link.width_in == link.width_out and link.size[0] % 2
    ]
    text = f"sizes {', '.join(map(str, sizes))} ({' '.join(f'--set {flag}' for flag in flags)})"
    if plain:
        text += f", {', '.join(plain)} ordinary convolution{'s' * (len(plain) > 1)} by shape"
    if ambiguous:
        names = ",".join(ambiguous)
        text += f", {ambiguous[0]} transposed (--set convolutions={names} if it is not)"
    return text


def _list(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))
