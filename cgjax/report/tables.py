"""The tables of a sweep and of a comparison, as the page shows them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cgjax.evaluation.compare_table import three_digits

COMPARED = {
    "method": "method",
    "setting": "setting",
    "cluster": "cluster",
    "membership": "membership",
    "accuracy": "judged accuracy",
    "frechet": "Frechet distance",
    "frechet_floor": "floor",
    "ratio": "distance / floor",
    "acceptance": "acceptance",
    "sampling_ms": "sampling, ms an image",
}
"""Titles of the columns of `compare.csv` on the page; 95% intervals follow where they exist."""

SHARES = {"membership", "accuracy", "acceptance", "worst_jaccard", "prediction_strength"}
"""Columns of numbers from 0 to 1, shown with three decimals."""


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file; an empty list if it does not exist."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_comparison(path: Path) -> dict[str, Any] | None:
    """Return a comparison's table: titles, rows of texts, judge and feature."""
    rows = read_rows(path)
    if not rows:
        return None
    fields = [field for field in COMPARED if any(row.get(field) for row in rows)]
    return {
        "num": rows[0].get("num", ""),
        "judge": rows[0].get("judge", ""),
        "feature": rows[0].get("feature", ""),
        "attributes": list(dict.fromkeys(row.get("attribute", "") for row in rows)),
        "titles": [COMPARED[field] for field in fields],
        "rows": [[_with_interval(row, field) for field in fields] for row in rows],
    }


def read_sweep(csv_path: Path, text_path: Path) -> dict[str, Any]:
    """Return a sweep's table of clusterings and its text.

    Args:
        csv_path: `sweep.csv`.
        text_path: `sweep.txt`: the table, one line per layer, and the ranking, in this order.
    """
    blocks = text_path.read_text(encoding="utf-8").strip().split("\n\n")
    reasons = blocks[1].splitlines() if len(blocks) > 1 else []
    rows = []
    for row in read_rows(csv_path):
        explained = {
            name.removeprefix("eta2 "): float(value)
            for name, value in row.items()
            if name.startswith("eta2 ") and not name.endswith(("_low", "_high")) and value
        }
        best = sorted(explained, key=lambda name: -explained[name])[:2]
        rows.append(
            {
                "layer": row["layer"],
                "num": row["num_clusters"],
                "shares": " ".join(f"{100 * float(s):.0f}%" for s in row["shares"].split()),
                "jaccard": _with_interval(row, "worst_jaccard"),
                "strength": _with_interval(row, "prediction_strength"),
                "valley": _p_value(row.get("valley_p_value", "")),
                "silhouette": short(row.get("silhouette", "")),
                "explains": ", ".join(f"{100 * explained[n]:.0f}% of {n}" for n in best),
            }
        )
    return {"rows": rows, "reasons": reasons, "ranked": "\n\n".join(blocks[2:])}


def _with_interval(row: Mapping[str, str], name: str) -> str:
    """Format a number of a row, with its interval if the row has one."""
    formatted = _share if name in SHARES else short
    value, low, high = (formatted(row.get(f"{name}{end}", "")) for end in ("", "_low", "_high"))
    return value if "–" in (value, low, high) else f"{value} ({low}\u00a0to\u00a0{high})"


def _share(text: str) -> str:
    return f"{float(text):.3f}" if text else "–"


def _p_value(text: str) -> str:
    return "< 0.001" if text and float(text) < 0.001 else _share(text)


def short(text: str) -> str:
    """Format a number for a table; other texts are returned unchanged.

    >>> short("0.51"), short("371.4"), short("1234.56"), short("flow"), short("")
    ('0.510', '371', '1235', 'flow', '–')
    """
    if not text:
        return "–"
    try:
        value = float(text)
    except ValueError:
        return text
    if text.lstrip("-").isdigit():
        return text
    return three_digits(value)
