"""The table of a comparison: its columns, its layout as text, and a summary in a few lines."""

from __future__ import annotations

from typing import Any

# FID of PGAN, and of PGAN with its one-cluster mapping [Georgopoulos et al. 2022, supplementary].
PAPER_FID = (8.79, 9.85)

COLUMNS = (
    "method",
    "setting",
    "cluster",
    "membership",
    "membership_low",
    "membership_high",
    "judge",
    "attribute",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "found",
    "strict",
    "strict_low",
    "strict_high",
    "w1",
    "w1_low",
    "w1_high",
    "feature",
    "frechet",
    "frechet_low",
    "frechet_high",
    "frechet_floor",
    "ratio",
    "kid",
    "precision",
    "recall",
    "density",
    "coverage",
    "norm_ratio",
    "effective_rank",
    "mean_distance",
    "acceptance",
    "sampling_ms",
    "image_ms",
    "training_s",
    "num",
)
"""The columns of `compare.csv`, empty if a method has no such number."""

SAME_CODES = "untrained, same codes"
"""The setting of an untrained sampler, which is the prior, fed with the trained one's codes."""

Row = dict[str, Any]
"""One row: a value for each of `COLUMNS` that the method has."""


def quotient(value: float, reference: float) -> float | None:
    """Return a value over that of true members; None if theirs is 0, as all are alike."""
    return value / reference if reference else None


def three_digits(value: float) -> str:
    """Format a number of any scale, such as a distance, whose scale is that of its features.

    >>> [three_digits(value) for value in (0.01234, 2.1, 371.4, 999.7)]
    ['0.0123', '2.10', '371', '1000']
    """
    return f"{value:.0f}" if 999.5 <= abs(value) < 1e6 else f"{value:#.3g}".rstrip(".")


def _cell(value: float | None, form: str) -> str:
    if value is None:
        return "-"
    return format(value, form) if form else three_digits(value)


# The columns shown as text: name, heading, format; none for three digits.
TEXT = (
    ("membership", "inside", ".3f"),
    ("accuracy", "judged", ".3f"),
    ("accuracy_low", "from", ".3f"),
    ("accuracy_high", "to", ".3f"),
    ("found", "found", ".3f"),
    ("strict", "strict", ".3f"),
    ("w1", "W1", ""),
    ("frechet", "Frechet", ""),
    ("ratio", "/floor", ".2f"),
    ("recall", "recall", ".3f"),
    ("coverage", "cover", ".3f"),
    ("norm_ratio", "norm", ".2f"),
    ("effective_rank", "rank", ".2f"),
    ("sampling_ms", "ms", ".3f"),
    ("training_s", "fit s", ".1f"),
)


def to_text(rows: list[Row], accuracy: float, num_clusters: int) -> str:
    """Lay out the table for a terminal, with a summary below it.

    Args:
        rows: of the table.
        accuracy: as in `closest`; used if there is a judge and more than one cluster.
        num_clusters: of the clustering; some may have no rows.
    """
    head = f"{'method':<14}{'setting':<26}{'c':>3}" + "".join(f"{t:>9}" for _, t, _ in TEXT)
    table = "\n".join([head, *(as_line(row) for row in rows)])
    if num_clusters == 1:
        return f"{table}\n\n{domain_gap(rows)}"
    if any("accuracy" in row for row in rows):
        return f"{table}\n\n{closest(rows, accuracy)}"
    return table


def as_line(row: Row) -> str:
    """Lay out one row of the table."""
    cells = "".join(f"{_cell(row.get(name), form):>9}" for name, _, form in TEXT)
    return f"{row['method']:<14}{row['setting']:<26}{row['cluster']:>3}{cells}"


def closest(rows: list[Row], accuracy: float) -> str:
    """Lay out, per cluster, each method's setting closest to the members among the accurate ones.

    Accuracy is easily gained at the cost of distance; at equal accuracy the distance decides.

    Args:
        rows: of the table.
        accuracy: lowest accepted judged accuracy among the faces found.
    """
    lines = [f"closest to the members at a judged accuracy of at least {accuracy:g}:"]
    for c in sorted({row["cluster"] for row in rows}):
        accurate = [r for r in rows if r["cluster"] == c and (r.get("accuracy") or 0) >= accuracy]
        best: dict[str, Row] = {}
        for row in sorted(accurate, key=lambda row: float(row["frechet"])):
            best.setdefault(row["method"], row)
        for row in best.values():
            ends = (row["frechet"], row["frechet_low"], row["frechet_high"])
            distance, low, high = map(three_digits, ends)
            lines.append(
                f"  cluster {c}: {row['method']}, {row['setting']}: Frechet {distance} "
                f"({low} to {high}), accuracy {row['accuracy']:.3f}"
            )
        missing = {row["method"] for row in rows} - best.keys() - {"members"}
        if missing:
            lines.append(f"  cluster {c}: never as accurate: {', '.join(sorted(missing))}")
    return "\n".join(lines)


def domain_gap(rows: list[Row]) -> str:
    """Lay out the one-cluster test: each method's distance divided by the prior's own.

    With one cluster every latent is a member, so the floor, the mean distance between two sets of
    members, is the prior's distance to the reference. One draw of 10,000 images estimates it only
    to within 10%; if a sampler starts as the prior, the prior with the same codes is more precise.
    """
    paired = {row["method"]: row["frechet"] for row in rows if row["setting"] == SAME_CODES}
    lines = [f"{'one cluster':<40}{'Frechet':>10}{'/ prior':>10}{'/ prior, same codes':>22}"]
    for row in rows:
        name = f"{row['method']}, {row['setting']}"
        line = f"{name:<40}{three_digits(row['frechet']):>10}{_cell(row['ratio'], '.3f'):>10}"
        if row["setting"] == "unverified" and row["method"] in paired:
            line += f"{_cell(quotient(row['frechet'], paired[row['method']]), '.3f'):>22}"
        lines.append(line)
    before, after = PAPER_FID
    lines.append(
        f"{'paper: FID of PGAN, of PGAN + IMLE':<40}{f'{before}, {after}':>10}"
        f"{after / before:>10.3f}"
    )
    return "\n".join(lines)
