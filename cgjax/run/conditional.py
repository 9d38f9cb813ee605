"""Generators with classes that stand beside a run in its comparison: which, and whether they fit.

Such as Self-Conditioned GAN and ClusterGAN, whose classes are the clusters that they learnt while
training.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cgjax.config.plain import digest, split_texts
from cgjax.errors import UserError
from cgjax.generators.base import PretrainedGenerator
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.generators.weights import load_folder, read_manifest

FLAG = "--config.compare.conditional"

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


def load_labels(one: Conditional, beside: ConditionedGenerator) -> list[ConditionedGenerator]:
    """Load a generator with classes: one for each of them.

    Args:
        one: which.
        beside: the run's, whose images it is compared with.

    Raises:
        UserError: no classes or too many; images of another size; a damaged file.
    """
    generator = load_folder(one.folder)
    num = num_labels_of(generator)
    if not 2 <= num <= MOST_LABELS:
        raise UserError(
            f"{FLAG}={one.folder}: expected a generator with 2 to {MOST_LABELS} classes, and it "
            f"has {num}"
        )
    sizes = generator.image_size, getattr(beside.gen, "image_size", None)
    if sizes[0] != sizes[1]:
        raise UserError(
            f"{FLAG}={one.folder}: it makes images of {sizes[0]} pixels, and the run's are of "
            f"{sizes[1]}; distances are measured between images of one size"
        )
    made = ConditionedGenerator(generator, generator.layers[0], {"condition": 0}, beside.batch)
    return [made.with_condition(label) for label in range(num)]
