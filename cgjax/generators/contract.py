"""Check that an object keeps the generator contract, by trying it on a few latents.

`foreign` checks types and shapes at every call. What only the values show is checked here, before
any work: that latents are random draws, that numbers are finite and images in range, and that
features and images are a function of the latent. Without this, a run with batch norm in training
mode or with random noise would finish, and its numbers would mean nothing.
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
"""Number of latents tried."""

# Two passes over the same rows run the same program: only the order of atomic sums on a GPU may
# differ, which changes values by about 1e-6. The weakest randomness of a published network,
# StyleGAN2's noise, is of order 1e-2.
SAME = 1e-4
# One row alone may be computed by another algorithm, which changes values by 1e-6 in float32, by
# 1e-3 where one of the two uses TF32, by 1e-2 in a bfloat16 network. Batch norm over 4 rows and
# over 1 differs by 0.1 or more.
ALONE = 3e-2
# Rows whose differences are below this share of their size are equal up to rounding: they do not
# depend on the latent.
CONSTANT = 1e-6
# Pretrained generators overshoot [-1, 1] by about 0.3; values beyond this are worth a warning.
CLIPPED = 1.5
# How far a decoder trained on [0, 1] that ends without a sigmoid leaves that range. Only bright
# images show it: the grey ones of a poorly trained generator lie around 0 in either range.
BEYOND, BRIGHT = 0.1, 0.5


class LayerFindings(NamedTuple):
    """The findings at one layer.

    Attributes:
        name: the layer; "images" for the whole network.
        shape: shape of one latent's activation.
        megabytes: size of the features of a thousand latents.
        milliseconds: time for a thousand latents; None where it was not measured.
        can_resume: whether the rest of the network can be run from here.
    """

    name: str
    shape: tuple[int, ...]
    megabytes: float
    milliseconds: float | None
    can_resume: bool


class Findings(NamedTuple):
    """The findings of `check_generator` on a generator that keeps the contract.

    Attributes:
        name: the generator's name in messages.
        latent_dim: length of a latent.
        image_range: smallest and largest value in the images of the latents tried.
        layers: findings of each layer tried, in order; the images last.
    """

    name: str
    latent_dim: int
    image_range: tuple[float, float]
    layers: tuple[LayerFindings, ...]


def ensure_generator(conditioned: ConditionedGenerator, name: str) -> None:
    """Check a generator at its own layer before a run writes anything.

    Built-in families are skipped: their tests prove them, and the hash of their weights was checked
    when they were loaded.

    Args:
        conditioned: the run's generator.
        name: the generator's name in messages: config.generator.name.

    Raises:
        UserError: one line with what is wrong and what to change.
        ForeignError: the generator's own code raised an exception.
    """
    if is_builtin(conditioned.gen):
        return
    findings = check_generator(conditioned, name=name, layers=(conditioned.layer,))
    low, high = findings.image_range
    if max(-low, high) > CLIPPED:
        logging.warning(
            "%s: images range from %.3g to %.3g; -1 is shown as black and 1 as white, and values "
            "outside are clipped",
            findings.name,
            low,
            high,
        )


def is_builtin(gen: Any) -> bool:
    """Whether a generator's forward pass is code of this package."""
    network = gen.network if isinstance(gen, PretrainedGenerator) else None
    return network is not None and type(network).__module__.startswith("cgjax.")


