"""How faithful a run's samplers are: membership, and the distance to the true members.

Membership alone is no measure of success: a sampler that collapses to the middle of a cluster is
always inside it. So the Frechet distance between samples and *held-out* members stands beside it,
with its floor, the distance between two halves of the true members of the same size.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, PRNGKeyArray

from cgjax.evaluation.distances import frechet, frechet_floor
from cgjax.evaluation.diversity import participation_ratio
from cgjax.evaluation.features import PCA, fit_pca
from cgjax.evaluation.intervals import wilson_interval
from cgjax.randomness import named_key
from cgjax.run import FittedSampler, Run
from cgjax.samplers.registry import make_sampler
from cgjax.samplers.verify import draw_verified


class Reference(NamedTuple):
    """What samples of every cluster are compared with.

    Attributes:
        pca: principal components of the prior's images.
        features: for each cluster, (2 * num, components) coordinates of held-out members' images.
        latents: for each cluster, (2 * num, d) their latents.
    """

    pca: PCA
    features: list[Float[np.ndarray, "m p"]]
    latents: list[Float[np.ndarray, "m d"]]

    def halves(self, cluster: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the coordinates of a cluster's members in two halves."""
        rows = self.features[cluster]
        return rows[: len(rows) // 2], rows[len(rows) // 2 :]


def image_features(run: Run, pca: PCA, z: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n p"]:
    """Generate images and project them, in blocks, so that memory does not grow with n."""
    step = max(run.bound.batch, 512)
    parts = [pca.project(run.bound.images(z[i : i + step])) for i in range(0, len(z), step)]
    return np.concatenate(parts)


def make_reference(
    run: Run, key: PRNGKeyArray, *, num: int, components: int, prior_images: int
) -> Reference:
    """Draw held-out members of every cluster and fit the features they are compared in.

    Args:
        run: with its clusters.
        key: a typed key; other than the one the clustered latents came from.
        num: half of the members drawn per cluster.
        components: principal components of the prior's images.
        prior_images: how many images the components are fitted to.

    Returns:
        The reference; the same key gives the same one.
    """
    prior = run.bound.sample_latents(named_key(key, "prior"), prior_images)
    pca = fit_pca(run.bound.images(np.asarray(prior)), components)
    sampler = make_sampler("rejection", {}, prior=run.bound.sample_latents)
    exact = FittedSampler(sampler, {}, None)
    latents = []
    for c in range(run.clusters.num):
        draw = draw_verified(
            lambda k, n: exact.propose(0, k, n),
            lambda z, c=c: run.is_member(z, c),  # type: ignore[misc]
            named_key(key, "members", c),
            2 * num,
            batch=run.bound.batch,
            max_draws=run.config["sample"]["max_draws"],
        )
        latents.append(draw.latents)
    return Reference(pca, [image_features(run, pca, z) for z in latents], latents)


def evaluate_sampler(
    run: Run, name: str, reference: Reference, key: PRNGKeyArray, num: int
) -> dict[str, list[Any]]:
    """Measure one sampler on every cluster.

    Args:
        run: with the sampler fitted.
        name: of the sampler.
        reference: the held-out members.
        key: a typed key.
        num: samples per cluster.

    Returns:
        One entry a cluster: "membership" of unverified samples with its 95% Wilson interval,
        "acceptance" of the check, "norm_ratio" of the raw proposals' mean length to the members',
        "effective_rank" of the raw proposals' covariance as a ratio to the members', "frechet" of
        unverified samples (of the only kind there is for a sampler that is always verified),
        "frechet_verified", and "frechet_floor".
    """
    result: dict[str, list[Any]] = {}

    def put(field: str, value: Any) -> None:
        result.setdefault(field, []).append(value)

    fitted = run.fitted(name)
    few = num <= len(reference.pca.components)
    for c in range(run.clusters.num):
        held_out, _ = reference.halves(c)
        key_c = named_key(key, name, c)
        verified, draw = run.draw(key_c, c, num, sampler=name)
        assert draw is not None
        put("acceptance", draw.acceptance)
        features = image_features(run, reference.pca, verified)
        put("frechet_verified", frechet(features, held_out, allow_few_rows=few))
        if fitted.sampler.always_verified:
            # Its proposals are the prior's, no samples of the cluster.
            plain = raw = verified
            put("frechet", result["frechet_verified"][c])
        else:
            plain, _ = run.draw(key_c, c, num, sampler=name, verify=False)
            raw, _ = run.draw(key_c, c, num, sampler=name, verify=False, rescaled=False)
            # The same key: verified samples are the plain ones that passed, and some more, so most
            # images are there already.
            features = _look_up(plain, verified, features, run, reference.pca)
            put("frechet", frechet(features, held_out, allow_few_rows=few))
        inside = int(run.are_members(plain, c).sum())
        put("membership", inside / len(plain))
        put("membership_interval", list(wilson_interval(inside, len(plain))))
        members = reference.latents[c]
        lengths = [np.linalg.norm(z, axis=1).mean() for z in (raw, members)]
        put("norm_ratio", float(lengths[0] / lengths[1]))
        ranks = [participation_ratio(z) for z in (raw, members[: len(raw)])]
        put("effective_rank", float(ranks[0] / ranks[1]))
        # One split knows the floor to some 15% only.
        floor = frechet_floor(reference.features[c], num_splits=8, allow_few_rows=few)
        put("frechet_floor", floor)
    return result


def _look_up(
    wanted: np.ndarray, known: np.ndarray, features: np.ndarray, run: Run, pca: PCA
) -> Float[np.ndarray, "n p"]:
    """Return the image features of latents, generating only those that are not known yet."""
    rows = {z.tobytes(): y for z, y in zip(known, features, strict=True)}
    missing = [z for z in wanted if z.tobytes() not in rows]
    if missing:
        new = image_features(run, pca, np.stack(missing))
        rows |= {z.tobytes(): y for z, y in zip(missing, new, strict=True)}
    return np.stack([rows[z.tobytes()] for z in wanted])
