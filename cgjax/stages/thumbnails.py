"""The images of the page: made once for a clustering, kept beside the figures."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Float, Int, UInt8

from cgjax.errors import UserError
from cgjax.evaluation.judges import load_judge
from cgjax.features.in_memory import all_features, feature_dim
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.numerics.pca import fit_pca
from cgjax.regions.clustering import Clustering
from cgjax.report.proposals import Proposal, propose
from cgjax.report.rows import choose_rows, pairs_of, quantiles, runners_up
from cgjax.report.sprites import COLUMNS, sheet, thumbnails
from cgjax.run.artifacts import split_name
from cgjax.run.page_images import page_images
from cgjax.run.run import Run
from cgjax.runtime.files import make_folder, write_atomically
from cgjax.runtime.png import to_pixels
from cgjax.stages.graph import Maker

MOST = 1000
"""Latents whose images the page can show, of the run's own clustering and of a sweep."""

INSIDE = 300
"""The same, of a cluster's own clustering."""

FEWEST = 160
"""At least as many are shown, however large the images are."""

JUDGED = 256
"""Images that the judges see."""

TILE = 64
"""Pixels of the side of a small image on the page."""

MEAN = 128
"""Pixels of the side of a mean image, and of the images on a line between two means."""

STEPS = 7
"""Images on such a line."""

# The most that a block of images, and the features of a clustering's means, may take.
BLOCK_MB = 256
FEATURES_MB = 256


def make_page_images(run: Run, maker: Maker, check: Callable[..., None]) -> None:
    """Make the images of every clustering that is there, if they are not there or not current.

    Args:
        run: with clusters, or a sweep.
        maker: of its artifacts.
        check: called between many images; may raise to stop.
    """
    result = run.manifests.result
    if run.held.has_own and maker.result(page_images("own")) is None:
        _make(run, maker, check, "own", [run.clustering])
    for split in run.held.splits:
        part = split_name(split.path)
        if result(part) is None or maker.result(page_images(part)) is not None:
            continue
        inside = np.flatnonzero(run.held.region_inside(split.path).members())
        _make(run, maker, check, part, [run.held.inside(split)], inside)
    if result("sweep") is not None and maker.result(page_images("sweep")) is None:
        swept = [one for layer in run.held.sweep_layers for one in run.held.swept(layer)]
        _make(run, maker, check, "sweep", [one for one in swept if one.num > 1])


def _make(
    run: Run,
    maker: Maker,
    check: Callable[..., None],
    part: str,
    clusterings: Sequence[Clustering],
    candidates: Int[np.ndarray, " m"] | None = None,
) -> None:
    latents = run.latents if run.held.has_own else run.held.latents
    if candidates is None:
        candidates = np.arange(len(latents))
    name = page_images(part)
    (place,) = run.manifests.graph[name].places
    with maker.making(name):
        arrays = gather(run.generator, latents, clusterings, candidates, run.judges, check)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        make_folder((run.folder.root / place).parent)
        write_atomically(run.folder.root / place, buffer.getvalue())


def gather(
    generator: ConditionedGenerator,
    latents: Float[np.ndarray, "n d"],
    clusterings: Sequence[Clustering],
    candidates: Int[np.ndarray, " m"],
    judges: Sequence[str] = (),
    check: Callable[..., None] = lambda _: None,
) -> dict[str, np.ndarray]:
    """Make everything that the page shows of some clusterings of the same latents.

    The images of the first latents serve all of them: as their random members, as points of their
    plots, as the strips of their margin dials. What only one of them shows is added.

    Args:
        generator: of the images.
        latents: of the run.
        clusterings: with labels of all of these.
        candidates: ascending indices of the latents that are clustered: all, or a cluster's.
        judges: that propose names.
        check: called between blocks of images; may raise to stop.

    Returns:
        `info`, a JSON text; `indices` of the latents whose images are in the WebP file `sheet`; and
        for clustering number i `i.typical`, `i.deepest`, `i.border`, `i.neighbour`, `i.labels`,
        `i.quantiles`, `i.points`, the WebP files `i.means` and, where there is one, `i.lines`.
    """
    most = MOST if len(candidates) == len(latents) else INSIDE
    first = candidates[: min(most, _num_first(int(generator.gen.image_size)))]
    chosen = [choose_rows(one, candidates) for one in clusterings]
    wanted = np.concatenate([first, *(row.ravel() for rows in chosen for row in rows)])
    order = np.unique(wanted, return_index=True)[1]
    indices = wanted[np.sort(order)]
    indices = indices[indices >= 0].astype(np.int32)
    is_fair = np.zeros(len(latents), bool)
    is_fair[first] = True
    tiles, means, values = _images(
        generator, latents[indices], clusterings, indices, is_fair, chosen, judges, check
    )
    arrays: dict[str, np.ndarray] = {"indices": indices, "sheet": _as_bytes(sheet(tiles))}
    info: dict[str, Any] = {"tile": tiles.shape[1], "columns": COLUMNS, "clusterings": []}
    points: dict[str, tuple[np.ndarray, list[float]]] = {}
    for i, (one, rows) in enumerate(zip(clusterings, chosen, strict=True)):
        at_layer = generator.at_layer(one.layer)
        if one.layer not in points:
            points[one.layer] = _points(at_layer, one, latents[first])
        labels, depth = quantiles(one, candidates, indices)
        edge = rows.border.ravel()
        members = edge[edge >= 0]
        neighbour = np.full(edge.shape, -1, np.int32)
        neighbour[edge >= 0] = runners_up(at_layer, one, latents[members], one.labels[members])
        judged = min(JUDGED, len(first))
        proposals = propose(values, one.labels[indices[:judged]], one.num)
        pairs, lines = _lines(at_layer, one, latents) if len(clusterings) == 1 else ([], b"")
        arrays |= {f"{i}.{field}": row for field, row in rows._asdict().items()} | {
            f"{i}.neighbour": neighbour.reshape(rows.border.shape),
            f"{i}.labels": labels,
            f"{i}.quantiles": depth,
            f"{i}.points": points[one.layer][0],
            f"{i}.means": _as_bytes(sheet(means[i], one.num)),
            f"{i}.lines": _as_bytes(lines),
        }
        counts = np.bincount(one.labels[candidates], minlength=one.num)
        info["clusterings"].append(
            {
                "counts": counts.tolist(),
                "variances": points[one.layer][1],
                "pairs": pairs,
                "proposals": [None if p is None else _plain(p) for p in proposals],
            }
        )
    return {"info": np.array(json.dumps(info)), **arrays}


