"""The judge of handwritten digits: five small classifiers that the project trains itself.

A single classifier is right on 95% of unseen digits. But two that differ only in their random
numbers, or in the number of threads that summed their products, disagree on images that nobody
could read: for the same 26,000 generated stacks, five give a reverse KL from 0.048 to 0.070
(docs/endtoend_images.md). So the mean of five networks' probabilities decides, and each network's
own verdict is available to show beside it.

Each network is the judge of [Liu et al. 2020]'s code: dense layers 1024-256-256-10 on 32 x 32
images in [-1, 1], ReLU and dropout of 0.2 after both hidden layers; Adam at 1e-3, 10 epochs in
batches of 100. That is 6,000 steps on the 60,000 digits of MNIST. With few digits 10 epochs are too
short (trained on 4,000 digits, one is right on 91% of others after 10 epochs and on 95% after 30),
so fewer than 20,000 digits get 30 epochs.

The judge's numbers are only as good as the judge: show its accuracy on held-out digits beside them.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from cgjax.endtoend.networks.layers import Linear
from cgjax.evaluation.class_modes import Accuracy
from cgjax.numerics.networks import Arrays, Network
from cgjax.numerics.optimisers import take_step
from cgjax.runtime.keys import named_key

SIDE = 32
WIDTHS = (SIDE * SIDE, 256, 256, 10)
DROPOUT = 0.2
NETWORKS = 5
EPOCHS = 10
BATCH = 100
FEW = 20_000
EPOCHS_OF_FEW = 30

# Images classified at a time.
_JUDGED = 2_000


class DigitJudge(NamedTuple):
    """Trained classifiers.

    Attributes:
        arrays: of their networks, stacked.
    """

    arrays: Arrays

    def verdicts(self, images: Float[np.ndarray, "n 32 32"]) -> Int[np.ndarray, "v n"]:
        """Return the digit of each image in [-1, 1]: by all classifiers together, then by each."""
        return np.asarray(_verdicts(self.arrays, jnp.asarray(images, jnp.float32)))

    def classify(self, images: Float[np.ndarray, "n 32 32"]) -> Int[np.ndarray, " n"]:
        """Return the digit of each image in [-1, 1]."""
        return self.verdicts(images)[0]

    def accuracy(
        self, pixels: UInt8[np.ndarray, "n 32 32"], labels: Int[np.ndarray, " n"]
    ) -> Accuracy:
        """Return how often it is right; pass digits that it was not trained on."""
        return Accuracy.of(self.classify(np.asarray(scaled(jnp.asarray(pixels)))), labels)


@jax.jit
def scaled(pixels: UInt8[Array, ...]) -> Float[Array, ...]:
    """Map uint8 pixels to what networks see: float32 in [-1, 1]."""
    return pixels.astype(jnp.float32) / 127.5 - 1


def train_judge(
    key: PRNGKeyArray,
    pixels: UInt8[np.ndarray, "n 32 32"],
    labels: Int[np.ndarray, " n"],
) -> DigitJudge:
    """Train a judge; the same key gives the same judge.

    Images that do not fill a batch are left out of an epoch, different ones in each.

    Args:
        key: of the initial values, batches and dropout.
        pixels: 0 to 255, at least one image.
        labels: 0 to 9.
    """
    epochs = EPOCHS if len(labels) >= FEW else EPOCHS_OF_FEW
    data = jnp.asarray(pixels), jnp.asarray(labels, jnp.int32)
    networks = [_trained(named_key(key, "network", i), epochs, *data) for i in range(NETWORKS)]
    return DigitJudge(jax.tree.map(lambda *leaves: jnp.stack(leaves), *networks))


def _trained(
    key: PRNGKeyArray, epochs: int, pixels: UInt8[Array, "n 32 32"], labels: Int[Array, " n"]
) -> Arrays:
    arrays = _NETWORK.init(named_key(key, "init"))
    state = arrays.params, _ADAM.init(arrays.params)
    for epoch in range(epochs):
        state = _epoch(state, pixels, labels, named_key(key, "epoch", epoch))
    return Arrays(state[0], arrays.stats)


class _Classifier(nnx.Module):
    """The judge's network."""

    def __init__(self, rngs: nnx.Rngs):
        self.layers = nnx.List([Linear(i, o, rngs=rngs) for i, o in itertools.pairwise(WIDTHS)])

    def __call__(
        self, images: Float[Array, "n 32 32"], key: PRNGKeyArray | None = None
    ) -> Float[Array, "n 10"]:
        """Return logits; with a key, apply dropout."""
        x = images.reshape(len(images), -1)
        for number, layer in enumerate(self.layers):
            x = layer(x)
            if number < len(self.layers) - 1:
                x = jax.nn.relu(x)
                if key is not None:
                    x = _dropped(jax.random.fold_in(key, number), x)
        return x


def _dropped(key: PRNGKeyArray, x: Float[Array, "n w"]) -> Float[Array, "n w"]:
    is_kept = jax.random.bernoulli(key, 1 - DROPOUT, x.shape)
    return jnp.where(is_kept, x / (1 - DROPOUT), jnp.zeros_like(x))


_NETWORK = Network(_Classifier)
_ADAM = optax.adam(1e-3)


@functools.partial(jax.jit, donate_argnums=0)
def _epoch(
    state: tuple[Any, Any],
    pixels: UInt8[Array, "n 32 32"],
    labels: Int[Array, " n"],
    key: PRNGKeyArray,
) -> tuple[Any, Any]:
    """Train on every digit once, in a fresh random order."""
    num, size = len(labels), min(BATCH, len(labels))
    key_order, key_drop = jax.random.split(key)
    steps = num // size
    order = jax.random.permutation(key_order, num)[: steps * size].reshape(steps, size)

    def step(
        state: tuple[Any, Any], batch: tuple[Array, PRNGKeyArray]
    ) -> tuple[tuple[Any, Any], None]:
        (params, moments), (chosen, key) = state, batch
        images = scaled(pixels[chosen])

        def loss(params: Any) -> Array:
            logits = _NETWORK.apply(Arrays(params, {}), lambda judge: judge(images, key))[0]
            crossed = optax.softmax_cross_entropy_with_integer_labels(logits, labels[chosen])
            return jnp.mean(crossed)

        return take_step(_ADAM, jax.grad(loss)(params), moments, params), None

    return jax.lax.scan(step, state, (order, jax.random.split(key_drop, steps)))[0]


@jax.jit
def _verdicts(arrays: Arrays, images: Float[Array, "n 32 32"]) -> Int[Array, "v n"]:
    def one(image: Array) -> Array:
        def logits(arrays: Arrays) -> Array:
            return _NETWORK.apply(arrays, lambda judge: judge(image[None]))[0][0]

        single = jax.nn.softmax(jax.vmap(logits)(arrays), axis=1)
        joint = jnp.mean(single, axis=0)[None]
        return jnp.argmax(jnp.concatenate([joint, single]), axis=1).astype(jnp.int32)

    return jax.lax.map(one, images, batch_size=_JUDGED).T
