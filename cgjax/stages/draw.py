"""Drawing from a finished run on demand: a region, every cluster alike, a sampler of a query."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import jax
from jaxtyping import PRNGKeyArray

from cgjax.errors import UserError
from cgjax.regions.acceptance import check_budget, describe
from cgjax.regions.region import WHOLE, ClusterRegion, MarginRange, Region
from cgjax.run.run import Run
from cgjax.run.sampling import older_samples, remove_samples, save_images
from cgjax.runtime.files import make_folder
from cgjax.stages.pipeline import Pipeline


class Request(NamedTuple):
    """What is asked for on the command line; each field is the flag of its name.

    Attributes:
        cluster: a cluster or a query; for `draw_balanced` a clustering, a cluster that is split, or
            None for the run's own clustering.
        margin: as `MarginRange.parse` takes it.
        num: images, at least 1.
        sampler: its name, or None for that of `Run.sampler_for`.
        verify: whether what falls outside is redrawn.
        seed: from 0.
        out: the folder.
    """

    cluster: str | None
    margin: str
    num: int
    sampler: str | None
    verify: bool
    seed: int
    out: Path


def draw_region(run: Run, request: Request) -> None:
    """Draw images of one region into the folder.

    Raises:
        UserError: as `Run.sample`.
    """
    region = run.region(request.cluster or "0", request.margin)
    _draw(run, request, region, request.num, request.out, jax.random.key(request.seed))


def draw_balanced(run: Run, request: Request) -> None:
    """Draw from every cluster of a clustering alike, each into a folder of its number.

    The first clusters get one image more where the number of images cannot be divided.

    Raises:
        UserError: as `Run.sample`; fewer images than clusters.
    """
    regions = run.held.alike(request.cluster)
    if request.num < len(regions):
        raise UserError(
            f"--num={request.num} --balanced: expected at least one image for each of "
            f"{len(regions)} clusters"
        )
    key, margin = jax.random.key(request.seed), MarginRange.parse(request.margin)
    # An earlier draw may have been of more clusters.
    for folder in request.out.glob("*"):
        if folder.is_dir() and folder.name.isdecimal() and int(folder.name) >= len(regions):
            remove_samples(folder)
    for c, region in enumerate(regions):
        num = request.num // len(regions) + (c < request.num % len(regions))
        out, key_c = request.out / str(c), jax.random.fold_in(key, c)
        _draw(run, request, region.with_margin(margin), num, out, key_c)


def _draw(
    run: Run, request: Request, region: Region, num: int, out: Path, key: PRNGKeyArray
) -> None:
    sampler = run.sampler_for(region, request.sampler)
    older_samples(out)
    if request.verify:
        print(announce(run, region, sampler, num), flush=True)
    samples = run.sample_region(key, region, num, sampler, request.verify)
    save_images(samples.images, samples.latents, make_folder(out, "--out"))
    checked = "" if samples.acceptance is None else f", acceptance {samples.acceptance:.3f}"
    print(f"{len(samples.images)} images in {out}{checked}", flush=True)


def announce(run: Run, region: Region, sampler: str, num: int) -> str:
    """Return the line that says what a verified draw is expected to cost.

    Raises:
        UserError: if the budget is not expected to pay for it.
    """
    source = run.source(region, sampler)
    expected = source.expected(region)
    check_budget(expected, num, run.config["sample"]["max_draws"])
    faithful = "" if source.among is None else " (if it is faithful)"
    return f"{sampler}: {describe(expected, num)}{faithful}"


def fit_query(pipeline: Pipeline, request: Request) -> None:
    """Train a sampler on what is asked for, and keep it in the run's folder; later draws use it.

    Raises:
        UserError: a region that has its sampler already or is too rare, a sampler that learns
            nothing.
        Interrupted: asked to stop; resumed by the same command.
    """
    run = pipeline.run
    region = run.region(request.cluster or "0").with_margin(WHOLE)
    if isinstance(region, ClusterRegion) and region.proposal(run.clustering) is not None:
        raise UserError(
            f"--fit_query --cluster={request.cluster}: the run's samplers are trained on this "
            "cluster already; leave --fit_query out"
        )
    trained = [name for name in run.sampler_names if run.make_sampler(name).num_epochs]
    default = run.config["sample"]["sampler"]
    name = request.sampler or (default if default in trained else next(iter(trained), default))
    if name not in trained and name in run.sampler_names:
        raise UserError(
            f"--fit_query --sampler={name}: it learns nothing; expected one of "
            f"{', '.join(trained) or 'none of this run'}"
        )
    pipeline.fit_in(name, region)
