"""How the user's own judges and features act on a few fixed images.

A config knows them by their import path, under which they can be edited or trained further. So the
manifest of what was made with one keeps its trace: what it returns for these images.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from cgjax.errors import ForeignError, UserError
from cgjax.evaluation.judges import load_judge
from cgjax.evaluation.own_features import OwnFeatures, features_of_rows
from cgjax.run.traces import FEATURES, JUDGE, LABELS, PART, Trace, is_same

NUM = PART
"""Images that a trace is made from: what a function returns for them is one part of it, or several.
A judge may tell only a few classes apart, or find a face in some images only."""

_SUMS = 4
"""Numbers that are kept of an image's features."""


def function_trace(traced: str, rows: Float[np.ndarray, "n ..."]) -> Trace:
    """Return the trace of one of the user's functions.

    Args:
        traced: its kind and path, as `cgjax.run.traces` names them.
        rows: (`NUM`, ...) images, or whatever rows the function is for.

    Returns:
        The numbers; none if the function fails, which whoever needs its results will report, or if
        it answers otherwise when it is asked again.
    """
    kind, _, path = traced.partition(" ")
    try:
        function = _FUNCTIONS[kind](path)  # which may change the rows that it is given
        first, second = ([float(x) for x in function(rows.copy()).T.ravel()] for _ in range(2))
    except (UserError, ForeignError):
        return []
    return first if is_same(first, second) else []


def _judge(path: str) -> Callable[[np.ndarray], np.ndarray]:
    judge = load_judge(path)
    return lambda images: np.stack([*judge(images).values()], axis=1)


def _features(path: str) -> Callable[[np.ndarray], np.ndarray]:
    own = OwnFeatures(path, with_scores=True)
    return lambda images: np.concatenate(
        [_sums(part) for part in own.split(own(images)) if part.size], axis=1
    )


def _labels(path: str) -> Callable[[np.ndarray], np.ndarray]:
    own = features_of_rows(path)
    return lambda rows: _sums(own(rows))


_FUNCTIONS = {JUDGE: _judge, FEATURES: _features, LABELS: _labels}


def _sums(features: Float[np.ndarray, "n f"]) -> Float[np.ndarray, "n sums"]:
    """Return sums of each row in which every column counts, each by a weight of its own."""
    # Positive weights: a difference of large equal numbers would be nothing but rounding.
    # RandomState is legacy, but the only generator NumPy has frozen.
    weights = np.random.RandomState(0).uniform(0, 1, (features.shape[1], _SUMS))
    return features.astype(np.float64) @ weights
