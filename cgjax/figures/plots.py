"""Scatter plots and the plot of a comparison, drawn with Matplotlib as PNG and PDF.

Matplotlib is imported only when a plot is drawn: most commands draw none.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from cgjax.figures.sheets import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKS = ("o", "s", "^")
"""Marks: after each round through the colours the next one, so that no two styles look alike."""

TICKS = (0.5, 1, 2, 5, 10, 20, 50, 100, 200)

LEGEND_COLUMNS, LEGEND_ROWS, LEGEND_ROW = 4, 6, 0.22
"""Columns of a legend below a scatter plot, the rows that need no higher figure, and the height in
inches of each further row."""


class Plot(NamedTuple):
    """A plot as two files; the same data gives the same bytes.

    Attributes:
        png: the PNG file.
        pdf: the PDF file, with vector graphics.
    """

    png: bytes
    pdf: bytes


class Panel(NamedTuple):
    """One scatter plot of several side by side.

    Attributes:
        title: a line above it.
        points: (n, 2) in two components.
        shares: share of the variance of each component.
    """

    title: str
    points: Float[np.ndarray, "n 2"]
    shares: tuple[float, float]


def draw_scatter(
    panels: Sequence[Panel], labels: Int[np.ndarray, " n"], names: Sequence[str], title: str
) -> Plot:
    """Plot the same points in several planes side by side, coloured by cluster.

    Args:
        panels: one per plane, of the same n points.
        labels: (n,) cluster ids.
        names: a legend entry for each cluster; line ends become commas.
        title: a line above all of them.
    """
    further = max(0, -(-len(names) // LEGEND_COLUMNS) - LEGEND_ROWS)
    figure = new_figure(5.2 * len(panels), 5.2 + LEGEND_ROW * further)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, panel in zip(axes, panels, strict=True):
        for c, name in enumerate(names):
            own = panel.points[labels == c]
            shown = as_text(name.replace("\n", ", "))
            axis.scatter(*own.T, s=9, alpha=0.6, linewidths=0, label=shown, **style_of(c))
        axis.locator_params(nbins=5)
        axis.set_title(as_text(panel.title))
        axis.set_xlabel(f"component 1 ({100 * panel.shares[0]:.0f}% of the variance)")
        axis.set_ylabel(f"component 2 ({100 * panel.shares[1]:.0f}% of the variance)")
    handles, entries = axes[0].get_legend_handles_labels()
    figure.legend(handles, entries, loc="outside lower center", ncols=LEGEND_COLUMNS, markerscale=2)
    figure.suptitle(as_text(title))
    return render(figure)


def draw_labels(
    panels: Mapping[str, tuple[Float[np.ndarray, "n 2"], Int[np.ndarray, " n"]]],
    means: Float[np.ndarray, "m 2"],
    title: str,
) -> Plot:
    """Plot labelled points side by side on one scale, with the true means.

    Args:
        panels: by title, points and their labels. A label looks the same in every panel; if there
            are more labels than styles, some labels share one.
        means: (m, 2) the true means, drawn as crosses.
        title: a line above all of them.
    """
    figure = new_figure(5.2 * len(panels), 5.6)
    axes = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
    for axis, (name, (points, labels)) in zip(axes, panels.items(), strict=True):
        for label in np.unique(labels):
            own = points[labels == label]
            axis.scatter(*own.T, s=9, alpha=0.5, linewidths=0, **style_of(int(label)))
        axis.scatter(*means.T, s=30, c="black", marker="x", linewidths=0.8)
        axis.set_title(f"{name}: {len(points)}, coloured by label")
        axis.set_aspect("equal")
    figure.suptitle(as_text(f"{title} (crosses: the true means)"))
    return render(figure)


def draw_comparison(rows: Sequence[dict[str, Any]]) -> Plot:
    """Plot every row of a comparison: filled marks for cluster 0, open marks for the others.

    Farther left is closer to the true members (1 is the floor, the distance of two halves of
    them); higher is more of the requested attribute, or of membership if no judge measured it.

    Args:
        rows: the rows of `compare.csv`, with numbers parsed.
    """
    field = "accuracy" if any(r.get("accuracy") is not None for r in rows) else "membership"
    has_place = [r for r in rows if r.get(field) is not None and r.get("ratio") is not None]
    shown = [r for r in has_place if math.isfinite(r[field])]
    judges = sorted({str(r["judge"]) for r in shown if r.get("judge")})
    figure = new_figure(9.2, 5.6)
    axis = figure.subplots()
    methods = list(dict.fromkeys(r["method"] for r in shown))
    for number, method in enumerate(methods):
        style = style_of(number)
        axis.scatter([], [], s=45, label=as_text(method), **style)
        for is_first in (True, False):
            own = [r for r in shown if r["method"] == method and (r["cluster"] == 0) == is_first]
            x, y = np.reshape([(max(r["ratio"], 1e-3), r[field]) for r in own], (-1, 2)).T
            axis.scatter(
                x,
                y,
                s=45,
                marker=style["marker"],
                facecolors=style["color"] if is_first else "none",
                edgecolors=style["color"],
                linewidths=1.6,
            )
    axis.axvline(1.0, color="#888888", linewidth=1)
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    ticks = [tick for tick in TICKS if low <= tick <= high] or [1]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.set_xlabel("Frechet distance / floor (log scale; 1: like two halves of the true members)")
    accuracy = f"judged accuracy, of the images that the judge can rate ({', '.join(judges)})"
    axis.set_ylabel(as_text(accuracy) if judges else field)
    axis.set_title("How often the request was met, and how close to the true members")
    if methods:
        figure.legend(loc="outside right upper", title="filled: cluster 0; open: others")
    return render(figure)


def style_of(number: int) -> dict[str, Any]:
    """Return the colour and the mark of the cluster, label or method with this number."""
    mark = MARKS[number // len(COLOURS) % len(MARKS)]
    return {"color": COLOURS[number % len(COLOURS)], "marker": mark}


def as_text(text: str) -> str:
    r"""Escape dollar signs, because Matplotlib reads $...$ as mathematics.

    >>> as_text("$_$")
    '\\$_\\$'
    """
    return text.replace("$", r"\$")


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure; the size is in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=100, layout="constrained")


def render(figure: Figure) -> Plot:
    """Render a figure as PNG and PDF."""
    png, pdf = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    figure.set_layout_engine("none")  # already laid out above
    figure.savefig(pdf, format="pdf", metadata={"CreationDate": None})
    return Plot(png.getvalue(), pdf.getvalue())
