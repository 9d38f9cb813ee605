"""Generators with classes that stand beside a run in its comparison: which, and whether they fit.

Such as Self-Conditioned GAN and ClusterGAN, whose classes are the clusters that they learnt while
training.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cgjax.config.leaves import SAMPLERS
from cgjax.config.plain import digest, split_texts
from cgjax.errors import UserError
from cgjax.generators.base import PretrainedGenerator
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.generators.weights import load_folder, read_manifest

FLAG = "--config.compare.conditional"

TAKEN = ("members", *SAMPLERS, "sefa", "ganspace")
"""What else a comparison's lines are called by; and the run's own clusters by LAYER-kNUMBER."""

MOST_LABELS = 100
"""Classes of which the judge may be asked which one a cluster is."""


class Conditional(NamedTuple):
    """One generator with classes.

    Attributes:
        name: what the table calls it: its folder, or the run that left it in RUN/generator.
        folder: of converted weights.
        identity: the same for the same weights only.
    """

    name: str
    folder: Path
    identity: str


def conditional_of(settings: Mapping[str, Any]) -> list[Conditional]:
    """Return the generators that a config's comparison names; loads no weights.

    Args:
        settings: `config.compare`.

    Raises:
        UserError: a folder that holds no generator; two of one name.
    """
    found: list[Conditional] = []
    for text in split_texts(settings["conditional"]):
        folder = Path(text)
        try:
            manifest = read_manifest(folder)
        except UserError as error:
            raise UserError(f"{FLAG}={text}: {error}") from error
        place = folder.resolve()
        name = place.parent.name if place.name == "generator" else place.name
        if name in (one.name for one in found):
            raise UserError(f"{FLAG}={text}: {name!r} is named twice; rename one of the folders")
        known = (manifest.get(key) for key in ("family", "architecture", "weights_sha256"))
        found.append(Conditional(name, folder, digest(list(known))))
    return found


def num_labels_of(generator: PretrainedGenerator) -> int:
    """Return how many classes a generator has; 0 for one without."""
    return int(getattr(generator.network, "num_classes", 0) or 0)


def image_shape_of(generator: ConditionedGenerator) -> tuple[int, int, int]:
    """Return height, width and channels of a generator's images."""
    gen = generator.gen
    channels = getattr(gen, "image_channels", None)
    if channels is None:  # one of the user's own, which shows it only in an image
        channels = generator.images(np.zeros((1, gen.latent_dim), np.float32)).shape[3]
    return int(gen.image_size), int(gen.image_size), int(channels)


def load_labels(one: Conditional, beside: ConditionedGenerator) -> list[ConditionedGenerator]:
    """Load a generator with classes: one for each of them.

    Args:
        one: which.
        beside: the run's, whose images it is compared with.

    Raises:
        UserError: a name that other lines of the table have; no classes or too many; images of
            another shape; a damaged file.
    """
    if one.name in TAKEN or re.fullmatch(rf"{re.escape(beside.layer)}-k\d+", one.name):
        raise UserError(
            f"{FLAG}={one.folder}: {one.name!r} is what the comparison calls another of its lines; "
            "rename the folder"
        )
    generator = load_folder(one.folder)
    num = num_labels_of(generator)
    if not 2 <= num <= MOST_LABELS:
        raise UserError(
            f"{FLAG}={one.folder}: expected a generator with 2 to {MOST_LABELS} classes, and it "
            f"has {num}"
        )
    made = ConditionedGenerator(generator, generator.layers[0], {"condition": 0}, beside.batch)
    own, others = (" x ".join(map(str, image_shape_of(each))) for each in (made, beside))
    if own != others:
        raise UserError(
            f"{FLAG}={one.folder}: it makes images of {own}, and the run's are of {others} (height "
            "x width x channels); distances are measured between images of one shape"
        )
    return [made.with_condition(label) for label in range(num)]
