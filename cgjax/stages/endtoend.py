"""Training a generator end to end: resumes from the newest good checkpoint, scores as it goes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Float

from cgjax.config.training import ROW_KINDS
from cgjax.endtoend.bridge import save
from cgjax.endtoend.data import DataSet, Mixture
from cgjax.endtoend.experiment import Experiment, GeneratedRows, first_not_finite
from cgjax.endtoend.state import Losses, TrainState
from cgjax.errors import UserError
from cgjax.figures.plots import draw_labels
from cgjax.figures.sheets import contact_sheet
from cgjax.report.training import note_text, shown
from cgjax.run.citations import works_of_training
from cgjax.run.labelled import labelled_manifests
from cgjax.run.places import RESULTS
from cgjax.run.training import TrainingRun
from cgjax.runtime.array_files import write_npz
from cgjax.runtime.files import make_folder, write_atomically, write_json
from cgjax.runtime.log import Metrics, Progress
from cgjax.runtime.png import as_uint8, to_png
from cgjax.runtime.signals import Interrupts
from cgjax.stages.graph import Maker
from cgjax.stages.report import read_summary, write_training_page

SHOWN = 4_000
"""Points in each half of the figure."""

COLUMNS = 12
"""Images per label in the figure."""

MOST_LABELS = 12
"""Labels shown in the figure."""

KEPT = 1_000
"""Images of each trial that are saved."""


class TrainingStage:
    """One training run, in a folder opened for writing."""

    def __init__(self, run: TrainingRun, interrupts: Interrupts):
        """Draw the training points; writes nothing but the metrics file.

        Args:
            run: the run.
            interrupts: checked at every report.
        """
        self.run, self.interrupts = run, interrupts
        self.experiment = Experiment(run.config)
        self.metrics = Metrics(run.folder.metrics)

    def run_all(self) -> dict[str, Any]:
        """Train to the end, score and draw; return the summary.

        Raises:
            UserError: a loss that is not finite, a full disk.
            Interrupted: asked to stop; training is saved at its last iteration.
        """
        manifests = self.run.manifests
        maker = Maker(manifests, self.metrics)
        if manifests.result(RESULTS) is None:
            states, seconds = self.train()
            manifests.forget("report")  # it shows the results that are replaced now
            with maker.making(RESULTS) as result:
                last = self.run.config["train"]["iterations"]
                result |= {"iterations": last, "key": self.run.key_at(last)}
                self._leave_results(states, seconds)
        if manifests.result("report") is None:
            # What was made with the generator of a shorter training.
            labelled_manifests(self.run).forget_stale()
            write_training_page(self.run, maker)
        return read_summary(self.run.folder)

    def _leave_results(self, states: list[TrainState], seconds: float) -> None:
        last = self.run.config["train"]["iterations"]
        trials, scores, kept = self.experiment.per_trial(states), [], []
        for t, state in enumerate(trials):  # one trial's samples are held at a time
            samples = self.experiment.sample(state, t, last)
            scores.append(self.experiment.scores(samples))
            kept.append(self._kept_samples(samples))
            if t == 0:
                self._draw(state, samples)
        summary = self._summary(trials, scores, seconds)
        points, labels = (np.stack(column) for column in zip(*kept, strict=True))
        write_npz(self.run.samples, points=points, labels=labels)
        self._convert(trials[0])
        works = works_of_training(self.run.config)
        write_atomically(self.run.folder.citations, works.encode())
        write_json(self.run.folder.summary, summary)

    def train(self) -> tuple[list[TrainState], float]:
        """Train all trials; return them and the seconds taken, including before interruptions."""
        run, settings = self.run, self.run.config["train"]
        started = time.monotonic()
        states, begin, spent = self.restored()
        score_every = run.config["score"]["every"]
        self.metrics.forget(lambda line: _is_after(line, begin))
        if begin and (begin % score_every == 0 or begin == settings["iterations"]):
            self._score(states, begin)  # a kill may have come between saving and scoring
        periods = (settings["report_every"], settings["checkpoint_every"], score_every)
        total, now, seconds = settings["iterations"], begin, spent
        progress = Progress("train: iteration", total)
        while now < total:
            before, now = now, self.experiment.next_stop(now, periods)
            states, losses = self.experiment.advance(states, before, now)
            _check_losses(losses, before)
            means = {f"loss_{n}": v.mean(axis=1) for n, v in losses._asdict().items()}
            self.metrics.write(stage="train", iteration=now, **means)
            progress.update(now, _losses_in_words(means))
            is_stopped = self.interrupts.agreed()
            if is_stopped or now == total or now % settings["checkpoint_every"] == 0:
                seconds = round(spent + time.monotonic() - started, 3)
                metadata = {"key": run.key_at(now), "seconds": seconds}
                traces = run.manifests.traces(RESULTS)
                metadata |= {"traces": traces} if traces else {}
                run.steps.save(now, _by_number(states), metadata)
            if now % score_every == 0 or now == total:
                self._score(states, now)
            if is_stopped and now < total:
                self.interrupts.stop(f"training is saved at iteration {now}")
        return states, seconds

    def restored(self) -> tuple[list[TrainState], int, float]:
        """Return the newest good step's states, its iteration and seconds; else fresh states.

        Scores in features that the user's own function no longer returns are dropped.

        Raises:
            UserError: the step has arrays of other shapes than this version's networks.
        """
        # Shapes as they were saved: a clustering's own are only known once it has run.
        newest = self.run.steps.restore_newest(None, self.run.is_own)
        if newest is None:
            return self.experiment.init(), 0, 0.0
        step, saved = newest
        total = self.run.config["train"]["iterations"]
        logging.info("train: resuming at iteration %d of %d", step.number, total)
        if self.run.manifests.changed_since(step.metadata.get("traces", {})):
            features = self.run.config["score"]["features"]
            logging.warning("%s has changed: the scores so far are dropped", features)
            self.metrics.forget(lambda line: line.get("stage") == "score")
        shapes, structure = jax.tree.flatten(self.experiment.shapes())
        for i, leaf in enumerate(shapes):
            if leaf.size and np.shape(saved.get(str(i))) != leaf.shape:
                raise UserError(
                    f"{self.run.folder.root} was trained by a version of cgjax with other "
                    "networks; use another --workdir"
                )
        # As NumPy arrays: arrays committed to a device would compile programs of their own.
        leaves = [
            np.asarray(saved[str(i)]) if str(i) in saved else np.zeros(leaf.shape, leaf.dtype)
            for i, leaf in enumerate(shapes)
        ]
        states = jax.tree.unflatten(structure, map(jnp.asarray, leaves))
        return states, step.number, float(step.metadata["seconds"])

    def _score(self, states: Sequence[TrainState], iteration: int) -> None:
        for t, state in enumerate(self.experiment.per_trial(states)):
            scores = self.experiment.scores(self.experiment.sample(state, t, iteration))
            scores |= self.experiment.agreement(state, t)
            self.metrics.write(stage="score", iteration=iteration, trial=t, **scores)

    def _summary(
        self, states: Sequence[TrainState], by_trial: Sequence[dict[str, float]], seconds: float
    ) -> dict[str, Any]:
        """Return the scores of all trials, with a perfect sampler's."""
        config, experiment = self.run.config, self.experiment
        scores = _by_name(by_trial)
        for name, expected in experiment.perfect().items():
            low, high = expected.interval
            scores[name]["perfect"] = {"mean": expected.mean, "low": low, "high": high}
        agreement = _by_name([experiment.agreement(state, t) for t, state in enumerate(states)])
        if agreement:
            for name, value in experiment.agreement_of_kmeans().items():
                agreement[name]["kmeans_on_rows"] = value
        return {
            "kind": config["kind"],
            "data": config["data"]["name"],
            "method": config["train"]["method"],
            "iterations": config["train"]["iterations"],
            "trials": config["train"]["trials"],
            "num_points": experiment.num_scored,
            "seconds": seconds,
            "scores": scores,
            "notes": experiment.notes(),
            "agreement": agreement,
        }

    def _kept_samples(self, samples: GeneratedRows) -> tuple[np.ndarray, np.ndarray]:
        """Return one trial's samples to save: all points, or the first images as bytes."""
        if len(self.experiment.data.row_shape()) == 1:
            return samples
        return as_uint8(samples.points[:KEPT]), samples.labels[:KEPT]

    def _draw(self, state: TrainState, samples: GeneratedRows) -> None:
        """Draw training and generated rows of the first trial, by label."""
        train, data = self.run.config["train"], self.experiment.data
        rows = self.experiment.points[0].rows
        title = f"{train['method']} after {train['iterations']} iterations"
        if isinstance(data, Mixture):
            labels = np.asarray(state.partition.labels)
            panels = {
                "training points": (np.asarray(rows[:SHOWN]), labels[:SHOWN]),
                "generated": (samples.points[:SHOWN], samples.labels[:SHOWN]),
            }
            picture = draw_labels(panels, data.means, title).png
        else:
            labels, counts = np.unique(samples.labels, return_counts=True)
            shown = labels[:MOST_LABELS]
            num = min(COLUMNS, *counts[: len(shown)].tolist())
            sheet = [samples.points[samples.labels == label][:num] for label in shown]
            names = [f"label {label}" for label in shown]
            sheet.append(np.asarray(data.prepare(rows[:num])))
            pictures = [_pictures(data, images) for images in sheet]
            picture = to_png(contact_sheet(pictures, [*names, "training rows"], title=title))
        make_folder(self.run.folder.figures)
        write_atomically(self.run.figure, picture)

    def _convert(self, state: TrainState) -> None:
        """Save the first trial's generator as converted weights, if it fits a generator family."""
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
    pictures = data.images(rows)
    assert pictures is not None, "points are plotted, not shown as images"
    return pictures


