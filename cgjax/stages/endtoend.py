"""Training a generator end to end: resumed from its newest good step, scored as it goes."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Float

from cgjax.config.training import KINDS
from cgjax.endtoend.bridge import save
from cgjax.endtoend.data import DataSet, Mixture
from cgjax.endtoend.experiment import Experiment, Samples, first_bad
from cgjax.endtoend.state import Losses, TrainState
from cgjax.errors import UserError
from cgjax.figures.plots import labelled
from cgjax.figures.sheets import contact_sheet
from cgjax.run.artifacts import RESULTS
from cgjax.run.citations import works_of_training
from cgjax.run.training import TrainingRun
from cgjax.runtime.files import make_folder, write_atomically, write_json
from cgjax.runtime.log import Metrics, Progress
from cgjax.runtime.png import as_bytes, to_png
from cgjax.runtime.signals import Interrupts
from cgjax.stages.graph import Maker

SHOWN = 4_000
"""Points in each half of the figure."""

COLUMNS = 12
"""Images of each label in the figure."""

MOST_LABELS = 12
"""Labels of which images are shown."""

KEPT = 1_000
"""Images of each trial that are kept."""


class TrainingStage:
    """One training run, in a folder opened for writing."""

    def __init__(self, run: TrainingRun, interrupts: Interrupts):
        """Draw the training points; writes nothing but the file of metrics.

        Args:
            run: the run.
            interrupts: asked at every report.
        """
        self.run, self.interrupts = run, interrupts
        self.experiment = Experiment(run.config)
        self.metrics = Metrics(run.folder.metrics)

    def run_all(self) -> dict[str, Any]:
        """Train to the end, score and draw; return the summary.

        Raises:
            UserError: a loss that is not finite, a full disk.
            Interrupted: asked to stop; saved at the last iteration.
        """
        manifests = self.run.manifests
        if manifests.result(RESULTS) is None:
            states, seconds = self.train()
            # Those of a shorter training, and what was made with its generator.
            manifests.forget_stale()
            with Maker(manifests, self.metrics).making(RESULTS) as result:
                last = self.run.config["train"]["iterations"]
                result |= {"iterations": last, "key": self.run.key_at(last)}
                self._leave_results(states, seconds)
        return dict(json.loads(self.run.folder.summary.read_text(encoding="utf-8")))

    def _leave_results(self, states: list[TrainState], seconds: float) -> None:
        last = self.run.config["train"]["iterations"]
        each = self.experiment.each(states)
        samples = [self.experiment.sample(state, t, last) for t, state in enumerate(each)]
        summary = self._summary(each, samples, seconds)
        buffer = io.BytesIO()
        kept = [self._to_keep(one) for one in samples]
        points, labels = (np.stack(column) for column in zip(*kept, strict=True))
        np.savez(buffer, points=points, labels=labels)
        write_atomically(self.run.samples, buffer.getvalue())
        self._draw(each[0], samples[0])
        self._convert(each[0])
        works = works_of_training(self.run.config)
        write_atomically(self.run.folder.citations, works.encode())
        write_json(self.run.folder.summary, summary)

    def train(self) -> tuple[list[TrainState], float]:
        """Train all trials; return them and the seconds that it took, earlier tries included."""
        run, settings = self.run, self.run.config["train"]
        started = time.monotonic()
        states, begun, spent = self.restored(self.experiment.init())
        rescored = run.config["score"]["every"]
        self.metrics.forget(lambda line: _is_after(line, begun))
        if begun and (begun % rescored == 0 or begun == settings["iterations"]):
            self._score(states, begun)  # whether or not that was still done when it was saved
        often = (settings["report_every"], settings["checkpoint_every"], rescored)
        total, now, seconds = settings["iterations"], begun, spent
        progress = Progress("train: iteration", total)
        while now < total:
            before, now = now, self.experiment.next_stop(now, often)
            states, losses = self.experiment.advance(states, before, now)
            _check_losses(losses, before)
            means = {f"loss_{n}": v.mean(axis=1) for n, v in losses._asdict().items()}
            self.metrics.write(stage="train", iteration=now, **means)
            progress.update(now, _losses_in_words(means))
            is_stopped = self.interrupts.agreed()
            if is_stopped or now == total or now % settings["checkpoint_every"] == 0:
                seconds = round(spent + time.monotonic() - started, 3)
                run.steps.save(now, _kept(states), {"key": run.key_at(now), "seconds": seconds})
            if now % rescored == 0 or now == total:
                self._score(states, now)
            if is_stopped and now < total:
                self.interrupts.stop(f"training is saved at iteration {now}")
        return states, seconds

    def restored(self, states: list[TrainState]) -> tuple[list[TrainState], int, float]:
        """Return the newest good step's states, its iteration and its seconds.

        Args:
            states: fresh ones, which are returned where there is no step.
        """
        newest = self.run.steps.restore_newest(_kept(states), self.run.is_own)
        if newest is None:
            return states, 0, 0.0
        step, kept = newest
        logging.info("train: resuming at iteration %d", step.number)
        leaves, structure = jax.tree.flatten(states)
        # As NumPy arrays: bound to a device they would need programs of their own.
        full = [np.asarray(kept.get(str(i), leaf)) for i, leaf in enumerate(leaves)]
        resumed = jax.tree.unflatten(structure, map(jnp.asarray, full))
        return resumed, step.number, float(step.metadata["seconds"])

    def _score(self, states: Sequence[TrainState], iteration: int) -> None:
        for t, state in enumerate(self.experiment.each(states)):
            found = self.experiment.scores(self.experiment.sample(state, t, iteration))
            found |= self.experiment.agreement(state, t)
            self.metrics.write(stage="score", iteration=iteration, trial=t, **found)

    def _summary(
        self, states: Sequence[TrainState], samples: Sequence[Samples], seconds: float
    ) -> dict[str, Any]:
        """Return the scores of all trials beside a perfect sampler's."""
        config, experiment = self.run.config, self.experiment
        scores = _by_name([experiment.scores(each) for each in samples])
        for name, expected in experiment.perfect().items():
            low, high = expected.interval
            scores[name]["perfect"] = {"mean": expected.mean, "low": low, "high": high}
        clusters = [experiment.agreement(state, t) for t, state in enumerate(states)]
        agreement = _by_name(clusters)
        if agreement:
            for name, value in experiment.agreement_of_kmeans().items():
                agreement[name]["kmeans_on_rows"] = value
        return {
            "kind": config["kind"],
            "data": config["data"]["name"],
            "method": config["train"]["method"],
            "iterations": config["train"]["iterations"],
            "trials": config["train"]["trials"],
            "num_points": config["score"]["num"],
            "seconds": seconds,
            "scores": scores,
            "notes": experiment.notes(),
            "agreement": agreement,
        }

    def _to_keep(self, samples: Samples) -> tuple[np.ndarray, np.ndarray]:
        """Return what is kept of one trial's rows: all points, some of the images as bytes."""
        if len(self.experiment.data.row_shape()) == 1:
            return samples
        return as_bytes(samples.points[:KEPT]), samples.labels[:KEPT]

    def _draw(self, state: TrainState, samples: Samples) -> None:
        """Draw training rows and generated ones of the first trial, by their labels."""
        train, data = self.run.config["train"], self.experiment.data
        rows = self.experiment.points[0].rows
        title = f"{train['method']} after {train['iterations']} iterations"
        if isinstance(data, Mixture):
            own = np.asarray(state.partition.labels)[:SHOWN]
            real = np.asarray(rows[:SHOWN])
            halves = {"training points": (real, own), "generated": (samples.points, samples.labels)}
            panels = {name: (points[:SHOWN], of[:SHOWN]) for name, (points, of) in halves.items()}
            picture = labelled(panels, data.means, title).png
        else:
            labels, counts = np.unique(samples.labels, return_counts=True)
            shown = labels[:MOST_LABELS]
            num = min(COLUMNS, *counts[: len(shown)].tolist())
            sheet = [samples.points[samples.labels == label][:num] for label in shown]
            names = [f"label {label}" for label in shown]
            sheet.append(np.asarray(data.prepare(rows[:num])))
            pictures = [_pictures(data, each) for each in sheet]
            picture = to_png(contact_sheet(pictures, [*names, "training rows"], title=title))
        make_folder(self.run.folder.figures)
        write_atomically(self.run.figure, picture)

    def _convert(self, state: TrainState) -> None:
        """Save the first trial's generator so that it can be clustered, if there is a form."""
        trainer, config = self.experiment.trainer, self.run.config
        source = {
            "name": str(self.run.folder.root.resolve().name),
            "trained_by": f"cgjax {config['train']['method']} on {config['data']['name']}",
            "key": self.run.key_at(config["train"]["iterations"]),
            "iterations": config["train"]["iterations"],
        }
        save(
            self.run.generator,
            trainer.networks,
            trainer.method,
            self.experiment.generator(state, 0, config["train"]["iterations"]),
            source=source,
            licence="that of the images it was trained on",
        )


