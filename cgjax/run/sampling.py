"""Samples of a run: a fitted sampler as a source of proposals, and images as files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from cgjax.regions.region import ClusterRegion
from cgjax.runtime.files import make_folder, write_atomically
from cgjax.runtime.png import to_png
from cgjax.samplers.base import Sampler, SamplerState
from cgjax.samplers.verify import rescale


class Samples(NamedTuple):
    """What `Run.sample` returns.

    Attributes:
        images: (num, size, size, channels) float32, nominally in [-1, 1].
        latents: (num, d) float32.
        acceptance: share of the checked proposals that were members, or None if not verified.
    """

    images: Float[np.ndarray, "num s s c"]
    latents: Float[np.ndarray, "num d"]
    acceptance: float | None


class FittedSampler(NamedTuple):
    """A sampler with what it has learnt.

    Attributes:
        sampler: the hyper-parameters.
        state: the arrays.
        norm: length to which proposals are scaled, or None to leave them as they are.
    """

    sampler: Sampler
    state: SamplerState
    norm: float | None

    def propose(
        self, aim: ClusterRegion | None, key: PRNGKeyArray, num: int
    ) -> Float[Array, "num d"]:
        """Draw latents that are meant to lie in a cluster of the clustering it was fitted on.

        A sampler that cannot aim at a margin proposes from the whole cluster; one that proposes
        the prior needs no cluster.
        """
        cluster, low = (aim.cluster, aim.margin.low) if aim is not None else (0, 0.0)
        z = self.sampler.sample(self.state, key, cluster, num, margin=low)
        return z if self.norm is None else rescale(z, self.norm)


def save_images(
    images: Float[np.ndarray, "n s s c"], latents: Float[np.ndarray, "n d"], folder: Path
) -> None:
    """Write `00000.png`, ... and `latents.npy`; older samples in the folder are replaced.

    Raises:
        UserError: if the folder cannot be made or written.
    """
    make_folder(folder)
    for old in folder.glob("[0-9][0-9][0-9][0-9][0-9].png"):
        old.unlink()
    for i, image in enumerate(images):
        write_atomically(folder / f"{i:05d}.png", to_png(image))
    buffer = io.BytesIO()
    np.save(buffer, latents)
    write_atomically(folder / "latents.npy", buffer.getvalue())
