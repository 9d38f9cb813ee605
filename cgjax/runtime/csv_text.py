"""Tables as comma-separated text: one way for every file that the project writes."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How the cells begin that spreadsheets calculate."""


def as_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """Return rows as text below a header; what is unknown, missing, None or NaN, stays empty.

    A text that a spreadsheet would take for a formula, and run, has an apostrophe before it.

    Args:
        rows: one mapping a line; floats are written with six digits.
        columns: the header; that of the first row by default.

    Raises:
        ValueError: a row has a column that the header lacks.

    Example:
        >>> as_csv([{"a": 1, "b": float("nan")}, {"a": 0.123456789}])
        'a,b\\n1,\\n0.123457,\\n'
        >>> as_csv([{"file": "=1+1.png"}])
        "file\\n'=1+1.png\\n"
    """
    buffer = io.StringIO()
    header = columns if columns is not None else list(rows[0]) if rows else []
    writer = csv.DictWriter(buffer, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return buffer.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if value != value else f"{value:.6g}"
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"'{value}"
    return "" if value is None else value
