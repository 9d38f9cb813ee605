"""The samplers of a run: built from its config, restored from checkpoints, aimed at regions."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cgjax.config.plain import digest
from cgjax.errors import UserError
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.regions.region import WHOLE, ClusterRegion, MarginRange, Region
from cgjax.run.artifacts import REFERENCE, Graph
from cgjax.run.clusterings import HeldClusterings
from cgjax.run.folder import RunFolder
from cgjax.run.members import num_inside, num_learnt_from
from cgjax.run.places import fit_name
from cgjax.run.sampling import Fit, FittedSampler, Source
from cgjax.runtime.checkpoints import Checkpoints
from cgjax.samplers.base import Members, Sampler
from cgjax.samplers.one_hot import Parts, one_hot_parts
from cgjax.samplers.registry import make_sampler


class RunSamplers:
    """The samplers of one run.

    Attributes:
        names: of the samplers that the config fits.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: Mapping[str, Any],
        generator: ConditionedGenerator,
        graph: Graph,
        held: HeldClusterings,
        fingerprints: Mapping[str, str],
    ):
        """Prepare; reads nothing yet.

        Args:
            folder: the run's folder.
            config: the run's config.
            generator: with the run's layer.
            graph: the run's artifacts.
            held: the clusterings that samplers learn from.
            fingerprints: of each sampler's checkpoints of an earlier version.
        """
        self._folder, self._config, self._generator = folder, config, generator
        self._graph, self._held, self._fingerprints = graph, held, fingerprints
        self.names = [name for name, s in config["samplers"].items() if s["fit"]]
        self._fitted: dict[tuple[str, str], FittedSampler] = {}

    def make(self, name: str) -> Sampler:
        """Build one of the config's samplers.

        Raises:
            UserError: if the config does not fit it.
        """
        settings = self._config["samplers"]
        if name not in self.names:
            flags = f"--config.samplers.{name}.fit=true --allow_config_change"
            hint = f"; to fit it too, add {flags} to the command that made the run"
            raise UserError(
                f"--sampler={name} was not fitted in {self._folder.root}; expected one of "
                f"{', '.join(self.names)}{hint if name in settings else ''}"
            )
        return make_sampler(
            name,
            settings[name],
            latent_dim=self._generator.gen.latent_dim,
            prior=self._generator.sample_latents,
        )

    def fit_of(self, name: str, region: Region | None = None) -> Fit:
        """Return what a sampler learns: from all clusters of the run, or from one region alone.

        Raises:
            UserError: a sampler that the run does not have.
        """
        sampler, artifact = self.make(name), self._graph[fit_name(name)]
        if region is None:
            saved = Checkpoints(self._folder.checkpoints / name)
            clusters = self._held.own[0].digest if self._held.has_own else ""
            return Fit(name, sampler, saved, artifact.key, self._fingerprints[name], clusters)
        whole = region.with_margin(WHOLE)
        content = digest(region.fingerprint)
        saved = Checkpoints(self._folder.checkpoints / f"{name}@{content[:16]}")
        key = digest([self._graph["latents"].key, content, artifact.reads])
        share = num_inside(whole, sampler) / num_learnt_from(whole, sampler)
        fewer = sampler.for_share(share)
        return Fit(f"{name} in {self._held.flag_of(whole)}", fewer, saved, key)

    def fitted(self, name: str, region: Region | None = None) -> FittedSampler:
        """Restore a sampler from its checkpoint: that of all clusters, or that of one region.

        Raises:
            UserError: if its training with this config is not finished, or its checkpoint is
                damaged.
        """
        known = (name, "" if region is None else region.fingerprint)
        if known not in self._fitted:
            fit, state, depths = self.fit_of(name, region), {}, None
            if fit.sampler.num_epochs:
                command = self._folder.command + ("" if region is None else " --fit_query")
                hint = f"in {self._folder.root} on these clusters and with these settings; run "
                state = fit.restore(self._shapes_learnt(fit.sampler, region), hint + command)
            if region is not None and fit.last_step is not None:
                depths = np.asarray(fit.last_step.metadata["depths"])
            norm = self._output_norm(name)
            self._fitted[known] = FittedSampler(fit.sampler, state, norm, depths, self._one_hot)
        return self._fitted[known]

    def _shapes_learnt(self, sampler: Sampler, region: Region | None) -> Members:
        """Return the shapes of the members that a sampler learnt from, as members without values.

        Of a sampler with a `num_latents` their number may differ: its state does not depend on it.
        """
        if region is None:
            own = self._held.own[0]
            k, m = own.num, int(np.bincount(own.labels).max())
        else:
            k, m = 1, num_inside(region.with_margin(WHOLE), sampler)
        dim = self._generator.gen.latent_dim

        def members() -> Members:
            latents = jnp.zeros((k, m, dim), jnp.float32)
            return Members(latents, jnp.zeros(k, jnp.int32), is_ordered=True)

        return jax.eval_shape(members)

    @functools.cached_property
    def _one_hot(self) -> Parts:
        """Where the run's latents have one-hot vectors."""
        return one_hot_parts(self._held.latents)

    def _output_norm(self, name: str) -> float | None:
        """Return the length to which proposals are scaled, the prior's typical one, or None."""
        output = self._config["samplers"][name].get("output", "raw")
        if output == "raw" or (output is None and self._generator.normalizes_latent):
            return None
        return float(np.linalg.norm(self._held.latents, axis=1).mean())

    def source(self, region: Region, name: str) -> Source:
        """Return a sampler aimed at a region.

        Raises:
            UserError: if the sampler is trained neither on the region nor on a cluster around it.
        """
        is_own = self.fit_of(name, region).last_step is not None
        fitted = self.fitted(name, region if is_own else None)
        if fitted.sampler.always_verified:
            return Source(fitted)
        proposal = self._proposal(region)
        if is_own:
            among, cluster = region, 0  # the only cluster of its training
        elif proposal is not None:
            among, cluster = proposal, proposal.cluster
        else:
            raise UserError(
                f"--sampler={name} draws from one cluster of {self._held.own[0].id}, and no "
                "cluster is known to contain all that --cluster asks for; use "
                "--sampler=rejection, or train it on this query with --fit_query"
            )
        low = among.margin.low
        aimed = MarginRange(low) if fitted.sampler.aims_at_margin else WHOLE
        return Source(fitted, cluster, low, among.with_margin(aimed))

    def _proposal(self, region: Region) -> ClusterRegion | None:
        """Return the cluster of the run's own clustering whose sampler can propose a region."""
        return region.proposal(self._held.own[0]) if self._held.has_own else None

    def name_for(self, region: Region, asked: str | None = None) -> str:
        """Return the sampler that draws a region: the one asked for, or one trained on it.

        Otherwise the config's, if it is trained on a cluster that contains the region; and if not,
        the exact one, rejection.
        """
        default = self._config["sample"]["sampler"]
        if asked:
            return asked
        for name in dict.fromkeys((default, *self.names)):
            if self.fit_of(name, region).last_step is not None:
                return name
        can_propose = self._proposal(region) is not None or REFERENCE not in self.names
        return default if can_propose else REFERENCE

    def choose(self, region: Region, asked: str | None, verify: bool) -> tuple[str, bool]:
        """Return which sampler draws a region, and whether the membership check follows it.

        Args:
            region: the region.
            asked: the name of a sampler, or None for the choice of `name_for`.
            verify: whether the check is asked for; a sampler that proposes from the prior always
                has it, because only the check makes members.

        Raises:
            UserError: a sampler that the run does not have.
        """
        name = self.name_for(region, asked)
        return name, verify or self.make(name).always_verified
