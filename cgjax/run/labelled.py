"""A finished training run, opened for assigning images to the labels of its generator.

It leaves the same `stages/`, `checkpoints/encoder/` and `assign/` as a run of clusters.
"""

from __future__ import annotations

import jax

from cgjax.errors import UserError
from cgjax.evaluation.lpips import check_file
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.generators.labelled import Labelled
from cgjax.generators.weights import load_folder, read_manifest
from cgjax.run.artifacts import declare_assigned, declare_inverter
from cgjax.run.manifests import Manifests
from cgjax.run.training import TrainingRun

BATCH = 64
"""Images in one pass of the generator."""


class LabelledRun:
    """A trained generator whose images can be inverted.

    Attributes:
        folder: the paths.
        config: of the training, nested plain dicts.
        generator: with the label as part of the latent, if it has labels.
        num_labels: how many; 0 for a generator without labels.
        root_key: the root of every random number.
        manifests: which artifacts are there and current.
    """

    def __init__(self, run: TrainingRun):
        """Load the generator, and remove tables that were made with another one.

        Raises:
            UserError: a training that is not finished or not of images, or whose generator was
                replaced; a file of LPIPS's weights that cannot be used.
        """
        self.folder, self.config = run.folder, dict(run.config)
        iterations = run.config["train"]["iterations"]
        run.require_finished()
        if not run.generator.is_dir():
            raise UserError(
                f"{run.folder.root} has no generator/: images can only be assigned to a training "
                "of images, with network.name=dcgan, dcgan_flat, sngan, residual or encoding_dcgan"
            )
        source = read_manifest(run.generator).get("source", {}) if run.is_intact else {}
        if (source.get("key"), source.get("iterations")) != (run.key_at(iterations), iterations):
            raise UserError(
                f"{run.generator} is not the generator that this run trained; "
                f"{run.folder.command} writes it again"
            )
        gen = load_folder(run.generator)
        if weights := run.config["assign"]["lpips"]:
            check_file(weights, gen.image_size)
        self.num_labels = gen.num_classes
        with_label = Labelled(gen, self.num_labels) if self.num_labels else gen
        self.generator = ConditionedGenerator(with_label, with_label.layers[0], {}, BATCH)
        self.root_key = jax.random.key(run.config["seed"])
        self.manifests = labelled_manifests(run)
        self.manifests.forget_stale()


def labelled_manifests(run: TrainingRun) -> Manifests:
    """Return the manifests of a finished training, and of the images assigned to its labels."""
    graph = dict(run.manifests.graph)
    if run.generator.is_dir():
        weights = read_manifest(run.generator)["weights_sha256"]
        graph |= declare_inverter(run.config, {"generator": weights})
        for name in run.folder.assigned_names:
            declare_assigned(graph, run.config, name)
    return Manifests(run.folder, graph)
