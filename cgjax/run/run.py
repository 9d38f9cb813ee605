"""A run's folder: where things are, what was resolved, and sampling from it."""

from __future__ import annotations

import functools
import io
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from cgjax.clustering import assign
from cgjax.config import plain as configuration
from cgjax.errors import UserError
from cgjax.generators.base import in_batches
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.generators.registry import load_generator
from cgjax.regions import clustering as clusters
from cgjax.regions.clustering import WHOLE, MarginRange
from cgjax.runtime import checkpoints as checkpoint
from cgjax.runtime.files import write_atomically, write_json
from cgjax.runtime.keys import named_key
from cgjax.runtime.processes import Processes
from cgjax.samplers.base import Members, Sampler, SamplerState, group_members
from cgjax.samplers.registry import make_sampler
from cgjax.samplers.verify import Draw, draw_unverified, draw_verified, rescale
from cgjax.version import __version__

KEYWORDS = ("condition", "truncation", "truncation_layers", "noise")


class RunFolder:
    """The paths inside a run's folder; README.md lists it."""

    def __init__(self, root: str | Path):
        self.root = Path(root)
        self.config = self.root / "config.json"
        self.clusters = self.root / "clusters.npz"
        self.descriptions = self.root / "clusters.json"
        self.checkpoints = self.root / "checkpoints"
        self.samples = self.root / "samples"
        self.figures = self.root / "figures"
        self.metrics = self.root / "metrics.jsonl"
        self.summary = self.root / "summary.json"
        self.stages = self.root / "stages"
        self.report = self.root / "report"


class Samples(NamedTuple):
    """What `Run.sample` returns.

    Attributes:
        images: (num, size, size, channels) float32, nominally in [-1, 1].
        latents: (num, d) float32.
        acceptance: share of the checked proposals that were members, or None if not verified.
    """

    images: Float[np.ndarray, "num s s c"]
    latents: Float[np.ndarray, "num d"]
    acceptance: float | None


class FittedSampler(NamedTuple):
    """A sampler with what it has learnt, as a source of proposals.

    Attributes:
        sampler: the hyper-parameters.
        state: the arrays.
        norm: length to which proposals are scaled, or None to leave them as they are.
    """

    sampler: Sampler
    state: SamplerState
    norm: float | None

    def propose(
        self, cluster: int, key: PRNGKeyArray, num: int, margin: float = 0.0
    ) -> Float[Array, "num d"]:
        """Draw latents that are meant to be members of a cluster, above a quantile of its margin.

        A sampler that cannot aim at a margin proposes from the whole cluster.
        """
        if margin and getattr(self.sampler, "aims_at_margin", False):
            z = self.sampler.sample(self.state, key, cluster, num, margin=margin)  # type: ignore[call-arg]
        else:
            z = self.sampler.sample(self.state, key, cluster, num)
        return z if self.norm is None else rescale(z, self.norm)


