"""How well labelled samples cover the classes of their data.

With q the shares of M classes among n samples, as classified by a judge:

    modes        classes with at least one sample
    reverse KL   sum_m q_m log(M q_m)

Stacked-MNIST is scored this way [Liu et al. 2020, section 4.3], by the classes of three digits. An
exact sampler does not score 0 but about (M - 1) / (2 n) nats, 0.0196 with 26,000 samples of 1,000
classes, and more if the judge errs or the classes are not equally frequent.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from numpy.typing import ArrayLike

from cgjax.errors import UserError
from cgjax.evaluation.modes import reverse_kl
from cgjax.numerics.intervals import Interval, wilson_interval


class ClassScores(NamedTuple):
    """How labelled samples cover the classes.

    Attributes:
        modes: classes with at least one sample.
        reverse_kl_nats: from the samples' class shares to uniform ones.
        reverse_kl_log10: the same with logarithms to base 10.
    """

    modes: float
    reverse_kl_nats: float
    reverse_kl_log10: float


class Accuracy(NamedTuple):
    """How often a judge of classes is right.

    Attributes:
        share: of what it judged, 0 to 1.
        interval: Wilson's 95% interval of the share.
        num: number of rows that it judged.
    """

    share: float
    interval: Interval
    num: int

    @classmethod
    def of(cls, found: Int[np.ndarray, " n"], classes: Int[np.ndarray, " n"]) -> Accuracy:
        """Return the accuracy of the classes found, given the true ones; n is at least 1."""
        right, num = int((found == classes).sum()), len(classes)
        return cls(right / num, wilson_interval(right, num), num)

    def note(self, rows: str) -> dict[str, float]:
        """Return it for a summary, where `rows` says what was judged."""
        low, high = self.interval
        return {"mean": self.share, "low": low, "high": high, rows: self.num}


def class_scores(labels: ArrayLike, num_classes: int) -> ClassScores:
    """Score the class labels that a judge gave to samples.

    Args:
        labels: (n,) integers from 0 to num_classes - 1, at least one.
        num_classes: M.

    Raises:
        UserError: no labels, labels that are not integers or out of range.

    Example:
        >>> scores = class_scores([0, 1, 1, 0], 4)
        >>> scores.modes, round(scores.reverse_kl_nats, 4), round(scores.reverse_kl_log10, 4)
        (2.0, 0.6931, 0.301)
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or len(labels) == 0 or labels.dtype.kind not in "iu":
        raise UserError(
            f"labels of shape {labels.shape} and type {labels.dtype}; expected (n,) integers, n > 0"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UserError(
            f"labels from {labels.min()} to {labels.max()}; expected 0 to {num_classes - 1}"
        )
    counts = np.bincount(labels, minlength=num_classes)
    nats = reverse_kl(counts)
    return ClassScores(float((counts > 0).sum()), nats, nats / math.log(10))
