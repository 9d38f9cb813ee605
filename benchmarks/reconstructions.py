"""How closely two generators reconstruct the same images, by the first one's labels (Figure 6).

    python -m cgjax.main --mode=assign --workdir=RUN --images=FOLDER        # for each of the two
    python benchmarks/reconstructions.py RUN/assign/FOLDER OTHER/assign/FOLDER

Compares the tables that `--mode=assign` left, as in Figure 6 of [Liu et al. 2020]. Errors are mean
absolute differences, as a share of the pixels' range; the interval of the median difference is a
bootstrap over the images.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

from cgjax.numerics.intervals import bootstrap_interval


def table(folder: Path) -> dict[str, tuple[int, float]]:
    """Return the label and the error of each image, by its name."""
    with open(folder / "assign.csv", newline="") as file:
        return {
            row["file"]: (int(row["cluster"]), float(row["error"])) for row in csv.DictReader(file)
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs=2)
    first, second = map(table, parser.parse_args().folders)
    if first.keys() != second.keys():
        parser.error("the two tables have different images")
    labels = np.array([label for label, _ in first.values()])
    mine = np.array([error for _, error in first.values()])
    theirs = np.array([second[name][1] for name in first])
    print(f"{'label':<7}{'images':>7}{'first':>9}{'second':>9}{'first is nearer in':>20}")
    for label in (*np.unique(labels), "all"):
        at = np.full(len(labels), True) if label == "all" else labels == label
        medians = np.median(mine[at]), np.median(theirs[at])
        nearer = int((mine < theirs)[at].sum())
        print(f"{label:<7}{at.sum():>7}{medians[0]:>9.4f}{medians[1]:>9.4f}{nearer:>20}")
    differences = mine - theirs
    low, high = bootstrap_interval(lambda x: float(np.median(x)), differences)
    print(f"median difference {np.median(differences):.4f} ({low:.4f} to {high:.4f})")


if __name__ == "__main__":
    main()
