"""The membership check: keep the proposals that the clustering assigns to the cluster asked for."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from cgjax.errors import UserError
from cgjax.numerics.given import check_whole
from cgjax.runtime.keys import check_key

Propose = Callable[[PRNGKeyArray, int], Array]
"""(key, n) -> (n, d) latents."""

Accept = Callable[[Array], np.ndarray]
"""(n, d) latents -> (n,) bool on the host; minds itself how many rows fit in one pass."""

Result = TypeVar("Result")

ROUND = 128
"""Proposals of one key: a constant, so that the same key gives the same latents on any number of
devices and with any batch."""


class Draw(NamedTuple):
    """Verified latents and what they cost.

    Attributes:
        latents: (num, d) float32.
        proposed: proposals checked.
        accepted: how many of them passed.
    """

    latents: Float[np.ndarray, "num d"]
    proposed: int
    accepted: int

    @property
    def acceptance(self) -> float:
        """Share of the checked proposals that passed."""
        return self.accepted / self.proposed


def drawing(
    propose: Propose, accept: Accept, key: PRNGKeyArray, num: int, *, batch: int, max_draws: int
) -> Generator[np.ndarray, None, Draw]:
    """Draw until `num` proposals have passed the check, a step at a time.

    Proposals are drawn in rounds, round r with `fold_in(key, r)`, so the first rows of a longer
    draw are those of a shorter one.

    Args:
        propose: the sampler.
        accept: the membership check.
        key: a typed key.
        num: latents wanted.
        batch: proposals that are worth being checked together; whole rounds are. Changes how fast
            it is, not what comes of it.
        max_draws: give up after so many proposals, in whole rounds.

    Yields:
        (m, d) the latents that passed, after every check; whoever draws may stop there.

    Returns:
        The first `num` that passed, in the order drawn.

    Raises:
        UserError: if the budget is used up, with the acceptance seen; no random key, or less than
            one latent wanted.
    """
    check_key(key)
    num = check_whole("num", num)
    kept: list[np.ndarray] = []
    accepted = 0
    at_once = max(1, batch // ROUND)
    while accepted < num:
        if len(kept) * ROUND >= max_draws:
            proposed = len(kept) * ROUND
            raise UserError(
                f"only {accepted} of {num} samples after {proposed} draws (acceptance "
                f"{accepted / max(1, proposed):.2g}): the cluster, or the part of it that "
                "--margin keeps, is too rare for this sampler; ask for fewer, widen --margin, use "
                "another --sampler, or raise --config.sample.max_draws"
            )
        at_once = min(at_once, -(-max_draws // ROUND) - len(kept))
        rounds = [
            propose(jax.random.fold_in(key, r), ROUND)
            for r in range(len(kept), len(kept) + at_once)
        ]
        z = jnp.concatenate(rounds) if at_once > 1 else rounds[0]
        passed = np.asarray(accept(z)).reshape(at_once, ROUND)
        before = len(kept), accepted
        for rows, is_kept in zip(np.split(np.asarray(z), at_once), passed, strict=True):
            if accepted < num:
                kept.append(rows[is_kept])
                accepted += int(is_kept.sum())
        yield np.concatenate(kept[before[0] :])[: num - before[1]]
    return Draw(np.concatenate(kept)[:num], len(kept) * ROUND, accepted)


def draw_verified(
    propose: Propose, accept: Accept, key: PRNGKeyArray, num: int, *, batch: int, max_draws: int
) -> Draw:
    """Draw until `num` proposals have passed the check: `drawing` to its end."""
    return finish(drawing(propose, accept, key, num, batch=batch, max_draws=max_draws))


def finish(steps: Generator[object, None, Result]) -> Result:
    """Run a generator to its end and return what it returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result


def draw_unverified(propose: Propose, key: PRNGKeyArray, num: int) -> Float[np.ndarray, "num d"]:
    """Draw `num` proposals as they come, in the rounds of `draw_verified`; raises as `drawing`."""
    check_key(key)
    num = check_whole("num", num)
    rounds = range(-(-num // ROUND))
    parts = [np.asarray(propose(jax.random.fold_in(key, r), ROUND)) for r in rounds]
    return np.concatenate(parts)[:num]


def rescale(z: Float[Array, "n d"], norm: float) -> Float[Array, "n d"]:
    """Scale every latent to a norm (`output=sphere`); a zero latent stays zero."""
    lengths = jnp.linalg.norm(z, axis=1, keepdims=True)
    return z * (norm / jnp.maximum(lengths, 1e-12))
