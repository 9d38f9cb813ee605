"""Two clusters of the embedded generator's late layers, by methods beside plain k-means.

    python benchmarks/robust.py                # 2,000 latents; docs/outliers.md has the table
    python benchmarks/robust.py --latents=1000 --layers=layer3

In these layers plain k-means splits off outliers. Every method groups the same latents in two.
Printed are the share of the smaller group; the attribute whose variance the groups explain best,
its eta squared (the share of the variance between the groups) with a 95% bootstrap interval; and
the seconds relative to plain k-means, with the features already computed and after one untimed run.
Attributes: yaw, pitch and the probability of a face (the face mesh, extra `judges`), and
heuristics of pixels: brightness, tone of hair, saturation, contrast, left-right and up-down
asymmetry. The interval does not account for the choice of the best of so many attributes.

The last five methods are for comparison only; cgjax offers the others. The Gaussian mixtures are
scikit-learn's, in the leading 16 principal components; "whitened" scales the leading 64.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
import numpy as np

JUDGES = ("face_mesh", "heuristic_brightness", "heuristic_hair_tone")


def attributes(images: np.ndarray) -> dict[str, np.ndarray]:
    """Return the values of judges and simple statistics for images; NaN where unknown."""
    from cgjax.errors import UserError
    from cgjax.evaluation.judges import load_judge

    values: dict[str, np.ndarray] = {}
    for name in JUDGES:
        try:
            values |= load_judge(name)(images)
        except UserError as error:
            print(error, file=sys.stderr)
    unit = (np.clip(images, -1, 1) + 1) / 2
    luma = unit @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    half = luma.shape[1] // 2
    return values | {
        "saturation": (unit.max(axis=-1) - unit.min(axis=-1)).mean(axis=(1, 2)),
        "contrast": luma.std(axis=(1, 2)),
        "left-right": luma[:, :, :half].mean(axis=(1, 2)) - luma[:, :, half:].mean(axis=(1, 2)),
        "up-down": luma[:, :half].mean(axis=(1, 2)) - luma[:, half:].mean(axis=(1, 2)),
    }


def methods(rows: np.ndarray, channels: int) -> dict[str, Callable[[], Any]]:
    """Return the methods by name; each call returns the labels."""
    import jax
    from sklearn.mixture import GaussianMixture

    from cgjax.clustering import kmeans
    from cgjax.clustering.trimmed import trimmed_kmeans
    from cgjax.features.spaces import fit_space, num_fit_rows
    from cgjax.numerics.pca import fit_pca

    key = jax.random.key(0)
    first = rows[: num_fit_rows(*rows.shape)]

    def in_space(name: str) -> Any:
        return kmeans(fit_space(name, first, channels)(jax.device_put(rows)), 2, key=key).labels

    def leading(num: int) -> tuple[np.ndarray, np.ndarray]:
        pca = fit_pca(rows, num)
        projected = pca.project(rows)
        return projected, projected / np.sqrt(pca.explained_variance)

    def mixture(covariance: str) -> Any:
        model = GaussianMixture(2, covariance_type=covariance, n_init=3, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a fit that did not converge counts too
            return model.fit_predict(leading(16)[0])

    def standardised_spherical() -> Any:
        mapped = fit_space("standardised", first, channels)(jax.device_put(rows))
        again = fit_space("spherical", np.asarray(mapped[: len(first)]), channels)
        return kmeans(again(mapped), 2, key=key).labels

    return {
        "plain k-means": lambda: in_space("raw"),
        "space=standardised": lambda: in_space("standardised"),
        "space=pooled": lambda: in_space("pooled"),
        "space=spherical": lambda: in_space("spherical"),
        "trimmed=0.05": lambda: trimmed_kmeans(rows, 2, key=key, share=0.05).labels,
        "standardised, then spherical": standardised_spherical,
        "whitened": lambda: kmeans(leading(64)[1], 2, key=key).labels,
        "mixture, full": lambda: mixture("full"),
        "mixture, diagonal": lambda: mixture("diag"),
        "mixture, spherical": lambda: mixture("spherical"),
    }


def main() -> None:
    import jax

    import cgjax
    from cgjax.evaluation.explained import eta_squared, explained
    from cgjax.generators.conditioned import ConditionedGenerator

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latents", type=int, default=2000)
    parser.add_argument("--layers", default="layer3,layer4")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    gen = cgjax.load_generator("dcgan_faces")
    latents = np.asarray(gen.sample_latents(jax.random.key(args.seed), args.latents))
    bound = ConditionedGenerator(gen, "layer1", {}, 128)
    judged = attributes(bound.images(latents))
    print("| layer | method | smaller share | eta squared | of | seconds, plain = 1 |")
    print("|---|---|---:|---|---|---:|")
    for layer in args.layers.split(","):
        rows = bound.at_layer(layer).all_features(latents)
        plain = 0.0
        channels = bound.at_layer(layer).feature_shape[-1]
        for name, method in methods(rows, channels).items():
            method()
            start = time.perf_counter()
            labels = np.asarray(method())
            seconds = time.perf_counter() - start
            plain = plain or seconds
            share = np.bincount(labels, minlength=2).min() / len(labels)
            _, best = max((eta_squared(values, labels), a) for a, values in judged.items())
            eta, low, high, _ = explained(judged[best], labels)
            print(
                f"| {layer} | {name} | {share:.3f} | {eta:.2f} ({low:.2f} to {high:.2f}) | {best} "
                f"| {seconds / plain:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
