"""The table of every leaf of a config: its type, its range, and whether it is a resource.

`configs/common.py` has the defaults and explains every leaf.
"""

from __future__ import annotations

from typing import Any, NamedTuple

INT_MAX = 2**31 - 1
"""The largest integer: jax holds counts as int32."""

MAX_SEED = 2**32 - 1
"""The largest seed of a random key."""


class Leaf(NamedTuple):
    """The legal values of one setting.

    Attributes:
        kind: int, float, str, bool or tuple (a list in JSON).
        low: smallest legal number, or None.
        high: largest legal number, or None; integers end at `INT_MAX` in any case.
        choices: legal words, or None for any.
        words: legal words in addition to numbers.
        optional: whether it may be unset (None).
        is_resource: whether it changes how something is computed and not what, so that no artifact
            depends on it.
    """

    kind: type
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] | None = None
    words: tuple[str, ...] = ()
    optional: bool = False
    is_resource: bool = False


def count(low: int, *, optional: bool = False, is_resource: bool = False) -> Leaf:
    """Return the leaf of an integer that is at least `low`."""
    return Leaf(int, low, optional=optional, is_resource=is_resource)


FLAG, TEXT, LIST = Leaf(bool), Leaf(str), Leaf(tuple)
OPTIONAL_TEXT = Leaf(str, optional=True)
SHARE, NOT_NEGATIVE, NUMBER = Leaf(float, 0, 1), Leaf(float, 0), Leaf(float)
SEED = Leaf(int, 0, MAX_SEED)

AUTO = "auto"
"""The word for a number of clusters that is chosen from the features."""

INITS = ("k-means++", "random")
BACKENDS = ("jax", "faiss")
SPACES = ("raw", "standardised", "pooled", "spherical")
MATCHERS = ("jax", "faiss")
MATCHINGS = ("nearest", "adaptive", "rejection")
JUDGES: dict[str, tuple[str, ...]] = {
    "face_mesh": ("yaw", "pitch", "face"),
    "age_gender": ("apparent_female", "apparent_age", "face"),
    "heuristic_brightness": ("brightness",),
    "heuristic_hair_tone": ("hair_tone",),
    "image_statistics": ("brightness", "saturation", "contrast", "left_right", "up_down"),
}
"""The judges that come with cgjax, and the attributes each reports."""

SECTIONS: dict[str, dict[str, Leaf]] = {
    "generator": {
        "name": TEXT,
        "weights": OPTIONAL_TEXT,
        "condition": OPTIONAL_TEXT,
        "truncation": NOT_NEGATIVE._replace(optional=True),
        "truncation_layers": count(0, optional=True),
        "noise": Leaf(str, choices=("stored", "zeros"), optional=True),
        "batch": count(1, is_resource=True),
    },
    "latents": {"num": count(2)},
    "cluster": {
        "num_clusters": count(1)._replace(words=(AUTO,)),
        "max_clusters": count(1),
        "num_init": count(1),
        "max_iter": count(1),
        "tol": NOT_NEGATIVE,
        "init": Leaf(str, choices=INITS),
        "backend": Leaf(str, choices=BACKENDS),
        "memory_mb": count(0, is_resource=True),
        "max_samples": count(1, optional=True),
        "space": Leaf(str, choices=SPACES),
        "trimmed": Leaf(float, 0, 0.5),
    },
    "sample": {"num": count(1), "sampler": TEXT, "max_draws": count(1, is_resource=True)},
    "evaluate": {
        "num": count(2),
        "features": TEXT,
        "components": count(1),
        "prior_images": count(2),
    },
    "compare": {
        "num": count(2),
        "judge": OPTIONAL_TEXT,
        "attribute": TEXT,
        "centre": NUMBER,
        "threshold": NUMBER,
        "accuracy": SHARE,
        "dialled": LIST,
        "margins": LIST,
        "directions": count(0),
        "selection": count(1),
        "alphas": LIST,
        "ganspace_latents": count(2),
        "conditional": LIST,
    },
    "transfer": {"conditions": LIST, "num": count(1), "columns": count(1)},
    "hierarchy": {
        "splits": LIST,
        "num": count(2, optional=True),
        "space": Leaf(str, choices=SPACES),
        "samplers": LIST,
    },
    "sweep": {
        "layers": LIST,
        "numbers": LIST,
        "judges": LIST,
        "judged": count(100),
        "columns": count(1),
    },
    "assign": {
        "samples": count(1),
        "batch": count(1),
        "width": count(1),
        "learning_rate": NOT_NEGATIVE,
        "steps": count(1),
        "step_size": NOT_NEGATIVE,
        "feature_weight": NOT_NEGATIVE,
        "restarts": count(0),
        "held_out": count(2),
        "quantile": SHARE,
        "lpips": TEXT,
    },
}