def check_generator(
    conditioned: ConditionedGenerator,
    *,
    name: str = "",
    layers: Sequence[str] | None = None,
    time_batch: int | None = None,
) -> Findings:
    """Check a generator on a few latents; the first fault is raised.

    Args:
        conditioned: the generator with its keywords.
        name: the generator's name in messages; default: the name it was loaded by, or its class.
        layers: the layers to try; default: all.
        time_batch: latents per pass when measuring times; default: measure nothing.

    Returns:
        The findings.

    Raises:
        UserError: one line with what is wrong and what to change.
        ForeignError: the generator's own code raised an exception.

    Example:
        >>> from cgjax.testing.planted import make_planted
        >>> findings = check_generator(ConditionedGenerator(make_planted(), "layer1", {}, 8))
        >>> [(layer.name, layer.shape) for layer in findings.layers]
        [('layer1', (1, 1, 4)), ('layer2', (16, 16, 1)), ('images', (16, 16, 3))]
    """
    name = getattr(conditioned.gen, "name", "") or name or type(conditioned.gen).__name__
    tried = [conditioned.at_layer(layer) for layer in layers or conditioned.gen.layers]
    z = _check_latents(conditioned, name)
    # Features first: most faults in the images come from faults in the features.
    features = [_check_features(at_layer, name, z) for at_layer in tried]
    images = _check_images(conditioned, name, z)
    findings = [
        _check_resume(at_layer, name, z, h, images)
        for at_layer, h in zip(tried, features, strict=True)
    ]
    findings.append(_layer_findings("images", images, can_resume=False))
    if time_batch is not None:
        passes = [*(at_layer.features for at_layer in tried), _image_pass(conditioned)]
        seconds = _measure(passes, conditioned, time_batch)
        findings = [
            layer._replace(milliseconds=1e6 * s / time_batch)
            for layer, s in zip(findings, seconds, strict=True)
        ]
    image_range = float(images.min()), float(images.max())
    return Findings(name, conditioned.gen.latent_dim, image_range, tuple(findings))


def _check_latents(conditioned: ConditionedGenerator, name: str) -> np.ndarray:
    whose = f"{name}.sample_latents"

    def draw(seed: int, num: int = NUM) -> np.ndarray:
        return finite_rows(whose, conditioned.sample_latents(jax.random.key(seed), num))

    z = draw(0)
    if not _distance(draw(0), z, z) <= SAME:
        raise UserError(
            f"{whose} gives different latents for the same key; draw them from the key alone, as "
            "jax.random.normal(key, (n, latent_dim)) does"
        )
    if _is_constant(z):
        raise UserError(f"{whose} gives the same latent {NUM} times; draw n different ones")
    if _distance(draw(1), z, z) <= SAME:
        raise UserError(
            f"{whose} gives the same latents for a different key; draw them from the key, as "
            "jax.random.normal(key, (n, latent_dim)) does"
        )
    draw(0, 1)
    return z


def _check_images(conditioned: ConditionedGenerator, name: str, z: np.ndarray) -> np.ndarray:
    whose = f"{name}.images"
    images = _check_function(whose, _image_pass(conditioned), z)
    if _is_constant(images):
        raise UserError(f"{whose} returns the same image for every latent; make it depend on z")
    low, high = float(images.min()), float(images.max())
    change, beyond = "", BEYOND if high > BRIGHT else 1e-3
    # The bounds allow for rounding and the overshoot of a resampling filter.
    if low >= -0.5 and 4 < high <= 256:
        change = "x / 127.5 - 1"
    elif low >= -beyond and high <= 1 + beyond:
        change = "2 * x - 1"
    if change and not _declares_range(conditioned.gen):
        raise UserError(
            f"{whose} returns values from {low:.3g} to {high:.3g}; expected -1 (black) to 1 "
            f"(white); return {change} (with from_torch: image_range=...), or, if this is "
            "intended, set image_range = (-1, 1) on the generator"
        )
    return images


def _declares_range(gen: Any) -> bool:
    declared = getattr(gen, "image_range", None)
    return isinstance(declared, list | tuple) and list(declared) == [-1, 1]


