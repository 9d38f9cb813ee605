"""How faithful a run's samplers are: membership, and the distance to the true members.

Membership alone is no measure of success: a sampler that collapses to the middle of a cluster is
always inside it. So the Frechet distance between samples and *held-out* members stands beside it,
with its floor, the distance between two halves of the true members of the same size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Float, PRNGKeyArray

from cgjax.errors import UserError
from cgjax.evaluation.distances import frechet_floor, frechet_gaussians, mean_and_covariance
from cgjax.evaluation.diversity import participation_ratio
from cgjax.evaluation.features import (
    FeatureExtractor,
    GeneratorLayer,
    InceptionPool3,
    Pixels,
    Projected,
    RandomCnn,
)
from cgjax.evaluation.inception import check_file
from cgjax.generators.base import layer_index
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.numerics.intervals import Interval, bootstrap_interval, wilson_interval
from cgjax.runtime.keys import named_key
from cgjax.samplers.verify import Accept, draw_verified

INCEPTION_DIM = 2048

# Resamples of an interval, and where each takes a second.
RESAMPLES, FEW_RESAMPLES = 100, 10


def check_features(settings: Mapping[str, Any], num: int, generator: ConditionedGenerator) -> None:
    """Check the feature that distances are to be measured in, before any work.

    Args:
        settings: `config.evaluate`.
        num: samples and members that will be compared.
        generator: the generator.

    Raises:
        UserError: an unknown feature, a layer that is not there, a file that does not hold
            Inception's weights, too few samples for an FID.
    """
    kind, _, what = settings["features"].partition(":")
    if kind == "layer" and what:
        layer_index(generator.gen.layers, what)
    elif kind == "inception" and what:
        check_file(what, "--config.evaluate.features")
        if num < INCEPTION_DIM:
            raise UserError(
                f"an FID of {num} images has a singular covariance; raise --config.evaluate.num "
                f"and --config.compare.num to at least {INCEPTION_DIM}"
            )
    elif kind not in ("pca_pixels", "random_cnn") or what:
        raise UserError(
            f"--config.evaluate.features={settings['features']}: expected pca_pixels, random_cnn, "
            "layer:NAME or inception:FILE"
        )


def make_extractor(
    name: str, generator: ConditionedGenerator, prior: Float[np.ndarray, "n d"], components: int
) -> FeatureExtractor:
    """Build the feature that distances are measured in.

    Args:
        name: "pca_pixels", "random_cnn", "layer:NAME" or "inception:FILE".
        generator: the generator.
        prior: latents of the prior, whose images or activations the components are fitted to.
        components: how many, for "pca_pixels" and "layer:NAME".
    """
    kind, _, what = name.partition(":")
    if kind == "inception":
        return InceptionPool3(what)
    if kind == "random_cnn":
        return RandomCnn()
    if kind == "layer":
        layer = generator.gen.layers[layer_index(generator.gen.layers, what)]
        activations = GeneratorLayer(
            generator.gen, layer, batch_size=generator.batch, **generator.keywords
        )
        return Projected.fit(activations, prior, components)
    return Projected.fit(Pixels(), generator.images(prior), components)


def distance_name(extractor: FeatureExtractor) -> str:
    """Return what a Frechet distance in a feature may be called."""
    inception = extractor.name == InceptionPool3.name
    return "FID" if inception else f"Frechet distance in {extractor.name}"


class Reference(NamedTuple):
    """What samples of every cluster are compared with.

    Attributes:
        extractor: the feature that distances are measured in.
        features: for each cluster, (2 * num, f) features of held-out members.
        latents: for each cluster, (2 * num, d) their latents.
        floors: for each cluster, the real-vs-real (split-half) distance: that between two sets of
            members, the mean over random splits.
    """

    extractor: FeatureExtractor
    features: list[Float[np.ndarray, "m f"]]
    latents: list[Float[np.ndarray, "m d"]]
    floors: list[float]

    def halves(self, cluster: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the features of a cluster's members in two halves."""
        rows = self.features[cluster]
        return rows[: len(rows) // 2], rows[len(rows) // 2 :]


class Drawn(NamedTuple):
    """What one sampler drew for one cluster.

    Attributes:
        verified: (n, d) latents that passed the membership check.
        plain: (n, d) as they came, unverified; those verified for a sampler that always is.
        raw: (n, d) the same before they were rescaled.
        acceptance: of the check.
        inside: how many of `plain` are members.
    """

    verified: Float[np.ndarray, "n d"]
    plain: Float[np.ndarray, "n d"]
    raw: Float[np.ndarray, "n d"]
    acceptance: float
    inside: int


def distance_to(features: Float[np.ndarray, "n f"], *members: Float[np.ndarray, "m f"]) -> float:
    """Return the Frechet distance to sets of members, the mean over them."""
    law = mean_and_covariance(features)
    distances = (frechet_gaussians(*law, *mean_and_covariance(m)) for m in members)
    return sum(distances) / len(members)


def distance_interval(
    features: Float[np.ndarray, "n f"], *members: Float[np.ndarray, "m f"]
) -> Interval:
    """Return the 95% interval of `distance_to`, from resampling the samples and every set."""
    num = RESAMPLES if features.shape[1] <= 512 else FEW_RESAMPLES
    return bootstrap_interval(distance_to, features, *members, num_resamples=num, method="normal")


def extract(
    generator: ConditionedGenerator, extractor: FeatureExtractor, z: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, "n f"]:
    """Return the features of latents or of their images, in blocks: memory does not grow with n."""
    step = max(generator.batch, 512)
    blocks = (z[i : i + step] for i in range(0, len(z), step))
    if extractor.input == "latents":
        return np.concatenate([extractor(block) for block in blocks])
    return np.concatenate([extractor(generator.images(block)) for block in blocks])


def make_reference(
    generator: ConditionedGenerator,
    clusters: Sequence[Accept],
    key: PRNGKeyArray,
    *,
    num: int,
    components: int,
    prior_images: int,
    features: str,
    max_draws: int,
) -> Reference:
    """Draw held-out members of every cluster and prepare the feature they are compared in.

    Args:
        generator: whose prior and images they are.
        clusters: for each cluster, which latents are its members.
        key: a typed key; other than the one the clustered latents came from.
        num: half of the members drawn per cluster.
        components: as in `make_extractor`.
        prior_images: how many draws of the prior those components are fitted to.
        features: as in `make_extractor`.
        max_draws: give up a cluster after so many draws of the prior.

    Returns:
        The reference; the same key gives the same one.

    Raises:
        UserError: a cluster too rare for the budget of draws.
    """
    prior = generator.sample_latents(named_key(key, "prior"), prior_images)
    extractor = make_extractor(features, generator, np.asarray(prior), components)
    latents = [
        draw_verified(
            generator.sample_latents,
            is_member,
            named_key(key, "members", c),
            2 * num,
            batch=generator.batch,
            max_draws=max_draws,
        ).latents
        for c, is_member in enumerate(clusters)
    ]
    rows = [extract(generator, extractor, z) for z in latents]
    if num <= rows[0].shape[1]:
        logging.warning(
            "%d samples in %d features: the distances mean little; raise --config.evaluate.num",
            *(num, rows[0].shape[1]),
        )
    # One split knows the floor to some 15% only.
    floors = [frechet_floor(part, num_splits=8, allow_few_rows=True) for part in rows]
    return Reference(extractor, rows, latents, floors)


def measure(
    drawn: Drawn, reference: Reference, cluster: int, generator: ConditionedGenerator
) -> dict[str, Any]:
    """Measure what one sampler drew for one cluster.

    Args:
        drawn: its latents.
        reference: the held-out members.
        cluster: whose.
        generator: makes the images.

    Returns:
        "acceptance" of the check; "frechet" of unverified samples (of the only kind there is for a
        sampler that is always verified) with its bootstrap interval, "frechet_verified", and
        "frechet_floor"; "membership" of unverified samples with its 95% Wilson interval;
        "norm_ratio" of the raw proposals' mean length to the members', "effective_rank" of the raw
        proposals' covariance as a ratio to the members'.
    """
    halves, num = reference.halves(cluster), len(drawn.plain)
    verified = extract(generator, reference.extractor, drawn.verified)
    # The same key: verified samples are the plain ones that passed, and some more, so most images
    # are there already.
    plain = _look_up(drawn.plain, drawn.verified, verified, generator, reference.extractor)
    members = reference.latents[cluster]
    lengths = [np.linalg.norm(z, axis=1).mean() for z in (drawn.raw, members)]
    ranks = [participation_ratio(z) for z in (drawn.raw, members[:num])]
    return {
        "acceptance": drawn.acceptance,
        "frechet_verified": distance_to(verified, *halves),
        "frechet": distance_to(plain, *halves),
        "frechet_interval": list(distance_interval(plain, *halves)),
        "frechet_floor": reference.floors[cluster],
        "membership": drawn.inside / num,
        "membership_interval": list(wilson_interval(drawn.inside, num)),
        "norm_ratio": float(lengths[0] / lengths[1]),
        "effective_rank": float(ranks[0] / ranks[1]),
    }


def _look_up(
    wanted: Float[np.ndarray, "n d"],
    known: Float[np.ndarray, "m d"],
    features: Float[np.ndarray, "m f"],
    generator: ConditionedGenerator,
    extractor: FeatureExtractor,
) -> Float[np.ndarray, "n f"]:
    """Return the features of latents, generating only those that are not known yet."""
    rows = {z.tobytes(): y for z, y in zip(known, features, strict=True)}
    missing = [z for z in wanted if z.tobytes() not in rows]
    if missing:
        new = extract(generator, extractor, np.stack(missing))
        rows |= {z.tobytes(): y for z, y in zip(missing, new, strict=True)}
    return np.stack([rows[z.tobytes()] for z in wanted])