def summary_text(summary: Mapping[str, Any]) -> str:
    """Lay out a summary as text: one line per score, with a perfect sampler's score beside it."""
    trials = summary["trials"]
    width = max([24, *(len(name) + 1 for name in summary["scores"])])
    what = "points" if summary["data"] in ROW_KINDS else "images"
    lines = [
        f"{summary['method']} on {summary['data']}, {summary['iterations']} iterations, "
        f"{trials} trial{'s' if trials > 1 else ''}, {summary['num_points']} {what}",
        f"{'':<{width}}{'mean':>10}{'perfect sampler (95% of its draws)':>38}",
    ]
    for name, score in summary["scores"].items():
        best = score["perfect"]
        beside = f"{shown(best['mean'])} ({shown(best['low'])} to {shown(best['high'])})"
        lines.append(f"{name:<{width}}{shown(score['mean']):>10}{beside:>38}")
    lines += [f"{name}: {note_text(note)}" for name, note in summary["notes"].items()]
    if summary["agreement"]:
        lines.append(f"{'clusters, classes':<{width}}{'mean':>10}{'k-means on the rows':>38}")
    for name, score in summary["agreement"].items():
        beside = shown(score["kmeans_on_rows"])
        lines.append(f"{name:<{width}}{shown(score['mean']):>10}{beside:>38}")
    return "\n".join(lines)


def _by_number(states: Sequence[TrainState]) -> dict[str, jax.Array]:
    """Return the leaves that have elements, by their number: orbax does not save empty ones."""
    return {str(i): leaf for i, leaf in enumerate(jax.tree.leaves(states)) if leaf.size}


def _by_name(trials: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    """Return each score's values in all trials, and their mean."""
    columns = {name: [trial[name] for trial in trials] for name in trials[0]}
    return {
        name: {"trials": values, "mean": float(np.mean(values))} for name, values in columns.items()
    }


def _is_after(line: Mapping[str, Any], iteration: int) -> bool:
    """Whether a metrics line was written after an iteration's checkpoint, as its scores are."""
    number = line.get("iteration", 0)
    return bool(number > iteration or (number == iteration and line.get("stage") == "score"))


def _losses_in_words(means: Mapping[str, Any]) -> str:
    return ", losses " + " ".join(f"{np.mean(value):.4f}" for value in means.values())


def _check_losses(losses: Losses, before: int) -> None:
    where = first_not_finite(losses)
    if where is not None:
        step, trial = where
        raise UserError(
            f"a loss of trial {trial} was not finite in iteration {before + step + 1}; lower "
            "--config.train.learning_rate"
        )