def _check_features(conditioned: ConditionedGenerator, name: str, z: np.ndarray) -> np.ndarray:
    layer = conditioned.layer

    def run(rows: np.ndarray) -> np.ndarray:
        return np.asarray(conditioned.activations(jnp.asarray(rows)))

    h = _check_function(f"{name}.features", run, z, f" at layer {layer!r}")
    if _is_constant(h):
        raise UserError(
            f"{name}.features returns the same values for every latent at layer {layer!r}, so "
            "there is nothing to cluster; choose another --config.layer, or make it depend on z"
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
    refusal = UserError if isinstance(gen, PretrainedGenerator) else CannotResume
    whose = f"{name}.resume(features(z, {layer!r}), {layer!r})"
    try:
        returned = conditioned.resume(jnp.asarray(h), jnp.asarray(z))
    except refusal:
        return _layer_findings(layer, h, can_resume=False)
    resumed = finite_rows(whose, returned)
    if resumed.shape != images.shape:
        raise UserError(
            f"{whose} returned images {describe_shape(resumed.shape[1:])}, images(z) "
            f"{describe_shape(images.shape[1:])}; expected the same shape; run exactly the rest of "
            "the network from the activation"
        )
    if not (distance := _distance(resumed, images, images)) <= ALONE:
        raise UserError(
            f"{whose} is not images(z): they differ by {distance:.2g} of the images' spread; run "
            "exactly the rest of the network from the activation, or leave resume out"
        )
    return _layer_findings(layer, h, can_resume=True)


def _check_function(
    whose: str, run: Callable[[np.ndarray], np.ndarray], z: np.ndarray, at: str = ""
) -> np.ndarray:
    """Return `run(z)`, checked: finite, repeatable, and each row a function of its own latent."""
    rows, again = (finite_rows(whose + at, run(z)) for _ in range(2))
    if not (distance := _distance(again, rows, rows)) <= SAME:
        raise UserError(
            f"{whose} gives different values for the same latents{at} (they differ by "
            f"{distance:.2g} of their spread): does it use dropout or random noise? "
            "Switch to evaluation mode (torch: module.eval()), and fix the noise"
        )
    alone = finite_rows(whose + at, run(z[:1]))
    if alone.shape[1:] != rows.shape[1:]:
        raise UserError(
            f"{whose} gives a row of shape {alone.shape[1:]} for one latent alone and "
            f"{rows.shape[1:]} in a batch{at}; expected the same shape"
        )
    if not (distance := _distance(alone, rows[:1], rows)) <= ALONE:
        raise UserError(
            f"{whose} gives different values for a latent alone and in a batch{at} (they differ by "
            f"{distance:.2g} of their spread): is batch norm in training mode, or without stored "
            "statistics? Use stored ones (torch: module.eval(), track_running_stats=True)"
        )
    return rows


def _is_constant(rows: np.ndarray) -> bool:
    return bool(np.abs(rows - rows[:1]).max() <= CONSTANT * np.abs(rows).max())


def _distance(rows: np.ndarray, reference: np.ndarray, batch: np.ndarray) -> float:
    """Return the root mean square difference, relative to the spread of a batch's values."""
    spread = float(np.std(batch, dtype=np.float64)) or 1.0
    return math.sqrt(float(np.mean((rows.astype(np.float64) - reference) ** 2))) / spread


def _layer_findings(name: str, rows: np.ndarray, *, can_resume: bool) -> LayerFindings:
    megabytes = 1000 * 4 * rows[0].size / 2**20
    return LayerFindings(name, rows.shape[1:], megabytes, None, can_resume)


def _image_pass(conditioned: ConditionedGenerator) -> Callable[[Any], np.ndarray]:
    return lambda rows: np.asarray(
        conditioned.gen.images(jnp.asarray(rows), **conditioned.keywords)
    )


def _measure(
    passes: Sequence[Callable[[Any], Any]], conditioned: ConditionedGenerator, batch: int
) -> list[float]:
    """Return each pass's median time in seconds over three batches; the passes take turns."""
    z = conditioned.sample_latents(jax.random.key(2), batch)
    seconds: list[list[float]] = [[] for _ in passes]
    for repetition in range(4):
        for run, times in zip(passes, seconds, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(run(z))
            if repetition:  # the first compiles
                times.append(time.perf_counter() - start)
    return [float(np.median(times)) for times in seconds]
