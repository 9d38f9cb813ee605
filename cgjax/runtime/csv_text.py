"""Tables as comma-separated text: one way for every file that the project writes."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any


def as_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """Return rows as text below a header; what is unknown, missing, None or NaN, stays empty.

    Args:
        rows: one mapping a line; floats are written with six digits.
        columns: the header; that of the first row by default.

    Raises:
        ValueError: a row has a column that the header lacks.

    Example:
        >>> as_csv([{"a": 1, "b": float("nan")}, {"a": 0.123456789}])
        'a,b\\n1,\\n0.123457,\\n'
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
    return "" if value is None else value
