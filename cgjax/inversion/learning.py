"""Training the encoder to recover the latents of generated images.

    L(F) = mean (F_z(F(G(z))) - z)^2,  z from the prior

and, if a label c is part of the latent, plus the cross entropy of F_c(F(G(z, c))) and c. Every step
draws new samples, so there is nothing to overfit. If the generator depends only on a latent's
direction, so does the loss.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from cgjax.inversion.encoder import Encoder, to_length
from cgjax.numerics.optimisers import take_step

State = dict[str, Any]
"""The encoder's parameters and Adam's moments."""

WARM_UP = 0.1
"""Share of the steps in which the learning rate rises from 0; it then falls by half a cosine."""


class EncoderTraining(NamedTuple):
    """How an encoder is trained; hashable.

    Attributes:
        encoder: the network.
        num_steps: at least 1.
        learning_rate: Adam's peak learning rate.
    """

    encoder: Encoder
    num_steps: int
    learning_rate: float

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Adam, with gradients clipped to length 1."""
        warm_up = max(1, int(WARM_UP * self.num_steps))
        rate = optax.warmup_cosine_decay_schedule(
            0.0, self.learning_rate, warm_up, max(self.num_steps, warm_up + 1)
        )
        return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))

    def init(self, key: PRNGKeyArray) -> State:
        """Return the state before the first step."""
        params = self.encoder.init(key)
        return {"params": params, "moments": self.optimizer.init(params)}


@functools.partial(jax.jit, static_argnames="training", donate_argnames="state")
def learn(
    state: State,
    z: Float[Array, "n d"],
    images: Float[Array, "n s s c"],
    *,
    training: EncoderTraining,
) -> tuple[State, Float[Array, ""]]:
    """Take one step.

    Args:
        state: from `EncoderTraining.init` or the last step; its buffers are reused (donated).
        z: (n, d) float32 latents.
        images: (n, s, s, c) float32, the generator's images of them.
        training: the settings.

    Returns:
        The next state, and the loss before the step. For latents of unit variance without labels,
        always guessing 0 has a loss of 1.
    """
    encoder = training.encoder
    target, label = jnp.split(z, [encoder.latent_dim - encoder.num_labels], axis=1)
    target = target if encoder.norm is None else to_length(target, encoder.norm)

    def loss_of(params: Any) -> Float[Array, ""]:
        guess, logits = encoder.heads(params, images)
        loss = jnp.mean(jnp.square(guess - target))
        if encoder.num_labels:
            loss += jnp.mean(optax.softmax_cross_entropy(logits, label))
        return loss

    value, gradient = jax.value_and_grad(loss_of)(state["params"])
    params, moments = take_step(training.optimizer, gradient, state["moments"], state["params"])
    return {"params": params, "moments": moments}, value
