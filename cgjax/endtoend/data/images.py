"""What all image data sets share: uint8 rows, augmentation, and distances to fresh draws.

Rows are (n, size, size, channels) uint8. Networks see x / 127.5 - 1 in [-1, 1]. As in the code of
[Liu et al. 2020], in training each image is mirrored half of the time and gets uniform noise of up
to 1/128, one grey level, so that a discriminator cannot recognise real images by their whole grey
levels.

Scores are distances between generated images and a draw of the same number of images: in the first
principal components of the pixels, in the features of a random network, in Inception's features, or
in the user's own. Only in Inception's is a Frechet distance an FID, and an Inception Score defined.
By the class scores of the user's own classifier, the same formula gives a `classifier_score`; and
if the data have as many true classes, these are counted as modes.
"""

from __future__ import annotations

import abc
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from cgjax.config.distance_features import OF_IMAGES, OWN, PIXELS, Feature, parse_feature
from cgjax.endtoend.data.base import DataSet, Points
from cgjax.endtoend.data.on_disk import RowsOnDisk
from cgjax.evaluation.class_modes import Accuracy, class_scores
from cgjax.evaluation.distances import frechet, precision_recall_density_coverage
from cgjax.evaluation.extractors import (
    FeatureExtractor,
    InceptionPool3,
    Projected,
    fixed_extractor,
    pca_pixels,
)
from cgjax.evaluation.inception_score import SPLITS, inception_score
from cgjax.evaluation.modes import PerfectScore, over_repeats
from cgjax.evaluation.own_features import OwnFeatures
from cgjax.numerics.pca import fit_pca
from cgjax.runtime.keys import named_key

NOISE = 1 / 128
"""Upper limit of the noise that is added to a pixel."""

COMPONENTS = 48
"""Number of principal components in which distances are measured."""


@functools.partial(jax.jit, static_argnames=("flip", "noise"))
def prepared(
    rows: UInt8[Array, "n h w c"], key: PRNGKeyArray | None, *, flip: bool, noise: bool
) -> Float[Array, "n h w c"]:
    """Return images in [-1, 1]; with a key, mirror half of them and add noise, as asked."""
    x = rows.astype(jnp.float32) / 127.5 - 1
    if key is None:
        return x
    key_flip, key_noise = jax.random.split(key)
    if flip:
        is_flipped = jax.random.bernoulli(key_flip, shape=(len(x),))
        x = jnp.where(is_flipped[:, None, None, None], x[:, :, ::-1], x)
    if noise:
        x = x + jax.random.uniform(key_noise, x.shape, jnp.float32, 0, NOISE)
    return x


class ImageSet(DataSet):
    """A data set of images; a subclass says how they are drawn.

    Attributes:
        flip: whether training mirrors images.
        features: what distances are measured in: "pca_pixels", "random_cnn", "inception:FILE" or
            "package.module:function".
    """

    flip: bool
    features: str

    def prepare(
        self, rows: UInt8[Array, "n h w c"], key: PRNGKeyArray | None = None
    ) -> Float[Array, "n h w c"]:
        """Return rows as the networks see them; with a key, augmented."""
        return prepared(rows, key, flip=self.flip, noise=True)

    def compared(self, num: int) -> int:
        """Return how many of `num` generated images are compared with as many real ones."""
        return num

    def scores(self, rows: Float[np.ndarray, "n h w c"]) -> dict[str, float]:
        """Return distances of the first generated images to a draw of as many."""
        num = self.compared(len(rows))
        features, reference = reference_of(self, num)
        return distances(features, features(rows[:num]), reference, self.num_classes)

    def perfect(self, key: PRNGKeyArray, num: int, repeats: int) -> dict[str, PerfectScore]:
        """Return what other draws of the same size score."""
        features, reference = reference_of(self, num)
        return over_repeats(
            lambda repeat: distances(
                features,
                features(drawn(self, named_key(key, "perfect", repeat), num)),
                reference,
                self.num_classes,
            ),
            repeats,
        )

    def notes(self, key: PRNGKeyArray, num: int, repeats: int) -> dict[str, Any]:
        """Return the name of the features of the distances; if they count modes, their accuracy."""
        num = self.compared(num)
        features, reference = reference_of(self, num)
        notes: dict[str, Any] = {"features": features.name}
        if isinstance(features, OwnFeatures):
            scores = features.split(reference)[1]
            if _are_of_classes(scores, self.num_classes):
                classes = np.asarray(self.draw(reference_key(), num).classes)
                found = scores.argmax(axis=1)
                notes["judge_accuracy"] = Accuracy.of(found, classes).note("images")
        return notes


