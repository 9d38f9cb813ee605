"""The question put to a judge: does an image show a cluster's end of an attribute?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike, NDArray

from cgjax.errors import UserError
from cgjax.evaluation.distances import wasserstein1
from cgjax.evaluation.judges import Judge, check_judge
from cgjax.numerics.intervals import Interval, bootstrap_interval, wilson_interval, with_ends


class Attribute(NamedTuple):
    """An attribute that a judge reads, and where its two ends begin.

    Attributes:
        judge: reads the attribute off images.
        name: one of the judge's attributes.
        centre: the attribute's neutral value.
        threshold: how far beyond the centre an image must lie to show an end.
    """

    judge: Judge
    name: str
    centre: float
    threshold: float

    def values(self, images: Float[np.ndarray, "n s s c"]) -> Float[np.ndarray, " n"]:
        """Judge images; NaN if there is no face."""
        return self.judge(images)[self.name]

    def is_right(self, values: Float[np.ndarray, " n"], sign: int) -> Bool[np.ndarray, " n"]:
        """Return which judged values lie beyond the threshold on a side of the centre."""
        return sign * (values - self.centre) >= self.threshold

    def side_of(self, values: Float[np.ndarray, " n"]) -> Side:
        """Return the end of the attribute that a cluster's true members show.

        Args:
            values: of the members' images. If the judge found no face in any of them, the end is +1
                and `Side.measure` gives no accuracy.
        """
        seen = values[~np.isnan(values)]
        is_low = len(seen) > 0 and np.median(seen) < self.centre
        return Side(self, -1 if is_low else 1, values)


class Side(NamedTuple):
    """One end of an attribute, and what true members look like there.

    Attributes:
        attribute: the attribute.
        sign: +1 above the centre, -1 below it.
        judged: (m,) judged values of true members, NaN where there is no face.
    """

    attribute: Attribute
    sign: int
    judged: Float[np.ndarray, " m"]

    @property
    def members(self) -> Float[np.ndarray, " seen"]:
        """The judged values of the true members in which the judge found a face."""
        return self.judged[~np.isnan(self.judged)]

    def measure(self, values: Float[np.ndarray, " n"]) -> dict[str, Any]:
        """Return how often images show this side, with intervals: columns of the comparison.

        If the judge finds no face in the members, only `found` is returned. If it finds none in the
        images, the accuracy among faces is omitted.

        Args:
            values: what the judge says of the images.
        """
        sign, attribute = self.sign, self.attribute
        judged = judged_accuracy(values, lambda seen: attribute.is_right(seen, sign))
        seen = values[~np.isnan(values)]
        columns: dict[str, Any] = {"judge": attribute.judge.name, "found": judged.found}
        if not len(self.members):
            return columns
        side = f"{attribute.name} {'>=' if sign > 0 else '<='} "
        columns["attribute"] = side + f"{attribute.centre + sign * attribute.threshold:g}"
        columns |= with_ends("strict", judged.strict, *judged.strict_interval)
        if len(seen):
            columns |= with_ends("accuracy", judged.accuracy, *judged.interval)
            spread = bootstrap_interval(
                wasserstein1, seen, self.members, num_resamples=200, method="normal"
            )
            columns |= with_ends("w1", wasserstein1(seen, self.members), *spread)
        return columns


class JudgedAccuracy(NamedTuple):
    """Both readings of "share of images that show the attribute".

    Attributes:
      accuracy: among the images in which the judge found a face (NaN if none).
      interval: 95% Wilson interval of `accuracy`.
      found: share of images with a face.
      strict: among all images, counting no face as wrong, as published tables do.
      strict_interval: 95% Wilson interval of `strict`.
    """

    accuracy: float
    interval: Interval
    found: float
    strict: float
    strict_interval: Interval


def judged_accuracy(
    values: ArrayLike,
    is_right: Callable[[NDArray[np.float64]], NDArray[np.bool_]],
) -> JudgedAccuracy:
    """Return the accuracy of a judged attribute among the faces found and among all images.

    Args:
      values: (n,) judged attribute, NaN if there is no face.
      is_right: predicate on the values that are not NaN.

    >>> judged_accuracy([12.0, 5.0, np.nan, 30.0], lambda yaw: yaw >= 10).strict
    0.5
    """
    judged = np.asarray(values, np.float64)
    if judged.ndim != 1 or len(judged) == 0:
        raise UserError(f"values have shape {judged.shape}; expected a non-empty (n,) array")
    seen = judged[~np.isnan(judged)]
    right = int(np.count_nonzero(is_right(seen)))
    return JudgedAccuracy(
        accuracy=right / len(seen) if len(seen) else float("nan"),
        interval=wilson_interval(right, len(seen)) if len(seen) else Interval(0.0, 1.0),
        found=len(seen) / len(judged),
        strict=right / len(judged),
        strict_interval=wilson_interval(right, len(judged)),
    )


def attribute_of(settings: Mapping[str, Any]) -> Attribute | None:
    """Return the attribute that the config asks its judge for; None without a judge.

    Args:
        settings: `config.compare`.

    Raises:
        UserError: an unknown judge or attribute, or a judge that violates its contract.
        ForeignError: the user's own judge raised an exception.
    """
    judge = check_judge(settings)
    if judge is None:
        return None
    return Attribute(judge, *(settings[n] for n in ("attribute", "centre", "threshold")))
