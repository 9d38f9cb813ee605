"""A run: its config, generator, clusterings and samplers, and drawing from them.

`cgjax.run.opening` opens one.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from cgjax.config.distance_features import LAYER
from cgjax.config.plain import split_texts
from cgjax.errors import TooRare, UserError
from cgjax.evaluation.judges import default_judges
from cgjax.generators.batching import in_batches
from cgjax.generators.conditioned import load_conditioned
from cgjax.numerics.arguments import as_float32, check_whole, shown
from cgjax.regions.clustering import Clustering
from cgjax.regions.names import Entry
from cgjax.regions.region import WHOLE, ClusterRegion, MarginRange, Region
from cgjax.run import legacy
from cgjax.run.artifacts import declare
from cgjax.run.clusterings import HeldClusterings, layers_of
from cgjax.run.conditional import conditional_of
from cgjax.run.folder import Provenance, RunFolder, kept_trace
from cgjax.run.identity import PRIOR, identity_of, layer_trace, trace_of, weights_of
from cgjax.run.manifests import Manifests
from cgjax.run.members import members_for
from cgjax.run.samplers import RunSamplers
from cgjax.run.sampling import Samples
from cgjax.run.traces import NUM_ROWS, Trace, function_trace, settled
from cgjax.runtime.keys import check_key, named_key
from cgjax.runtime.processes import ALONE, Processes
from cgjax.samplers.base import Members, Sampler
from cgjax.samplers.verify import VerifiedDraw, draw_unverified, drawing, finish

FEWER = "ask for fewer, widen --margin, or use another --sampler"
"""What to do beside raising the budget, if a draw is asked for on demand."""


class Run:
    """A run with an open folder.

    Attributes:
        folder: the paths.
        config: nested plain dicts.
        generator: with its layer and keywords fixed.
        root_key: the root of every random number.
        provenance: what distinguishes this generator from another one.
        judges: the names of the judges that a sweep asks.
        conditional: the generators with classes in this run's comparison.
        manifests: which artifacts are there and current.
        held: the clusterings of this run, and regions of them.
        samplers: the samplers of this run.
        had_page: whether the folder had a page before it was opened for writing, which removes a
            stale one.
    """

    def __init__(self, root: str | Path, config: dict[str, Any]):
        """Load the generator; the config must be validated."""
        self.folder, self.config = RunFolder(root), config
        self.had_page = False
        self.generator = load_conditioned(config["generator"], config["layer"])
        self.root_key = jax.random.key(config["seed"])
        name = str(config["generator"]["name"])
        trace = settled(trace_of(self.generator), kept_trace(self.folder))
        identity = identity_of(self.generator, name, trace)
        self.provenance = Provenance(weights_of(self.generator), trace, identity)
        sweep = config["sweep"]
        self.judges = split_texts(sweep["judges"]) or default_judges()
        layers = layers_of(self.generator.gen.layers, split_texts(sweep["layers"]))
        self.conditional = conditional_of(config["compare"])
        graph = declare(
            config,
            identity_of(self.generator, name, trace[:PRIOR]),
            identity,
            layers,
            self.judges,
            {one.name: one.identity for one in self.conditional},
            self.folder.assigned_names,
        )
        old = legacy.fingerprints(config, self.provenance.weights_sha256)
        self.manifests = Manifests(self.folder, graph, old, functools.cache(self._trace))
        self.held = HeldClusterings(self.folder, self.manifests, config, self.generator, layers)
        self.samplers = RunSamplers(
            self.folder, config, self.generator, graph, self.held, old.samplers
        )

    def _trace(self, traced: str) -> Trace:
        kind, _, name = traced.partition(" ")
        if kind == LAYER:
            return layer_trace(self.generator.at_layer(name))
        # Images of the generator's own: a judge may find nothing in any others.
        z = self.generator.sample_latents(jax.random.key(0), NUM_ROWS)
        return function_trace(traced, self.generator.images(np.asarray(z)))

    @property
    def clustering(self) -> Clustering:
        """The clustering; a UserError if it is not there yet or is of another config."""
        return self.held.own[0]

    @property
    def latents(self) -> Float[np.ndarray, "n d"]:
        """The latents that were clustered."""
        return self.held.own[1]

    @property
    def prior_latents(self) -> Float[np.ndarray, "n d"]:
        """The run's latents, also before its own clustering is there."""
        return self.held.latents

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
            margin: as `MarginRange.parse` takes it; applies to every cluster that is asked for.

        Raises:
            UserError: an unknown cluster or clustering, a query that cannot be read, an invalid
                margin.
        """
        return self.held.region(cluster, MarginRange.parse(margin))

    @property
    def regions(self) -> list[ClusterRegion]:
        """The clusters, whole."""
        return [ClusterRegion(self.clustering, c) for c in range(self.clustering.num)]

    @property
    def entries(self) -> list[Entry]:
        """The names that people gave the clusters."""
        return self.held.entries_of(self.clustering)

    @property
    def sampler_names(self) -> list[str]:
        """The samplers of this run."""
        return self.samplers.names

    def members(
        self,
        sampler: Sampler,
        check: Callable[[], None] = lambda: None,
        processes: Processes = ALONE,
    ) -> Members:
        """Return what a sampler learns from: see `members_for`."""
        key = named_key(self.root_key, "more members")
        args = (sampler, self.clustering, self.latents, self.generator, key)
        return members_for(*args, check=check, processes=processes)

    def is_inside(self, z: Float[Array, "n d"], region: Region) -> Bool[Array, " n"]:
        """Whether latents lie in a region."""
        return region.contains(lambda layer: self.generator.at_layer(layer).features(z))

    def are_inside(
        self, z: Float[np.ndarray, "n d"] | Float[Array, "n d"], region: Region
    ) -> Bool[np.ndarray, " n"]:
        """As `is_inside`, in batches, on the host."""
        _check_region(region)
        z = as_float32("latents", z, "(n, d)")
        return in_batches(lambda rows: self.is_inside(rows, region), z, self.generator.batch)

    @contextlib.contextmanager
    def naming(self, region: Region, instead: str = FEWER, drawer: str = "") -> Iterator[None]:
        """Add to `TooRare` what draws which region, its share, and what to do instead."""
        try:
            yield
        except TooRare as error:
            what = ", ".join(filter(None, (drawer, self.held.in_words(region))))
            raise TooRare(f"{what}: {error}, or {instead}") from error

    def draw(
        self,
        key: PRNGKeyArray,
        region: Region,
        num: int,
        *,
        sampler: str,
        verify: bool = True,
        rescaled: bool = True,
        instead: str = FEWER,
        check: Callable[[], None] = lambda: None,
    ) -> tuple[Float[np.ndarray, "num d"], VerifiedDraw | None]:
        """Draw latents of a region; see `sample`. Returns them and, if verified, their cost.

        Unverified draws are the plain proposals of any sampler; with `rescaled=False` as the
        sampler made them. `instead` is what to type if the region is too rare, beside a larger
        budget; `check` is called between batches and may raise to stop.
        """
        steps = self.drawing(
            key, region, num, sampler=sampler, verify=verify, rescaled=rescaled, instead=instead
        )
        return finish(steps, lambda _: check())

    def drawing(
        self,
        key: PRNGKeyArray,
        region: Region,
        num: int,
        *,
        sampler: str,
        verify: bool = True,
        rescaled: bool = True,
        instead: str = FEWER,
    ) -> Generator[
        Float[np.ndarray, "m d"], None, tuple[Float[np.ndarray, "num d"], VerifiedDraw | None]
    ]:
        """As `draw`, step by step: yields the latents as they pass the check, or all at once."""
        _check_region(region)
        source = self.samplers.source(region, sampler)
        if not rescaled:
            source = source._replace(fitted=source.fitted._replace(norm=None))
        is_whole = isinstance(region, ClusterRegion) and region.margin == WHOLE
        if not is_whole and not verify:
            raise UserError("--margin and queries need the membership check; leave --noverify out")
        if not verify:
            latents = draw_unverified(source.propose, key, num)
            yield latents
            return latents, None
        with self.naming(region, instead, sampler):
            draw = yield from drawing(
                source.propose,
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
        """Draw images of one cluster, or of what a query over several clusterings asks for.

        Args:
            key: a random key, typed or raw; the same key gives the same samples.
            cluster: an id, or the name a person gave it; a number is always an id. Or a query, see
                `region`.
            num: how many images.
            sampler: one of `sampler_names`; None for the choice of `RunSamplers.name_for`.
            verify: check that every sample belongs to the cluster, and redraw it if it does not.
            margin: keep only the part of the cluster above this quantile of its members' margins:
                0 is the whole cluster, towards 1 its attribute at full strength. Or between two
                quantiles, (low, high), without the extreme members; see `MarginRange`.

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
        _check_region(region)
        name, verify = self.samplers.choose(region, sampler, verify)
        latents, draw = self.draw(key, region, num, sampler=name, verify=verify)
        return Samples(self.generator.images(latents), latents, draw.acceptance if draw else None)


def _check_region(region: Any) -> None:
    """Raise `UserError` for anything but a region, such as an id."""
    if not isinstance(region, Region):
        raise UserError(f"region={shown(region)}: expected a region, such as run.region(0)")
