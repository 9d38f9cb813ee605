"""Directions in a latent space, and edits that move latents along them."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike, NDArray

from cgjax.errors import UserError
from cgjax.numerics.arguments import as_float32, is_whole
from cgjax.numerics.rows import as_rows

EditForm = Literal["shift", "set"]


def edit(
    latents: ArrayLike,
    direction: ArrayLike,
    alpha: ArrayLike,
    *,
    form: EditForm = "shift",
    mean: ArrayLike = 0.0,
    normalise: bool = False,
) -> Float[Array, "n d"]:
    """Move latents along a unit direction v.

    shift: z' = z + alpha v. set: z' = z - ((z - mean).v) v + alpha v, which first removes the
    sample's own coordinate, so that all samples end at the same one, mean.v + alpha [Harkonen et
    al. 2020]. With z ~ N(0, I), a shift by 1 moves a balanced linear attribute from 50% to only
    84%: sweep alpha, with both signs.

    Args:
      latents: (n, d) float.
      direction: (d,) of any length; scaled to unit length here.
      alpha: a number, or (n,) one for each latent; a negative one moves the opposite way.
      form: "shift" or "set".
      mean: (d,) or a number, used by "set"; 0 in a standard normal latent space.
      normalise: first scale each latent to norm sqrt(d), for generators that do so themselves
        (`normalizes_latent`): alpha then has the same effect on every sample [Shen & Zhou 2021].

    Returns:
      (n, d) float32.

    Raises:
      UserError: the shapes do not match, `form` is unknown, the direction has length 0, or it,
        alpha or mean is not finite (values are not checked inside jitted functions).

    >>> edit([[3.0, 4.0]], [1.0, 0.0], 2.0, form="set").tolist()
    [[2.0, 4.0]]
    """
    if form not in ("shift", "set"):
        raise UserError(f"form={form!r}; expected 'shift' or 'set'")
    z = jnp.asarray(as_float32("latents", latents, "(n, d)"))
    v = _finite("direction", direction, "(d,)")
    if z.ndim != 2 or v.shape != z.shape[1:]:
        raise UserError(
            f"latents {z.shape} and direction {v.shape} do not match; expected (n, d) and (d,)"
        )
    a = _finite("alpha", alpha, "a number, or one for each latent")
    if a.shape not in ((), (len(z),)):
        raise UserError(f"alpha has shape {a.shape}; expected a number or ({len(z)},)")
    length = jnp.linalg.norm(v)
    if not isinstance(length, jax.core.Tracer) and length == 0:
        raise UserError(
            "the direction has length 0: its layer does not vary along it; choose one before it"
        )
    v = (v / length)[None, :]
    if normalise:
        z = z / jnp.sqrt(jnp.mean(jnp.square(z), axis=1, keepdims=True))
    amount = jnp.broadcast_to(a, (len(z),))[:, None]
    if form == "set":
        centre = _finite("mean", mean, "(d,) or a number")
        if centre.shape not in ((), v.shape[1:]):
            raise UserError(f"mean has shape {centre.shape}; expected a number or {v.shape[1:]}")
        centred = z - jnp.broadcast_to(centre, z.shape)
        amount = amount - jnp.sum(centred * v, axis=1, keepdims=True)
    return z + amount * v


def _finite(name: str, values: ArrayLike, expected: str) -> Array:
    array = jnp.asarray(as_float32(f"the numbers of {name}", values, expected))
    if not isinstance(array, jax.core.Tracer) and not bool(jnp.isfinite(array).all()):
        raise UserError(f"{name} holds NaN or Inf; expected finite numbers")
    return array


@dataclasses.dataclass(frozen=True)
class Directions:
    """Directions of one method in one latent space, most important first.

    `cgjax.run.directions` saves and loads them.

    Attributes:
      method: "sefa" or "ganspace".
      space: what to edit: "z", or the name of the layer that holds the space, such as "w".
      layers: the layers they were computed from.
      vectors: (k, d) float32, unit rows.
      strengths: (k,) float32: eigenvalues (SeFa), or variances of the layer's components
        (GANSpace).
      scales: (k,) float32: the length of alpha = 1 along each direction: 1 in z, the measured
        standard deviation in w.
      mean: (d,) float32: the latent that "set" measures coordinates from.
    """

    method: str
    space: str
    layers: tuple[str, ...]
    vectors: NDArray[np.float32]
    strengths: NDArray[np.float32]
    scales: NDArray[np.float32]
    mean: NDArray[np.float32]

    def __repr__(self) -> str:
        """Name the method and the space instead of printing the arrays."""
        num, dim = self.vectors.shape
        layers = f", layers {', '.join(self.layers)}" if self.layers else ""
        return f"<{num} {self.method} directions of {self.space} ({dim} numbers){layers}>"

    def edit(
        self,
        latents: ArrayLike,
        index: int,
        alpha: ArrayLike,
        *,
        form: EditForm = "shift",
        normalise: bool = False,
    ) -> Float[Array, "n d"]:
        """Move latents by `alpha` scales along direction `index`, counted from 0 (see `edit`).

        The latents must be those of `space`: z itself, or for "w" `generator.features(z, "w")`. The
        two often have the same width, so a mix-up is not detected.
        """
        if not is_whole(index, 0) or index >= len(self.vectors):
            raise UserError(
                f"direction {index!r} is not one of 0 to {len(self.vectors) - 1}; fit more "
                "directions"
            )
        scaled = _finite("alpha", alpha, "a number, or one for each latent")
        scaled = scaled * float(self.scales[index])
        return edit(
            latents, self.vectors[index], scaled, form=form, mean=self.mean, normalise=normalise
        )

    def measured(self, latents: ArrayLike) -> Directions:
        """Return the directions with the mean and the scales of these latents of `space`, (n, d).

        alpha then counts standard deviations along a direction, as it does in z.
        """
        rows = as_rows("latents", latents, min_rows=2)
        if rows.shape[1] != len(self.mean):
            raise UserError(
                f"latents of {self.space} have {rows.shape[1]} numbers, the directions "
                f"{len(self.mean)}; expected the same number"
            )
        scales = (rows @ self.vectors.T).std(axis=0).astype(np.float32)
        mean = rows.mean(axis=0).astype(np.float32)
        return dataclasses.replace(self, scales=scales, mean=mean)
