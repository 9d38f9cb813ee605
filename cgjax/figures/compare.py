"""The picture of a comparison: judged accuracy against the distance to the true members."""

from __future__ import annotations

import math
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from cgjax.figures.sheets import COLOURS

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 920, 560, 62, 34, 230, 52
TICKS = (0.5, 1, 2, 5, 10, 20, 50, 100, 200)


def plot(rows: list[dict[str, Any]]) -> Image.Image:
    """Plot every line of a comparison: a filled mark is cluster 0, a ring any other.

    Without judged accuracy the membership stands in its place. Left is closer to the true members
    (1 is the floor, what two halves of them score), up is more of the asked attribute.
    """
    font = ImageFont.load_default(13)
    field = "accuracy" if any(r.get("accuracy") is not None for r in rows) else "membership"
    shown = [r for r in rows if r.get(field) is not None and math.isfinite(r[field])]
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(picture)
    ratios = [max(r["ratio"], 1e-3) for r in shown] or [1.0]
    low, high = math.log(min(0.7, *ratios, 1.0)), math.log(max(2.0, *ratios, 1.0) * 1.1)
    bottom = min([r[field] for r in shown] + [0.9])
    bottom = max(0.0, bottom - 0.03)

    def place(ratio: float, share: float) -> tuple[float, float]:
        x = LEFT + (math.log(max(ratio, 1e-3)) - low) / (high - low) * (WIDTH - LEFT - RIGHT)
        y = HEIGHT - BOTTOM - (share - bottom) / (1.02 - bottom) * (HEIGHT - TOP - BOTTOM)
        return x, y

    frame = (LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM)
    draw.rectangle(frame, outline="#999999")
    for tick in TICKS:
        if low <= math.log(tick) <= high:
            x, _ = place(tick, bottom)
            draw.line((x, TOP, x, HEIGHT - BOTTOM), fill="#e4e4e4" if tick != 1 else "#888888")
            draw.text((x, HEIGHT - BOTTOM + 5), f"{tick:g}", "black", font, anchor="ma")
    for i in range(11):
        share = i / 10
        if share >= bottom:
            _, y = place(1.0, share)
            draw.line((LEFT, y, WIDTH - RIGHT, y), fill="#e4e4e4")
            draw.text((LEFT - 6, y), f"{share:.1f}", "black", font, anchor="rm")
    judges = sorted({str(r["judge"]) for r in shown if r.get("judge")})
    title = f"judged accuracy among faces found ({', '.join(judges)})" if judges else field
    draw.text((LEFT, 10), title, "black", font)
    middle = (LEFT + WIDTH - RIGHT) // 2
    draw.text(
        (middle, HEIGHT - 22), "Frechet distance / floor (log scale)", "black", font, anchor="ma"
    )
    methods = list(dict.fromkeys(r["method"] for r in shown))
    for row in shown:
        number = methods.index(row["method"])
        x, y = place(row["ratio"], row[field])
        _mark(draw, x, y, number, filled=row["cluster"] == 0)
    for number, method in enumerate(methods):
        y = TOP + 10 + 20 * number
        _mark(draw, WIDTH - RIGHT + 22, y, number, filled=True)
        draw.text((WIDTH - RIGHT + 36, y), method, "black", font, anchor="lm")
    y = TOP + 24 + 20 * len(methods)
    draw.text((WIDTH - RIGHT + 14, y), "filled: cluster 0; open: others", "black", font)
    return picture


def _mark(draw: ImageDraw.ImageDraw, x: float, y: float, number: int, *, filled: bool) -> None:
    """Draw a disc, square or triangle, so that colour is never the only difference."""
    colour = COLOURS[number % len(COLOURS)]
    fill = colour if filled else None
    shape = number // len(COLOURS) % 3
    if shape == 0:
        draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill, colour, 2)
    elif shape == 1:
        draw.rectangle((x - 5, y - 5, x + 5, y + 5), fill, colour, 2)
    else:
        draw.polygon([(x, y - 6), (x - 6, y + 5), (x + 6, y + 5)], fill, colour, 2)
