"""How faithful a run's samplers are: membership, and the distance to the true members.

Membership alone does not measure success: a sampler that collapses to the middle of a cluster is
always inside it. It is therefore reported with the Frechet distance between samples and *held-out*
members, and its floor, the distance between two halves of the true members of the same size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Float, PRNGKeyArray

from cgjax.config.distance_features import (
    DIMS,
    INCEPTION,
    LAYER,
    OWN,
    PIXELS,
    Feature,
    expected_feature,
    parse_feature,
)
from cgjax.errors import UserError
from cgjax.evaluation.distances import frechet_floor, frechet_gaussians, mean_and_covariance
from cgjax.evaluation.diversity import participation_ratio
from cgjax.evaluation.extractors import (
    FeatureExtractor,
    GeneratorLayer,
    InceptionPool3,
    Pixels,
    Projected,
    fixed_extractor,
)
from cgjax.evaluation.image_batches import images_at_a_time
from cgjax.evaluation.inception import check_file
from cgjax.evaluation.own_features import OwnFeatures
from cgjax.generators.base import layer_index
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.numerics.intervals import Interval, bootstrap_interval, wilson_interval
from cgjax.numerics.pca import fit_pca_in_blocks
from cgjax.runtime.keys import named_key

# Bootstrap resamples of an interval, and the number for wide features, where each takes a second.
RESAMPLES, FEW_RESAMPLES = 100, 10

MOST_HELD = 2**31
"""Bytes. Images or activations of the prior that take more are not held together to fit components
to them; 2,000 images of 256 x 256 pixels take less."""

_LAYER_SETTING = "--config.evaluate.features=layer:{}"


def check_features(settings: Mapping[str, Any], num: int, generator: ConditionedGenerator) -> None:
    """Check, before any work is done, the feature that distances will be measured in.

    Args:
        settings: `config.evaluate`.
        num: number of samples, and of members, to compare.
        generator: the generator.

    Raises:
        UserError: an unknown feature or layer, a file without Inception's weights, the user's own
            function does not return features, or too few samples for an FID.
        ForeignError: the user's own function raised an exception.
    """
    feature = _feature(settings["features"])
    if feature.kind == LAYER:
        layer_index(generator.gen.layers, feature.argument, _LAYER_SETTING)
    if feature.kind == OWN:
        OwnFeatures(feature.argument).check(generator.gen.image_size)
    if feature.kind == INCEPTION:
        check_file(feature.argument, "--config.evaluate.features")
        if num < DIMS[INCEPTION]:
            raise UserError(
                f"an FID of {num} images has a singular covariance; raise --config.evaluate.num "
                f"and --config.compare.num to at least {DIMS[INCEPTION]}"
            )


def check_components(settings: Mapping[str, Any], generator: ConditionedGenerator) -> None:
    """Check, before any work is done, that the feature has as many principal components.

    Args:
        settings: `config.evaluate`.
        generator: the generator.

    Raises:
        UserError: it has fewer.
    """
    feature = _feature(settings["features"])
    if feature.kind not in (PIXELS, LAYER):
        return
    width = _num_projected(feature, generator)
    components, rows = settings["components"], settings["prior_images"]
    if components > min(rows - 1, width):
        raise UserError(
            f"--config.evaluate.components={components}: expected at most {width}, the number of "
            f"features of {settings['features']}, and fewer than evaluate.prior_images={rows}"
        )


def make_extractor(
    name: str, generator: ConditionedGenerator, prior: Float[np.ndarray, "n d"], components: int
) -> FeatureExtractor:
    """Build the feature that distances are measured in.

    Args:
        name: "pca_pixels", "random_cnn", "layer:NAME", "inception:FILE" or
            "package.module:function".
        generator: the generator.
        prior: latents of the prior; the components are fitted to their images or activations.
        components: number of components, for "pca_pixels" and "layer:NAME".

    Raises:
        UserError: another name, or a layer that the generator does not have.
    """
    feature = _feature(name)
    fixed = fixed_extractor(feature)
    if fixed is not None:
        return fixed
    if feature.kind == OWN:
        return OwnFeatures(feature.argument)
    if feature.kind == LAYER:
        layers = generator.gen.layers
        layer = layers[layer_index(layers, feature.argument, _LAYER_SETTING)]
        wide: FeatureExtractor = GeneratorLayer(
            generator.gen, layer, batch_size=generator.batch, **generator.keywords
        )
    else:
        wide = Pixels()
    if 4 * len(prior) * _num_projected(feature, generator) > MOST_HELD:
        blocks = map(wide, _inputs(generator, wide, prior))
        return Projected(wide, fit_pca_in_blocks(blocks, components))
    batch = prior if wide.input == "latents" else generator.images(prior)
    return Projected.fit(wide, batch, components)


def _num_projected(feature: Feature, generator: ConditionedGenerator) -> int:
    """Return how many numbers of an image, or of a layer, are projected onto components."""
    if feature.kind == PIXELS:
        return math.prod(generator.image_shape)
    return math.prod(generator.at_layer(feature.argument).feature_shape)


def _feature(name: str) -> Feature:
    feature = parse_feature(name)
    if feature is None:
        raise UserError(f"evaluate.features={name}: expected {expected_feature()}")
    return feature


def distance_name(extractor: FeatureExtractor) -> str:
    """Return what to call a Frechet distance in a feature."""
    is_fid = extractor.name == InceptionPool3.name
    return "FID" if is_fid else f"Frechet distance in {extractor.name}"


class Reference(NamedTuple):
    """The held-out members that samples of every cluster are compared with.

    Attributes:
        extractor: the feature that distances are measured in.
        features: by cluster, (2 * num, f) features of held-out members.
        latents: by cluster, (2 * num, d) latents of the same members.
        floors: by cluster, the real-vs-real (split-half) distance: the distance between two
            halves of the members, averaged over random splits.
    """

    extractor: FeatureExtractor
    features: Mapping[int, Float[np.ndarray, "m f"]]
    latents: Mapping[int, Float[np.ndarray, "m d"]]
    floors: Mapping[int, float]

    def halves(self, cluster: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the features of a cluster's members as two halves."""
        rows = self.features[cluster]
        return rows[: len(rows) // 2], rows[len(rows) // 2 :]


class SamplerDraws(NamedTuple):
    """What one sampler drew for one cluster.

    Attributes:
        verified: (n, d) latents that passed the membership check.
        plain: (n, d) unverified latents; for a sampler that is always verified, the verified ones.
        raw: (n, d) `plain` before rescaling.
        acceptance: acceptance rate of the check.
        inside: number of members among `plain`.
    """

    verified: Float[np.ndarray, "n d"]
    plain: Float[np.ndarray, "n d"]
    raw: Float[np.ndarray, "n d"]
    acceptance: float
    inside: int


def distance_to(features: Float[np.ndarray, "n f"], *members: Float[np.ndarray, "m f"]) -> float:
    """Return the Frechet distance to sets of members, averaged over the sets."""
    moments = mean_and_covariance(features)
    distances = (frechet_gaussians(*moments, *mean_and_covariance(m)) for m in members)
    return sum(distances) / len(members)


def distance_interval(
    features: Float[np.ndarray, "n f"], *members: Float[np.ndarray, "m f"]
) -> Interval:
    """Return the 95% bootstrap interval of `distance_to`; all sets are resampled."""
    num = RESAMPLES if features.shape[1] <= 512 else FEW_RESAMPLES
    return bootstrap_interval(distance_to, features, *members, num_resamples=num, method="normal")


def extract(
    generator: ConditionedGenerator, extractor: FeatureExtractor, z: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, "n f"]:
    """Return the features of latents or their images, in blocks so that few images are held."""
    return np.concatenate([*map(extractor, _inputs(generator, extractor, z))])


def _inputs(
    generator: ConditionedGenerator, extractor: FeatureExtractor, z: Float[np.ndarray, "n d"]
) -> Iterator[np.ndarray]:
    """Yield what an extractor is called on, latents or their images, in blocks."""
    size, is_of_latents = generator.gen.image_size, extractor.input == "latents"
    most = 512 if is_of_latents else images_at_a_time(512, size, size)
    step = max(generator.batch, most)
    blocks = (z[i : i + step] for i in range(0, len(z), step))
    yield from blocks if is_of_latents else map(generator.images, blocks)


class ReferenceSettings(NamedTuple):
    """The feature of a reference.

    Attributes:
        features: `name` of `make_extractor`.
        components: as in `make_extractor`.
        prior_images: number of draws of the prior to fit the components to.
    """

    features: str
    components: int
    prior_images: int


def make_reference(
    generator: ConditionedGenerator,
    members: Mapping[int, Float[np.ndarray, "m d"]],
    key: PRNGKeyArray,
    settings: ReferenceSettings,
) -> Reference:
    """Prepare the feature that held-out members are compared in, and theirs.

    Args:
        generator: gives the prior and the images.
        members: by cluster, 2 * num latents, of at least one cluster.
        key: a typed key, other than the one for the clustered latents.
        settings: see there.

    Returns:
        The reference; the same arguments give the same reference.
    """
    prior = np.asarray(generator.sample_latents(named_key(key, "prior"), settings.prior_images))
    extractor = make_extractor(settings.features, generator, prior, settings.components)
    rows = {c: extract(generator, extractor, z) for c, z in members.items()}
    num, dim = next(iter(rows.values())).shape
    if num // 2 <= dim:
        logging.warning(
            "%d samples in %d features: distances are unreliable; raise --config.evaluate.num and "
            "--config.compare.num",
            *(num // 2, dim),
        )
    # A single split estimates the floor only to within 15%.
    floors = {c: frechet_floor(part, num_splits=8, allow_few_rows=True) for c, part in rows.items()}
    return Reference(extractor, rows, members, floors)


MEASURED = (
    *("acceptance", "frechet_verified", "frechet", "frechet_interval", "frechet_floor"),
    *("membership", "membership_interval", "norm_ratio", "effective_rank"),
)
"""The numbers of `measure`."""


def measure(
    draws: SamplerDraws, reference: Reference, cluster: int, generator: ConditionedGenerator
) -> dict[str, Any]:
    """Measure what one sampler drew for one cluster.

    Args:
        draws: the latents.
        reference: the held-out members.
        cluster: the cluster's id.
        generator: makes the images.

    Returns:
        "acceptance" of the check; "frechet" of the unverified samples (the verified ones for a
        sampler that always is) with its bootstrap interval, "frechet_verified", and
        "frechet_floor"; "membership" of the unverified samples with its 95% Wilson interval;
        "norm_ratio", the raw proposals' mean norm over the members'; "effective_rank", that of the
        raw proposals' covariance over the members'.
    """
    halves, num = reference.halves(cluster), len(draws.plain)
    verified = extract(generator, reference.extractor, draws.verified)
    # Both use the same key: the verified samples are the plain ones that passed, and some more, so
    # most features are known already.
    plain = _look_up(draws.plain, draws.verified, verified, generator, reference.extractor)
    members = reference.latents[cluster]
    lengths = [np.linalg.norm(z, axis=1).mean() for z in (draws.raw, members)]
    ranks = [participation_ratio(z) for z in (draws.raw, members[:num])]
    return {
        "acceptance": draws.acceptance,
        "frechet_verified": distance_to(verified, *halves),
        "frechet": distance_to(plain, *halves),
        "frechet_interval": list(distance_interval(plain, *halves)),
        "frechet_floor": reference.floors[cluster],
        "membership": draws.inside / num,
        "membership_interval": list(wilson_interval(draws.inside, num)),
        "norm_ratio": float(lengths[0] / lengths[1]),
        "effective_rank": float(ranks[0] / ranks[1]),
    }


def _look_up(
    latents: Float[np.ndarray, "n d"],
    known: Float[np.ndarray, "m d"],
    features: Float[np.ndarray, "m f"],
    generator: ConditionedGenerator,
    extractor: FeatureExtractor,
) -> Float[np.ndarray, "n f"]:
    """Return the features of latents, generating only those that are not known yet."""
    rows = {z.tobytes(): y for z, y in zip(known, features, strict=True)}
    missing = [z for z in latents if z.tobytes() not in rows]
    if missing:
        new = extract(generator, extractor, np.stack(missing))
        rows |= {z.tobytes(): y for z, y in zip(missing, new, strict=True)}
    return np.stack([rows[z.tobytes()] for z in latents])
