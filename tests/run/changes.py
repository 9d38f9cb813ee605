"""For every leaf of a config, another value and the artifacts that it makes stale.

The config is `small()`: rejection, flow (the default) and imle are fitted; nothing is transferred.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Array

from cgjax.config.plain import flatten
from cgjax.generators.base import PretrainedGenerator
from cgjax.generators.registry import EMBEDDED
from cgjax.testing.planted import PlantedDiscs
from tests.stages import tiny_runs

FITTED = ("rejection", "flow", "imle")
DEFAULT = "flow"

SHOWN = {"report"}
COMPARED = {"compare"}


def of(*samplers: str) -> set[str]:
    """The samples and measurements of some samplers, and what shows them."""
    found = {f"{what} {name}" for what in ("sample", "evaluate") for name in samplers}
    return found | SHOWN | COMPARED | ({"sheet"} if DEFAULT in samplers else set())


def learnt(*samplers: str) -> set[str]:
    """What some samplers learn, and everything drawn from them."""
    return {f"fit {name}" for name in samplers} | of(*samplers)


SWEPT = {"sweep layer1", "sweep layer2", "sweep", "page sweep"}

INVERTED = {"encoder", "held-out"}

CLUSTERED = {"cluster", "cluster figures", "page own"} | learnt(*FITTED)
EVERYTHING = {"latents", "attributes"} | SWEPT | CLUSTERED | INVERTED
FEATURE = {f"evaluate {name}" for name in FITTED} | SHOWN | COMPARED


def small() -> dict[str, Any]:
    """Return a config that runs in seconds."""
    return tiny_runs.config(
        **{
            "latents.num": 96,
            "cluster.num_init": 1,
            "samplers.flow.num_latents": 160,
            "samplers.flow.batch": 64,
            "samplers.imle.fit": True,
            "samplers.imle.num_epochs": 2,
            "samplers.imle.batch": 16,
            "sample.num": 2,
            "sample.sampler": DEFAULT,
            "evaluate.num": 12,
            "evaluate.components": 4,
            "evaluate.prior_images": 16,
            "compare.num": 12,
            "compare.margins": (0.0, 0.5),
            "compare.attribute": "brightness",  # so that a judge alone is a legal change
        }
    )


# Leaf -> (another value, what it makes stale). Leaves of samplers without fit make nothing stale.
CHANGES: dict[str, tuple[Any, set[str]]] = {
    "seed": (1, EVERYTHING),
    "layer": ("layer2", CLUSTERED),
    "generator.name": ("tests.run.changes:other_generator", EVERYTHING),
    "generator.weights": (None, set()),  # a generator from a function has no weights
    "generator.condition": (None, set()),
    "generator.truncation": (None, set()),
    "generator.truncation_layers": (None, set()),
    "generator.noise": (None, set()),
    "generator.batch": (32, set()),
    "latents.num": (100, EVERYTHING - INVERTED),
    "cluster.max_clusters": (8, set()),  # only used to choose the number
    "cluster.num_clusters": (3, CLUSTERED),
    "cluster.num_init": (2, CLUSTERED | SWEPT),
    "cluster.max_iter": (50, CLUSTERED | SWEPT),
    "cluster.tol": (1e-3, CLUSTERED | SWEPT),
    "cluster.init": ("random", CLUSTERED | SWEPT),
    "cluster.backend": ("faiss", CLUSTERED | SWEPT),
    "cluster.memory_mb": (2048, set()),  # a resource, though streamed sums are in another order
    "cluster.max_samples": (80, CLUSTERED | SWEPT),
    "cluster.space": ("standardised", CLUSTERED | SWEPT),
    "cluster.trimmed": (0.1, CLUSTERED | SWEPT),
    "samplers.rejection.fit": (
        False,
        {"sample rejection", "evaluate rejection"} | SHOWN | COMPARED,
    ),
    "samplers.flow.num_epochs": (2, learnt("flow")),
    "samplers.flow.num_latents": (None, learnt("flow")),
    "samplers.flow.batch": (32, learnt("flow")),
    "samplers.flow.hidden_dim": (16, learnt("flow")),
    "samplers.flow.learning_rate": (1e-3, learnt("flow")),
    "samplers.flow.average": (0.9, learnt("flow")),
    "samplers.flow.num_steps": (3, of("flow")),
    "samplers.flow.guidance": (1.5, of("flow")),
    "samplers.flow.output": ("sphere", of("flow")),
    "samplers.imle.fit": (False, of("imle")),
    "samplers.imle.num_epochs": (3, learnt("imle")),
    "samplers.imle.batch": (8, learnt("imle")),
    "samplers.imle.code_dim": (3, learnt("imle")),
    "samplers.imle.hidden_dim": (16, learnt("imle")),
    "samplers.imle.pool_factor": (3, learnt("imle")),
    "samplers.imle.learning_rate": (1e-4, learnt("imle")),
    "samplers.imle.beta1": (0.4, learnt("imle")),
    "samplers.imle.beta2": (0.9, learnt("imle")),
    "samplers.imle.weight_decay": (0.0, learnt("imle")),
    "samplers.imle.decay_epochs": (1, learnt("imle")),
    "samplers.imle.reset_optimizer": (False, learnt("imle")),
    "samplers.imle.matcher": ("faiss", learnt("imle")),
    "samplers.imle.output": ("raw", of("imle")),
    "samplers.gaussian.fit": (True, SHOWN | COMPARED),
    "sample.num": (3, {f"sample {name}" for name in FITTED} | SHOWN | {"sheet"}),
    "sample.sampler": ("imle", SHOWN | {"sheet"}),
    "sample.max_draws": (10_000, set()),
    "evaluate.num": (10, {f"evaluate {name}" for name in FITTED} | SHOWN),
    "evaluate.features": ("random_cnn", FEATURE),
    "evaluate.components": (3, FEATURE),
    "evaluate.prior_images": (20, FEATURE),
    "compare.num": (10, COMPARED),
    "compare.judge": ("heuristic_brightness", COMPARED),
    "compare.attribute": ("yaw", COMPARED),
    "compare.centre": (0.5, COMPARED),
    "compare.threshold": (0.1, COMPARED),
    "compare.accuracy": (0.5, COMPARED),
    "compare.dialled": (["flow"], COMPARED),
    "compare.margins": ([0.0, 0.6], COMPARED),
    "compare.directions": (1, COMPARED),
    "compare.selection": (8, COMPARED),
    "compare.alphas": ([1.0], COMPARED),
    "compare.ganspace_latents": (64, COMPARED),
    # Only a comparison asks whether it has classes.
    "compare.conditional": ([str(EMBEDDED["dcgan_faces"])], COMPARED),
    "transfer.conditions": (["1"], SHOWN),
    "transfer.num": (5, set()),
    "transfer.columns": (2, set()),
    "hierarchy.splits": (["0/layer2-k2"], set()),  # adds a clustering and makes nothing stale
    "hierarchy.num": (50, set()),
    "hierarchy.space": ("pooled", set()),
    "hierarchy.samplers": (["flow"], set()),  # has no effect without splits
    "sweep.layers": (["layer1"], set()),  # the run resolves them
    "sweep.numbers": ([2, 3], SWEPT),
    "sweep.judges": (["image_statistics"], set()),  # as for the layers
    "sweep.judged": (100, {"attributes", "sweep"}),
    "sweep.columns": (2, {"sweep"}),
    "assign.samples": (100, INVERTED),
    "assign.batch": (8, INVERTED),
    "assign.width": (4, INVERTED),
    "assign.learning_rate": (1e-3, INVERTED),
    "assign.steps": (3, {"held-out"}),
    "assign.step_size": (0.2, {"held-out"}),
    "assign.feature_weight": (0.0, {"held-out"}),
    "assign.restarts": (1, set()),  # the assigned images are not part of a config
    "assign.held_out": (8, {"held-out"}),
    "assign.quantile": (0.9, set()),
    "assign.lpips": ("lpips.safetensors", set()),
    "checkpoint_epochs": (1, set()),
}


def changed(path: str) -> tuple[dict[str, Any], set[str]]:
    """Return the config with one leaf changed, and what that makes stale."""
    config = small()
    value, stale = CHANGES[path] if path in CHANGES else (_another(config, path), set())
    *sections, name = path.split(".")
    place = config
    for section in sections:
        place = place[section]
    place[name] = value
    return config, stale


def leaves() -> list[str]:
    """Return every leaf, except those that would fit further samplers."""
    return [p for p in flatten(small()) if p in CHANGES or not p.endswith(".fit")]


def _another(config: dict[str, Any], path: str) -> Any:
    value = flatten(config)[path]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return type(value)(value / 2) if isinstance(value, float) else value + 1
    known = {"raw": "sphere", "nearest": "rejection", "adaptive": "nearest", "rejection": "nearest"}
    return known.get(value)


def other_generator() -> PretrainedGenerator:
    """Return the planted discs in other colours."""
    return of_colour(PlantedDiscs().colour.get_value()[::-1])


def of_colour(colour: Array) -> PretrainedGenerator:
    """Return the planted discs in these colours."""
    network = PlantedDiscs()
    network.colour.set_value(colour)
    return PretrainedGenerator(network)
