"""Figures of assigned images: each image beside its reconstruction, and their errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image, ImageDraw, ImageFont

from cgjax.figures.plots import Plot, as_text, new_figure, render, style_of
from cgjax.figures.sheets import GAP, TEXT
from cgjax.runtime.png import to_pixels

ACROSS = 4
"""Number of pairs in a row."""

MANY = 12
"""Number of clusters above which columns are narrow and their names vertical."""

LONGEST, SHORT, LETTER = 28, 14, 0.1
"""Most characters of a name below a column, the number that needs no larger figure, and the inches
that each further one takes."""


def pairs(
    images: Float[np.ndarray, "n s s c"],
    reconstructions: Float[np.ndarray, "n s s c"],
    captions: Sequence[str],
    title: str,
) -> Image.Image:
    """Lay out images, each to the left of its reconstruction and above its caption.

    Args:
        images: (n, s, s, c) float32 in [-1, 1], at least one.
        reconstructions: (n, s, s, c) the generator's images of their inverted latents.
        captions: one text per image, all with the same number of lines.
        title: a line above everything.
    """
    font, size = ImageFont.load_default(TEXT), images.shape[1]
    shown = size * max(1, 128 // size)
    lines = max(caption.count("\n") for caption in captions) + 1
    line, header = TEXT + 4, TEXT + 12
    width, height = 2 * shown + GAP + 14, shown + lines * line + 12
    rows = -(-len(images) // ACROSS)
    total = max(min(len(images), ACROSS) * width, 12 + int(font.getlength(title)))
    sheet = Image.new("RGB", (total, header + rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((6, 4), title, "black", font)
    for i, caption in enumerate(captions):
        left, top = 6 + i % ACROSS * width, header + i // ACROSS * height
        for place, pixels in enumerate(to_pixels(np.stack([images[i], reconstructions[i]]))):
            picture = Image.fromarray(pixels)
            picture = picture.resize((shown, shown), Image.Resampling.NEAREST)
            sheet.paste(picture, (left + place * (shown + GAP), top))
        cut = [_cut(text, font, width - 8) for text in caption.split("\n")]
        draw.multiline_text((left, top + shown + 2), "\n".join(cut), "black", font, spacing=3)
    return sheet


def errors_by_cluster(
    held_out: tuple[Float[np.ndarray, " m"], Int[np.ndarray, " m"]],
    assigned: tuple[Float[np.ndarray, " n"], Int[np.ndarray, " n"], Bool[np.ndarray, " n"]],
    names: Sequence[str],
    limit: float,
    title: str,
) -> Plot:
    """Plot the reconstruction errors of each cluster, as in Figure 6 of [Liu et al. 2020].

    Args:
        held_out: errors and clusters of held-out images made by the generator.
        assigned: errors and clusters of the assigned images, and whether the generator can make
            each of them.
        names: the clusters' names; long ones are cut.
        limit: the error above which the generator cannot make an image; an image below it may
            still be rejected for another reason.
        title: a line above the plot.
    """
    cut = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1].rstrip()}…" for name in names]
    further = max(0, max(map(len, cut), default=0) - SHORT)
    is_crowded = len(names) > MANY
    column = 0.3 if is_crowded else 1.4 + LETTER * further
    high = 4.2 + LETTER * further * is_crowded
    figure = new_figure(max(6.4, column * len(names) + 2.4), high)
    axis = figure.subplots()
    rng = np.random.default_rng(0)
    errors_of, clusters_of, is_own = assigned
    grey, cross = {"color": "#888888", "marker": "o"}, style_of(1) | {"marker": "x"}
    for side, label, style, errors, clusters in (
        (0, "held-out samples of the generator", grey, *held_out),
        (1, "these images", style_of(1), errors_of[is_own], clusters_of[is_own]),
        (1, "not made by the generator", cross, errors_of[~is_own], clusters_of[~is_own]),
    ):
        places = clusters + 0.36 * (side - 0.5) + rng.uniform(-0.1, 0.1, len(errors))
        axis.scatter(places, errors, s=14, alpha=0.7, linewidths=side, label=label, **style)
    for side, (errors, clusters) in enumerate((held_out, assigned[:2])):
        for c in range(len(names)):
            if np.any(clusters == c):
                middle, median = c + 0.36 * (side - 0.5), float(np.median(errors[clusters == c]))
                axis.plot([middle - 0.14, middle + 0.14], [median, median], color="black")
    axis.axhline(limit, color="black", linestyle="--", linewidth=1, label="limit")
    axis.set_yscale("log")
    axis.set_xlim(-0.6, len(names) - 0.4)
    axis.set_xticks(range(len(names)), list(map(as_text, cut)), rotation=90 * is_crowded)
    axis.set_ylabel("mean absolute difference / range")
    figure.suptitle(as_text(title))
    figure.legend(loc="outside lower center", ncols=2)
    return render(figure)


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Shorten a text to a width in pixels, ending it with a full stop where it was cut."""
    while text and font.getlength(text) > width:
        text = f"{text[:-2].rstrip('.')}." if len(text) > 2 else ""
    return text