def _num_first(size: int) -> int:
    """Return how many latents to show: fewer of large images, which take long to make."""
    return max(FEWEST, min(MOST, MOST * TILE**2 // size**2))


def _plain(proposal: Proposal) -> dict[str, Any]:
    return proposal._asdict() | {"share": round(proposal.share, 4)}


def _as_bytes(content: bytes) -> UInt8[np.ndarray, " b"]:
    return np.frombuffer(content, np.uint8)


def _images(
    generator: ConditionedGenerator,
    shown: Float[np.ndarray, "p d"],
    clusterings: Sequence[Clustering],
    indices: Int[np.ndarray, " p"],
    is_fair: np.ndarray,
    chosen: Sequence[Any],
    judges: Sequence[str],
    check: Callable[..., None],
) -> tuple[UInt8[np.ndarray, "p t t 3"], list[np.ndarray], Mapping[str, np.ndarray]]:
    """Return the tiles, every clustering's mean images, and what the judges see in the first."""
    size = int(generator.gen.image_size)
    batch = generator.batch
    block = batch * max(1, BLOCK_MB * 2**20 // (12 * size**2 * batch))
    loaded = [load_judge(name) for name in judges]
    seen: dict[str, list[np.ndarray]] = {}
    tiles: list[np.ndarray] = []
    wide = min(size, MEAN)
    sums = [np.zeros((one.num, wide, wide, 3)) for one in clusterings]
    counts = [np.zeros(one.num) for one in clusterings]
    for begin in range(0, len(shown), block):
        if begin:
            check("nothing is kept of the page's images")
        rows = shown[begin : begin + block]
        images = generator.images(rows)
        pixels = to_pixels(images)
        tiles.append(thumbnails(pixels, TILE))
        middle = thumbnails(pixels, MEAN).astype(np.float64)
        own = indices[begin : begin + block]
        for i, one in enumerate(clusterings):
            fair = is_fair[own] | np.isin(own, chosen[i].typical)
            labels = np.where(fair, one.labels[own], -1)
            for c in range(one.num):
                sums[i][c] += middle[labels == c].sum(axis=0)
                counts[i][c] += (labels == c).sum()
        if begin < JUDGED:
            for judge in loaded:
                for attribute, values in judge(images[: JUDGED - begin]).items():
                    seen.setdefault(f"{judge.name}.{attribute}", []).append(values)
    means = [
        np.rint(total / np.maximum(count, 1)[:, None, None, None]).astype(np.uint8)
        for total, count in zip(sums, counts, strict=True)
    ]
    num = int(min(JUDGED, is_fair.sum()))
    return np.concatenate(tiles), means, {k: np.concatenate(v)[:num] for k, v in seen.items()}


def _points(
    generator: ConditionedGenerator, one: Clustering, shown: Float[np.ndarray, "m d"]
) -> tuple[Float[np.ndarray, "r 2"], list[float]]:
    """Return the first latents' features in two principal components, and these' variances."""
    limit = FEATURES_MB * 2**20 // (4 * max(one.centroids.shape[1], 1))
    rows = all_features(generator, shown[: max(3, limit)], lambda _: None, one.space)
    if len(rows) < 3 or rows.shape[1] < 2:
        return np.zeros((len(rows), 2), np.float32), [0.0, 0.0]
    pca = fit_pca(rows, 2)
    shares = pca.explained_variance / max(pca.total_variance, 1e-12)
    return pca.project(rows), [round(float(share), 4) for share in shares]


def _lines(
    generator: ConditionedGenerator, one: Clustering, latents: Float[np.ndarray, "n d"]
) -> tuple[list[tuple[int, int]], bytes]:
    """Return images along the lines between neighbouring clusters' means, if there can be any."""
    # A centroid of another space is no activation.
    if one.space.name != "raw" or not hasattr(generator.gen, "resume"):
        return [], b""
    pairs = pairs_of(one)
    shape = feature_dim(generator, latents)
    rows: list[np.ndarray] = []
    for a, b in pairs:
        steps = np.linspace(0, 1, STEPS, dtype=np.float32)[:, None]
        means = [latents[one.labels == c].mean(axis=0) for c in (a, b) if (one.labels == c).any()]
        if len(means) < 2:
            return [], b""
        along = (1 - steps) * one.centroids[a] + steps * one.centroids[b]
        z = (1 - steps) * means[0] + steps * means[1]
        try:
            images = generator.resume(jnp.asarray(along.reshape(-1, *shape)), jnp.asarray(z))
        except UserError as error:
            logging.warning("no images between the clusters' means: %s", error)
            return [], b""
        rows.append(thumbnails(to_pixels(np.asarray(images)), MEAN))
    return pairs, sheet(np.concatenate(rows), STEPS) if rows else b""
