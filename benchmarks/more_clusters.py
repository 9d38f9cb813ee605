"""What more clusters cost: less diverse groups, entangled attributes, harder sampling?

    python benchmarks/more_clusters.py [--layers=layer2,layer4] [--space=raw] [--latents=10000]

Clusters the embedded face generator by k-means with ten restarts, for one k after another, and
prints a row for each, beside those of the other k. Of the images of the first 2,000 latents:

* diversity: the mean distance of two images of one cluster over that of any two images, in 48
  principal components of the pixels. Printed are the mean over clusters, weighted by their shares,
  with its 95% bootstrap interval over images, and the least of any cluster with at least 20 images.
* the attribute that the clusters explain best, its eta squared, and how many attributes they tell
  apart: (sum e)^2 / sum e^2 of the eta squared e, which is 1 if only one attribute differs among
  the clusters. Judges: face_mesh (yaw, pitch) and image_statistics.
* acceptance: the share of 500 proposals per cluster that pass the membership check, for one flow of
  all clusters with the default settings; the mean over clusters and the least. `--epochs=0` skips
  it.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np

import cgjax
from cgjax.clustering import kmeans
from cgjax.evaluation.diversity import mean_pairwise_distance
from cgjax.evaluation.explained import eta_squared
from cgjax.evaluation.judges import load_judge
from cgjax.features.spaces import fit_space, num_fit_rows
from cgjax.generators.batching import in_batches
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.numerics.intervals import bootstrap_interval
from cgjax.numerics.pca import fit_pca
from cgjax.regions.clustering import Clustering
from cgjax.run.members import members_for
from cgjax.runtime.keys import named_key
from cgjax.samplers.flow import Flow

JUDGED, LEAST, PROPOSED = 2000, 20, 500


def judged(images: np.ndarray) -> dict[str, np.ndarray]:
    """Return the values of the judges' attributes for images."""
    values = {**load_judge("face_mesh")(images), **load_judge("image_statistics")(images)}
    return {name: judged for name, judged in values.items() if name != "face"}


def diversity(rows: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return the mean diversity over clusters and the least, relative to that of all rows."""
    whole = mean_pairwise_distance(rows)
    counts = np.bincount(labels)
    ratios = {
        c: mean_pairwise_distance(rows[labels == c]) / whole for c in np.flatnonzero(counts > 1)
    }
    mean = sum(counts[c] * value for c, value in ratios.items()) / sum(counts[c] for c in ratios)
    return mean, min(value for c, value in ratios.items() if counts[c] >= LEAST)


def acceptance(bound: ConditionedGenerator, one: Clustering, z: np.ndarray, epochs: int) -> Any:
    """Return the mean and the least share of a flow's proposals that are in their cluster."""
    flow = Flow(z.shape[1], num_epochs=epochs, num_latents=40_000, average=0.999)
    key = jax.random.key(5)
    members = members_for(flow, one, z, bound, named_key(key, "members"))
    state = flow.init(named_key(key, "init"), members)
    for epoch in range(epochs):
        state, _ = flow.epoch(state, members, named_key(key, epoch), epoch)

    def labels(rows: Any) -> Any:
        return one.assign(bound.features(rows))[0]

    shares = [
        float(
            np.mean(
                in_batches(
                    labels, flow.sample(state, named_key(key, "draw", c), c, PROPOSED), bound.batch
                )
                == c
            )
        )
        for c in range(one.num)
    ]
    return float(np.mean(shares)), min(shares)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", default="layer2,layer4")
    parser.add_argument("--numbers", default="2,3,4,6,8,12,16")
    parser.add_argument("--space", default="raw")
    parser.add_argument("--latents", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=60)
    options = parser.parse_args()
    gen = cgjax.load_generator("dcgan_faces")
    z = np.asarray(gen.sample_latents(jax.random.key(1), options.latents))
    first = ConditionedGenerator(gen, "layer1", {}, 128)
    images = first.images(z[:JUDGED])
    values = judged(images)
    pixels = images.reshape(len(images), -1)
    rows = np.asarray(fit_pca(pixels, 48).project(pixels))
    print("| layer | space | k | diversity | least | explains best | attributes | acceptance |")
    print("|---|---|---:|---|---:|---|---:|---|", flush=True)
    for layer in options.layers.split(","):
        bound = first.at_layer(layer)
        features = bound.all_features(z)
        channels = bound.feature_shape[-1]
        space = fit_space(options.space, features[: num_fit_rows(*features.shape)], channels)
        mapped = space(jnp.asarray(features))
        for number in map(int, options.numbers.split(",")):
            found = kmeans(mapped, number, key=jax.random.key(2), num_init=10)
            labels = np.asarray(found.labels)
            shares = np.bincount(labels, minlength=number) / len(labels)
            margins = np.asarray(found.margins)
            one = Clustering(layer, np.asarray(found.centroids), labels, margins, shares, space)
            seen = labels[:JUDGED]
            mean, least = diversity(rows, seen)
            pairs = np.column_stack([rows, seen])
            low, high = bootstrap_interval(
                lambda part: diversity(part[:, :-1], part[:, -1].astype(int))[0],
                pairs,
                num_resamples=100,
                method="normal",
            )
            eta = {name: eta_squared(value, seen) for name, value in values.items()}
            e = np.array(list(eta.values()))
            best = max(eta, key=eta.__getitem__)
            passed = acceptance(bound, one, z, options.epochs) if options.epochs else None
            shown = "" if passed is None else f"{passed[0]:.2f}, least {passed[1]:.2f}"
            print(
                f"| {layer} | {options.space} | {number} | {mean:.3f} ({low:.3f} to {high:.3f}) "
                f"| {least:.2f} | {best} {eta[best]:.2f} | {e.sum() ** 2 / (e**2).sum():.1f} "
                f"| {shown} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
