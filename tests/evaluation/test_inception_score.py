"""The Inception Score equals its definition."""

import numpy as np
import pytest

from cgjax.evaluation.inception_score import inception_score


def test_it_is_the_exponential_of_the_mutual_information():
    logits = np.random.default_rng(0).normal(size=(50, 7))
    given = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    scores = []
    for part in np.split(given, 5):
        information = (part * np.log(part / part.mean(0))).sum(1).mean()
        scores.append(np.exp(information))
    assert inception_score(logits, splits=5) == pytest.approx(np.mean(scores), rel=1e-12)


@pytest.mark.parametrize("classes", [1, 3, 10])
def test_its_maximum_is_the_number_of_classes(classes):
    sure = 1e4 * np.eye(10)[np.arange(300) % classes]
    assert inception_score(sure) == pytest.approx(classes, rel=1e-9)
