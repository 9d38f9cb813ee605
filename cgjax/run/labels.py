"""A training run whose generator is finished, opened so that images are assigned to its labels.

stages/, checkpoints/encoder/, assign/       as in the folder of a run of clusters
"""

from __future__ import annotations

import jax

from cgjax.errors import UserError
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.generators.labelled import Labelled
from cgjax.generators.weights import load_folder, read_manifest
from cgjax.run.artifacts import RESULTS, declare_assigned, declare_inverter
from cgjax.run.conditional import num_labels_of
from cgjax.run.manifests import Manifests
from cgjax.run.training import TrainingRun

BATCH = 64
"""Images of one pass of the generator."""


class LabelledRun:
    """A trained generator whose images can be inverted.

    Attributes:
        folder: the paths.
        config: of the training, nested plain dicts.
        generator: with the label as a part of the latent, where it has labels.
        num_labels: how many; 0 for a generator without.
        root_key: root of every random number.
        manifests: what is there and current.
    """

    def __init__(self, run: TrainingRun):
        """Load the generator, and remove tables of images that another one was asked for.

        Raises:
            UserError: a training that is not finished, that is not of images, or whose generator
                was exchanged.
        """
        self.folder, self.config = run.folder, dict(run.config)
        iterations = run.config["train"]["iterations"]
        if not run.is_finished:
            raise UserError(
                f"{run.folder.root} is not trained to its end ({iterations} iterations); "
                f"{run.folder.command} goes on"
            )
        if not run.generator.is_dir():
            raise UserError(
                f"{run.folder.root} has no generator/: images can be assigned to what was trained "
                "to make images, network.name=dcgan, dcgan_flat, sngan, residual or encoding_dcgan"
            )
        last = run.manifests.last_result(RESULTS)
        # A folder of an earlier version has no manifest of its results.
        is_whole = last is None or run.manifests.result(RESULTS) is not None
        source = read_manifest(run.generator).get("source", {}) if is_whole else {}
        if (source.get("key"), source.get("iterations")) != (run.key_at(iterations), iterations):
            raise UserError(
                f"{run.generator} is not what this run trained; {run.folder.command} writes it "
                "again"
            )
        gen = load_folder(run.generator)
        self.num_labels = num_labels_of(gen)
        with_label = Labelled(gen, self.num_labels) if self.num_labels else gen
        self.generator = ConditionedGenerator(with_label, with_label.layers[0], {}, BATCH)
        self.root_key = jax.random.key(run.config["seed"])
        graph = dict(run.manifests.graph)
        graph |= declare_inverter(run.config, {"generator": gen.manifest["weights_sha256"]})
        for name in run.folder.assigned_names:
            declare_assigned(graph, run.config, name)
        self.manifests = Manifests(run.folder, graph)
        self.manifests.forget_stale()
