"""The Inception Score: how sure a classifier is of each image, and how varied its answers are.

    IS = exp(mean_x KL(p(y | x) || p(y)))                                [Salimans et al. 2016]

averaged over ten parts of the images; p(y) is the mean of p(y | x) over a part. It uses no real
images: a generator that memorised a single image of every class scores best of all. Published
numbers use Inception's 1,008 outputs without their biases.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.special import log_softmax, logsumexp

SPLITS = 10


def inception_score(logits: Float[np.ndarray, "n k"], splits: int = SPLITS) -> float:
    """Return the mean score of consecutive parts, between 1 and k.

    Args:
        logits: of a classifier, one row per image; n at least `splits`.
        splits: number of parts; 10 in published tables.

    Example:
        >>> sure = 1e3 * np.eye(4)[np.arange(40) % 4]
        >>> round(inception_score(sure), 6), round(inception_score(np.zeros((40, 4))), 6)
        (4.0, 1.0)
    """
    scores = []
    for part in np.array_split(np.asarray(logits, np.float64), splits):
        log_p = log_softmax(part, axis=1)
        log_mean_p = logsumexp(log_p, axis=0) - np.log(len(part))
        scores.append(np.exp(np.mean(np.sum(np.exp(log_p) * (log_p - log_mean_p), axis=1))))
    return float(np.mean(scores))
