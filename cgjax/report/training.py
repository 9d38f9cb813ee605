"""The static page of a run that trains a generator: one self-contained file without scripts."""

from __future__ import annotations

import json
import math
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from cgjax.config.schema import TRAINING
from cgjax.config.training import IMAGES, POINTS, ROW_KINDS
from cgjax.figures.curves import Range, curve
from cgjax.generators.weights import read_manifest
from cgjax.report.build import filled, static
from cgjax.report.sprites import figure_url
from cgjax.run.citations import works_of_training
from cgjax.run.folder import find_config
from cgjax.run.training import TrainingRun
from cgjax.runtime.files import make_folder, write_atomically

MEANINGS = {
    "modes": "modes of the data that the samples reach",
    "high_quality_box": "share of points near a mean, in each coordinate",
    "high_quality_disc": "share of points near a mean, in distance",
    "reverse_kl_nats": "how unequally the samples share out the modes, in nats; 0 is best",
    "reverse_kl_log10": "the same with logarithms to base 10",
    "kl_nats_lowest": "the reverse KL by whichever network of the judge says least",
    "kl_nats_highest": "the reverse KL by whichever network of the judge says most",
    "variance_ratio": "variance within modes over the true one; below 1 they have collapsed inside",
    "variance_ratio_lowest": "the same for the narrowest mode",
    "variance_ratio_highest": "the same for the widest mode",
    "precision": "share of samples that lie among the real images",
    "recall": "share of real images that lie among the samples",
    "fid": "Frechet inception distance to the training images; lower is better",
    "inception_score": "how recognisable and how varied the samples are; higher is better",
    "nmi_arithmetic": "normalised mutual information, by the arithmetic mean",
    "nmi_geometric": "normalised mutual information, by the geometric mean",
    "adjusted_rand": "adjusted Rand index; 0 is chance, 1 is best",
    "purity": "share of rows in the commonest class of their cluster",
    "inverse_purity": "share of rows in the commonest cluster of their class",
    "accuracy": "share of rows in the cluster matched to their class",
}
"""What the scores are, in a few words; docs/endtoend.md says more."""


class Curve(NamedTuple):
    """A number over the iterations, as it stands on the page."""

    name: str
    picture: Markup


def build_training_report(run: TrainingRun, summary: Mapping[str, Any]) -> Path:
    """Write `report/index.html` and return its path.

    Args:
        run: a finished one.
        summary: the content of its `summary.json`.
    """
    make_folder(run.folder.report)
    write_atomically(run.folder.page, training_page(run, summary).encode())
    return run.folder.page


def training_page(run: TrainingRun, summary: Mapping[str, Any]) -> str:
    """Return the page's text, of what is in the folder; its arguments as above."""
    lines = _lines(run.folder.metrics)
    losses = _drawable(_by_trial(line for line in lines if line.get("stage") == "train"))
    scores = _drawable(line for line in lines if line.get("stage") == "score")
    kind = ROW_KINDS.get(summary["data"], IMAGES)
    return filled(
        "training.html",
        static("page.css") + static("training.css"),
        title=f"{summary['method']} on {summary['data']}",
        summary=summary,
        what="images" if kind == IMAGES else "points",
        scores=_rows(summary["scores"]),
        agreement=_rows(summary["agreement"]),
        notes={name: note_text(note) for name, note in summary["notes"].items()},
        picture=figure_url(run.figure),
        caption=_caption(kind),
        losses=_curves(losses, {}),
        curves=_curves(scores, _beside(summary)),
        scored=_table(scores),
        has_generator=run.generator.is_dir(),
        has_labels=_has_labels(run),
        has_cooldown=bool(run.config["train"]["cooldown"]),
        commands=_commands(run, summary),
        config=json.dumps(run.config, indent=1),
        works=works_of_training(run.config),
    )


def shown(value: float | None) -> str:
    """Return a number as the summary's text and the page show it.

    >>> shown(0.123456), shown(None)
    ('0.1235', 'none')
    """
    return "none" if value is None else f"{value:.4g}"


def note_text(note: Any) -> str:
    """Return a note of a summary as text.

    >>> note_text({"mean": 0.96, "digits": 1000})
    'mean 0.96, digits 1000'
    """
    if isinstance(note, dict):
        return ", ".join(f"{name} {note_text(value)}" for name, value in note.items())
    return str(note) if isinstance(note, str | int) else shown(note)