def _pictures(data: DataSet, rows: np.ndarray) -> Float[np.ndarray, "n h w c"]:
    found = data.images(rows)
    assert found is not None, "points are drawn as points"
    return found


def summary_text(summary: Mapping[str, Any]) -> str:
    """Lay out a summary as text, one line a score, with a perfect sampler's beside it."""
    trials = summary["trials"]
    what = "points" if summary["data"] in KINDS else "images"
    lines = [
        f"{summary['method']} on {summary['data']}, {summary['iterations']} iterations, "
        f"{trials} trial{'s' if trials > 1 else ''}, {summary['num_points']} {what}",
        f"{'':<24}{'mean':>10}{'perfect sampler (95% of its draws)':>38}",
    ]
    for name, score in summary["scores"].items():
        best = score["perfect"]
        beside = f"{_shown(best['mean'])} ({_shown(best['low'])} to {_shown(best['high'])})"
        lines.append(f"{name:<24}{_shown(score['mean']):>10}{beside:>38}")
    lines += [f"{name}: {_told(note)}" for name, note in summary["notes"].items()]
    if summary["agreement"]:
        lines.append(f"{'clusters, classes':<24}{'mean':>10}{'k-means on the rows':>38}")
    for name, score in summary["agreement"].items():
        beside = _shown(score["kmeans_on_rows"])
        lines.append(f"{name:<24}{_shown(score['mean']):>10}{beside:>38}")
    return "\n".join(lines)


