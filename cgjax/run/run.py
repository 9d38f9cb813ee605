"""A run opened: its config, generator, clustering and fitted samplers, and drawing from it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from cgjax.config.schema import validate
from cgjax.errors import UserError
from cgjax.generators.batching import in_batches
from cgjax.generators.conditioned import load_conditioned
from cgjax.regions.clustering import Clustering, parse_clustering
from cgjax.regions.names import Entry, find_cluster, read_entries
from cgjax.regions.region import WHOLE, ClusterRegion, MarginRange, Region
from cgjax.run import legacy
from cgjax.run.artifacts import Manifests, declare, fit
from cgjax.run.folder import RunFolder, check_generator_is, kept_trace, read_config
from cgjax.run.identity import PRIOR, identity_of, settled, trace_of, weights_of
from cgjax.run.members import members_for
from cgjax.run.sampling import FittedSampler, Samples
from cgjax.runtime.checkpoints import Checkpoints, Step
from cgjax.runtime.keys import named_key
from cgjax.runtime.processes import Processes
from cgjax.samplers.base import Members, Sampler, SamplerState, group_members
from cgjax.samplers.registry import make_sampler
from cgjax.samplers.verify import Draw, draw_unverified, draw_verified


class Run:
    """A run's folder opened.

    Attributes:
        folder: the paths.
        config: nested plain dicts.
        generator: with its layer and keywords fixed.
        manifests: what is there and current.
        trace: how a generator without weights of a known hash acts; see `identity`.
    """

    def __init__(self, root: str | Path, config: dict[str, Any]):
        """Open a folder with a config that was validated; loads the generator."""
        self.folder = RunFolder(root)
        self.config = config
        settings = config["generator"]
        self.generator = load_conditioned(settings, config["layer"])
        self.root_key = jax.random.key(config["seed"])
        self.trace = settled(trace_of(self.generator), kept_trace(self.folder))
        self._old = legacy.fingerprints(config, self.weights_sha256)
        prior, whole = (
            identity_of(self.generator, str(settings["name"]), trace)
            for trace in (self.trace[:PRIOR], self.trace)
        )
        self.manifests = Manifests(self.folder, declare(config, prior, whole), self._old)
        self._fitted: dict[str, FittedSampler] = {}

    @property
    def weights_sha256(self) -> str:
        """Hash of the generator's weights; empty for a generator that has none."""
        return weights_of(self.generator)

    @functools.cached_property
    def _clustered(self) -> tuple[Clustering, Float[np.ndarray, "n d"]]:
        self.manifests.require("cluster")
        return self.read_clusters(self.folder.clusters.read_bytes())

    @property
    def clustering(self) -> Clustering:
        """The clustering; a UserError before it is there, or if it is of another config."""
        return self._clustered[0]

    @property
    def latents(self) -> Float[np.ndarray, "n d"]:
        """The latents that were clustered."""
        return self._clustered[1]

    def set_clusters(self, data: bytes) -> None:
        """Take the content of `clusters.npz` from another process."""
        self._clustered = self.read_clusters(data)

    def read_clusters(self, data: bytes) -> tuple[Clustering, Float[np.ndarray, "n d"]]:
        """Read the content of `clusters.npz`, and check that it is of this generator."""
        clustering, latents = parse_clustering(data, self.folder.clusters, self.generator.layer)
        dim = int(self.generator.gen.latent_dim)
        if latents.shape[1] != dim or clustering.num != self.config["cluster"]["num_clusters"]:
            raise UserError(
                f"{self.folder.clusters} has {clustering.num} clusters of latents of length "
                f"{latents.shape[1]}; this run has {self.config['cluster']['num_clusters']} of "
                f"length {dim}; remove it and run again to recompute it"
            )
        wanted = self.config["cluster"]["space"]
        if clustering.space.name != wanted:
            raise UserError(
                f"{self.folder.clusters} has clusters of {clustering.space.name} features; this "
                f"run has --config.cluster.space={wanted}; remove it and run again to recompute it"
            )
        return clustering, latents

    @property
    def regions(self) -> list[ClusterRegion]:
        """The clusters, whole."""
        return [ClusterRegion(self.clustering, c) for c in range(self.clustering.num)]

    @property
    def entries(self) -> list[Entry]:
        """What people call the clusters."""
        return read_entries(self.folder.names, self.clustering)

    def region(
        self, cluster: int | str, margin: float | str | tuple[float, float] = 0.0
    ) -> ClusterRegion:
        """Return a cluster, or a part of it, as a user names it.

        Args:
            cluster: an id, or the name a person gave it.
            margin: as `MarginRange.parse` takes it.

        Raises:
            UserError: an unknown cluster, an invalid margin.
        """
        margin_range = MarginRange.parse(margin)
        return ClusterRegion(self.clustering, find_cluster(cluster, self.entries), margin_range)

    def members(
        self,
        sampler: Sampler,
        check: Callable[[], None] = lambda: None,
        processes: Processes | None = None,
    ) -> Members:
        """Return what a sampler learns from: see `members_for`."""
        key = named_key(self.root_key, "more members")
        args = (sampler, self.clustering, self.latents, self.generator, key)
        return members_for(*args, check=check, processes=processes)

    @property
    def sampler_names(self) -> list[str]:
        """The samplers of this run."""
        return [name for name, s in self.config["samplers"].items() if s["fit"]]

    def make_sampler(self, name: str) -> Sampler:
        """Build one of the config's samplers.

        Raises:
            UserError: if the config does not fit it.
        """
        if name not in self.sampler_names:
            raise UserError(
                f"--sampler={name} was not fitted in {self.folder.root}; expected one of "
                f"{', '.join(self.sampler_names)}"
            )
        return make_sampler(
            name,
            self.config["samplers"][name],
            latent_dim=self.generator.gen.latent_dim,
            prior=self.generator.sample_latents,
        )

    def checkpoints(self, name: str) -> Checkpoints:
        """The saved steps of a sampler."""
        return Checkpoints(self.folder.checkpoints / name)

    def is_step_of(self, name: str, step: Step) -> bool:
        """Whether a saved step was trained with this config on these clusters."""
        if "fingerprint" in step.metadata:
            return bool(step.metadata["fingerprint"] == self._old.samplers[name])
        return bool(step.metadata.get("key") == self.manifests.graph[fit(name)].key)

    def last_step(self, name: str) -> Step | None:
        """Return the step in which a sampler's training ended; None if it has not."""
        num_epochs = self.make_sampler(name).num_epochs
        steps = self.checkpoints(name).steps()
        is_done = steps and steps[-1].number == num_epochs and self.is_step_of(name, steps[-1])
        return steps[-1] if is_done else None

    def output_norm(self, name: str) -> float | None:
        """Length to which a sampler's proposals are scaled, the prior's typical one, or None."""
        output = self.config["samplers"][name].get("output", "raw")
        if output == "raw" or (output is None and self.generator.normalizes_latent):
            return None
        return float(np.linalg.norm(self.latents, axis=1).mean())

    def fitted(self, name: str) -> FittedSampler:
        """Restore a sampler from its checkpoint.

        Raises:
            UserError: if it was not trained to its end with this config, or its checkpoint is
                damaged.
        """
        if name not in self._fitted:
            sampler = self.make_sampler(name)
            clustering, latents = self.clustering, self.latents
            state: SamplerState = {}
            if sampler.num_epochs:
                step = self.last_step(name)
                if step is None:
                    raise UserError(
                        f"sampler {name!r} is not trained yet in {self.folder.root} on these "
                        f"clusters and with these settings; run {self.folder.command}"
                    )
                margins = clustering.margins if sampler.needs_margin_order else None
                members = group_members(latents, clustering.labels, clustering.num, margins)
                # Shapes and dtypes only; the members' shapes are enough to know them.
                template = jax.eval_shape(lambda: sampler.init(jax.random.key(0), members))
                state = self.checkpoints(name).restore(step.number, {"state": template})["state"]
            self._fitted[name] = FittedSampler(sampler, state, self.output_norm(name))
        return self._fitted[name]

    def is_inside(self, z: Float[Array, "n d"], region: Region) -> Bool[Array, " n"]:
        """Whether latents lie in a region."""
        return region.contains(lambda layer: self.generator.at_layer(layer).features(z))

    def are_inside(
        self, z: Float[np.ndarray, "n d"] | Float[Array, "n d"], region: Region
    ) -> Bool[np.ndarray, " n"]:
        """As `is_inside`, in batches, on the host."""
        return in_batches(lambda rows: self.is_inside(rows, region), z, self.generator.batch)

    def draw(
        self,
        key: PRNGKeyArray,
        region: Region,
        num: int,
        *,
        sampler: str,
        verify: bool = True,
        rescaled: bool = True,
    ) -> tuple[Float[np.ndarray, "num d"], Draw | None]:
        """Draw latents of a region; see `sample`. Returns them and, if verified, their cost.

        Unverified draws are the proposals as they come, whatever the sampler; with
        `rescaled=False` as the sampler made them.
        """
        fitted = self.fitted(sampler)
        if not rescaled:
            fitted = fitted._replace(norm=None)
        if region.margin != WHOLE and not verify:
            raise UserError("--margin needs the membership check; leave --noverify out")

        def propose(key: PRNGKeyArray, n: int) -> Array:
            return fitted.propose(region, key, n)

        if not verify:
            return draw_unverified(propose, key, num), None
        draw = draw_verified(
            propose,
            lambda z: self.are_inside(z, region),
            key,
            num,
            batch=self.generator.batch,
            max_draws=self.config["sample"]["max_draws"],
        )
        return draw.latents, draw

    def sample(
        self,
        key: PRNGKeyArray,
        cluster: int | str,
        num: int,
        sampler: str | None = None,
        verify: bool = True,
        margin: float | str | tuple[float, float] = 0.0,
    ) -> Samples:
        """Draw images of one cluster.

        Args:
            key: a typed random key; the same one gives the same samples.
            cluster: an id, or the name a person gave it; a number is always an id.
            num: how many images.
            sampler: one of `sampler_names`; the config's default if None.
            verify: check that every sample belongs to the cluster, and redraw it if it does not.
            margin: keep only the part of the cluster above this quantile of its members' margins:
                0 is the cluster as it is, towards 1 its attribute at full strength. Or between
                two quantiles, (low, high), without the extreme members; see `MarginRange`.

        Returns:
            The images, their latents, and the acceptance of the check.

        Raises:
            UserError: an unknown cluster or sampler, an invalid margin, a cluster too rare for the
                budget of draws, clusters or a sampler that are not of the run's config.
        """
        return self.sample_region(key, self.region(cluster, margin), num, sampler, verify)

    def sample_region(
        self,
        key: PRNGKeyArray,
        region: Region,
        num: int,
        sampler: str | None = None,
        verify: bool = True,
    ) -> Samples:
        """Draw images of any region; arguments and errors as for `sample`."""
        if num < 1:
            raise UserError(f"--num={num}: expected at least 1")
        name = sampler or self.config["sample"]["sampler"]
        verify = verify or self.fitted(name).sampler.always_verified
        latents, draw = self.draw(key, region, num, sampler=name, verify=verify)
        return Samples(self.generator.images(latents), latents, draw.acceptance if draw else None)


def load_run(root: str | Path) -> Run:
    """Open a run's folder for sampling.

    Args:
        root: the folder, as given to --workdir.

    Returns:
        The run.

    Raises:
        UserError: if it is not a run's folder, or the generator's weights are not those it was
            made with.

    Example:
        run = cgjax.load_run("runs/dcgan_pose")
        images = run.sample(jax.random.key(0), cluster=0, num=64).images
    """
    folder = RunFolder(root)
    saved = read_config(folder)
    try:
        validate(saved.config)
    except UserError as error:
        raise UserError(f"{folder.config} was edited: {error}") from error
    try:
        run = Run(root, saved.config)
    except UserError as error:
        raise UserError(f"{folder.config}: {error}") from error
    check_generator_is(folder, run.weights_sha256, run.trace)
    return run
