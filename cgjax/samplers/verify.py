"""The membership check: keep only the proposals that the clustering assigns to the cluster."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from cgjax.errors import TooRare
from cgjax.numerics.arguments import check_whole
from cgjax.numerics.draws import enough_draws
from cgjax.numerics.intervals import wilson_interval
from cgjax.runtime.keys import check_key

Propose = Callable[[PRNGKeyArray, int], Array]
"""(key, n) -> (n, d) latents."""

Accept = Callable[[Array], np.ndarray]
"""(n, d) latents -> (n,) bool on the host; splits the rows into passes that fit by itself."""

Step = TypeVar("Step")
Result = TypeVar("Result")

ROUND = 128
"""Proposals per key: a constant, so that the same key gives the same latents on any number of
devices and with any batch."""


class VerifiedDraw(NamedTuple):
    """Verified latents and what they cost.

    Attributes:
        latents: (num, d) float32.
        proposed: number of proposals checked.
        accepted: number of proposals that passed.
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
) -> Generator[np.ndarray, None, VerifiedDraw]:
    """Draw until `num` proposals have passed the check, one step at a time.

    Proposals are drawn in rounds, round r with `fold_in(key, r)`, so a longer draw starts with the
    rows of a shorter one.

    Args:
        propose: the sampler.
        accept: the membership check.
        key: a typed key.
        num: number of latents to return.
        batch: proposals to check together, rounded down to whole rounds but at least one. Affects
            the speed only, not the result.
        max_draws: give up after this many proposals, rounded up to whole rounds.

    Yields:
        (m, d) latents that passed, after every check; the caller may stop there.

    Returns:
        The first `num` that passed, in the order drawn.

    Raises:
        TooRare: the budget is used up; with the acceptance observed and a budget that is large
            enough. `Run.naming` adds what was drawn.
        UserError: `key` is not a random key, or `num` is less than 1.
    """
    check_key(key)
    num = check_whole("num", num)
    kept: list[np.ndarray] = []  # the rows that passed, of each round
    accepted = 0
    at_once = max(1, batch // ROUND)  # rounds per check
    while accepted < num:
        if len(kept) * ROUND >= max_draws:
            proposed = len(kept) * ROUND
            low = wilson_interval(accepted, max(1, proposed)).low
            larger = f"type --config.sample.max_draws={enough_draws(num, low)}" if low else ""
            raise TooRare(
                f"only {accepted} of {num} samples after {proposed} draws (acceptance "
                f"{accepted / max(1, proposed):.2g}): {larger or 'raise --config.sample.max_draws'}"
            )
        at_once = min(at_once, -(-max_draws // ROUND) - len(kept))
        rounds = [
            propose(jax.random.fold_in(key, r), ROUND)
            for r in range(len(kept), len(kept) + at_once)
        ]
        z = jnp.concatenate(rounds) if at_once > 1 else rounds[0]
        passed = np.asarray(accept(z)).reshape(at_once, ROUND)
        num_before, accepted_before = len(kept), accepted
        for rows, is_kept in zip(np.split(np.asarray(z), at_once), passed, strict=True):
            if accepted < num:
                kept.append(rows[is_kept])
                accepted += int(is_kept.sum())
        yield np.concatenate(kept[num_before:])[: num - accepted_before]
    return VerifiedDraw(np.concatenate(kept)[:num], len(kept) * ROUND, accepted)


def draw_verified(
    propose: Propose, accept: Accept, key: PRNGKeyArray, num: int, *, batch: int, max_draws: int
) -> VerifiedDraw:
    """Draw until `num` proposals have passed the check: `drawing`, run to its end."""
    return finish(drawing(propose, accept, key, num, batch=batch, max_draws=max_draws))


def finish(
    steps: Generator[Step, None, Result], on_step: Callable[[Step], None] = lambda _: None
) -> Result:
    """Run a generator to its end and return what it returns; `on_step` may raise to stop it."""
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result
        on_step(step)


def draw_unverified(propose: Propose, key: PRNGKeyArray, num: int) -> Float[np.ndarray, "num d"]:
    """Draw `num` proposals unchecked, in the rounds of `draw_verified`; raises as `drawing`."""
    check_key(key)
    num = check_whole("num", num)
    rounds = range(-(-num // ROUND))
    parts = [np.asarray(propose(jax.random.fold_in(key, r), ROUND)) for r in rounds]
    return np.concatenate(parts)[:num]


def rescale(z: Float[Array, "n d"], norm: float) -> Float[Array, "n d"]:
    """Scale every latent to the given norm (`output=sphere`); a zero latent stays zero."""
    lengths = jnp.linalg.norm(z, axis=1, keepdims=True)
    return z * (norm / jnp.maximum(lengths, 1e-12))