_OUTPUT = Leaf(str, choices=("raw", "sphere"), optional=True)
_TRAINED = {
    "fit": FLAG,
    "num_epochs": count(1),
    "batch": count(2),
    "hidden_dim": count(1, optional=True),
    "learning_rate": NOT_NEGATIVE,
    "output": _OUTPUT,
}
_NUM_LATENTS = {"num_latents": count(2, optional=True)}
_CODED = _TRAINED | {"code_dim": count(1, optional=True)}
_ADAM = {"beta1": SHARE, "beta2": SHARE}
_FLOW = _TRAINED | _NUM_LATENTS
_FLOW |= {"average": SHARE, "num_steps": count(1), "guidance": NOT_NEGATIVE}
_IMLE = _CODED | {"pool_factor": count(1)}
_MODERN_IMLE = _IMLE | {
    "matching": Leaf(str, choices=MATCHINGS),
    "residual": FLAG,
    "match_epochs": count(1),
    "threshold": SHARE,
    "force_epochs": count(1),
    "quantile": SHARE,
}
_GAUSSIAN = _NUM_LATENTS | {
    "fit": FLAG,
    "num_components": count(1),
    "num_epochs": count(1),
    "output": _OUTPUT,
}
SAMPLERS: dict[str, dict[str, Leaf]] = {
    "rejection": {"fit": FLAG},
    "flow": _FLOW,
    # At least one epoch for the flow and one for the step.
    "flow_one_step": _FLOW | {"num_epochs": count(2), "distilled": SHARE},
    "imle": _IMLE
    | _ADAM
    | {
        "weight_decay": NOT_NEGATIVE,
        "decay_epochs": count(0),
        "reset_optimizer": FLAG,
        "matcher": Leaf(str, choices=MATCHERS),
    },
    "imle_residual": _MODERN_IMLE,
    "imle_adaptive": _MODERN_IMLE,
    "imle_rs": _MODERN_IMLE,
    "gaussian": _GAUSSIAN,
    "mixture": _GAUSSIAN,
    "gan": _CODED | _NUM_LATENTS | _ADAM | {"critic_dim": count(1), "penalty": NOT_NEGATIVE},
    "vae": _CODED
    | _NUM_LATENTS
    | {
        "encoder_dim": count(1),
        "beta": NOT_NEGATIVE,
        "warmup_epochs": count(0),
        "output_noise": FLAG,
    },
}
"""The leaves of every sampler; all but `fit` may be missing and have the sampler's default."""

LEAVES: dict[str, Leaf] = {
    "seed": SEED,
    "layer": TEXT,
    "checkpoint_epochs": count(1, is_resource=True),
    **{f"{s}.{name}": leaf for s, leaves in SECTIONS.items() for name, leaf in leaves.items()},
    **{f"samplers.{s}.{n}": leaf for s, leaves in SAMPLERS.items() for n, leaf in leaves.items()},
}
"""Every leaf by its dotted path."""

ADDED: dict[str, Any] = {
    "cluster.max_clusters": 16,
    "cluster.memory_mb": 4096,
    "cluster.max_samples": None,
    "cluster.space": "raw",
    "cluster.trimmed": 0.0,
    "evaluate.features": "pca_pixels",
    "compare.num": 2000,
    "compare.judge": None,
    "compare.attribute": "yaw",
    "compare.centre": 0.0,
    "compare.threshold": 10.0,
    "compare.accuracy": 0.97,
    "compare.dialled": ["rejection", "flow"],
    "compare.margins": [0.0, 0.3, 0.6],
    "compare.directions": 10,
    "compare.selection": 200,
    "compare.alphas": [1.0, 1.5, 2.0, 3.0],
    "compare.ganspace_latents": 10_000,
    "compare.conditional": [],
    "transfer.conditions": [],
    "transfer.num": 500,
    "transfer.columns": 4,
    "hierarchy.splits": [],
    "hierarchy.num": None,
    "hierarchy.space": "raw",
    "hierarchy.samplers": [],
    "sweep.layers": [],
    "sweep.numbers": [2, 3, 4, 6, 8],
    "sweep.judges": [],
    "sweep.judged": 2000,
    "sweep.columns": 8,
    "assign.samples": 40_000,
    "assign.batch": 64,
    "assign.width": 32,
    "assign.learning_rate": 2e-3,
    "assign.steps": 100,
    "assign.step_size": 0.1,
    "assign.feature_weight": 0.05,
    "assign.restarts": 2,
    "assign.held_out": 256,
    "assign.quantile": 0.99,
    "assign.lpips": "",
    "samplers.imle.matcher": "jax",
}
"""Leaves that older run folders lack, with the values that those runs were made with."""

SILENT = ("cluster.space", "cluster.trimmed", "compare.conditional")
"""Leaves added after artifacts got keys. At their value in `ADDED` they are left out of the key, so
that artifacts of an older version stay current."""
