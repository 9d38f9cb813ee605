"""The last stage: `summary.json` and the page, of everything that is current.

A training writes its summary with its results, and here only its page.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from cgjax.errors import UserError
from cgjax.regions.small import small_clusters
from cgjax.report.build import build_report
from cgjax.report.training import build_training_report
from cgjax.run.artifacts import declare_page, target_classes
from cgjax.run.citations import works_of_run
from cgjax.run.folder import RunFolder
from cgjax.run.manifests import Manifests
from cgjax.run.places import RESULTS, evaluation_name, split_name, transfer_name
from cgjax.run.run import Run
from cgjax.run.training import TrainingRun
from cgjax.runtime.files import write_atomically, write_json
from cgjax.runtime.log import Metrics
from cgjax.stages.graph import LEFT_OUT, Maker
from cgjax.stages.page_images import make_page_images

SUMMARISED = ("layer", "num_clusters", "shares", "inertia", "features", "fitted_latents")
"""The results of the clustering that `summary.json` has."""


def summary_of(run: Run) -> dict[str, Any]:
    """Return the content of `summary.json`, which README.md describes; empty without clusters."""
    result = run.manifests.result
    clustered = result("cluster")
    if clustered is None:  # the run has only a sweep
        return {}
    summary: dict[str, Any] = {name: clustered[name] for name in SUMMARISED}
    summary["small_clusters"] = small_clusters(run.clustering)
    splits = [result(split_name(split.path)) for split in run.held.splits]
    if any(splits):
        summary["splits"] = [split for split in splits if split]
    if "choice" in clustered:
        summary["choice"] = clustered["choice"]
    summary |= {"stages": run.manifests.costs(), "samplers": {}}
    for name in run.sampler_names:
        if measured := result(evaluation_name(name)):
            summary["distance"] = measured["distance"]
            summary["samplers"][name] = measured["numbers"]
    targets = target_classes(run.config)
    scores = [result(transfer_name(i)) for i in range(len(targets))]
    if targets and None not in scores:
        source = run.config["generator"]["condition"]
        summary["transfer"] = {"source": source, "classes": scores}
    return summary


def summary_table(summary: Mapping[str, Any]) -> str:
    """Lay out a summary's samplers as text, one line per sampler and cluster."""
    columns = ["membership", "acceptance", "frechet", "frechet_verified", "frechet_floor"]
    columns += ["norm_ratio", "effective_rank"]
    lines = [f"{'sampler':<12}{'cluster':>8}" + "".join(f"{c:>18}" for c in columns)]
    if "distance" in summary:
        lines.insert(0, f"frechet: {summary['distance']}")
    for name, numbers in summary["samplers"].items():
        left_out = numbers.get(LEFT_OUT, [None] * summary["num_clusters"])
        for c, why in enumerate(left_out):
            values = f"  left out: {why}"
            if why is None:
                values = "".join(f"{numbers[column][c]:>18.3f}" for column in columns)
            lines.append(f"{name:<12}{c:>8}{values}")
    return "\n".join(lines)


def write_page(run: Run, maker: Maker, check: Callable[..., None]) -> None:
    """Build the static page of everything that is current.

    Its images are made once, the rest every time. A run that has only a sweep gets no summary.

    Args:
        run: with clusters, or a sweep.
        maker: of its artifacts.
        check: called between blocks of images; may raise to stop.
    """
    make_page_images(run, maker, check)
    manifests = run.manifests
    declare_page(manifests.graph, _shown(manifests))
    with maker.making("report"):
        build_report(run, summary_of(run))
    family = str(getattr(run.generator.gen, "family", ""))
    works = works_of_run(
        run.config,
        family,
        swept=run.judges if manifests.result("sweep") is not None else None,
        compared=manifests.result("compare") is not None,
        assigned=bool(run.folder.assigned_names),
    )
    write_atomically(run.folder.citations, works.encode())
    if summary := summary_of(run):  # again: it has the seconds of the page now
        write_json(run.folder.summary, summary)
    maker.is_changed = False


def _shown(manifests: Manifests) -> list[str]:
    """Return what the page shows: all that is current, but for the images of `--mode=assign`."""
    return [
        name
        for name, artifact in manifests.graph.items()
        if name != "report" and artifact.stage != "assign" and manifests.result(name) is not None
    ]


def report_training(run: TrainingRun) -> dict[str, Any]:
    """Build the page of a finished training from its results; return their summary.

    Raises:
        UserError: a training that is not finished, or whose results are not as they were written.
    """
    run.require_finished()
    if not run.is_intact:
        run.manifests.require(RESULTS)
    write_training_page(run, Maker(run.manifests, Metrics(run.folder.metrics)))
    return read_summary(run.folder)


def write_training_page(run: TrainingRun, maker: Maker) -> None:
    """Build the page of a training whose results are there."""
    with maker.making("report"):
        build_training_report(run, read_summary(run.folder))


def read_summary(folder: RunFolder) -> dict[str, Any]:
    """Return the content of `summary.json`.

    Raises:
        UserError: it is damaged, in a folder that has kept no hash of it.
    """
    try:
        return dict(json.loads(folder.summary.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(f"{folder.summary} is damaged; {folder.command} writes it again") from error
