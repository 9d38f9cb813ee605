"""What distinguishes one training from another: its settings, its data, and the user's own code.

A training is known by the key of the settings that it began with. It keeps this key for as long as
everything stays that changes what is trained; so when only the scores, or settings that it does not
read, are changed, its checkpoints go on being used.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from cgjax.config.plain import digest, flatten
from cgjax.config.schema import TRAINING, is_resource
from cgjax.config.training import ADDED, FIXED_FEATURES, is_of_assign, trained_leaves
from cgjax.endtoend.data import data_of
from cgjax.endtoend.data.generated import GeneratedImages
from cgjax.run.folder import RunFolder, find_config, read_config
from cgjax.run.identity import trace_of
from cgjax.run.traces import LABELS, NUM_ROWS, Trace, function_trace, settled
from cgjax.runtime.files import read_sealed

_SOURCE = ("name", "path")
"""The leaves of `config.data` that name a generator whose images are the data."""


def training_key(config: Mapping[str, Any], identity: str, trace: Trace) -> str:
    """Return the key of a training and its scores, however long it is.

    Args:
        config: nested plain dicts with every leaf.
        identity: of the data; see `DataSet`.
        trace: of the user's own code; see `settled_trace`.
    """
    leaves = flatten(config)
    # A longer training continues where a shorter one ended; see `TrainingRun.key_at`.
    del leaves["train.iterations"], leaves["train.cooldown"]
    settings = {
        path: value
        for path, value in leaves.items()
        # A leaf that older versions lacked leaves the key unchanged at the value they imply.
        if not is_resource(path)
        and not is_of_assign(path)
        and (path not in ADDED or value != ADDED[path])
    }
    own = {"identity": identity, "trace": trace}
    return digest({**settings, **{name: value for name, value in own.items() if value}})


def key_begun_with(
    folder: RunFolder, config: Mapping[str, Any], identity: str, trace: Trace
) -> str:
    """Return the key that a training began with: the folder's own if it is the one asked for.

    Args:
        folder: the folder; it need not exist.
        config: as for `training_key`, and so are the others.
        identity: of the data now.
        trace: of the user's own code now.
    """
    if read_sealed(folder.config) is not None:  # one that was edited does not say what was trained
        saved = read_config(folder, TRAINING)
        known = saved.provenance
        before = (trained_leaves(flatten(saved.config)), known.weights_sha256, known.trace or [])
        if before == (trained_leaves(flatten(config)), identity, trace):
            # Earlier versions kept no key: theirs was that of all settings.
            return known.identity or training_key(saved.config, identity, trace)
    return training_key(config, identity, trace)


def tracing_of(config: Mapping[str, Any]) -> Callable[[str], Trace]:
    """Return how to trace the user's own features: on rows of the data, drawn when they are."""

    def trace(traced: str) -> Trace:
        data = data_of(config)
        drawn = np.asarray(data.prepare(data.draw(jax.random.key(0), NUM_ROWS).rows[:]))
        # Again from the first, if there are fewer.
        return function_trace(traced, np.resize(drawn, (NUM_ROWS, *drawn.shape[1:])))

    return functools.cache(trace)


def settled_trace(
    folder: RunFolder, config: Mapping[str, Any], tracing: Callable[[str], Trace]
) -> Trace:
    """Return how the user's own code acts that a training starts from.

    That is their generator, if its images are the data, and then their features of fixed clusters;
    of each nothing, if the folder has kept nothing, as those of earlier versions. Otherwise it is
    settled against what the folder kept.
    """
    data, features = config["data"], config["labels"]["features"]
    source = data_of(config) if data["name"] == "generated" else None
    of_data = trace_of(source.generator) if isinstance(source, GeneratedImages) else []
    is_own = features not in FIXED_FEATURES
    of_labels = tracing(f"{LABELS} {features}") if is_own else []
    saved = find_config(folder, TRAINING)
    if saved is None:
        return [*of_data, *of_labels]
    before = flatten(saved.config)  # an edited one may lack leaves
    kept, num = saved.provenance.trace or [], len(of_data)
    is_source_known = all(before.get(f"data.{name}") == data[name] for name in _SOURCE)
    are_labels_known = is_own and before.get("labels.features") == features
    return [
        *_settled(of_data, kept[:num], is_known=is_source_known),
        *_settled(of_labels, kept[num:], is_known=are_labels_known),
    ]


def _settled(now: Trace, kept: Trace, *, is_known: bool) -> Trace:
    """Return the trace now, or the kept one of code of the same name if either is empty."""
    return kept if is_known and not (now and kept) else settled(now, kept)
