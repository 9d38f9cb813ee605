"""Generators with classes in the comparison of a run, and whether they fit it.

Examples are Self-Conditioned GAN and ClusterGAN, whose classes are the clusters that they learnt
during training.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cgjax.config.leaves import SAMPLERS
from cgjax.config.plain import digest, split_texts
from cgjax.errors import UserError
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.generators.weights import load_folder, read_manifest
from cgjax.runtime.files import user_path

FLAG = "--config.compare.conditional"

TAKEN = ("members", *SAMPLERS, "sefa", "ganspace")
"""Names of other lines of a comparison; the run's own clusters are called LAYER-kNUMBER."""

MOST_LABELS = 100
"""The most classes that the judge is asked about."""


class Conditional(NamedTuple):
    """One generator with classes.

    Attributes:
        name: in the table: its folder's name, or the run's if the folder is RUN/generator.
        folder: of converted weights.
        identity: equal for equal weights only.
    """

    name: str
    folder: Path
    identity: str


def conditional_of(settings: Mapping[str, Any]) -> list[Conditional]:
    """Return the generators that a config's comparison names, without loading weights.

    Args:
        settings: `config.compare`.

    Raises:
        UserError: a folder without a generator; two generators of one name.
    """
    generators: list[Conditional] = []
    for text in split_texts(settings["conditional"]):
        folder = user_path(text)
        try:
            manifest = read_manifest(folder)
        except UserError as error:
            raise UserError(f"{FLAG}={text}: {error}") from error
        path = folder.resolve()
        name = path.parent.name if path.name == "generator" else path.name
        if name in (one.name for one in generators):
            raise UserError(f"{FLAG}={text}: {name!r} is named twice; rename one of the folders")
        content = [manifest.get(key) for key in ("family", "architecture", "weights_sha256")]
        generators.append(Conditional(name, folder, digest(content)))
    return generators


def load_labels(one: Conditional, beside: ConditionedGenerator) -> list[ConditionedGenerator]:
    """Load a generator with classes, once per class.

    Args:
        one: the generator.
        beside: the run's generator, which it is compared with.

    Raises:
        UserError: a name that another line of the table has; no classes or too many; images of
            another shape; a damaged file.
    """
    if one.name in TAKEN or re.fullmatch(rf"{re.escape(beside.layer)}-k\d+", one.name):
        raise UserError(
            f"{FLAG}={one.folder}: {one.name!r} is the name of another line of the comparison; "
            "rename the folder"
        )
    generator = load_folder(one.folder)
    num = generator.num_classes
    if not 2 <= num <= MOST_LABELS:
        raise UserError(
            f"{FLAG}={one.folder}: expected a generator with 2 to {MOST_LABELS} classes, but it "
            f"has {num}"
        )
    first = ConditionedGenerator(generator, generator.layers[0], {"condition": 0}, beside.batch)
    own, others = (" x ".join(map(str, g.image_shape)) for g in (first, beside))
    if own != others:
        raise UserError(
            f"{FLAG}={one.folder}: its images are {own}, and the run's are {others} (height x "
            "width x channels); distances are measured between images of one shape"
        )
    return [first.with_condition(label) for label in range(num)]
