"""The trials of a training run: independent trainings of one method, as a config describes them.

Trial t draws its own points and networks. Its random numbers come from the root key by name, so
neither other trials nor an interruption change them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Array, Float, Int, Key

from cgjax.clustering import kmeans
from cgjax.config.distance_features import OWN, parse_feature
from cgjax.config.plain import flatten
from cgjax.config.training import FEWEST_SCORED, fewest_scored, problems_of_classes, unread
from cgjax.endtoend.data import DataSet, Points, data_of
from cgjax.endtoend.data.folder import FolderImages
from cgjax.endtoend.data.images import ImageSet
from cgjax.endtoend.methods import make_method
from cgjax.endtoend.networks import NETWORKS
from cgjax.endtoend.state import Losses, TrainState
from cgjax.endtoend.trainer import Trainer
from cgjax.errors import UserError
from cgjax.evaluation.agreement import agreement_scores
from cgjax.evaluation.modes import PerfectScore
from cgjax.evaluation.own_features import OwnFeatures
from cgjax.numerics.networks import Arrays
from cgjax.runtime.keys import named_key


def check_data(config: Mapping[str, Any], checked: str = "") -> str:
    """Check that a config's data exist and fit its networks and sizes; writes nothing.

    Args:
        config: nested plain dicts with every leaf.
        checked: the identity of data that were checked before: images on disk that still have it
            are not decoded again.

    Returns:
        The data's identity; see `DataSet`.

    Raises:
        UserError: data that cannot be read, are too few, or have the wrong shape.
    """
    if ignored := unread(flatten(config)):
        logging.info("not used by this training: %s", ignored)
    data, train, labels = data_of(config), config["train"], config["labels"]
    num = data.available(config["data"]["num"])
    NETWORKS[config["network"]["name"]](config["network"], data.row_shape())
    on_disk = data if isinstance(data, FolderImages) and data.is_on_disk else None
    if on_disk is not None and train["together"] and train["trials"] > 1:
        raise UserError(
            "--config.train.together=true: expected images that fit in --config.data.memory_mb; "
            "type --config.train.together=false"
        )
    for problem in problems_of_classes(flatten(config), data.num_classes):
        raise UserError(problem)  # of a generator's classes, which the config alone cannot tell
    batches = make_method(config, data.num_classes).batches
    if isinstance(data, ImageSet):
        _check_scored(data, config["score"])
    for path, needed in {
        "train.batch": train["batch"] * batches,
        "labels.num_clusters": labels["num_clusters"],
    }.items():
        if needed > num:
            raise UserError(f"--config.{path}: needs {needed} rows, but there are only {num}")
    identity = data.identity()
    if on_disk is not None and identity != checked:
        on_disk.check_images()
    return identity


def _check_scored(data: ImageSet, settings: Mapping[str, Any]) -> None:
    """Refuse fewer images than the scores' features need on each side of a comparison."""
    num, features = settings["num"], settings["features"]
    compared, fewest = data.compared(num), fewest_scored(features)
    feature = parse_feature(features)
    if feature is not None and feature.kind == OWN:
        dims = OwnFeatures(feature.argument, with_scores=True).check(*data.row_shape()[:2])
        fewest = max(fewest, dims)
        if num < dims:
            raise UserError(
                f"--config.score.num={num}: expected at least {dims}, the dimension of "
                f"score.features={features}"
            )
    if compared < min(num, fewest):
        raise UserError(
            f"--config.score.features={features}: expected at least {fewest} images to compare "
            f"with {fewest} others; of --config.score.num={num} only {compared} can be compared, "
            f"half of the images that exist; add images until there are {2 * fewest}"
            + (", or type --config.score.features=pca_pixels" if fewest > FEWEST_SCORED else "")
        )


class GeneratedRows(NamedTuple):
    """Generated rows, and the label that each was generated with."""

    points: Float[np.ndarray, "n ..."]
    labels: Int[np.ndarray, " n"]


