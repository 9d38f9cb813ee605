"""Tables as comma-separated text, for every CSV file that the project writes."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""The first characters of cells that a spreadsheet would evaluate."""


def as_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """Return rows as text below a header; cells that are missing, None or NaN are empty.

    Text that a spreadsheet would evaluate as a formula gets an apostrophe in front.

    Args:
        rows: one mapping per line; floats are written with six digits.
        columns: the header; by default the columns of the first row.

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
