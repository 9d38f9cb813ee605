"""Whether an object keeps the generator's contract: a few latents through all it can do.

The border in `foreign` sees kinds and shapes at every call. What only values show is checked here,
before any work: that latents are draws, that numbers are finite and images in range, and that
features and images are a function of the latent. A generator with batch norm in training mode or
with random noise runs to its end otherwise, with numbers that mean nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from cgjax.errors import UserError
from cgjax.generators.arrays import describe_shape, finite_rows
from cgjax.generators.base import PretrainedGenerator
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.generators.foreign import CannotResume

NUM = 4
"""Latents that are tried."""

# Two passes over the same rows run the same program: only the order of atomic sums on a GPU may
# differ, some 1e-6 of the values. The weakest randomness of a published network, StyleGAN2's noise,
# is of order 1e-2.
SAME = 1e-4
# One row alone may run by another algorithm: 1e-6 in float32, 1e-3 where one of the two uses TF32,
# 1e-2 in a network that computes in bfloat16. Batch norm over 4 rows and over 1 differs by 0.1 and
# more.
ALONE = 3e-2
# Beyond rounding: below this share of their size, rows do not depend on the latent.
CONSTANT = 1e-6
# Pretrained generators overshoot [-1, 1] by some 0.3: a warning beyond this.
CLIPPED = 1.5


class LayerFindings(NamedTuple):
    """What was found at one layer.

    Attributes:
        name: the layer; "images" for the whole network.
        shape: of one latent's activation.
        megabytes: that the features of a thousand latents take.
        milliseconds: that a thousand latents take; None where it was not measured.
        can_resume: whether the rest of the network can be run from here.
    """

    name: str
    shape: tuple[int, ...]
    megabytes: float
    milliseconds: float | None
    can_resume: bool


class Findings(NamedTuple):
    """What `check_generator` found of a generator that keeps the contract.

    Attributes:
        name: what messages call it.
        latent_dim: length of a latent.
        image_range: least and greatest value in the images of the few latents tried.
        layers: of each layer tried, in order; the images last.
    """

    name: str
    latent_dim: int
    image_range: tuple[float, float]
    layers: tuple[LayerFindings, ...]


def ensure_generator(conditioned: ConditionedGenerator, name: str) -> None:
    """Check a generator at its own layer before a run writes anything.

    The families of this package are left out: their tests prove them, and the hash of their weights
    was checked when they were loaded.

    Args:
        conditioned: the run's generator.
        name: what messages call it: config.generator.name.

    Raises:
        UserError: what is wrong, in one line, with what to change.
        ForeignError: the generator's own code raised an exception.
    """
    if is_ours(conditioned.gen):
        return
    found = check_generator(conditioned, name=name, layers=(conditioned.layer,))
    low, high = found.image_range
    if max(-low, high) > CLIPPED:
        logging.warning(
            "%s: images range from %.3g to %.3g; they are read as -1 (black) to 1 (white), and "
            "pictures clip the rest",
            found.name,
            low,
            high,
        )


def is_ours(gen: Any) -> bool:
    """Whether a generator's forward pass is this package's code."""
    network = gen.network if isinstance(gen, PretrainedGenerator) else None
    return network is not None and type(network).__module__.startswith("cgjax.")


def check_generator(
    conditioned: ConditionedGenerator,
    *,
    name: str = "",
    layers: Sequence[str] | None = None,
    time_batch: int | None = None,
) -> Findings:
    """Check a generator on a handful of latents; the first fault found is raised.

    Args:
        conditioned: the generator with its keywords.
        name: what messages call it; default: the name it was loaded by, or its class.
        layers: the layers to try; default: all.
        time_batch: latents a pass when measuring; default: measure nothing.

    Returns:
        What was found.

    Raises:
        UserError: what is wrong, in one line, with what to change.
        ForeignError: the generator's own code raised an exception.

    Example:
        >>> from cgjax.testing.planted import make_planted
        >>> found = check_generator(ConditionedGenerator(make_planted(), "layer1", {}, 8))
        >>> [(layer.name, layer.shape) for layer in found.layers]
        [('layer1', (1, 1, 4)), ('layer2', (16, 16, 1)), ('images', (16, 16, 3))]
    """
    name = getattr(conditioned.gen, "name", "") or name or type(conditioned.gen).__name__
    tried = [conditioned.at_layer(layer) for layer in layers or conditioned.gen.layers]
    z = _check_latents(conditioned, name)
    # Features first: what is wrong in them is wrong in the images too, mostly.
    features = [_check_features(at_layer, name, z) for at_layer in tried]
    images = _check_images(conditioned, name, z)
    found = [
        _check_resume(at_layer, name, z, h, images)
        for at_layer, h in zip(tried, features, strict=True)
    ]
    found.append(_findings("images", images, can_resume=False))
    if time_batch is not None:
        runs = [*(at_layer.features for at_layer in tried), _one_pass(conditioned)]
        seconds = _measure(runs, conditioned, time_batch)
        found = [
            layer._replace(milliseconds=1e6 * s / time_batch)
            for layer, s in zip(found, seconds, strict=True)
        ]
    image_range = float(images.min()), float(images.max())
    return Findings(name, conditioned.gen.latent_dim, image_range, tuple(found))


def _check_latents(conditioned: ConditionedGenerator, name: str) -> np.ndarray:
    whose = f"{name}.sample_latents"

    def draw(seed: int, num: int = NUM) -> np.ndarray:
        return finite_rows(whose, conditioned.sample_latents(jax.random.key(seed), num))

    z = draw(0)
    if not _distance(draw(0), z, z) <= SAME:
        raise UserError(
            f"{whose} gives other latents for the same key; draw them from the key alone, as "
            "jax.random.normal(key, (n, latent_dim)) does"
        )
    if _is_constant(z):
        raise UserError(f"{whose} gives the same latent {NUM} times; draw n different ones")
    if _distance(draw(1), z, z) <= SAME:
        raise UserError(
            f"{whose} gives the same latents for another key; draw them from the key, as "
            "jax.random.normal(key, (n, latent_dim)) does"
        )
    draw(0, 1)
    return z


def _check_images(conditioned: ConditionedGenerator, name: str, z: np.ndarray) -> np.ndarray:
    whose, run = f"{name}.images", _one_pass(conditioned)
    images = _check_function(whose, run, z)
    if _is_constant(images):
        raise UserError(f"{whose} returns the same image for every latent; make it depend on z")
    low, high = float(images.min()), float(images.max())
    change = ""
    # Rounding and the overshoot of a resampling filter aside.
    if low >= -0.5 and 4 < high <= 256:
        change = "x / 127.5 - 1"
    elif low >= -1e-3 and high <= 1 + 1e-3:
        change = "2 * x - 1"
    if change and not _declares_range(conditioned.gen):
        raise UserError(
            f"{whose} returns values from {low:.3g} to {high:.3g}, and images are read as -1 "
            f"(black) to 1 (white); return {change} (with from_torch: image_range=...), or set "
            "image_range = (-1, 1) on the generator if they are meant so"
        )
    return images


def _declares_range(gen: Any) -> bool:
    declared = getattr(gen, "image_range", None)
    return isinstance(declared, list | tuple) and [float(x) for x in declared] == [-1.0, 1.0]


def _check_features(conditioned: ConditionedGenerator, name: str, z: np.ndarray) -> np.ndarray:
    gen, layer = conditioned.gen, conditioned.layer

    def run(rows: np.ndarray) -> np.ndarray:
        return np.asarray(gen.features(jnp.asarray(rows), layer, **conditioned.keywords))

    h = _check_function(f"{name}.features", run, z, f" at layer {layer!r}")
    if _is_constant(h):
        raise UserError(
            f"{name}.features returns the same values for every latent at layer {layer!r}: there "
            "is nothing to cluster; choose another --config.layer, or make it depend on z"
        )
    return h


def _check_resume(
    conditioned: ConditionedGenerator,
    name: str,
    z: np.ndarray,
    h: np.ndarray,
    images: np.ndarray,
) -> LayerFindings:
    gen, layer = conditioned.gen, conditioned.layer
    can_refuse = UserError if isinstance(gen, PretrainedGenerator) else CannotResume
    whose = f"{name}.resume(features(z, {layer!r}), {layer!r})"
    try:
        returned = conditioned.resume(jnp.asarray(h), jnp.asarray(z))
    except can_refuse:
        return _findings(layer, h, can_resume=False)
    resumed = finite_rows(whose, returned)
    if resumed.shape != images.shape:
        raise UserError(
            f"{whose} returned images {describe_shape(resumed.shape[1:])}, images(z) "
            f"{describe_shape(images.shape[1:])}; "
            "expected the same; run exactly the rest of the network from the activation"
        )
    if not (distance := _distance(resumed, images, images)) <= ALONE:
        raise UserError(
            f"{whose} is not images(z): they differ by {distance:.2g} of the images' spread; run "
            "exactly the rest of the network from the activation, or leave resume out"
        )
    return _findings(layer, h, can_resume=True)


def _check_function(
    whose: str, run: Callable[[np.ndarray], np.ndarray], z: np.ndarray, at: str = ""
) -> np.ndarray:
    """Check that rows are finite and a function of their own latent; return them."""
    rows, again = (finite_rows(whose + at, run(z)) for _ in range(2))
    if not (distance := _distance(again, rows, rows)) <= SAME:
        raise UserError(
            f"{whose} gives other values for the same latents{at} (they differ by "
            f"{distance:.2g} of their spread): is there dropout or noise inside? "
            "Switch to evaluation mode (torch: module.eval()), and fix the noise"
        )
    one = finite_rows(whose + at, run(z[:1]))
    if one.shape[1:] != rows.shape[1:]:
        raise UserError(
            f"{whose} gives a row of shape {one.shape[1:]} for one latent and {rows.shape[1:]} in "
            f"a batch{at}; expected one shape"
        )
    if not (distance := _distance(one, rows[:1], rows)) <= ALONE:
        raise UserError(
            f"{whose} gives a latent alone other values than in a batch{at} (they differ by "
            f"{distance:.2g} of their spread): is batch norm in training mode? "
            "Use its stored statistics (torch: module.eval())"
        )
    return rows


def _is_constant(rows: np.ndarray) -> bool:
    return bool(np.abs(rows - rows[:1]).max() <= CONSTANT * np.abs(rows).max())


def _distance(rows: np.ndarray, reference: np.ndarray, batch: np.ndarray) -> float:
    """Return the root mean square difference, as a share of the spread of a batch's values."""
    spread = float(np.std(batch, dtype=np.float64)) or 1.0
    return math.sqrt(float(np.mean((rows.astype(np.float64) - reference) ** 2))) / spread


def _findings(name: str, rows: np.ndarray, *, can_resume: bool) -> LayerFindings:
    megabytes = 1000 * 4 * rows[0].size / 2**20
    return LayerFindings(name, rows.shape[1:], megabytes, None, can_resume)


def _one_pass(conditioned: ConditionedGenerator) -> Callable[[Any], np.ndarray]:
    return lambda rows: np.asarray(
        conditioned.gen.images(jnp.asarray(rows), **conditioned.keywords)
    )


def _measure(
    runs: Sequence[Callable[[Any], Any]], conditioned: ConditionedGenerator, batch: int
) -> list[float]:
    """Return the median seconds of three passes of a batch each, taken in turns."""
    z = conditioned.sample_latents(jax.random.key(2), batch)
    seconds: list[list[float]] = [[] for _ in runs]
    for repetition in range(4):
        for run, taken in zip(runs, seconds, strict=True):
            begun = time.perf_counter()
            jax.block_until_ready(run(z))
            if repetition:  # the first compiles
                taken.append(time.perf_counter() - begun)
    return [float(np.median(taken)) for taken in seconds]