class Experiment:
    """The trials of a config.

    Example:
        >>> from configs import scgan_ring
        >>> experiment = Experiment(scgan_ring.get_config("quick").to_dict())
        >>> experiment.next_stop(0, periods=[100]), experiment.next_stop(149, periods=[100])
        (100, 150)
    """

    def __init__(self, config: Mapping[str, Any]):
        """Build the networks and draw the training points; trains nothing.

        Args:
            config: of a training run; nested plain dicts with every leaf.
        """
        self.config = config
        self.data: DataSet = data_of(config)
        sizes = config["network"]
        train = config["train"]
        self.trainer = Trainer(
            make_method(config, self.data.num_classes),
            NETWORKS[sizes["name"]](sizes, self.data.row_shape()),
            **{name: train[name] for name in _TRAINER_SETTINGS},
            iterations=train["iterations"] if train["cooldown"] else 0,
            prepare=self.data.prepare,
        )
        root = self._root = jax.random.key(config["seed"])
        self.keys = [named_key(root, "trial", t) for t in range(train["trials"])]
        num = config["data"]["num"]
        self.points = [self.data.draw(named_key(key, "points"), num) for key in self.keys]
        trials = list(range(train["trials"]))
        together = [trials] if train["together"] else [[t] for t in trials]
        self._groups = [(self._rows(group), self._keys(group, "train")) for group in together]

    def _rows(self, trials: Sequence[int]) -> Points:
        """Return the trials' training rows, stacked; a single trial's are not copied."""
        points = [self.points[t] for t in trials]
        return points[0] if len(points) == 1 else _stacked(points)

    def _keys(self, trials: Sequence[int], name: str) -> Key[Array, " trials"]:
        return jnp.stack([named_key(self.keys[t], name) for t in trials])

    def init(self) -> list[TrainState]:
        """Return fresh trials; those that are trained together are stacked."""
        return self._grouped(
            [
                self.trainer.init(named_key(key, "init"), points)
                for key, points in zip(self.keys, self.points, strict=True)
            ]
        )

    def shapes(self) -> list[TrainState]:
        """Return the shapes and dtypes of `init`'s states, except those of a clustering's arrays.

        Computes nothing; the partition is one without a clustering.
        """

        def unlabelled() -> list[TrainState]:
            return self._grouped(
                [
                    self.trainer.unlabelled(named_key(key, "init"), len(points.rows))
                    for key, points in zip(self.keys, self.points, strict=True)
                ]
            )

        return jax.eval_shape(unlabelled)

    def _grouped(self, states: Sequence[TrainState]) -> list[TrainState]:
        if self.config["train"]["together"]:
            return [_stacked(states)]
        return [_stacked([state]) for state in states]

    def per_trial(self, states: Sequence[TrainState]) -> list[TrainState]:
        """Return the state of each trial to score, with its rows' current labels."""
        trials = zip(self._unstacked(states), self.points, strict=True)
        return [self.trainer.relabelled(state, points) for state, points in trials]

    def _unstacked(self, states: Sequence[TrainState]) -> list[TrainState]:
        return [
            jax.tree.map(lambda leaf, i=i: leaf[i], state)
            for state in states
            for i in range(len(state.partition.labels))
        ]

    def next_stop(self, iteration: int, periods: Sequence[int]) -> int:
        """Return the iteration at which training has to stop next.

        That is the next clustering, the next multiple of a period, or the end.

        Args:
            iteration: number of iterations done.
            periods: of everything else that happens between iterations.
        """
        stops = [(iteration // period + 1) * period for period in periods]
        clustering = self.trainer.method.next_reclustering(iteration)
        if clustering is not None:
            stops.append(clustering)
        return min([*stops, self.config["train"]["iterations"]])

    def advance(
        self, states: Sequence[TrainState], begin: int, end: int
    ) -> tuple[list[TrainState], Losses]:
        """Train all trials from one iteration to another, after clustering if it is due.

        Args:
            states: as `init` returns them; donated.
            begin: number of iterations done.
            end: at most `next_stop`.

        Returns:
            The states, and the losses (trials, end - begin).
        """
        if begin > 0 and self.trainer.method.next_reclustering(begin - 1) == begin:
            states = self._reclustered(states, begin)
        results = [
            self.trainer.run(state, points, keys, begin, end - begin)
            for state, (points, keys) in zip(states, self._groups, strict=True)
        ]
        trained, losses = zip(*results, strict=True)
        return list(trained), Losses(*map(jnp.concatenate, zip(*losses, strict=True)))

    def _reclustered(self, states: Sequence[TrainState], iteration: int) -> list[TrainState]:
        keys = [named_key(key, "train") for key in self.keys]
        trials = zip(keys, self._unstacked(states), self.points, strict=True)
        return self._grouped(
            [
                self.trainer.reclustered(key, iteration, state, points)
                for key, state, points in trials
            ]
        )

    def generator(self, state: TrainState, trial: int, iteration: int) -> Arrays:
        """Return the generator of one trial's scored rows after an iteration."""
        key = named_key(self.keys[trial], "moments", iteration)
        return self.trainer.for_sampling(key, state)

    def sample(self, state: TrainState, trial: int, iteration: int) -> GeneratedRows:
        """Generate the rows of one trial that are scored after an iteration."""
        key, num = named_key(self.keys[trial], "score", iteration), self.config["score"]["num"]
        method = self.trainer.method
        labels = method.sample_labels(named_key(key, "labels"), state.partition, num)
        generator = self.generator(state, trial, iteration)
        rows = self.trainer.generate(generator, named_key(key, "codes"), labels)
        return GeneratedRows(np.asarray(rows), np.asarray(labels))

    @property
    def num_scored(self) -> int:
        """How many of these rows are scored: not all where there are too few images to compare."""
        num = int(self.config["score"]["num"])
        return self.data.compared(num) if isinstance(self.data, ImageSet) else num

    def scores(self, samples: GeneratedRows) -> dict[str, float]:
        """Return the data set's own scores of generated rows."""
        return self.data.scores(samples.points)

    def agreement(self, state: TrainState, trial: int) -> dict[str, float]:
        """Return how well one trial's clusters of training rows agree with the true classes.

        Empty for a method that does not cluster, and where no true classes are known.
        """
        if self.data.num_classes < 2:
            return {}
        points, method = self.points[trial], self.trainer.method
        encode = self.trainer.encoder(state.generator.arrays)
        key = named_key(self.keys[trial], "found")
        partition = method.final_partition(key, points, encode, state.partition)
        if not partition.centroids.size:
            return {}
        return agreement_scores(np.asarray(partition.labels), np.asarray(points.classes))

    def agreement_of_kmeans(self) -> dict[str, float]:
        """Return the `agreement` of k-means on the first trial's rows themselves.

        With the same number of clusters, on the `labels.num` rows that a method would cluster.
        """
        settings, points = self.config["labels"], self.points[0]
        rows = self.data.prepare(points.rows[: settings["num"]])
        result = kmeans(
            rows.reshape(len(rows), -1),
            settings["num_clusters"],
            key=named_key(self._root, "kmeans"),
            num_init=settings["num_init"],
            max_iter=settings["max_iter"],
        )
        return agreement_scores(np.asarray(result.labels), np.asarray(points.classes)[: len(rows)])

    def perfect(self) -> dict[str, PerfectScore]:
        """Return what a perfect sampler scores with the same number of rows."""
        settings = self.config["score"]
        return self.data.perfect(self._root, settings["num"], settings["repeats"])

    def notes(self) -> dict[str, Any]:
        """Return what a reader of the scores needs to know."""
        settings = self.config["score"]
        return self.data.notes(self._root, settings["num"], settings["repeats"])


_TRAINER_SETTINGS = (
    *("batch", "learning_rate", "critic_factor", "beta1", "beta2"),
    *("penalty", "average", "cooldown"),
)


def first_not_finite(losses: Losses) -> tuple[int, int] | None:
    """Return the step and the trial of the first loss that is not finite, if any.

    >>> first_not_finite(Losses(jnp.zeros((2, 3)), jnp.array([[0, 0, 1.0], [0, jnp.nan, 1]])))
    (1, 1)
    """
    bad = ~np.isfinite(np.asarray(losses.generator)) | ~np.isfinite(
        np.asarray(losses.discriminator)
    )
    where = np.argwhere(bad.T)
    return (int(where[0, 0]), int(where[0, 1])) if len(where) else None


def _stacked(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
