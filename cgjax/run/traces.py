"""Traces: a few numbers that tell how code acts which can change under the same name.

The user's own generator, judge or features can be edited, or trained further, between two commands.
So what it makes of a few fixed inputs is kept beside what was made with it, and compared when the
folder is opened again: within rounding, which differs between devices and versions of JAX.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import Float

from cgjax.config.distance_features import LAYER, OWN, parse_feature
from cgjax.errors import ForeignError, UserError
from cgjax.evaluation.judges import load_judge
from cgjax.evaluation.own_features import OwnFeatures, features_of_rows
from cgjax.runtime.imports import is_import_path

JUDGE, FEATURES, LABELS = "judge", "features", "labels"
"""What can be traced beside layers: judges, the features of distances, those of fixed clusters."""

# Relative to the largest value: devices, batches and versions of JAX differ by less, a step of
# training by more.
TOLERANCE = 1e-3

PART = 24
"""Numbers of each part of a trace, which is compared on a scale of its own."""

NUM_ROWS = PART
"""Rows that a function's trace is made from: what it returns for them is one part, or several. A
judge may tell only a few classes apart, or find a face in some images only."""

Trace = Sequence[float | None]
"""Parts, one after the other; a value may be NaN, which a file holds as None. Empty if there is
nothing to compare."""

# Numbers that are kept of an image's features.
_SUMS = 4


def traced_layer(name: str) -> tuple[str, ...]:
    """Return the name of what is traced where a layer's features are used."""
    return (f"{LAYER} {name}",)


def traced_judges(names: Iterable[str | None]) -> tuple[str, ...]:
    """Return the names of what is traced where judges are used: the user's own among them.

    >>> traced_judges(["face_mesh", "mine:smile", None])
    ('judge mine:smile',)
    """
    return tuple(f"{JUDGE} {name}" for name in names if name and is_import_path(name))


def traced_features(name: str) -> tuple[str, ...]:
    """Return the name of what is traced where distances are measured in some features, if any.

    >>> traced_features("mine:f"), traced_features("layer:layer2"), traced_features("pca_pixels")
    (('features mine:f',), ('layer layer2',), ())
    """
    feature = parse_feature(name)
    if feature is None or feature.kind not in (LAYER, OWN):
        return ()
    is_own = feature.kind == OWN
    return (f"{FEATURES} {name}",) if is_own else traced_layer(feature.argument)


def function_trace(traced: str, rows: Float[np.ndarray, "n ..."]) -> Trace:
    """Return the trace of one of the user's functions.

    Args:
        traced: its kind and path, as the functions above name them.
        rows: (`NUM_ROWS`, ...) images, or whatever rows the function is for.

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


def is_same(trace: Trace, other: Trace) -> bool:
    """Whether two traces agree within rounding.

    >>> is_same([1.0, float("nan")], [1.0001, None]), is_same([1.0], [1.01])
    (True, False)
    """
    if len(trace) != len(other):
        return False
    # Each part on its own scale: large features must not hide that the images have changed.
    starts = range(0, len(trace), PART)
    return all(_is_close(trace[i : i + PART], other[i : i + PART]) for i in starts)


def _is_close(numbers: Trace, others: Trace) -> bool:
    a, b = np.asarray(numbers, np.float64), np.asarray(others, np.float64)
    scale = np.abs(b).max(initial=1e-6, where=~np.isnan(b))
    return bool(np.all((np.abs(a - b) <= TOLERANCE * scale) | (np.isnan(a) & np.isnan(b))))


def settled(trace: Trace, kept: Trace) -> Trace:
    """Return a trace, with the kept numbers wherever the two agree within rounding.

    The first part counts by itself. The hash of the result is the same on every machine.
    """
    pieces = ((trace[:PART], kept[:PART]), (trace[PART:], kept[PART:]))
    return [value for new, old in pieces for value in (old if is_same(new, old) else new)]
