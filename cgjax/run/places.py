"""The names of a run's artifacts, and where in its folder their files lie."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote

from cgjax.config.splits import Split
from cgjax.samplers.registry import SAMPLERS

ENCODER, HELD_OUT = "encoder", "held-out"
"""What inverting images needs: an encoder, and how well it inverts the generator's own images."""

RESULTS = "results"
"""What training a generator leaves at its end."""


def fit_name(sampler: str) -> str:
    """Return the name of what a sampler has learnt; its files are its checkpoints."""
    return f"fit {sampler}"


def leaf_fit_name(sampler: str, path: Sequence[int]) -> str:
    """Return the name of what a sampler has learnt from one cluster inside a cluster."""
    return f"{fit_name(sampler)} in {_dotted(path)}"


def samples_name(sampler: str) -> str:
    """Return the name of a sampler's saved samples."""
    return f"sample {sampler}"


def evaluation_name(sampler: str) -> str:
    """Return the name of a sampler's measurements."""
    return f"evaluate {sampler}"


def transfer_name(index: int) -> str:
    """Return the name of the score of one target class of the transfer."""
    return f"transfer {index}"


def split_name(path: Sequence[int]) -> str:
    """Return the name of the clustering inside a cluster."""
    return f"split {_dotted(path)}"


def split_place(split: Split) -> str:
    """Return where the clustering inside a cluster lies."""
    return f"clusterings/{quote(str(split), safe='')}.npz"


def sweep_name(layer: str) -> str:
    """Return the name of a sweep's clusterings of one layer."""
    return f"sweep {quote(layer, safe='')}"


def clustering_place(layer: str, num_clusters: int) -> str:
    """Return where one of a sweep's clusterings lies.

    >>> clustering_place("synthesis/b16", 4)
    'clusterings/synthesis%2Fb16-k4.npz'
    """
    return f"clusterings/{quote(layer, safe='')}-k{num_clusters}.npz"


def sweep_figure_place(layer: str) -> str:
    """Return where a sweep's figure of one layer lies."""
    return f"figures/sweep-{quote(layer, safe='')}.png"


def assigned_name(images: str) -> str:
    """Return the name of the table of a set of images assigned to the clusters."""
    return f"assign {images}"


def assigned_place(images: str) -> str:
    """Return where that table lies."""
    return f"assign/{images}"


def page_images_name(part: str) -> str:
    """Return the name of the page's images of "own", "sweep", or a split by its artifact's name."""
    return f"page {part}"


def page_images_place(part: str) -> str:
    """Return where the page's images of a part of the run lie."""
    return f"page_images/{part.replace(' ', '-')}.npz"


def _dotted(path: Sequence[int]) -> str:
    return ".".join(map(str, path))


SWEEP_TABLES = ("sweep.csv", "sweep_clusters.csv", "sweep_pairs.csv", "sweep.txt")
"""A sweep's tables of clusterings, of clusters and of pairs of clusterings, and all as text."""

HELD_OUT_PLACE = "checkpoints/encoder/held_out.npz"

PLACES = (
    *("latents.npy", "clusters.npz", "report"),
    *("compare.csv", "compare.txt", "compare_labels.csv"),
    *(f"figures/{name}.png" for name in ("pca", "means", "clusters", "transfer", "compare")),
    *("figures/pca.pdf", "figures/compare.pdf"),
    *(f"samples/{name}" for name in SAMPLERS),
    *("attributes.npz", *SWEEP_TABLES, HELD_OUT_PLACE),
)
"""The places of a run's artifacts, whatever its config; `NAMED_PLACE` matches the others."""

RESULT_PLACES = (
    *("samples.npz", "figures/samples.png", "citations.bib", "summary.json"),
    *("generator/weights.safetensors", "generator/generator.json"),
)
"""The places of a training's results."""

NAMED_PLACE = re.compile(
    r"(clusterings|page_images)/[^/\\]+\.npz|figures/sweep-[^/\\]+\.png|assign/[\w-]+"
)
"""Places named after a layer, a split or a set of images. A quoted name contains neither a
separator nor a path upward."""

NAMED_PLACE_GLOBS = (
    *("clusterings/*.npz", "page_images/*.npz"),
    *("figures/sweep-*.png", "assign/*"),
)
"""Patterns that find every place that `NAMED_PLACE` matches."""

# What stages write into the places that are folders. Anything else there belongs to the user.
_WRITTEN = re.compile(
    r"report/index\.html|samples/\w+/\d+/(\d{5,}\.png|latents\.npy)"
    r"|assign/[\w-]+/(assign\.csv|latents\.npy|errors\.(png|pdf)|(cluster-\d+|foreign)\.png)"
)


def is_written(path: str) -> bool:
    """Whether a stage writes a file at this path, relative to the run's folder.

    >>> is_written("samples/flow/0/00012.png"), is_written("assign/photos/me.png")
    (True, False)
    """
    return is_place(path) or bool(_WRITTEN.fullmatch(path))


def is_place(path: str) -> bool:
    """Whether an artifact of some config lies at this path, relative to the run's folder."""
    return path in PLACES or path in RESULT_PLACES or bool(NAMED_PLACE.fullmatch(path))
