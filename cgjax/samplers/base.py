"""What a sampler is: it learns from the members of every cluster, and proposes latents.

A sampler is an immutable set of hyper-parameters with three pure functions (`init`, `epoch`,
`sample`) on a state that is a plain pytree. One loop therefore trains all samplers, one module
checkpoints them, and one membership check filters their output.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

SamplerState = Any
"""A pytree of arrays."""

TrainedEpoch = tuple[SamplerState, dict[str, Array]]
"""The state after an epoch, and metrics of shape (k,)."""


@dataclasses.dataclass(frozen=True)
class Members:
    """The latents of every cluster, padded to the largest; a pytree of its two arrays.

    Attributes:
        latents: (k, m, d) float32; rows at or past a cluster's count are zeros.
        counts: (k,) int32, number of true members of each cluster.
        is_ordered: whether each cluster is sorted by margin, smallest first.
    """

    latents: Float[Array, "k m d"]
    counts: Int[Array, " k"]
    is_ordered: bool = False

    @property
    def mask(self) -> Bool[Array, "k m"]:
        """Which rows are true members and not padding."""
        return jnp.arange(self.latents.shape[1], dtype=jnp.int32)[None] < self.counts[:, None]

    def require_order(self) -> None:
        """Raise a ValueError unless the members are sorted by margin."""
        if not self.is_ordered:
            raise ValueError(
                "members must be sorted by margin, smallest first: group_members(..., margins=...)"
            )


def _rebuild(is_ordered: bool, leaves: tuple[Any, Any]) -> Members:
    """Rebuild members from the leaves of a tree, which may be shapes or shardings, not arrays."""
    members = object.__new__(Members)
    for name, value in zip(("latents", "counts", "is_ordered"), (*leaves, is_ordered), strict=True):
        object.__setattr__(members, name, value)
    return members


jax.tree_util.register_pytree_node(
    Members, lambda m: ((m.latents, m.counts), m.is_ordered), _rebuild
)


def first_rows(num_rows: int, count: Int[Array, ""]) -> Bool[Array, " n"]:
    """Return which of a cluster's padded rows are among the first `count`."""
    return jnp.arange(num_rows, dtype=jnp.int32) < count


def as_cluster(cluster: Any, num_clusters: int) -> Int[Array, ""]:
    """Return a cluster's id as an array to index with.

    Where there is no such cluster, JAX would silently take the last one.

    Raises:
        ValueError: no such cluster (not checked inside jitted functions).
    """
    is_known = not isinstance(cluster, jax.core.Tracer)
    if is_known and not 0 <= operator.index(cluster) < num_clusters:
        raise ValueError(f"cluster={cluster}: expected 0 to {num_clusters - 1}")
    return jnp.asarray(cluster, jnp.int32)


def group_members(
    latents: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, " n"],
    num_clusters: int,
    margins: Float[np.ndarray, " n"] | None = None,
) -> Members:
    """Group latents by cluster and, if margins are given, sort each cluster by margin.

    Args:
        latents: (n, d) float32.
        labels: (n,) cluster ids below `num_clusters`.
        num_clusters: k; a cluster may be empty.
        margins: (n,) how far each latent lies from the boundary of its cluster.

    Returns:
        The members by margin, smallest first; ties, and members without margins, keep their order
        in `latents`.

    Raises:
        ValueError: a label that is negative, or not below `num_clusters`.

    Example:
        >>> z, labels = np.eye(3, dtype=np.float32), np.array([1, 0, 1])
        >>> members = group_members(z, labels, 2, margins=np.array([0.9, 0.5, 0.1]))
        >>> members.latents.shape, members.counts.tolist(), members.is_ordered
        ((2, 2, 3), [1, 2], True)
        >>> members.latents[1].argmax(axis=1).tolist()
        [2, 0]
    """
    latents, labels = np.asarray(latents, np.float32), np.asarray(labels)
    if labels.min(initial=0) < 0 or labels.max(initial=0) >= num_clusters:
        raise ValueError(
            f"labels from {labels.min()} to {labels.max()}: expected 0 to {num_clusters - 1}"
        )
    if margins is not None:
        order = np.argsort(margins, kind="stable")
        latents, labels = latents[order], labels[order]
    counts = np.bincount(labels, minlength=num_clusters).astype(np.int32)
    padded = np.zeros((num_clusters, max(1, counts.max(initial=0)), latents.shape[1]), np.float32)
    for c in range(num_clusters):
        padded[c, : counts[c]] = latents[labels == c]
    return Members(jnp.asarray(padded), jnp.asarray(counts), is_ordered=margins is not None)


