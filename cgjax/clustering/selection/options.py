"""How the number of clusters is chosen, and how many rows that takes."""

from typing import NamedTuple

from cgjax.errors import UserError

# Of every cluster that could be asked for, on average; a third of them is clustered.
_ROWS_PER_CLUSTER, _LEAST_ROWS = 60, 300


class SelectionOptions(NamedTuple):
    """How to choose.

    Attributes:
        num_fit: rows of each of the two sets that are clustered, at most.
        num_third: rows of the third set, which both assign, at most.
        dim: leading principal components in whose span all is done, at most.
        num_repeats: clusterings that each cluster is looked for in: of the second set, and then
            of as many random rows of the second and the third, of which the rest is assigned.
        num_resamples: for the intervals.
        num_null: draws of one Gaussian, where more than two clusters are compared with it.
        alpha: a gap between two clusters counts when a cloud without one has at most this chance
            to show it.
        confidence: of the intervals.
        seed_rows: rows of the tree from which the clusterings start, at most.
    """

    num_fit: int = 3000
    num_third: int = 4000
    dim: int = 64
    num_repeats: int = 4
    num_resamples: int = 200
    num_null: int = 99
    alpha: float = 0.01
    confidence: float = 0.95
    seed_rows: int = 3000


def least_rows(max_number: int) -> int:
    """Return how many rows choosing among 1 to `max_number` clusters takes.

    >>> least_rows(16)
    960
    """
    return max(_LEAST_ROWS, _ROWS_PER_CLUSTER * max_number)


def check_rows(num_rows: int, max_number: int) -> None:
    """Refuse too few rows before anything is computed.

    Args:
        num_rows: rows, of all three sets together.
        max_number: most clusters that may be chosen.

    Raises:
        UserError: fewer rows than `least_rows`, or a number of clusters below 1.
    """
    if max_number < 1:
        raise UserError(f"max_number={max_number}; expected at least 1 cluster")
    least = least_rows(max_number)
    if num_rows < least:
        raise UserError(
            f"choosing among 1 to {max_number} clusters needs at least {least} latents, not "
            f"{num_rows}; give --config.latents.num={least} or more, or a number as "
            "--config.cluster.num_clusters"
        )
