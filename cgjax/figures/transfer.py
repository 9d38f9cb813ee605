"""The figure of a transfer: the same latents in several classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from cgjax.figures.sheets import GAP, TEXT, contact_sheet

FRAME = GAP  # fits between the images


def transfer_figure(
    images: Sequence[Sequence[Float[np.ndarray, "n s s c"]]],
    class_names: Sequence[str],
    cluster_names: Sequence[str],
) -> Image.Image:
    """Lay out a transfer as in the paper's Figure 6: one row per class, clusters side by side.

    The first row, framed in red, is the class that the clusters were learnt on. Each column shows
    one latent in every class.

    Args:
        images: for each class and each cluster, a batch of images in [-1, 1]; the latents are the
            same in every class.
        class_names: one per class.
        cluster_names: one per cluster.
    """
    blank = [""] * len(class_names)
    sheets = [
        contact_sheet([of_class[c] for of_class in images], blank if c else class_names, [name])
        for c, name in enumerate(cluster_names)
    ]
    line = TEXT + 9
    width, height = sum(s.width for s in sheets) + FRAME, sheets[0].height + FRAME + line
    picture = Image.new("RGB", (width, height), "white")
    left = 0
    for sheet in sheets:
        picture.paste(sheet, (left, line))
        left += sheet.width
    title = "The same latents in other classes; framed: the class that was clustered"
    draw = ImageDraw.Draw(picture)
    draw.text((6, 3), title, "black", ImageFont.load_default(TEXT))
    row = (sheets[0].height - line) // len(class_names)
    first = sheets[0].width - len(images[0][0]) * row  # to its left are the classes' names
    header = 2 * line  # the title, and the clusters' names
    frame = (first - FRAME, header - FRAME, width - 1, header + row - 1)
    draw.rectangle(frame, outline="red", width=FRAME)
    return picture