def _told(note: Any) -> str:
    if isinstance(note, dict):
        return ", ".join(f"{name} {_told(value)}" for name, value in note.items())
    return str(note) if isinstance(note, str | int) else _shown(note)


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def _kept(states: Sequence[TrainState]) -> dict[str, jax.Array]:
    """Return the leaves that have elements, by number: orbax saves no others."""
    return {str(i): leaf for i, leaf in enumerate(jax.tree.leaves(states)) if leaf.size}


def _by_name(found: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    """Return each number of all trials, and their mean."""
    columns = {name: [each[name] for each in found] for name in found[0]}
    return {
        name: {"trials": values, "mean": float(np.mean(values))} for name, values in columns.items()
    }


def _is_after(line: Mapping[str, Any], iteration: int) -> bool:
    """Whether a line of the metrics is of what comes after a step was saved: its scores too."""
    number = line.get("iteration", 0)
    return bool(number > iteration or (number == iteration and line.get("stage") == "score"))


def _losses_in_words(means: Mapping[str, Any]) -> str:
    return ", losses " + " ".join(f"{np.mean(value):.4f}" for value in means.values())


def _check_losses(losses: Losses, before: int) -> None:
    bad = first_bad(losses)
    if bad is not None:
        step, trial = bad
        raise UserError(
            f"a loss of trial {trial} was not finite in iteration {before + step + 1}; lower "
            "--config.train.learning_rate"
        )
