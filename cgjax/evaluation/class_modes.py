"""How well labelled samples cover the classes of their data.

With q the shares of M classes among n samples, as a judge found them, and p their true shares:

    modes        classes with a sample
    reverse KL   sum_m q_m log(q_m / p_m), p_m = 1 / M as published

It is how Stacked-MNIST is scored [Liu et al. 2020, section 4.3], by the classes of three digits. An
exact sampler does not score 0: about (M - 1) / (2 n) nats, 0.0196 with 26,000 samples of 1,000
classes, and more where the judge errs or p is not uniform.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from cgjax.errors import UserError
from cgjax.evaluation.modes import reverse_kl


class ClassScores(NamedTuple):
    """How labelled samples cover the classes.

    Attributes:
        modes: classes with at least one sample.
        reverse_kl_nats: of the samples' shares of the classes to the true ones.
        reverse_kl_log10: the same with logarithms of base 10.
    """

    modes: float
    reverse_kl_nats: float
    reverse_kl_log10: float


def class_scores(
    labels: ArrayLike, num_classes: int, shares: Float[np.ndarray, " m"] | None = None
) -> ClassScores:
    """Score the classes that a judge found.

    Args:
        labels: (n,) integers from 0 to num_classes - 1, at least one.
        num_classes: M.
        shares: (M,) true shares, which sum to 1; None for uniform ones. The reverse KL is infinite
            where a class of no share was found.

    Raises:
        UserError: no labels, labels that are no integers or out of range, other shares.

    Example:
        >>> scores = class_scores([0, 1, 1, 0], 4)
        >>> scores.modes, round(scores.reverse_kl_nats, 4), round(scores.reverse_kl_log10, 4)
        (2.0, 0.6931, 0.301)
    """
    found = np.asarray(labels)
    if found.ndim != 1 or len(found) == 0 or found.dtype.kind not in "iu":
        raise UserError(
            f"labels of shape {found.shape} and type {found.dtype}; expected (n,) integers, n > 0"
        )
    if found.min() < 0 or found.max() >= num_classes:
        raise UserError(
            f"labels from {found.min()} to {found.max()}; expected 0 to {num_classes - 1}"
        )
    if shares is not None and (len(shares) != num_classes or abs(shares.sum() - 1) > 1e-6):
        raise UserError(
            f"{len(shares)} shares that sum to {shares.sum():.6g}; expected {num_classes} that "
            "sum to 1"
        )
    counts = np.bincount(found, minlength=num_classes)
    nats = reverse_kl(counts, shares)
    return ClassScores(float((counts > 0).sum()), nats, nats / math.log(10))
