"""The Inception Score: how sure a classifier is of each image, and how varied its answers are.

    IS = exp(mean_x KL(p(y | x) || p(y)))                                [Salimans et al. 2016]

of ten parts of the images, averaged; p(y) is the mean of p(y | x) over a part. It looks at no real
image: one that has learnt a single image of every class by heart scores best of all. Published
numbers take Inception's 1,008 outputs without their biases.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.special import log_softmax, logsumexp

SPLITS = 10


def inception_score(logits: Float[np.ndarray, "n k"], splits: int = SPLITS) -> float:
    """Return the mean score of consecutive parts, between 1 and k.

    Args:
        logits: of a classifier, one row an image; n at least `splits`.
        splits: parts; 10 in published tables.

    Example:
        >>> sure = 1e3 * np.eye(4)[np.arange(40) % 4]
        >>> round(inception_score(sure), 6), round(inception_score(np.zeros((40, 4))), 6)
        (4.0, 1.0)
    """
    scores = []
    for part in np.array_split(np.asarray(logits, np.float64), splits):
        given = log_softmax(part, axis=1)
        overall = logsumexp(given, axis=0) - np.log(len(part))
        scores.append(np.exp(np.mean(np.sum(np.exp(given) * (given - overall), axis=1))))
    return float(np.mean(scores))
