"""A few directions in which every row is known exactly, so that fewer rows have to be read again.

When a centroid moves by d, the product of a row y with it changes by

    <y, d> = <Qy, Qd> + y^T (I - Q^T Q) d,    |y^T (I - Q^T Q) d| <= rho(y) rho(d)

with the residual norm rho(x)^2 = ||x||^2 - ||Qx||^2, for any Q whose singular values are at most 1:
the first part is cheap, and the bound on the second is Cauchy-Schwarz in what Q leaves over. With

    Q = T P,    T = inverse of the Cholesky factor of (P P^T + e I)

the rows of Q span the points P, and Qy needs only the products of the rows with the points. Those
of the starting centroids or of the candidates of k-means++ are known from choosing them.

Symbols: y rows (n, f), q points, r restarts, k clusters.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cgjax.kernels.products import HIGHEST
from cgjax.runtime.mesh import varying_like

# At most one point for each _SHARE features: tracking a row's coordinates then costs little.
_MOST, _SHARE = 512, 16
# e, as a share of the points' mean square; with it float32 is exact to 1e-4 of ||y|| ||d||.
_DAMPING = 1e-3
# rho(x) is never taken for less than this share of ||x||, which covers that rounding.
_LEAST_RESIDUAL = 0.03


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
    """Return how many points are worth tracking for rows of `dim` features."""
    return min(_MOST, dim // _SHARE)


def span(points: Float[Array, "q f"], product: Float[Array, "n q"]) -> Subspace:
    """Return the subspace of points, given -2 <y, point> of all rows: O(n q^2) time.

    The points are relative to the offset; zeros and repeated points are allowed.
    """
    num = points.shape[0]
    if num == 0:
        return nothing(product.shape[0], points.shape[1], like=product)
    inner = jnp.matmul(points, points.T, precision=HIGHEST)
    damping = _DAMPING * jnp.trace(inner) / num + jnp.finfo(jnp.float32).tiny
    factor = jnp.linalg.cholesky(inner + damping * jnp.eye(num, dtype=jnp.float32))
    transform = jax.scipy.linalg.solve_triangular(
        factor, jnp.eye(num, dtype=jnp.float32), lower=True
    )
    coordinates = jnp.matmul(product, -0.5 * transform.T, precision=HIGHEST)
    return Subspace(points, transform, coordinates, jnp.sum(jnp.square(coordinates), axis=1))


def nothing(num_rows: int, dim: int, *, like: Array) -> Subspace:
    """Return the subspace without directions; `like` is an array split over devices as rows are."""
    empty = varying_like(jnp.zeros((num_rows, 0), jnp.float32), like)
    zeros = varying_like(jnp.zeros((num_rows,), jnp.float32), like)
    return Subspace(jnp.zeros((0, dim), jnp.float32), jnp.zeros((0, 0), jnp.float32), empty, zeros)


def residuals_of_rows(subspace: Subspace, squares: Float[Array, " n"]) -> Float[Array, " n"]:
    """Return the residual norms rho(y) of all rows, given their squared norms."""
    return jnp.sqrt(_at_least(squares - subspace.explained, squares))


def along(subspace: Subspace, points: Float[Array, "r k f"]) -> Float[Array, "r k q"]:
    """Return Qx of points x."""
    inner = jnp.einsum("rkf,qf->rkq", points, subspace.points, precision=HIGHEST)
    return jnp.einsum("rkp,qp->rkq", inner, subspace.transform, precision=HIGHEST)


def change(subspace: Subspace, along: Float[Array, "r k q"]) -> Float[Array, "n r k"]:
    """Return -2 <Qy, Qd> for all rows y, where Qd is given."""
    return jnp.einsum("nq,rkq->nrk", subspace.coordinates, -2.0 * along, precision=HIGHEST)


def residuals_of_pairs(
    movement: Float[Array, "*i k f"], along: Float[Array, "*i k q"], path: Float[Array, "*i k k"]
) -> Float[Array, "*i k k"]:
    """Return rho(m_a - m_c) of movements m made in several steps d, given Qm.

    `path` is the sum of ||d_a - d_c|| over the steps, each of which was rounded.
    """
    residual = _pairs(_inner(movement) - _inner(along))
    return jnp.sqrt(_at_least(residual, jnp.square(path)))


def pairs(points: Float[Array, "*i k f"]) -> Float[Array, "*i k k"]:
    """Return ||x_a - x_c||^2 of points x."""
    return jnp.maximum(_pairs(_inner(points)), 0.0)


def _inner(points: Float[Array, "*i k f"]) -> Float[Array, "*i k k"]:
    return jnp.einsum("...af,...cf->...ac", points, points, precision=HIGHEST)


def _pairs(inner: Float[Array, "*i k k"]) -> Float[Array, "*i k k"]:
    """Return G_aa + G_cc - 2 G_ac."""
    squares = jnp.diagonal(inner, axis1=-2, axis2=-1)
    return squares[..., :, None] + squares[..., None, :] - 2.0 * inner


def _at_least(residual: Float[Array, "*i"], squares: Float[Array, "*i"]) -> Float[Array, "*i"]:
    return jnp.maximum(residual, 0.0) + _LEAST_RESIDUAL**2 * squares
