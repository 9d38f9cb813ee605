"""Contact sheets, drawn with NumPy and Pillow only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from cgjax.runtime.png import to_pixels

# Safe for colour-blind readers (Okabe and Ito 2008), without black; repeated for more clusters.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
TEXT = 13
GAP = 2


def contact_sheet(
    rows: Sequence[Float[np.ndarray, "_ s s c"]],
    row_labels: Sequence[str],
    column_labels: Sequence[str] = (),
    title: str = "",
) -> Image.Image:
    """Lay out images in labelled rows.

    Args:
        rows: for each row, a batch of images in [-1, 1], all of the same size.
        row_labels: one text per row.
        column_labels: texts above the columns, if any.
        title: a line above everything, if any.
    """
    size = rows[0].shape[1]
    columns = max(len(row) for row in rows)
    font = ImageFont.load_default(TEXT)
    left = 12 + max(int(font.getlength(line)) for t in row_labels for line in t.split("\n"))
    line = TEXT + 9
    above = line if title else 0
    top = above + (line if column_labels else GAP)
    # Small images are enlarged.
    zoom = max(1, 128 // size)
    cell = size * zoom + GAP
    width = max(left + columns * cell, 12 + int(font.getlength(title)))
    sheet = Image.new("RGB", (width, top + len(rows) * cell), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((6, 3), title, "black", font)
    for j, text in enumerate(column_labels):
        draw.text((left + j * cell + 2, above + 3), text, "black", font)
    for i, (row, text) in enumerate(zip(rows, row_labels, strict=True)):
        middle = top + i * cell + cell // 2
        draw.multiline_text((6, middle), text, "black", font, anchor="lm")
        for j, pixels in enumerate(to_pixels(row)):
            picture = Image.fromarray(pixels)
            picture = picture.resize((size * zoom, size * zoom), Image.Resampling.NEAREST)
            sheet.paste(picture, (left + j * cell, top + i * cell))
    return sheet
