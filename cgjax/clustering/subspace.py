"""A few directions in which every row is known exactly, so that fewer rows have to be read again.

When a centroid moves by d, the product of a row y with it changes by

    <y, d> = <Qy, Qd> + y^T (I - Q^T Q) d,    |y^T (I - Q^T Q) d| <= rest(y) rest(d)

with rest(x)^2 = ||x||^2 - ||Qx||^2, for any Q whose singular values are at most 1: the first part
is cheap, and the bound of the second is Cauchy-Schwarz in what Q leaves over. With

    Q = T P,    T = inverse of the Cholesky factor of (P P^T + e I)

the rows of Q span the points P, and Qy needs only the products of the rows with the points. Those
of the starting centroids or of the candidates of k-means++ are known from choosing them.

Symbols: y rows (n, f), q points, r restarts, k clusters.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cgjax.kernels.distance import HIGHEST
from cgjax.parallel import varying_like

# A share of the features' number: then a row's part in the subspace costs little to follow.
_MOST, _SHARE = 512, 16
# e, as a share of the points' mean square; with it float32 is exact to 1e-4 of ||y|| ||d||.
_DAMPING = 1e-3
# rest(x) is never taken for less than this share of ||x||, which covers that rounding.
_LEAST_REST = 0.03


class Subspace(NamedTuple):
    """The directions and the rows' coordinates in them.

    Attributes:
        points: (q, f) float32, P, relative to the offset.
        transform: (q, q) float32, T.
        coordinates: (n, q) float32, Qy; this shard's rows.
        explained: (n,) float32, ||Qy||^2.
    """

    points: Float[Array, "q f"]
    transform: Float[Array, "q q"]
    coordinates: Float[Array, "n q"]
    explained: Float[Array, " n"]


def most_points(dim: int) -> int:
    """Return how many points are worth following in rows of so many features."""
    return min(_MOST, dim // _SHARE)


def span(points: Float[Array, "q f"], product: Float[Array, "n q"]) -> Subspace:
    """Return the subspace of the points: O(n q^2) time.

    Args:
        points: (q, f) float32, relative to the offset; any, also zeros or one twice.
        product: (n, q), -2 <y, point> of all rows.
    """
    num = points.shape[0]
    if num == 0:
        return nothing(product.shape[0], points.shape[1], like=product)
    inner = jnp.matmul(points, points.T, precision=HIGHEST)
    damping = _DAMPING * jnp.trace(inner) / num + jnp.finfo(jnp.float32).tiny
    factor = jnp.linalg.cholesky(inner + damping * jnp.eye(num))
    transform = jax.scipy.linalg.solve_triangular(factor, jnp.eye(num), lower=True)
    coordinates = jnp.matmul(product, -0.5 * transform.T, precision=HIGHEST)
    return Subspace(points, transform, coordinates, jnp.sum(jnp.square(coordinates), axis=1))


def nothing(num_rows: int, dim: int, *, like: Array) -> Subspace:
    """Return the subspace without directions; `like` says over which devices the rows are split."""
    empty = varying_like(jnp.zeros((num_rows, 0), jnp.float32), like)
    zeros = varying_like(jnp.zeros((num_rows,), jnp.float32), like)
    return Subspace(jnp.zeros((0, dim)), jnp.zeros((0, 0)), empty, zeros)


def rest_of_rows(subspace: Subspace, squares: Float[Array, " n"]) -> Float[Array, " n"]:
    """Return rest(y) of all rows, of which the squared norms are given."""
    return jnp.sqrt(_at_least(squares - subspace.explained, squares))


def follow(
    subspace: Subspace, movement: Float[Array, "r k f"]
) -> tuple[Float[Array, "n rk"], Float[Array, "r k k"]]:
    """Return by how much the products -2 <y, mu> change in the subspace, and rest(d_a - d_c).

    Args:
        subspace: the directions.
        movement: (r, k, f), d of each centroid.
    """
    num_init, num_clusters, dim = movement.shape
    flat = movement.reshape(-1, dim)
    along = jnp.matmul(flat, subspace.points.T, precision=HIGHEST)
    along = jnp.matmul(along, subspace.transform.T, precision=HIGHEST)
    change = jnp.matmul(subspace.coordinates, -2.0 * along.T, precision=HIGHEST)
    inner = _inner(movement)
    left = inner - _inner(along.reshape(num_init, num_clusters, -1))
    sizes = _pairs(jnp.zeros_like(inner), inner)
    return change, jnp.sqrt(_at_least(_pairs(left, left), sizes))


def _inner(points: Float[Array, "r k f"]) -> Float[Array, "r k k"]:
    return jnp.einsum("raf,rcf->rac", points, points, precision=HIGHEST)


def _pairs(inner: Float[Array, "r k k"], own: Float[Array, "r k k"]) -> Float[Array, "r k k"]:
    """Return G_aa + G_cc - 2 G_ac, the first two from another matrix."""
    squares = jnp.diagonal(own, axis1=1, axis2=2)
    return squares[:, :, None] + squares[:, None, :] - 2.0 * inner


def _at_least(left: Float[Array, "*i"], squares: Float[Array, "*i"]) -> Float[Array, "*i"]:
    return jnp.maximum(left, 0.0) + _LEAST_REST**2 * squares
