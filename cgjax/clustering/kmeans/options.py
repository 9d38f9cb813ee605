"""The options of a k-means search: one tuple from the public call down to the iteration.

Symbols: r restarts, k clusters, f features.
"""

from typing import Literal, NamedTuple

import jax
from jaxtyping import Array, Float

Method = Literal["k-means++", "random"]
INITS: tuple[Method, ...] = ("k-means++", "random")


class Options(NamedTuple):
    """How to search. As a jitted function's argument the first three fields are static.

    Attributes:
        numbers: the numbers of clusters k; they share the passes over the data.
        num_init: number of restarts, at least 1.
        method: how starting centroids are chosen.
        max_iter: most iterations of a restart, at least 1.
        tol: of the squared movement of centroids; see `cgjax.kmeans`.
        centroids: (r, k, f) float32, where to start instead, for a single number of clusters; the
            key, `num_init` and `method` are then ignored.
    """

    numbers: tuple[int, ...]
    num_init: int = 10
    method: Method = "k-means++"
    max_iter: int | Array = 100
    tol: float | Array = 1e-4
    centroids: Float[Array, "r k f"] | None = None


_NUM_STATIC = 3

jax.tree_util.register_pytree_node(
    Options,
    lambda options: (options[_NUM_STATIC:], options[:_NUM_STATIC]),
    lambda static, traced: Options(*static, *traced),
)
