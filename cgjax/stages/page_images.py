"""The stage that makes the images of the page, once for each clustering."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Float, Int, UInt8

from cgjax.errors import UserError
from cgjax.evaluation.judges import JudgedValues
from cgjax.features.in_memory import features_in
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.numerics.pca import fit_pca
from cgjax.regions.clustering import Clustering
from cgjax.report.proposals import Proposal, propose
from cgjax.report.rows import choose_rows, pairs_of, quantiles, runners_up
from cgjax.report.sprites import COLUMNS, sheet, thumbnails
from cgjax.run.places import page_images_name, split_name
from cgjax.run.run import Run
from cgjax.runtime.array_files import write_npz
from cgjax.runtime.files import make_folder
from cgjax.runtime.png import to_pixels
from cgjax.stages.graph import Maker

MOST = 1000
"""The most latents whose images the page shows, of the run's own clustering and of a sweep."""

INSIDE = 300
"""The most latents whose images the page shows, of a clustering inside a cluster."""

FEWEST = 160
"""The least number of latents that are shown, however large their images are."""

JUDGED = 256
"""The most images that the judges see."""

TILE = 64
"""Largest side of a small image on the page, in pixels."""

MEAN = 128
"""Side of a mean image, and of an image on a line between two means, in pixels."""

STEPS = 7
"""Images on a line between two means."""

BLOCK_MB = 256
"""The most memory for a block of images."""

FEATURES_MB = 256
"""The most memory for the features of a plot."""


def make_page_images(run: Run, maker: Maker, check: Callable[..., None]) -> None:
    """Make the images of every clustering that is current, unless they are current too.

    Args:
        run: with clusters, or a sweep.
        maker: of its artifacts.
        check: called between blocks of images; may raise to stop.
    """
    result = run.manifests.result
    if run.held.has_own and maker.result(page_images_name("own")) is None:
        _make(run, maker, check, "own", [run.clustering])
    for split in run.held.splits:
        part = split_name(split.path)
        if result(part) is None or maker.result(page_images_name(part)) is not None:
            continue
        inside = np.flatnonzero(run.held.region_inside(split.path).members())
        _make(run, maker, check, part, [run.held.inside(split)], inside)
    if result("sweep") is not None and maker.result(page_images_name("sweep")) is None:
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
    latents = run.prior_latents
    if candidates is None:
        candidates = np.arange(len(latents))
    name = page_images_name(part)
    (place,) = run.manifests.graph[name].places
    with maker.making(name):
        arrays = gather(run.generator, latents, clusterings, candidates, run.judges, check)
        make_folder((run.folder.root / place).parent)
        write_npz(run.folder.root / place, **arrays)


