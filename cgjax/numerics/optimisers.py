"""A step of an optax optimiser, whatever type promotion the user has configured."""

from __future__ import annotations

from typing import Any

import jax
import optax
from jaxtyping import Array


def change_of(
    optimiser: optax.GradientTransformation, gradient: Any, moments: Any, params: Any = None
) -> tuple[Any, Any]:
    """Return what an optimiser adds to the parameters, and its new moments.

    optax raises a float to an int32 power and adds vectors to matrices, which
    `jax_numpy_dtype_promotion` and `jax_numpy_rank_promotion` may forbid.

    Args:
        optimiser: any optax optimiser.
        gradient: a tree like the parameters.
        moments: the optimiser's state.
        params: the parameters, for optimisers that read them, such as those with weight decay.

    Example:
        >>> descent = optax.sgd(0.5)
        >>> change_of(descent, 4.0, descent.init(1.0))[0]
        -2.0
    """
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return optimiser.update(gradient, moments, params)


def take_step(
    optimiser: optax.GradientTransformation,
    gradient: Any,
    moments: Any,
    params: Any,
    rate: float | Array = 1.0,
) -> tuple[Any, Any]:
    """Return the parameters and the optimiser's moments after `rate` times its step.

    The rate is negative for an optimiser whose step points up the gradient, as `scale_by_adam`'s.

    Example:
        >>> descent = optax.sgd(0.5)
        >>> float(take_step(descent, 4.0, descent.init(1.0), 1.0)[0])
        -1.0
    """
    change, moments = change_of(optimiser, gradient, moments, params)
    return optax.apply_updates(params, jax.tree.map(lambda leaf: rate * leaf, change)), moments
