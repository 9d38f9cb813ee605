"""Plots say what they show, in two formats, and the same data gives the same bytes."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from cgjax.figures.curves import curve
from cgjax.figures.plots import Panel, draw_comparison, draw_scatter
from cgjax.figures.sheets import contact_sheet

ROWS = [
    {"method": name, "cluster": c, "ratio": 1 + i + c, "membership": 0.9 - 0.1 * i}
    for i, name in enumerate(("members", "rejection", "flow", "imle", "a", "b", "c", "d"))
    for c in range(2)
]


def points(num=60, clusters=3):
    rng = np.random.default_rng(0)
    panels = [Panel(title, rng.normal(size=(num, 2)), (0.4, 0.1)) for title in ("layer1", "z")]
    return panels, np.arange(num) % clusters, [f"cluster {c}\n33%" for c in range(clusters)]


@pytest.mark.parametrize(
    "draw",
    [lambda: draw_scatter(*points(), "60 latents"), lambda: draw_comparison(ROWS)],
    ids=["pca", "compare"],
)
def test_a_plot_is_a_png_and_a_pdf_and_always_the_same_bytes(draw):
    first, again = draw(), draw()
    assert first == again
    with Image.open(io.BytesIO(first.png)) as picture:
        assert min(picture.size) > 400
    assert first.pdf.startswith(b"%PDF")


def test_the_legend_of_many_clusters_makes_the_figure_higher_and_leaves_the_plot_its_place():
    panels, labels, names = points(num=70, clusters=70)
    plot = draw_scatter(panels[:1], labels, names, "70 latents")  # a squeezed plot is a warning
    with Image.open(io.BytesIO(plot.png)) as picture:
        assert picture.size == (520, 784)


def test_ten_clusters_and_a_single_point_are_drawn():
    assert draw_scatter(*points(num=1, clusters=10), "one latent").png


@pytest.mark.parametrize(
    "row",
    [
        {"method": "x", "cluster": 0, "ratio": 0.0, "membership": 1.0},
        {"method": "x", "cluster": 0, "ratio": 2.0, "membership": float("nan")},
        {
            "method": "x",
            "cluster": 0,
            "ratio": 3.0,
            "membership": 0.5,
            "accuracy": 0.9,
            "judge": "j",
        },
    ],
)
def test_a_comparison_of_one_line_is_drawn_whatever_its_numbers(row):
    assert draw_comparison([row]).png


def test_a_sheets_title_stands_above_its_rows_and_is_never_cut():
    rows = [np.zeros((1, 8, 8, 3), np.float32)]
    plain, titled = (contact_sheet(rows, ["cluster 0"], title=t) for t in ("", "members " * 20))
    assert titled.height > plain.height
    assert titled.width > 600


def test_the_lines_and_marks_of_a_curve_have_the_colour_of_the_page_around_them():
    svg = curve("loss", [([1, 2], [3.0, 4.0])])
    assert set(re.findall(r'(?:fill|stroke)="([^"]*)"', svg)) == {"currentColor", "none"}