class FixedImages(ImageSet):
    """A fixed set of images; a draw takes some of them in random order."""

    @property
    @abc.abstractmethod
    def all_rows(self) -> UInt8[np.ndarray, "n h w c"] | RowsOnDisk:
        """All images."""

    @property
    def all_classes(self) -> Int[np.ndarray, " n"]:
        """The true class of each image."""
        return np.zeros(len(self.all_rows), np.int32)

    @property
    def num_images(self) -> int:
        """Number of images."""
        return len(self.all_rows)

    def available(self, num: int) -> int:
        """Return `num`, or the number of images if there are fewer."""
        return min(num, self.num_images)

    def draw(self, key: PRNGKeyArray, num: int) -> Points:
        """Return `num` different images, or all if there are fewer."""
        rows = self.all_rows
        order = np.asarray(jax.random.permutation(key, len(rows)))[:num]
        drawn = rows.take(order) if isinstance(rows, RowsOnDisk) else jnp.asarray(rows[order])
        return Points(drawn, jnp.asarray(self.all_classes[order]))

    def compared(self, num: int) -> int:
        """Return `num`, but at most half of the images: no image is compared with itself."""
        return min(num, self.num_images // 2)

    def perfect(self, key: PRNGKeyArray, num: int, repeats: int) -> dict[str, PerfectScore]:
        """Return what the images score against each other: two halves, over random splits.

        Generated images are compared with one half, in components fitted to that half alone. The
        same is done here with the other half, since images seem farther apart in components that
        are fitted to them.
        """
        num = self.compared(num)
        features, _ = reference_of(self, num)
        base = features.extractor if isinstance(features, Projected) else features
        pool = base(drawn(self, reference_key(), 2 * num))

        def score(repeat: int) -> dict[str, float]:
            order = jax.random.permutation(named_key(key, "perfect", repeat), 2 * num)
            reference, others = (pool[half] for half in np.asarray(order).reshape(2, num))
            if isinstance(features, Projected):
                pca = fit_pca(reference, len(features.pca.components))
                reference, others = pca.project(reference), pca.project(others)
            return distances(features, others, reference, self.num_classes)

        return over_repeats(score, repeats)

    def notes(self, key: PRNGKeyArray, num: int, repeats: int) -> dict[str, Any]:
        """Return the features of the distances, the number of images, and what is compared."""
        compared = self.compared(num)
        return {
            **super().notes(key, num, repeats),
            "images": self.num_images,
            "perfect sampler": f"{compared} of the images, compared with {compared} others",
            "compared": f"{compared} generated images with {compared} of the images",
        }


def drawn(data: ImageSet, key: PRNGKeyArray, num: int) -> Float[np.ndarray, "n h w c"]:
    """Return a draw of images as the networks see them."""
    return np.asarray(data.prepare(data.draw(key, num).rows[:]))


def reference_key() -> PRNGKeyArray:
    """Return the key of the reference draw, the same for all trainings."""
    return named_key(jax.random.key(0), "reference")


@functools.lru_cache(maxsize=2)
def reference_of(data: ImageSet, num: int) -> tuple[FeatureExtractor, Float[np.ndarray, "n k"]]:
    """Return the feature extractor, and the features of the reference images."""
    images = drawn(data, reference_key(), num)
    feature = parse_feature(data.features, OF_IMAGES) or Feature(PIXELS)
    if feature.kind == OWN:
        own = OwnFeatures(feature.argument, with_scores=True)
        return own, own(images)
    features = fixed_extractor(feature)
    if features is None:
        features = pca_pixels(images, min(COMPONENTS, num - 1, math.prod(images.shape[1:])))
    return features, features(images)


def distances(
    extractor: FeatureExtractor,
    features: Float[np.ndarray, "n k"],
    reference: Float[np.ndarray, "m k"],
    num_classes: int,
) -> dict[str, float]:
    """Return the scores of images from their features; `num_classes` of their data, 1 if none."""
    of_classes: dict[str, float] = {}
    if isinstance(extractor, OwnFeatures):
        (features, by_class), (reference, _) = map(extractor.split, (features, reference))
        of_classes = _scores_of_classes(extractor.name, by_class, num_classes)
    manifold = precision_recall_density_coverage(reference, features)
    scores = {"precision": manifold.precision, "recall": manifold.recall}
    distance = frechet(features, reference)
    if not isinstance(extractor, InceptionPool3):
        return {f"frechet_{extractor.name}": distance, **of_classes, **scores}
    logits = extractor.logits(features)
    quality = {} if logits is None else {"inception_score": inception_score(logits)}
    return {"fid": distance, **quality, **scores}


def _scores_of_classes(
    name: str, logits: Float[np.ndarray, "n k"], num_classes: int
) -> dict[str, float]:
    """Return what the user's classifier says of images; nothing if it has no classes."""
    if not logits.shape[1]:
        return {}
    # Parts of a few images have a score near 1 whatever they show.
    splits = SPLITS if len(logits) >= SPLITS**2 else 1
    scores = {f"classifier_score_{name}": inception_score(logits, splits)}
    if _are_of_classes(logits, num_classes):
        scores |= class_scores(logits.argmax(axis=1), num_classes)._asdict()
    return scores


def _are_of_classes(logits: Float[np.ndarray, "n k"], num_classes: int) -> bool:
    """Whether class scores are taken to be those of the data's true classes, in their order."""
    return logits.shape[1] == num_classes > 1
