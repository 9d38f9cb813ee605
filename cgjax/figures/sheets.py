"""Pictures: contact sheets and scatter plots, with NumPy and Pillow only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from PIL import Image, ImageDraw, ImageFont

from cgjax.runtime.png import to_pixels

# Colour-blind safe (Okabe and Ito 2008), without black; repeated if there are more clusters.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
TEXT = 13
GAP = 2


def contact_sheet(
    rows: Sequence[Float[np.ndarray, "n s s c"]],
    row_labels: Sequence[str],
    column_labels: Sequence[str] = (),
) -> Image.Image:
    """Lay out images in labelled rows.

    Args:
        rows: a batch of images in [-1, 1] for each row, all of one size.
        row_labels: a text for each row.
        column_labels: texts above the columns, or none.

    Returns:
        The picture.
    """
    size = rows[0].shape[1]
    columns = max(len(row) for row in rows)
    font = ImageFont.load_default(TEXT)
    left = 12 + max(int(font.getlength(line)) for t in row_labels for line in t.split("\n"))
    top = TEXT + 9 if column_labels else GAP
    # Small images are doubled until they can be seen.
    zoom = max(1, 128 // size)
    cell = size * zoom + GAP
    sheet = Image.new("RGB", (left + columns * cell, top + len(rows) * cell), "white")
    draw = ImageDraw.Draw(sheet)
    for j, text in enumerate(column_labels):
        draw.text((left + j * cell + 2, 3), text, "black", font)
    for i, (row, text) in enumerate(zip(rows, row_labels, strict=True)):
        middle = top + i * cell + cell // 2
        draw.multiline_text((6, middle), text, "black", font, anchor="lm")
        for j, pixels in enumerate(to_pixels(row)):
            picture = Image.fromarray(pixels)
            picture = picture.resize((size * zoom, size * zoom), Image.Resampling.NEAREST)
            sheet.paste(picture, (left + j * cell, top + i * cell))
    return sheet


def scatter(
    panels: Sequence[tuple[str, Float[np.ndarray, "n 2"]]],
    labels: Int[np.ndarray, " n"],
    names: Sequence[str],
    size: int = 420,
) -> Image.Image:
    """Plot the same points in several planes side by side, coloured by cluster.

    Args:
        panels: (title, coordinates) pairs.
        labels: (n,) cluster ids.
        names: a legend entry for each cluster; line ends become spaces.
        size: width of a panel in pixels.

    Returns:
        The picture.
    """
    font = ImageFont.load_default(TEXT)
    top, border = TEXT * 2 + 22, 16
    sheet = Image.new("RGB", (len(panels) * size, size + top), "white")
    draw = ImageDraw.Draw(sheet, "RGBA")
    for p, (title, points) in enumerate(panels):
        x0 = p * size
        draw.text((x0 + border, 5), title, "black", font)
        draw.rectangle((x0 + 8, top, x0 + size - 8, top + size - 16), outline="#999999")
        low, high = np.quantile(points, [0.001, 0.999], axis=0)
        unit = np.clip((points - low) / np.maximum(high - low, 1e-12), 0, 1)
        place = border + unit * (size - 16 - 2 * border)
        for (x, y), c in zip(place, labels, strict=True):
            x, y = x0 + 8 + x, top + size - 16 - y
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=COLOURS[c % len(COLOURS)] + "90")
    x = border
    for c, name in enumerate(n.replace("\n", ", ") for n in names):
        draw.ellipse((x, TEXT + 14, x + 8, TEXT + 22), fill=COLOURS[c % len(COLOURS)])
        draw.text((x + 12, TEXT + 10), name, "black", font)
        x += 26 + int(font.getlength(name))
    return sheet
