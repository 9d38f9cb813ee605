"""Drawing samples: a fitted sampler as a source of proposals, and images as files."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from cgjax.errors import UserError
from cgjax.regions.acceptance import AcceptanceEstimate, expected_acceptance
from cgjax.regions.region import Region
from cgjax.runtime.files import make_folder, write_atomically
from cgjax.runtime.png import is_ours, to_png
from cgjax.samplers.base import Sampler, SamplerState
from cgjax.samplers.verify import rescale


class Samples(NamedTuple):
    """What `Run.sample` returns.

    Attributes:
        images: (num, size, size, channels) float32, nominally in [-1, 1].
        latents: (num, d) float32.
        acceptance: share of the checked proposals that were members; None if not verified.
    """

    images: Float[np.ndarray, "num s s c"]
    latents: Float[np.ndarray, "num d"]
    acceptance: float | None


DEPTHS = 101
"""Quantiles of depth that are kept for a sampler of one region."""


class FittedSampler(NamedTuple):
    """A sampler with what it has learnt.

    Attributes:
        sampler: the hyper-parameters.
        state: the arrays.
        norm: length to which proposals are scaled, or None to leave them as they are.
        depths: of a region's members, quantiles at evenly spaced levels; see `Region.depth`. None
            for a sampler of clusters, whose quantiles are those of the margins.
    """

    sampler: Sampler
    state: SamplerState
    norm: float | None
    depths: Float[np.ndarray, " q"] | None = None

    def propose(
        self, cluster: int, margin: float, key: PRNGKeyArray, num: int
    ) -> Float[Array, "num d"]:
        """Draw latents that should lie in one of the learnt clusters, or in the learnt region.

        A sampler that cannot aim at a margin proposes from the whole cluster; one that proposes
        from the prior ignores the cluster.
        """
        if self.depths is not None:
            levels = np.linspace(0.0, 1.0, len(self.depths))
            margin = min(float(np.interp(margin, self.depths, levels)), 1.0 - 1e-6)
        z = self.sampler.sample(self.state, key, cluster, num, margin=margin)
        return z if self.norm is None else rescale(z, self.norm)


class Source(NamedTuple):
    """A sampler aimed at a region.

    Attributes:
        fitted: the sampler.
        cluster: which of the clusters that it was trained on it draws from.
        margin: the quantile, from 0 to 1, above which it draws.
        among: the region that it draws from if it is faithful; None for the prior.
    """

    fitted: FittedSampler
    cluster: int = 0
    margin: float = 0.0
    among: Region | None = None

    def propose(self, key: PRNGKeyArray, num: int) -> Float[Array, "num d"]:
        """Draw latents that may lie in the region."""
        return self.fitted.propose(self.cluster, self.margin, key, num)

    def expected(self, region: Region) -> AcceptanceEstimate:
        """Return how many proposals are expected to pass the membership check."""
        return expected_acceptance(region, self.among)


def save_images(
    images: Float[np.ndarray, "n s s c"], latents: Float[np.ndarray, "n d"], folder: Path
) -> None:
    """Write `00000.png`, ... and `latents.npy`; older samples in the folder are replaced.

    The latents are removed first and written last: a folder without them holds half a draw.

    Raises:
        UserError: if the folder cannot be created or written, or holds files of these names that
            are not samples of cgjax.
    """
    make_folder(folder)
    remove_samples(folder)
    for i, image in enumerate(images):
        write_atomically(folder / f"{i:05d}.png", to_png(image))
    buffer = io.BytesIO()
    np.save(buffer, latents)
    write_atomically(folder / LATENTS, buffer.getvalue())


LATENTS = "latents.npy"


def holds_samples(folder: Path) -> bool:
    """Whether a folder itself holds images of an earlier draw."""
    return any(path.is_file() and is_ours(path) for path in _numbered(folder))


def _numbered(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.glob("*.png")) if re.fullmatch(r"\d{5,}", p.stem)]


def remove_samples(folder: Path) -> None:
    """Remove an earlier draw from a folder; raises as `older_samples`."""
    old = older_samples(folder)
    (folder / LATENTS).unlink(missing_ok=True)
    for path in old:
        path.unlink()


def older_samples(folder: Path) -> list[Path]:
    """Return the images of an earlier draw in a folder, which a new draw replaces.

    Raises:
        UserError: if files of these names are the user's own.
    """
    numbered = _numbered(folder)
    foreign = [path for path in numbered if not (path.is_file() and is_ours(path))]
    if not numbered and (folder / LATENTS).exists():
        foreign = [folder / LATENTS]
    if foreign:
        raise UserError(
            f"{folder} holds {foreign[0].name}, which is not a sample of this version of cgjax "
            "and would be overwritten; remove it, or name another folder"
        )
    return numbered
