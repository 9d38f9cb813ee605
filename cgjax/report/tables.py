"""The tables of a sweep and of a comparison, as the page shows them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
"""The columns of `compare.csv` that the page shows."""


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file; none if it is not there."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def compared(path: Path) -> dict[str, Any] | None:
    """Return the table of a comparison: titles and rows of texts."""
    rows = read_rows(path)
    if not rows:
        return None
    fields = [field for field in COMPARED if any(row.get(field) for row in rows)]
    return {
        "titles": [COMPARED[field] for field in fields],
        "rows": [[short(row.get(field, "")) for field in fields] for row in rows],
    }


def swept(csv_path: Path, text_path: Path) -> dict[str, Any]:
    """Return a sweep's table of clusterings, and what it says in words.

    Args:
        csv_path: `sweep.csv`.
        text_path: `sweep.txt`: its table, a line a layer, and the ranked list, in this order.
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
    parts = [row.get(f"{name}{end}", "") for end in ("", "_low", "_high")]
    if not all(parts):
        return "–"
    value, low, high = map(float, parts)
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def _p_value(text: str) -> str:
    return "< 0.001" if text and float(text) < 0.001 else short(text)


def short(text: str) -> str:
    """Return a number as a table shows it; other texts as they are.

    >>> short("0.123456"), short("flow"), short("")
    ('0.123', 'flow', '–')
    """
    if not text:
        return "–"
    try:
        value = float(text)
    except ValueError:
        return text
    return text if text.lstrip("-").isdigit() else f"{value:.3g}"
