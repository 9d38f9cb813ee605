"""The stage that draws the latents of a run, once for all clusterings."""

from __future__ import annotations

import io
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from cgjax.run.run import Run
from cgjax.runtime.array_files import write_npy
from cgjax.runtime.keys import named_key
from cgjax.stages.graph import Maker

BATCH = 4096
"""Latents drawn with one key: fixed, so that the same seed gives the same latents everywhere."""


def latents_of(run: Run, maker: Maker) -> Float[np.ndarray, "n d"]:
    """Return the run's latents in every process; draws and saves them if they are not current."""
    path = run.folder.latents
    if maker.result("latents") is None:
        with maker.making("latents", in_parts=True):
            if maker.processes.is_first:
                write_npy(path, _draw(run, run.config["latents"]["num"]))
    data = path.read_bytes() if maker.processes.is_first else b""
    return np.load(io.BytesIO(maker.processes.send(data)), allow_pickle=False)


def _draw(run: Run, num: int) -> Float[np.ndarray, "n d"]:
    key = named_key(run.root_key, "latents")
    rounds = range(math.ceil(num / BATCH))
    parts = [run.generator.sample_latents(named_key(key, r), BATCH) for r in rounds]
    return np.asarray(jnp.concatenate(parts)[:num])
