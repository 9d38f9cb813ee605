"""Curves over the iterations of a training, as vector graphics that stand inside a page."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any, NamedTuple
from xml.etree import ElementTree

from cgjax.figures.plots import new_figure
from cgjax.figures.sheets import COLOURS

MOST_MARKS = 30
"""Points of a line that still get a mark each."""

LINES = "line"
"""Class of the groups in the element that hold a line each; the page gives it a colour."""

BEST = COLOURS[2]
INK = "#010203"
"""Stands for the colour that the page gives an element, which depends on the reader's scheme."""

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_LONG_NUMBER = re.compile(r"\d+\.\d{3,}")


class Range(NamedTuple):
    """What a value is compared with: a number, and an interval around it if there is one."""

    middle: float
    low: float | None = None
    high: float | None = None


def curve(
    name: str,
    lines: Sequence[tuple[Sequence[int], Sequence[float]]],
    beside: Range | None = None,
) -> str:
    """Draw a number over the iterations, one line for each trial.

    Args:
        name: what is drawn.
        lines: for each trial its iterations and the values there; NaN where there is none.
        beside: drawn behind the lines as a dashed line in a band.

    Returns:
        An `svg` element without styles, links or scripts, in the page's font and colour of text.
    """
    import matplotlib as mpl

    settings: dict[Any, Any] = {
        **dict.fromkeys(("xtick.color", "ytick.color", "axes.edgecolor"), INK),
        "font.size": 12,
        "path.simplify": False,
        "svg.fonttype": "none",
        "svg.hashsalt": name,  # the names of marks differ between the curves of one page
    }
    with mpl.rc_context(settings):
        figure = new_figure(5.0, 2.6)
        axis = figure.subplots()
        if beside is not None:
            if beside.low is not None and beside.high is not None:
                axis.axhspan(beside.low, beside.high, color=BEST, alpha=0.25, linewidth=0)
            axis.axhline(beside.middle, color=BEST, linestyle="--", linewidth=1.5)
        for x, y in lines:
            mark = "o" if len(x) <= MOST_MARKS else ""
            axis.plot(x, y, color=INK, linewidth=1.5, marker=mark, markersize=4, gid=LINES)
        axis.set_xlim(left=0)
        axis.spines[["top", "right"]].set_visible(False)
        axis.locator_params(axis="x", nbins=4, integer=True)
        axis.locator_params(axis="y", nbins=5)
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.yaxis.set_major_formatter("{x:.4g}")
        buffer = io.BytesIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return _for_a_page(buffer.getvalue())


def _for_a_page(svg: bytes) -> str:
    """Return an SVG file of Matplotlib as an element whose looks follow the page around it.

    Styles become attributes, which a page's policy does not forbid; names that nothing refers to
    go, since those of two curves would be equal.
    """
    root = ElementTree.fromstring(svg)
    for element in list(root.iter()):
        element.text = (element.text or "").strip() or None
        for child in list(element):
            child.tail = None
            if child.tag in (f"{{{_SVG}}}style", f"{{{_SVG}}}metadata"):
                element.remove(child)
        if element.tag == f"{{{_SVG}}}g" and element.attrib.pop("id", "") == LINES:
            element.set("class", LINES)
        for entry in filter(None, element.attrib.pop("style", "").split(";")):
            key, _, value = entry.partition(":")
            if not key.strip().startswith("font"):
                element.set(key.strip(), value.strip().replace(INK, "currentColor"))
        for key in {"d", "x", "y"}.intersection(element.keys()):
            shorter = _LONG_NUMBER.sub(lambda m: f"{float(m[0]):.2f}", element.attrib[key])
            element.set(key, " ".join(shorter.split()))
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    return ElementTree.tostring(root, encoding="unicode")