def gather(
    generator: ConditionedGenerator,
    latents: Float[np.ndarray, "n d"],
    clusterings: Sequence[Clustering],
    candidates: Int[np.ndarray, " m"],
    judges: Sequence[str] = (),
    check: Callable[..., None] = lambda _: None,
) -> dict[str, np.ndarray]:
    """Make everything that the page shows of some clusterings of the same latents.

    The images of the first latents serve all clusterings: as their random members, as the points of
    their plots, and as the strips of their margin dials. Images that only one clustering shows are
    added.

    Args:
        generator: of the images.
        latents: of the run.
        clusterings: with labels of all of these latents.
        candidates: ascending indices of the clustered latents: all, or those of one cluster.
        judges: names of the judges that propose names.
        check: called between blocks of images; may raise to stop.

    Returns:
        `info`, a JSON text; `indices` of the latents whose images are in the WebP file `sheet`; and
        for clustering number i `i.typical`, `i.deepest`, `i.border`, `i.neighbour`, `i.labels`,
        `i.quantiles`, `i.points`, the WebP files `i.means` and, where there is one, `i.lines`.
    """
    most = MOST if len(candidates) == len(latents) else INSIDE
    first = candidates[: min(most, _num_first(int(generator.gen.image_size)))]
    chosen = [choose_rows(one, candidates) for one in clusterings]
    shown = np.concatenate([first, *(row.ravel() for rows in chosen for row in rows)])
    order = np.unique(shown, return_index=True)[1]
    indices = shown[np.sort(order)]
    indices = indices[indices >= 0].astype(np.int32)
    num_judged = min(JUDGED, len(first))
    groups = [
        _counted(*pair, indices, len(first)) for pair in zip(clusterings, chosen, strict=True)
    ]
    tiles, means, values = _images(generator, latents[indices], groups, judges, num_judged, check)
    arrays: dict[str, np.ndarray] = {"indices": indices, "sheet": _as_bytes(sheet(tiles))}
    info: dict[str, Any] = {"columns": COLUMNS, "clusterings": []}
    points: dict[str, tuple[np.ndarray, list[float]]] = {}
    for i, (one, rows) in enumerate(zip(clusterings, chosen, strict=True)):
        at_layer = generator.at_layer(one.layer)
        if one.layer not in points:
            points[one.layer] = _points(at_layer, one, latents[first])
        labels, depth = quantiles(one, candidates, indices)
        proposals = propose(values, one.labels[indices[:num_judged]], one.num)
        pairs, lines = _lines(at_layer, one, latents) if len(clusterings) == 1 else ([], b"")
        arrays |= {f"{i}.{field}": row for field, row in rows._asdict().items()} | {
            f"{i}.neighbour": _neighbours(at_layer, one, latents, rows.border),
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


class _Counted(NamedTuple):
    """The shown latents that count for the mean images of a clustering.

    Attributes:
        labels: (p,) of the shown latents; -1 for those that do not count.
        num: how many clusters there are.
    """

    labels: Int[np.ndarray, " p"]
    num: int


def _counted(
    one: Clustering, rows: Any, indices: Int[np.ndarray, " p"], num_first: int
) -> _Counted:
    """Return what counts for means: random members, not those chosen by their margins."""
    is_random = (np.arange(len(indices)) < num_first) | np.isin(indices, rows.typical)
    return _Counted(np.where(is_random, one.labels[indices], -1), one.num)


def _neighbours(
    generator: ConditionedGenerator,
    one: Clustering,
    latents: Float[np.ndarray, "n d"],
    border: Int[np.ndarray, "k e"],
) -> Int[np.ndarray, "k e"]:
    """Return the second nearest cluster of the latents at the border; -1 where there is none."""
    edge = border.ravel()
    members = edge[edge >= 0]
    neighbours = np.full(edge.shape, -1, np.int32)
    neighbours[edge >= 0] = runners_up(generator, one, latents[members], one.labels[members])
    return neighbours.reshape(border.shape)


def _num_first(size: int) -> int:
    """Return how many latents to show: fewer if the images are large, which take long to make."""
    return max(FEWEST, min(MOST, MOST * TILE**2 // size**2))


def _plain(proposal: Proposal) -> dict[str, Any]:
    return proposal._asdict() | {"share": round(proposal.share, 4)}


def _as_bytes(content: bytes) -> UInt8[np.ndarray, " b"]:
    return np.frombuffer(content, np.uint8)


def _images(
    generator: ConditionedGenerator,
    shown: Float[np.ndarray, "p d"],
    groups: Sequence[_Counted],
    judges: Sequence[str],
    num_judged: int,
    check: Callable[..., None],
) -> tuple[UInt8[np.ndarray, "p t t 3"], list[np.ndarray], Mapping[str, np.ndarray]]:
    """Return the tiles, each clustering's mean images, and the judged values of the first."""
    size, batch = int(generator.gen.image_size), generator.batch
    block = batch * max(1, BLOCK_MB * 2**20 // (12 * size**2 * batch))
    judged = JudgedValues(judges)
    tiles: list[np.ndarray] = []
    side = min(size, MEAN)
    sums = [np.zeros((group.num, side, side, 3)) for group in groups]
    for begin in range(0, len(shown), block):
        if begin:
            check("nothing of the page's images is kept")
        images = generator.images(shown[begin : begin + block])
        pixels = to_pixels(images)
        tiles.append(thumbnails(pixels, TILE))
        medium = thumbnails(pixels, MEAN).astype(np.float64)
        for group, total in zip(groups, sums, strict=True):
            labels = group.labels[begin : begin + block]
            for c in range(group.num):
                total[c] += medium[labels == c].sum(axis=0)
        if begin < num_judged:
            judged.add(images[: num_judged - begin])
    means = [_mean_images(group, total) for group, total in zip(groups, sums, strict=True)]
    return np.concatenate(tiles), means, judged.arrays()


def _mean_images(
    group: _Counted, total: Float[np.ndarray, "k s s 3"]
) -> UInt8[np.ndarray, "k s s 3"]:
    counts = np.bincount(group.labels[group.labels >= 0], minlength=group.num)
    return np.rint(total / np.maximum(counts, 1)[:, None, None, None]).astype(np.uint8)


def _points(
    generator: ConditionedGenerator, one: Clustering, shown: Float[np.ndarray, "m d"]
) -> tuple[Float[np.ndarray, "r 2"], list[float]]:
    """Return the features of latents in two principal components, and their shares of variance."""
    limit = FEATURES_MB * 2**20 // (4 * max(one.centroids.shape[1], 1))
    rows = features_in(generator, shown[: max(3, limit)], one.space)
    if len(rows) < 3 or rows.shape[1] < 2:
        return np.zeros((len(rows), 2), np.float32), [0.0, 0.0]
    pca = fit_pca(rows, 2)
    shares = pca.explained_variance / max(pca.total_variance, 1e-12)
    return pca.project(rows), [round(float(share), 4) for share in shares]


def _lines(
    generator: ConditionedGenerator, one: Clustering, latents: Float[np.ndarray, "n d"]
) -> tuple[list[tuple[int, int]], bytes]:
    """Return images along the lines between neighbouring clusters' means, if they can be made."""
    # A centroid in another space is not an activation.
    if one.space.name != "raw" or not hasattr(generator.gen, "resume"):
        return [], b""
    pairs = pairs_of(one)
    shape = generator.feature_shape
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
