"""IMLE's matching: which generated latent is nearest to each member of a cluster.

Symbols: z latent, k clusters, m padded members, g generated latents.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cgjax.clustering.faiss_backend import nearest_faiss
from cgjax.kernels.distance import nearest
from cgjax.samplers.base import Members, first_rows

MATCHERS = ("jax", "faiss")


def match(
    z: Float[Array, "m d"],
    generated: Float[Array, "g d"],
    num_generated: Int[Array, ""],
    num_members: Int[Array, ""] | None = None,
) -> tuple[Int[Array, " m"], Float[Array, " m"]]:
    """Return each member's nearest generated latent and the squared distance to it.

    Args:
        z: (m, d) members.
        generated: (g, d) mapped codes.
        num_generated: number of generated latents that count; the rest are padding.
        num_members: number of members that count; blocks of padding cost nothing.
    """
    valid = first_rows(generated.shape[0], num_generated)
    return nearest(z, generated, valid=valid, active=num_members)


def match_all(
    members: Members,
    generated: Float[Array, "k g d"],
    used: Int[Array, " k"],
    axis_name: str | None,
) -> tuple[Int[Array, "k m"], Float[Array, "k m"]]:
    """Match every cluster's members, one cluster at a time so that each product is large.

    Args:
        members: the latents of every cluster.
        generated: (k, g, d) mapped codes; with `axis_name`, this device's part of them.
        used: (k,) codes of each cluster that count, over all devices.
        axis_name: mesh axis that the codes are spread over; the nearest of the parts' nearest is
            taken, the lowest index on ties.

    Returns:
        (k, m) indices and squared distances.
    """
    if axis_name is None:
        start = jnp.int32(0)
    else:
        start = jax.lax.axis_index(axis_name) * generated.shape[1]
    index, distance = jax.lax.map(
        lambda args: match(*args), (members.latents, generated, used - start, members.counts)
    )
    if axis_name is None:
        return index, distance
    index, distance = (jax.lax.all_gather(x, axis_name) for x in (index + start, distance))
    part = jnp.argmin(distance, axis=0)[None]
    index, distance = (jnp.take_along_axis(x, part, axis=0)[0] for x in (index, distance))
    return index, distance


def match_by_faiss(
    members: Members, generated: Float[Array, "k g d"], used: Int[Array, " k"]
) -> tuple[Int[np.ndarray, "k m"], Float[np.ndarray, "k m"]]:
    """Match on the host as `match_all` does on one device; padding gets index 0."""
    index = np.zeros(members.latents.shape[:2], np.int32)
    distance = np.zeros(index.shape, np.float32)
    sizes = zip(members.counts.tolist(), used.tolist(), strict=True)
    for c, (count, size) in enumerate(sizes):
        if count:
            index[c, :count], distance[c, :count] = nearest_faiss(
                members.latents[c, :count], generated[c, :size]
            )
    return index, distance