class DataParallelEpoch(NamedTuple):
    """An epoch as one traceable function, for one device or `cgjax.samplers.training.over_mesh`.

    Attributes:
        function: `function(state, members, key, scalar, **static, devices=)` returns the new state
            and the metrics; see `cgjax.samplers.training.Devices`.
        scalar: the float32 scalar that depends on the epoch, such as its learning rate.
        static: hashable keyword arguments.
    """

    function: Callable[..., Any]
    scalar: Array
    static: dict[str, Any]

    def run(self, state: SamplerState, members: Members, key: PRNGKeyArray) -> TrainedEpoch:
        """Train on one device, in one compiled program; the state's buffers are donated."""
        compiled = _compiled(self.function, tuple(self.static))
        result: TrainedEpoch = compiled(state, members, key, self.scalar, **self.static)
        return result


@functools.cache
def _compiled(function: Callable[..., Any], static: tuple[str, ...]) -> Callable[..., Any]:
    return jax.jit(function, static_argnames=static, donate_argnames=("state",))


@runtime_checkable
class Sampler(Protocol):
    """A way to draw latents of one cluster; `SamplerBase` has the defaults.

    Attributes:
        num_epochs: number of calls to `epoch`; 0 if nothing is trained.
        num_latents: prior latents whose members are learnt from; None uses those of the run.
        always_verified: True if proposals come from the prior and only the membership check makes
            them members.
        aims_at_margin: whether `sample` uses `margin`; others propose from the whole cluster.
        starts_at_prior: whether the state from `init` proposes N(0, I), the usual prior.
        needs_margin_order: whether `init` and `epoch` require members sorted by margin.
        sampling_leaves: the settings that only `sample` reads; changing them does not retrain.
    """

    @property
    def num_epochs(self) -> int: ...  # noqa: D102

    @property
    def num_latents(self) -> int | None: ...  # noqa: D102

    @property
    def always_verified(self) -> bool: ...  # noqa: D102

    @property
    def aims_at_margin(self) -> bool: ...  # noqa: D102

    @property
    def starts_at_prior(self) -> bool: ...  # noqa: D102

    @property
    def needs_margin_order(self) -> bool: ...  # noqa: D102

    @property
    def sampling_leaves(self) -> tuple[str, ...]: ...  # noqa: D102

    def init(self, key: PRNGKeyArray, members: Members) -> SamplerState:
        """Return the state before the first epoch, all clusters in one pytree."""
        ...

    def epoch(
        self, state: SamplerState, members: Members, key: PRNGKeyArray, epoch: int
    ) -> TrainedEpoch:
        """Train one epoch, counted from 0, on all clusters at once; the key is of this epoch only.

        The state comes from `init` or the epoch before; its buffers may be donated.
        """
        ...

    def data_parallel_epoch(self, members: Members, epoch: int) -> DataParallelEpoch | None:
        """Return the epoch as one function for several devices; None to train on one."""
        ...

    def for_share(self, share: float) -> Sampler:
        """Return the sampler adjusted to train on only this share of its intended members."""
        ...

    def sample(
        self, state: SamplerState, key: PRNGKeyArray, cluster: int, num: int, margin: float = 0.0
    ) -> Float[Array, "num d"]:
        """Propose latents of a cluster; `samplers.verify` checks that they are members.

        Args:
            state: after the last epoch.
            key: a typed key.
            cluster: below the number of clusters.
            num: number of latents.
            margin: from 0 to 1, propose from the part of the cluster above this quantile of its
                margins; ignored by samplers without `aims_at_margin`.

        Raises:
            ValueError: no such cluster; not by `rejection`, which proposes from the prior.
        """
        ...


class SamplerBase:
    """The defaults of most samplers; a dataclass's fields and properties override them."""

    num_latents: int | None = None
    always_verified: ClassVar[bool] = False
    aims_at_margin: ClassVar[bool] = False
    starts_at_prior: ClassVar[bool] = False
    needs_margin_order: ClassVar[bool] = False
    sampling_leaves: ClassVar[tuple[str, ...]] = ()

    def epoch(
        self, state: SamplerState, members: Members, key: PRNGKeyArray, epoch: int
    ) -> TrainedEpoch:
        """Train one epoch on one device, as `data_parallel_epoch` describes it."""
        parts = self.data_parallel_epoch(members, epoch)
        if parts is None:
            raise NotImplementedError("a sampler without a data-parallel epoch has its own epoch")
        return parts.run(state, members, key)

    def data_parallel_epoch(self, members: Members, epoch: int) -> DataParallelEpoch | None:
        """Return None: training uses one device."""
        return None

    def for_share(self, share: float) -> Any:
        """Return the sampler unchanged."""
        return self
