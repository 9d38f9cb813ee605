"""Drawing from a finished run on demand: one region, or the same number from every cluster."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping, Sequence, Sized
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from cgjax.errors import UserError
from cgjax.generators.conditioned import ConditionedGenerator
from cgjax.regions.acceptance import check_budget, describe
from cgjax.regions.region import ClusterRegion, MarginRange, Region
from cgjax.run.run import Run
from cgjax.run.sample_files import (
    draft,
    holds_samples,
    move_samples,
    older_samples,
    remove_samples,
    save_images,
)
from cgjax.runtime.files import check_folder
from cgjax.runtime.lock import FolderLock
from cgjax.runtime.log import Progress
from cgjax.runtime.signals import handle_interrupts
from cgjax.samplers.verify import finish


class Request(NamedTuple):
    """What the command line asks for; each field is the flag of the same name.

    Attributes:
        cluster: a cluster or a query; for `draw_balanced` a clustering, a cluster that is split, or
            None for the run's own clustering.
        margin: as `MarginRange.parse` takes it.
        num: how many images, at least 1.
        sampler: its name, or None for that of `RunSamplers.name_for`.
        verify: whether samples outside the region are redrawn.
        seed: from 0.
        out: the folder to write to.
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
    _draw(run, request, [_Part(region, request.num, request.out, jax.random.key(request.seed))])


def draw_balanced(run: Run, request: Request) -> None:
    """Draw the same number from every cluster of a clustering, each into a folder of its number.

    If the images cannot be divided equally, the first clusters get one more.

    Raises:
        UserError: as `Run.sample`; fewer images than clusters.
    """
    regions = run.held.clusters_of(request.cluster)
    if request.num < len(regions):
        raise UserError(
            f"--num={request.num} --balanced: expected at least one image for each of "
            f"{len(regions)} clusters"
        )
    key, margin = jax.random.key(request.seed), MarginRange.parse(request.margin)
    per_cluster, remainder = divmod(request.num, len(regions))
    parts = [
        _Part(
            region.with_margin(margin),
            per_cluster + (c < remainder),
            request.out / str(c),
            jax.random.fold_in(key, c),
        )
        for c, region in enumerate(regions)
    ]
    # An earlier draw may have been of more clusters, or of one region into the folder itself.
    numbered = (f for f in request.out.glob("*") if f.is_dir() and f.name.isdecimal())
    emptied = [f for f in numbered if int(f.name) >= len(regions)]
    if holds_samples(request.out):
        emptied.append(request.out)
    _draw(run, request, parts, emptied)


class _Part(NamedTuple):
    """What is drawn into one folder."""

    region: Region
    num: int
    out: Path
    key: PRNGKeyArray


def _draw(run: Run, request: Request, parts: list[_Part], emptied: Sequence[Path] = ()) -> None:
    """Draw all parts, and only then replace earlier draws in their folders.

    Args:
        run: with its samplers.
        request: what the parts have in common.
        parts: what to draw.
        emptied: folders of an earlier draw that this one does not write to.

    Raises:
        UserError: before anything is drawn, where the error can be known by then.
    """
    for folder in (*emptied, *(part.out for part in parts)):
        check_folder(folder, "--out")
        FolderLock(folder, "--out").refuse_if_taken()
        older_samples(folder)
    planned = []
    for part in parts:
        sampler, verify = run.samplers.choose(part.region, request.sampler, request.verify)
        announcement = announce(run, part.region, sampler, part.num) if verify else ""
        planned.append((part, sampler, verify, announcement))
    drawn = []
    for part, sampler, verify, announcement in planned:
        if announcement:
            print(announcement, flush=True)
        steps = run.drawing(part.key, part.region, part.num, sampler=sampler, verify=verify)
        drawn.append(finish(steps, _progress_of(part.num)))
    latents = {part.out: z for part, (z, _) in zip(parts, drawn, strict=True)}
    _save(run.generator, latents, emptied)
    for folder, (z, draw) in zip(latents, drawn, strict=True):
        checked = "" if draw is None else f", acceptance {draw.acceptance:.3f}"
        print(f"{len(z)} images in {folder}{checked}", flush=True)


def _save(
    generator: ConditionedGenerator,
    latents: Mapping[Path, Float[np.ndarray, "n d"]],
    emptied: Sequence[Path],
) -> None:
    """Write the images of latents into folders; earlier draws stay there until all are made."""
    progress, done = Progress("images", sum(map(len, latents.values()))), itertools.count(1)
    with contextlib.ExitStack() as drafts:
        places = {out: drafts.enter_context(draft(out, "--out")) for out in latents}
        for out, place in places.items():
            blocks = generator.image_blocks(latents[out])
            save_images(blocks, latents[out], place, lambda: progress.update(next(done)))
        with handle_interrupts():  # this takes a moment, and must not end halfway
            for out in (*emptied, *places):
                remove_samples(out)
            for out, place in places.items():
                move_samples(place, out)


def _progress_of(num: int) -> Callable[[Sized], None]:
    """Return what logs the progress of a draw, called with the latents of each step."""
    progress, passed = Progress("draw", num), 0

    def on_step(latents: Sized) -> None:
        nonlocal passed
        passed += len(latents)
        if passed < num:
            progress.update(passed)

    return on_step


def announce(run: Run, region: Region, sampler: str, num: int) -> str:
    """Return a line with the expected cost of a verified draw.

    Raises:
        UserError: if that exceeds the budget.
    """
    source = run.samplers.source(region, sampler)
    expected = source.expected(region)
    instead = "ask for fewer images, or for a larger region with --cluster or --margin"
    with run.naming(region, instead):
        check_budget(expected, num, run.config["sample"]["max_draws"])
    condition = "" if source.among is None else " (if it is faithful)"
    return f"{sampler}: {describe(expected, num)}{condition}"


def query_to_fit(run: Run, request: Request) -> tuple[str, Region]:
    """Return the sampler to train on the requested region, and the region, whole.

    Raises:
        UserError: a region that has a sampler already, a sampler that is not trained.
    """
    cluster = request.cluster or "0"
    region = run.region(cluster)
    if isinstance(region, ClusterRegion) and region.proposal(run.clustering) is not None:
        raise UserError(
            f"--fit_query --cluster={cluster}: the run's samplers are trained on this cluster "
            "already; leave --fit_query out"
        )
    trained = [name for name in run.sampler_names if run.samplers.make(name).num_epochs]
    default = run.config["sample"]["sampler"]
    name = request.sampler or (default if default in trained else next(iter(trained), default))
    if name not in trained and name in run.sampler_names:
        raise UserError(
            f"--fit_query --sampler={name}: it is not trained; expected one of "
            f"{', '.join(trained) or 'none of this run'}"
        )
    return name, region
