"""A run opened: its config, generator, clustering and fitted samplers, and drawing from it."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from cgjax.config.leaves import AUTO
from cgjax.config.plain import digest, split_texts
from cgjax.config.schema import validate
from cgjax.errors import UserError
from cgjax.evaluation.judges import default_judges
from cgjax.generators.batching import in_batches
from cgjax.generators.conditioned import load_conditioned
from cgjax.numerics.given import as_float32, check_whole
from cgjax.regions.clustering import Clustering, parse_clustering
from cgjax.regions.names import Entry, read_entries
from cgjax.regions.region import WHOLE, ClusterRegion, MarginRange, Region
from cgjax.run import legacy
from cgjax.run.artifacts import REFERENCE, declare, fit
from cgjax.run.conditional import conditional_of
from cgjax.run.fits import Fit
from cgjax.run.folder import Known, RunFolder, check_generator_is, kept_trace
from cgjax.run.given import check_region, read_folder
from cgjax.run.held import HeldClusterings, layers_of
from cgjax.run.identity import PRIOR, identity_of, settled, trace_of, weights_of
from cgjax.run.manifests import Manifests
from cgjax.run.members import members_for, num_inside
from cgjax.run.sampling import FittedSampler, Samples, Source
from cgjax.runtime.checkpoints import Checkpoints
from cgjax.runtime.keys import check_key, named_key
from cgjax.runtime.processes import Processes
from cgjax.samplers.base import Members, Sampler, group_members
from cgjax.samplers.registry import make_sampler
from cgjax.samplers.verify import Draw, draw_unverified, drawing, finish


class Run:
    """A run's folder opened.

    Attributes:
        folder: the paths.
        config: nested plain dicts.
        generator: with its layer and keywords fixed.
        manifests: what is there and current.
        known: what tells this generator from another one.
        judges: that a sweep asks, by name.
        conditional: generators with classes that stand beside this run in its comparison.
        held: the clusterings of this run, and the regions of them.
    """

    def __init__(self, root: str | Path, config: dict[str, Any]):
        """Open a folder with a config that was validated; loads the generator."""
        self.folder = RunFolder(root)
        self.config = config
        settings = config["generator"]
        self.generator = load_conditioned(settings, config["layer"])
        self.root_key = jax.random.key(config["seed"])
        trace = settled(trace_of(self.generator), kept_trace(self.folder))
        prior, whole = (
            identity_of(self.generator, str(settings["name"]), part)
            for part in (trace[:PRIOR], trace)
        )
        self.known = Known(weights_of(self.generator), trace, whole)
        self._old = legacy.fingerprints(config, self.known.weights_sha256)
        sweep = config["sweep"]
        self.judges = split_texts(sweep["judges"]) or default_judges()
        layers = layers_of(self.generator.gen.layers, split_texts(sweep["layers"]))
        self.conditional = conditional_of(config["compare"])
        others = {one.name: one.identity for one in self.conditional}
        assigned = self.folder.assigned_names
        graph = declare(config, prior, whole, layers, self.judges, others, assigned)
        self.manifests = Manifests(self.folder, graph, self._old)
        self.held = HeldClusterings(
            self.folder, self.manifests, config, self.generator.at_layer, layers, self._own
        )
        self._fitted: dict[tuple[str, str], FittedSampler] = {}

    def _own(self) -> tuple[Clustering, Float[np.ndarray, "n d"]]:
        return self._clustered

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

    @property
    def prior_latents(self) -> Float[np.ndarray, "n d"]:
        """The latents of the run, also before its own clustering is there."""
        return self.latents if self.held.has_own else self.held.latents

    @property
    def clusterings(self) -> dict[str, Clustering]:
        """The clusterings of this run by their ids: its own first, then those of a sweep."""
        return self.held.all

    def region(self, cluster: int | str, margin: float | str | tuple[float, float] = 0.0) -> Region:
        """Return what a user asks for: a cluster, a part of it, or a query over several.

        Args:
            cluster: an id, the name a person gave it, a path such as "0/1" to a cluster inside a
                cluster, or a query such as "layer2=0 & (layer4!=1 | smiling)"; see
                `cgjax.regions.query`.
            margin: as `MarginRange.parse` takes it; of every cluster that is asked for.

        Raises:
            UserError: an unknown cluster or clustering, a query that cannot be read, an invalid
                margin.
        """
        return self.held.region(cluster, MarginRange.parse(margin))

    def set_clusters(self, data: bytes) -> None:
        """Take the content of `clusters.npz` from another process."""
        self._clustered = self.read_clusters(data)

    def read_clusters(self, data: bytes) -> tuple[Clustering, Float[np.ndarray, "n d"]]:
        """Read the content of `clusters.npz`, and check that it is of this generator."""
        clustering, latents = parse_clustering(data, self.folder.clusters, self.generator.layer)
        dim = int(self.generator.gen.latent_dim)
        wanted = self.config["cluster"]["num_clusters"]
        if latents.shape[1] != dim or wanted not in (clustering.num, AUTO):
            raise UserError(
                f"{self.folder.clusters} has {clustering.num} clusters of latents of length "
                f"{latents.shape[1]}; this run has {wanted} of length {dim}; remove it and run "
                "again to recompute it"
            )
        wanted = self.config["cluster"]["space"]
        if clustering.space.name != wanted:
            raise UserError(
                f"{self.folder.clusters} has clusters of {clustering.space.name} features; this "
                f"run has --config.cluster.space={wanted}; remove it and run again to recompute it"
            )
        return clustering, latents

    @property
    def own_id(self) -> str:
        """The id of the clustering that the config asks for."""
        num = self.config["cluster"]["num_clusters"]
        return f"{self.generator.layer}-k{self.clustering.num if num == AUTO else num}"

    @property
    def regions(self) -> list[ClusterRegion]:
        """The clusters, whole."""
        return [ClusterRegion(self.clustering, c) for c in range(self.clustering.num)]

    @property
    def entries(self) -> list[Entry]:
        """What people call the clusters."""
        return read_entries(self.folder.names, self.clustering)

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
            flags = f"--config.samplers.{name}.fit=true --allow_config_change"
            is_known = name in self.config["samplers"]
            raise UserError(
                f"--sampler={name} was not fitted in {self.folder.root}; expected one of "
                f"{', '.join(self.sampler_names)}"
                + f"; to fit it too, add {flags} to the command that made the run"
                * is_known
            )
        return make_sampler(
            name,
            self.config["samplers"][name],
            latent_dim=self.generator.gen.latent_dim,
            prior=self.generator.sample_latents,
        )

    def fit_of(self, name: str, region: Region | None = None) -> Fit:
        """Return what a sampler learns: from all clusters of the run, or from one region alone.

        Raises:
            UserError: a sampler that the run does not have.
        """
        sampler, learnt = self.make_sampler(name), self.manifests.graph[fit(name)]
        if region is None:
            saved = Checkpoints(self.folder.checkpoints / name)
            learnt_from = self.clustering.digest if self.held.has_own else ""
            return Fit(name, sampler, saved, learnt.key, self._old.samplers[name], learnt_from)
        whole, known = region.with_margin(WHOLE), digest(region.fingerprint)
        saved = Checkpoints(self.folder.checkpoints / f"{name}@{known[:16]}")
        key = digest([self.manifests.graph["latents"].key, known, learnt.reads])
        of = sampler.num_latents or len(self.prior_latents)
        fewer = sampler.for_share(num_inside(whole, of) / of)
        return Fit(f"{name} in {whole}", fewer, saved, key)

    def output_norm(self, name: str) -> float | None:
        """Length to which a sampler's proposals are scaled, the prior's typical one, or None."""
        output = self.config["samplers"][name].get("output", "raw")
        if output == "raw" or (output is None and self.generator.normalizes_latent):
            return None
        return float(np.linalg.norm(self.prior_latents, axis=1).mean())

    def fitted(self, name: str, region: Region | None = None) -> FittedSampler:
        """Restore a sampler from its checkpoint: that of all clusters, or that of one region.

        Raises:
            UserError: if it was not trained to its end with this config, or its checkpoint is
                damaged.
        """
        known = (name, "" if region is None else region.fingerprint)
        if known not in self._fitted:
            one, state, depths = self.fit_of(name, region), {}, None
            if one.sampler.num_epochs:
                flag = "" if region is None else " --fit_query"
                state = one.restore(
                    self._learnt_from(one.sampler, region),
                    f"in {self.folder.root} on these clusters and with these settings; run "
                    f"{self.folder.command}{flag}",
                )
            if region is not None and one.last_step is not None:
                depths = np.asarray(one.last_step.metadata["depths"])
            norm = self.output_norm(name)
            self._fitted[known] = FittedSampler(one.sampler, state, norm, depths)
        return self._fitted[known]

    def _learnt_from(self, sampler: Sampler, region: Region | None) -> Members:
        """Return members like those that were learnt from; of a region a few, of which it knows."""
        if region is None:
            clustering = self.clustering
            margins = clustering.margins if sampler.needs_margin_order else None
            return group_members(self.latents, clustering.labels, clustering.num, margins)
        some = self.prior_latents[:2]
        return group_members(some, np.zeros(len(some), np.int32), 1, np.zeros(len(some)))

    def is_inside(self, z: Float[Array, "n d"], region: Region) -> Bool[Array, " n"]:
        """Whether latents lie in a region."""
        return region.contains(lambda layer: self.generator.at_layer(layer).features(z))

    def are_inside(
        self, z: Float[np.ndarray, "n d"] | Float[Array, "n d"], region: Region
    ) -> Bool[np.ndarray, " n"]:
        """As `is_inside`, in batches, on the host."""
        check_region(region)
        z = as_float32("latents", z, "(n, d)")
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
        return finish(
            self.drawing(key, region, num, sampler=sampler, verify=verify, rescaled=rescaled)
        )

    def drawing(
        self,
        key: PRNGKeyArray,
        region: Region,
        num: int,
        *,
        sampler: str,
        verify: bool = True,
        rescaled: bool = True,
    ) -> Generator[Float[np.ndarray, "m d"], None, tuple[Float[np.ndarray, "num d"], Draw | None]]:
        """As `draw`, a step at a time: yields the latents as they pass, or all at once."""
        check_region(region)
        source = self.source(region, sampler)
        if not rescaled:
            source = source._replace(fitted=source.fitted._replace(norm=None))
        is_whole = isinstance(region, ClusterRegion) and region.margin == WHOLE
        if not is_whole and not verify:
            raise UserError("--margin and queries need the membership check; leave --noverify out")
        if not verify:
            latents = draw_unverified(source.propose, key, num)
            yield latents
            return latents, None
        draw = yield from drawing(
            source.propose,
            lambda z: self.are_inside(z, region),
            key,
            num,
            batch=self.generator.batch,
            max_draws=self.config["sample"]["max_draws"],
        )
        return draw.latents, draw

    def source(self, region: Region, sampler: str) -> Source:
        """Return a sampler aimed at a region.

        Raises:
            UserError: if the sampler is not trained, on the region or on what holds it.
        """
        own = self.fit_of(sampler, region).last_step is not None
        fitted = self.fitted(sampler, region if own else None)
        among = region if own else self._aim(region)
        if fitted.sampler.always_verified:
            return Source(fitted)
        if among is None:
            raise UserError(
                f"--sampler={sampler} draws from one cluster of {self.own_id}, and none is known "
                "to hold all that --cluster asks for; use --sampler=rejection, or train it on "
                "this query with --fit_query"
            )
        low = among.margin.low
        heeded = MarginRange(low) if fitted.sampler.aims_at_margin else WHOLE
        cluster = among.cluster if isinstance(among, ClusterRegion) else 0
        return Source(fitted, cluster, low, among.with_margin(heeded))

    def _aim(self, region: Region) -> ClusterRegion | None:
        """Return the cluster of the run's own clustering whose sampler can propose a region."""
        return region.proposal(self.clustering) if self.held.has_own else None

    def sampler_for(self, region: Region, wanted: str | None = None) -> str:
        """Return the sampler that draws a region: the wanted one, or one that was trained on it.

        Else the config's where it was trained on a cluster that holds the region, and otherwise the
        exact one, rejection.
        """
        default = self.config["sample"]["sampler"]
        if wanted:
            return wanted
        for name in dict.fromkeys((default, *self.sampler_names)):
            if self.fit_of(name, region).last_step is not None:
                return name
        can = self._aim(region) is not None or REFERENCE not in self.sampler_names
        return default if can else REFERENCE

    def is_always_verified(self, name: str) -> bool:
        """Whether a sampler proposes the prior, of which only the check makes members."""
        return bool(self.make_sampler(name).always_verified)

    def sample(
        self,
        key: PRNGKeyArray,
        cluster: int | str,
        num: int,
        sampler: str | None = None,
        verify: bool = True,
        margin: float | str | tuple[float, float] = 0.0,
    ) -> Samples:
        """Draw images of one cluster, or of what a query over several clusterings asks for.

        Args:
            key: a typed random key; the same one gives the same samples.
            cluster: an id, or the name a person gave it; a number is always an id. Or a query, see
                `region`.
            num: how many images.
            sampler: one of `sampler_names`; None for that of `sampler_for`.
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
        check_key(key)
        num = check_whole("--num", num)
        check_region(region)
        name = self.sampler_for(region, sampler)
        verify = verify or self.is_always_verified(name)
        latents, draw = self.draw(key, region, num, sampler=name, verify=verify)
        return Samples(self.generator.images(latents), latents, draw.acceptance if draw else None)


def load_run(root: str | os.PathLike[str]) -> Run:
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
    folder, saved = read_folder(root)
    try:
        validate(saved.config)
    except UserError as error:
        raise UserError(f"{folder.config} was edited: {error}") from error
    try:
        run = Run(folder.root, saved.config)
    except UserError as error:
        raise UserError(f"{folder.config}: {error}") from error
    check_generator_is(folder, run.known)
    return run
