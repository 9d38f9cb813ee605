"""Training the encoder: latents of the prior, their images, and the latents guessed from these.

    L(F) = mean (F_z(F(G(z))) - z)^2,  z from the prior

and, where a label c is a part of the latent, the cross entropy of F_c(F(G(z, c))) and c besides.
Every step sees fresh samples, so there is nothing to overfit. Where only a latent's direction
matters to the generator, so it does here.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from cgjax.inversion.encoder import Encoder, to_length
from cgjax.numerics.optimisers import change_of

State = dict[str, Any]
"""The encoder's parameters, Adam's moments."""

WARM_UP = 0.1
"""Share of the steps in which the learning rate rises from 0; then it falls along half a cosine."""


class Lesson(NamedTuple):
    """How an encoder is trained; hashable.

    Attributes:
        encoder: the network.
        num_steps: at least 1.
        learning_rate: Adam's, at its highest.
    """

    encoder: Encoder
    num_steps: int
    learning_rate: float

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Adam, with gradients of at most length 1."""
        warm_up = max(1, int(WARM_UP * self.num_steps))
        rate = optax.warmup_cosine_decay_schedule(
            0.0, self.learning_rate, warm_up, max(self.num_steps, warm_up + 1)
        )
        return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))

    def init(self, key: PRNGKeyArray) -> State:
        """Return the state before the first step."""
        params = self.encoder.init(key)
        return {"params": params, "moments": self.optimizer.init(params)}


@functools.partial(jax.jit, static_argnames="lesson", donate_argnames="state")
def learn(
    state: State, z: Float[Array, "n d"], images: Float[Array, "n s s c"], *, lesson: Lesson
) -> tuple[State, Float[Array, ""]]:
    """Take one step.

    Args:
        state: as `Lesson.init` or this returns it; its buffers are used again.
        z: (n, d) float32 latents.
        images: (n, s, s, c) float32, what the generator makes of them.
        lesson: the settings.

    Returns:
        The next state, and the loss before the step: without labels 1 is as good as guessing 0,
        for latents of unit variance.
    """
    encoder = lesson.encoder
    aim, label = jnp.split(z, [encoder.latent_dim - encoder.num_labels], axis=1)
    aim = aim if encoder.norm is None else to_length(aim, encoder.norm)

    def loss(params: Any) -> Float[Array, ""]:
        guess, logits = encoder.heads(params, images)
        missed = jnp.mean(jnp.square(guess - aim))
        if encoder.num_labels:
            missed += jnp.mean(optax.softmax_cross_entropy(logits, label))
        return missed

    value, slope = jax.value_and_grad(loss)(state["params"])
    change, moments = change_of(lesson.optimizer, slope, state["moments"])
    return {"params": optax.apply_updates(state["params"], change), "moments": moments}, value