class Run:
    """A run's folder opened: its config, generator, clusters and fitted samplers.

    Attributes:
        folder: the paths.
        config: nested plain dicts.
        generator: the generator with its keywords fixed.
    """

    def __init__(self, root: str | Path, config: dict[str, Any]):
        """Open a folder with a config that was validated; loads the generator."""
        self.folder = RunFolder(root)
        self.config = config
        settings = config["generator"]
        self.generator = ConditionedGenerator(
            load_generator(settings["weights"] or settings["name"]),
            config["layer"],
            {name: settings[name] for name in KEYWORDS},
            settings["batch"],
        )
        self.root_key = jax.random.key(config["seed"])
        self._fitted: dict[str, FittedSampler] = {}
        self._more: tuple[int, Members] | None = None

    @property
    def weights_sha256(self) -> str:
        """Hash of the generator's weights; empty for a generator that has none."""
        return str(getattr(self.generator.gen, "manifest", {}).get("weights_sha256", ""))

    @functools.cached_property
    def clusters(self) -> clusters.Clusters:
        """The clusters; a UserError before they are there."""
        return clusters.load_clusters(self.folder.clusters)

    @functools.cached_property
    def members(self) -> Members:
        """The latents of every cluster."""
        return group_members(self.clusters.latents, self.clusters.labels, self.clusters.num)

    def more_members(
        self,
        num: int,
        check: Callable[[], None] = lambda: None,
        processes: Processes | None = None,
    ) -> Members:
        """Return the members among `num` latents, each cluster's sorted by margin, least first.

        Those of the run come first; what is missing is drawn from the prior and assigned. The same
        seed gives the same members; the last result is kept.

        Args:
            num: latents in all.
            check: called between blocks; may raise to stop.
            processes: which share the assignment; every one of them must call this.
        """
        if self._more is None or self._more[0] != num:
            made = self.clusters
            z, c, margins = made.latents[:num], made.labels[:num], made.margins[:num]
            if num > len(z):
                more, found = self._more_latents(num - len(z), check, processes or Processes())
                z = np.concatenate([z, more])
                c = np.concatenate([c, found[:, 0].astype(np.int32)])
                margins = np.concatenate([margins, found[:, 1]])
            order = np.argsort(margins, kind="stable")
            self._more = num, group_members(z[order], c[order], made.num)
        return self._more[1]

    def _more_latents(
        self, num: int, check: Callable[[], None], processes: Processes
    ) -> tuple[Float[np.ndarray, "num d"], Float[np.ndarray, "num 2"]]:
        """Draw latents in blocks, and run each process's share of them; see `_assignment`."""
        key, block = named_key(self.root_key, "more members"), 4096
        num_blocks = -(-num // block)

        def draw(r: int) -> Float[np.ndarray, "b d"]:
            z = self.generator.sample_latents(named_key(key, r), block)
            return np.asarray(z)[: num - r * block]

        mine = processes.share(num_blocks)
        found = np.zeros((processes.largest_share(num_blocks) * block, 2), np.float32)
        for i in range(processes.largest_share(num_blocks)):
            check()  # by every process, also by one that has nothing left to do
            if i < len(mine):
                rows = in_batches(self._assignment, draw(mine[i]), self.generator.batch)
                found[i * block : i * block + len(rows)] = rows
        latents = np.concatenate([draw(r) for r in range(num_blocks)])
        return latents, processes.gather(found)[:num]

    def _assignment(self, z: Array) -> Float[Array, "n 2"]:
        labels, margins = assign(self.generator.features(z), jnp.asarray(self.clusters.centroids))
        # Cluster ids are exact as float32.
        return jnp.stack([labels.astype(jnp.float32), margins], axis=1)

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

    def checkpoints(self, name: str) -> checkpoint.Checkpoints:
        """The saved steps of a sampler."""
        return checkpoint.Checkpoints(self.folder.checkpoints / name)

    def output_norm(self, name: str) -> float | None:
        """Length to which a sampler's proposals are scaled, the prior's typical one, or None."""
        output = self.config["samplers"][name].get("output", "raw")
        if output == "raw" or (output is None and self.generator.normalizes_latent):
            return None
        return float(np.linalg.norm(self.clusters.latents, axis=1).mean())

    def fitted(self, name: str) -> FittedSampler:
        """Restore a sampler from its checkpoint.

        Raises:
            UserError: if it was not trained to its end, or its checkpoint is damaged.
        """
        if name not in self._fitted:
            sampler = self.make_sampler(name)
            state: SamplerState = {}
            if sampler.num_epochs:
                steps = self.checkpoints(name).steps()
                if not steps or steps[-1].number < sampler.num_epochs:
                    raise UserError(
                        f"sampler {name!r} is not trained yet in {self.folder.root}; run "
                        f"python -m cgjax.main --workdir={self.folder.root}"
                    )
                # Shapes and dtypes only; the members' shapes are enough to know them.
                template = jax.eval_shape(
                    sampler.init, jax.random.key(0), jax.eval_shape(lambda: self.members)
                )
                state = self.checkpoints(name).restore(steps[-1].number, {"state": template})[
                    "state"
                ]
            self._fitted[name] = FittedSampler(sampler, state, self.output_norm(name))
        return self._fitted[name]

    def is_member(
        self, z: Array, cluster: int, limits: tuple[float, float] = (-np.inf, np.inf)
    ) -> Bool[Array, " n"]:
        """Whether the clustering assigns latents to a cluster, with a margin within limits."""
        labels, margins = assign(self.generator.features(z), jnp.asarray(self.clusters.centroids))
        return (labels == cluster) & (margins >= limits[0]) & (margins <= limits[1])

    def are_members(self, z: Float[np.ndarray, "n d"], cluster: int) -> Bool[np.ndarray, " n"]:
        """As `is_member`, in batches, on the host."""
        return in_batches(lambda rows: self.is_member(rows, cluster), z, self.generator.batch)

    def draw(
        self,
        key: PRNGKeyArray,
        cluster: int,
        num: int,
        *,
        sampler: str,
        verify: bool = True,
        margin_range: MarginRange = WHOLE,
        rescaled: bool = True,
    ) -> tuple[Float[np.ndarray, "num d"], Draw | None]:
        """Draw latents of a cluster; see `sample`. Returns them and, if verified, their cost.

        Unverified draws are the proposals as they come, whatever the sampler; with
        `rescaled=False` as the sampler made them.
        """
        fitted = self.fitted(sampler)
        if not rescaled:
            fitted = fitted._replace(norm=None)
        if margin_range != WHOLE and not verify:
            raise UserError("--margin needs the membership check; leave --noverify out")
        batch = self.config["generator"]["batch"]

        def propose(key: PRNGKeyArray, n: int) -> Array:
            return fitted.propose(cluster, key, n, margin_range.low)

        if not verify:
            return draw_unverified(propose, key, num, batch=batch), None
        limits = self.clusters.margin_limits(cluster, margin_range)
        draw = draw_verified(
            propose,
            lambda z: self.is_member(z, cluster, limits),
            key,
            num,
            batch=batch,
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
            cluster: an id, or the name a person gave it.
            num: how many images.
            sampler: one of `sampler_names`; the config's default if None.
            verify: check that every sample belongs to the cluster, and draw again where not.
            margin: keep only the part of the cluster above this quantile of its members' margins:
                0 is the cluster as it is, towards 1 its attribute at full strength. Or between
                two quantiles, (low, high), without the extreme members; see `clusters.MarginRange`.

        Returns:
            The images, their latents, and the acceptance of the check.

        Raises:
            UserError: an unknown cluster or sampler, a margin that is none, a cluster too rare for
                the budget of draws.
        """
        if num < 1:
            raise UserError(f"--num={num}: expected at least 1")
        entries = clusters.read_descriptions(self.folder.descriptions)
        name = sampler or self.config["sample"]["sampler"]
        c = clusters.find_cluster(cluster, entries)
        verify = verify or self.fitted(name).sampler.always_verified
        margin_range = MarginRange.parse(margin)
        latents, draw = self.draw(
            key, c, num, sampler=name, verify=verify, margin_range=margin_range
        )
        return Samples(self.generator.images(latents), latents, draw.acceptance if draw else None)


def load_run(root: str | Path) -> Run:
    """Open a run's folder for sampling.

    Args:
        root: the folder, as given to --workdir.

    Returns:
        The run.

    Raises:
        UserError: if it is no run's folder, or the generator's weights are not those it was made
            with.

    Example:
        run = cgjax.load_run("runs/dcgan_pose")
        images = run.sample(jax.random.key(0), cluster=0, num=64).images
    """
    folder = RunFolder(root)
    saved = read_config(folder)
    run = Run(root, saved["config"])
    if saved["weights_sha256"] != run.weights_sha256:
        raise UserError(
            f"{root} was made with other weights (SHA-256 {saved['weights_sha256'][:12]}..., now "
            f"{run.weights_sha256[:12]}...); give back the old ones or use another --workdir"
        )
    return run


def read_config(folder: RunFolder) -> dict[str, Any]:
    """Read `config.json`: {"config", "versions", "weights_sha256", "device"}.

    Raises:
        UserError: if it is not there or damaged.
    """
    if not folder.config.is_file():
        raise UserError(
            f"{folder.root} is no run's folder (no config.json); name one with --workdir, or start "
            "one with --config=configs/dcgan_pose.py"
        )
    try:
        saved: dict[str, Any] = json.loads(folder.config.read_text())
        saved["config"], saved["weights_sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder.config} is damaged: {error}") from error
    return saved


def save_config(run: Run) -> None:
    """Write `config.json`: what was asked for, and with what."""
    content = {
        "config": run.config,
        "weights_sha256": run.weights_sha256,
        "versions": {
            "cgjax": __version__,
            "jax": jax.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "device": jax.devices()[0].device_kind,
    }
    write_json(run.folder.config, content)


def check_config(root: str | Path, config: dict[str, Any], *, allow_change: bool) -> None:
    """Refuse a folder that is not ours, or that was made with another config.

    Args:
        root: the folder; it need not exist.
        config: the new run's.
        allow_change: accept another config; what depends on the change is made anew.

    Raises:
        UserError: listing every leaf that differs.
    """
    folder = RunFolder(root)
    if not folder.config.is_file():
        if folder.root.exists() and (not folder.root.is_dir() or any(folder.root.iterdir())):
            raise UserError(f"--workdir={root} exists and is no run of ours; name another folder")
        return
    changed = configuration.differences(read_config(folder)["config"], config)
    if changed and not allow_change:
        raise UserError(
            f"{root} was made with another config ({'; '.join(changed)}); use another --workdir, "
            "or --allow_config_change to make anew what depends on it"
        )


def save_images(images: Float[np.ndarray, "n s s c"], latents: np.ndarray, folder: Path) -> None:
    """Write `00000.png`, ... and `latents.npy`; older samples in the folder are replaced."""
    from cgjax.figures.sheets import to_png

    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("[0-9][0-9][0-9][0-9][0-9].png"):
        old.unlink()
    for i, image in enumerate(images):
        write_atomically(folder / f"{i:05d}.png", to_png(image))
    buffer = io.BytesIO()
    np.save(buffer, latents)
    write_atomically(folder / "latents.npy", buffer.getvalue())