def _rows(scores: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of a table of scores, as texts."""
    rows = []
    for name, score in scores.items():
        perfect = score.get("perfect")
        row: dict[str, Any] = {"name": name, "mean": shown(score["mean"])}
        row["meaning"] = MEANINGS.get(name) or _meaning_by_features(name)
        row["trials"] = [shown(value) for value in score["trials"]]
        if perfect:
            row["beside"] = shown(perfect["mean"])
            row["interval"] = f"{shown(perfect['low'])} to {shown(perfect['high'])}"
        elif "kmeans_on_rows" in score:
            row["beside"] = shown(score["kmeans_on_rows"])
        rows.append(row)
    return rows


def _meaning_by_features(name: str) -> str:
    """Return what a score is whose name ends with that of the features that it is measured in."""
    if name.startswith("classifier_score_"):
        return "the inception score by your own classifier; higher is better"
    return "Frechet distance to the training images; lower is better"


def _caption(kind: str) -> str:
    if kind == POINTS:
        return (
            "Training points and points that the first trial generates, coloured by label; "
            "crosses are the true means."
        )
    return "What the first trial generates, each row with one label; the last row is training data."


def _lines(metrics: Path) -> list[dict[str, Any]]:
    """Return the lines of the metrics; none if a folder has lost them."""
    return list(map(json.loads, metrics.read_bytes().splitlines())) if metrics.is_file() else []


def _by_trial(losses: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a line for each trial, like those of the scores, in place of one with lists."""
    lists = (
        (line, {n: v for n, v in line.items() if n.startswith("loss_") and isinstance(v, list)})
        for line in losses
    )
    return [
        {"iteration": line.get("iteration"), "trial": trial} | dict(zip(own, values, strict=True))
        for line, own in lists
        for trial, values in enumerate(zip(*own.values(), strict=False))
    ]


def _drawable(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines that have what curves are drawn from: others were edited by hand."""
    return [
        line
        for line in lines
        if isinstance(line.get("iteration"), int)
        and isinstance(line.get("trial"), int)
        and all(isinstance(line[name], int | float | None) for name in _names(line))
    ]


def _curves(lines: Sequence[Mapping[str, Any]], beside: Mapping[str, Range]) -> list[Curve]:
    """Draw every number of some lines over their iterations, each trial's as a line."""
    drawn: dict[str, dict[int, tuple[list[int], list[float]]]] = defaultdict(dict)
    for line in lines:
        for name in _names(line):
            x, y = drawn[name].setdefault(line["trial"], ([], []))
            x.append(line["iteration"])
            y.append(math.nan if line[name] is None else line[name])
    return [
        Curve(name, Markup(curve(name, list(trials.values()), beside.get(name))))
        for name, trials in drawn.items()
    ]


def _names(line: Mapping[str, Any]) -> list[str]:
    return [name for name in line if name not in ("time", "stage", "iteration", "trial")]


def _beside(summary: Mapping[str, Any]) -> dict[str, Range]:
    """Return what each curve is compared with: a perfect sampler, or k-means on the rows."""
    known = {
        name: Range(best["mean"], best["low"], best["high"])
        for name, score in summary["scores"].items()
        if (best := score["perfect"])["mean"] is not None
    }
    return known | {
        name: Range(score["kmeans_on_rows"])
        for name, score in summary["agreement"].items()
        if score["kmeans_on_rows"] is not None
    }


def _table(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the numbers of the curves of the scores, means over the trials, as texts."""
    if not lines:
        return None
    names = list(dict.fromkeys(name for line in lines for name in _names(line)))
    values: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        for name in names:
            if line.get(name) is not None:
                values[line["iteration"]][name].append(line[name])
    rows = {
        iteration: [shown(float(np.mean(own[name]))) if own[name] else "none" for name in names]
        for iteration, own in values.items()
    }
    return {"names": names, "rows": rows}


def _has_labels(run: TrainingRun) -> bool:
    if not run.generator.is_dir():
        return False
    return bool(read_manifest(run.generator)["architecture"].get("num_classes"))


def _commands(run: TrainingRun, summary: Mapping[str, Any]) -> dict[str, str]:
    """Return what can be typed next, quoted for a shell."""
    root = run.folder.root
    saved = find_config(run.folder, TRAINING)
    typed = saved.typed if saved else []
    clusters, twice = f"--workdir={root}-clusters", 2 * summary["iterations"]
    words = {
        "made": [*typed, f"--workdir={root}"],
        "cluster": [
            *("--config=configs/dcgan_pose.py", f"--config.generator.weights={run.generator}"),
            "--config.layer=2",  # by number: names differ between networks
            *(("--config.generator.condition=0",) if _has_labels(run) else ()),
            clusters,
        ],
        "draw": ["--mode=sample", clusters, "--cluster=0", "--out=samples/"],
        "assign": ["--mode=assign", f"--workdir={root}", "--images=photos/"],
    }
    if typed:
        longer = [f"--config.train.iterations={twice}", "--allow_config_change"]
        words["longer"] = [*words["made"], *longer]
    return {
        name: shlex.join(["python", "-m", "cgjax.main", *flags]) for name, flags in words.items()
    }
