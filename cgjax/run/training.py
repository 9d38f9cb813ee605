"""The folder of a run that trains a generator.

config.json, metrics.jsonl       as in every run's folder
checkpoints/trials/              the newest two steps of all trials
samples.npz                      points (trials, n, d), labels (trials, n): the samples scored last;
                                 of images the first thousand, uint8
figures/samples.png              some of the first trial's samples, by label
generator/                       the first trial's generator of images, as converted weights
assign/                          images that were assigned to its labels; see `labelled`
summary.json, citations.bib      the scores, and the works to cite
report/index.html                the page that shows all of these

A finished training leaves two artifacts: `RESULTS`, and the page made from them. When a training is
extended, those of the shorter one stay until they are replaced, all at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from cgjax.config.plain import differences, digest, flatten
from cgjax.config.schema import TRAINING, complete, is_resource
from cgjax.config.training import is_of_assign
from cgjax.endtoend.experiment import check_data
from cgjax.errors import UserError
from cgjax.run.artifacts import declare_results
from cgjax.run.folder import Provenance, RunFolder, find_config, read_config, save_config
from cgjax.run.folder_checks import check_same_config, check_unedited, resolved_config
from cgjax.run.manifests import Manifests
from cgjax.run.places import RESULTS
from cgjax.run.traces import Trace
from cgjax.run.training_identity import (
    key_begun_with,
    settled_trace,
    tracing_of,
    training_key,
)
from cgjax.runtime.checkpoints import Checkpoints, Step
from cgjax.runtime.files import make_folder, remove_unfinished
from cgjax.runtime.imports import is_import_path
from cgjax.runtime.lock import FolderLock
from cgjax.runtime.log import Metrics

MEASURING = ("num", "features")
"""The leaves of `config.score` that say how scores are measured."""


class TrainingRun:
    """A training run's config and the paths of its files.

    Attributes:
        folder: the paths that every run's folder has.
        config: nested plain dicts with every leaf.
        identity: of the data; see `DataSet`.
        key: identifies the training until a cooldown begins; see `key_at` and
            `cgjax.run.training_identity`.
        samples: path of the samples.
        figure: path of their picture.
        trace: of the user's own code that the training starts from; see `settled_trace`.
        generator: folder of the generator.
        steps: the saved steps.
        manifests: which results exist and are current.
    """

    def __init__(
        self,
        root: str | Path,
        config: Mapping[str, Any],
        identity: str,
        trace: Trace | None = None,
        tracing: Callable[[str], Trace] = lambda traced: [],
    ):
        """Compute the keys; reads the config of the folder, writes nothing.

        Args:
            root: the folder.
            config: nested plain dicts with every leaf.
            identity: of the data; empty if the config describes them completely.
            trace: see the attribute.
            tracing: `trace` of the manifests, which hold how the features of the scores act.
        """
        self.folder, self.config, self.identity = RunFolder(root), config, identity
        self.trace = trace or []
        self.samples = self.folder.root / "samples.npz"
        self.figure = self.folder.figures / "samples.png"
        self.generator = self.folder.root / "generator"
        self.steps = Checkpoints(self.folder.checkpoints / "trials")
        self.key = key_begun_with(self.folder, config, identity, self.trace)
        last = config["train"]["iterations"]
        asked = self._cooled(training_key(config, identity, self.trace), last)
        graph = declare_results(asked, last, config["score"]["features"])
        self.manifests = Manifests(self.folder, graph, trace=tracing)

    def key_at(self, iteration: int) -> str:
        """Return the key of the state after an iteration.

        Until a cooldown begins it does not depend on the length of the training.
        """
        return self._cooled(self.key, iteration)

    def _cooled(self, key: str, iteration: int) -> str:
        if iteration <= self.cooldown_begin:
            return key
        train = self.config["train"]
        return digest([key, train["iterations"], train["cooldown"]])

    @property
    def cooldown_begin(self) -> int:
        """The last iteration before the cooldown; the last of all without one."""
        train = self.config["train"]
        return int(train["iterations"] - train["cooldown"])

    @property
    def num_trained(self) -> int:
        """The iterations before any cooldown whose end is still there, as a step or as results."""
        last = self.manifests.last_result(RESULTS) or {}
        left = [(step.number, step.metadata.get("key")) for step in self.steps.steps()]
        left.append((last.get("iterations", 0), last.get("key")))
        return max((number for number, key in left if key == self.key), default=0)

    def is_own(self, step: Step) -> bool:
        """Whether a saved step belongs to this config, and is not beyond its last iteration."""
        return self._is_at(step.number, str(step.metadata.get("key")))

    @property
    def is_finished(self) -> bool:
        """Whether there are results for the last iteration."""
        last = self.manifests.last_result(RESULTS)
        # Folders of earlier versions have no manifest of their results.
        is_last = last is None or last.get("iterations") == self.config["train"]["iterations"]
        return is_last and self.folder.summary.is_file()

    def require_finished(self) -> None:
        """Check that there are results for the last iteration.

        Raises:
            UserError: there are none; says what to type.
        """
        if not self.is_finished:
            raise UserError(
                f"{self.folder.root} is not trained to its end "
                f"({self.config['train']['iterations']} iterations); "
                f"{self.folder.command} resumes it"
            )

    @property
    def is_intact(self) -> bool:
        """Whether the results are as they were written."""
        # A folder of an earlier version has no manifest of its results.
        last = self.manifests.last_result(RESULTS)
        return last is None or self.manifests.result(RESULTS) is not None

    def forget_others(self) -> None:
        """Remove results that belong neither to this training nor to a shorter one of it."""
        last = self.manifests.last_result(RESULTS) or {}
        if not self._is_at(last.get("iterations", math.inf), last.get("key", "")):
            self.manifests.forget(RESULTS)  # an earlier version's have no manifest
            self.manifests.forget_stale()

    def _is_at(self, iteration: float, key: str) -> bool:
        is_within = iteration <= self.config["train"]["iterations"]
        return is_within and key == self.key_at(int(iteration))


def open_training(
    root: str | Path,
    config: dict[str, Any] | None,
    *,
    allow_change: bool = False,
    lock: FolderLock | None = None,
    typed: Sequence[str] = (),
) -> TrainingRun:
    """Open the folder of a training run for training.

    Args:
        root: the folder; it need not exist.
        config: nested plain dicts, or None for the folder's saved one.
        allow_change: accept a config that differs from the folder's.
        lock: the folder's, acquired before anything is written; the caller releases it.
        typed: the flags that the config came from.

    Raises:
        UserError: a config, data or folder that cannot be used, or a folder that another command is
            writing to.
    """
    folder = RunFolder(root)
    resolved = resolved_config(folder, config, TRAINING, allow_change=allow_change, lock=lock)
    # This reads the data, so errors in them are reported before anything is written.
    saved = find_config(folder, TRAINING)
    known = saved.provenance.weights_sha256 if saved else ""
    identity = check_data(resolved, known)
    if known == identity.partition(" ")[0]:
        identity = known  # an earlier version's, of a generator's weights alone
    tracing = tracing_of(resolved)
    trace = settled_trace(folder, resolved, tracing)

    def checked_run() -> TrainingRun:
        run = TrainingRun(root, resolved, identity, trace, tracing)
        _check_same_data(run, allow_change=allow_change)
        _check_cooldown(run)
        return run

    run = checked_run()
    if lock is not None:
        lock.acquire()
        # Another command may have written between the check and the lock.
        check_same_config(folder, resolved, allow_change=allow_change)
        run = checked_run()
    make_folder(folder.root, "--workdir")
    remove_unfinished(folder.root)
    run.forget_others()
    _forget_other_scores(run)
    _save(run, config, typed)
    return run


def open_trained(
    root: str | Path,
    config: dict[str, Any] | None,
    *,
    allow_change: bool = False,
    lock: FolderLock | None = None,
    typed: Sequence[str] = (),
) -> TrainingRun:
    """Open the folder of a training run to use its generator.

    The training is left alone: its data need not exist, and only the settings for using the
    generator, `config.assign`, may change.

    Args:
        root: the folder.
        config: as in `open_training`.
        allow_change: accept settings of `config.assign` that differ from the folder's.
        lock: as in `open_training`.
        typed: as in `open_training`.

    Raises:
        UserError: as `open_training`; a folder that does not exist, or a config of a different
            training.
    """
    folder = RunFolder(root)
    saved = read_config(folder, TRAINING)
    if config is not None:
        _check_same_training(folder, saved.config, complete(config))
    resolved = resolved_config(folder, config, TRAINING, allow_change=allow_change, lock=lock)
    if lock is not None:
        lock.acquire()
        _check_same_training(folder, read_config(folder, TRAINING).config, resolved)
        check_same_config(folder, resolved, allow_change=allow_change)
    run = TrainingRun(root, resolved, saved.provenance.weights_sha256, saved.provenance.trace)
    remove_unfinished(folder.root)
    _save(run, config, typed)
    return run


def _save(run: TrainingRun, config: dict[str, Any] | None, typed: Sequence[str]) -> None:
    flags = typed if config is not None else read_config(run.folder, TRAINING).typed
    provenance = Provenance(run.identity, run.trace or None, run.key)
    save_config(run.folder, run.config, provenance, flags)


def _forget_other_scores(run: TrainingRun) -> None:
    """Remove scores of this training that were measured otherwise than its config asks for."""
    saved = find_config(run.folder, TRAINING)
    if saved is None:
        return
    before = flatten(saved.config)  # an edited one may lack leaves
    if any(before.get(f"score.{name}") != run.config["score"][name] for name in MEASURING):
        logging.info("the scores so far are dropped: they are measured otherwise now")
        metrics = Metrics(run.folder.metrics)
        metrics.forget(lambda line: line.get("stage") == "score")
        metrics.close()


def _check_same_training(
    folder: RunFolder, saved: Mapping[str, Any], config: Mapping[str, Any]
) -> None:
    """Refuse a config that describes a different training than the folder's.

    Raises:
        UserError: listing every leaf that differs.
    """
    changed = differences(saved, config, lambda path: is_resource(path) or is_of_assign(path))
    if changed:
        raise UserError(
            f"{folder.root} was trained with a different config ({'; '.join(changed)}), which "
            "this mode cannot change; leave out these flags"
        )


def _check_same_data(run: TrainingRun, *, allow_change: bool) -> None:
    """Refuse a folder whose generator was trained on different data under the same config.

    Raises:
        UserError: the data differ, or what the user's own code makes of them; or `config.json` was
            edited, so that what is trained would not be known as this training.
    """
    saved = find_config(run.folder, TRAINING)
    if allow_change or saved is None:
        return
    known, what = saved.provenance, ""
    if known.identity != run.key:
        check_unedited(run.folder)
    if known.weights_sha256 and known.weights_sha256 != run.identity:
        what = "with other data (the files in --config.data.path have changed)"
    elif known.trace and known.trace != run.trace:
        data, labels = run.config["data"], run.config["labels"]
        named = {"data.path": data["path"], "labels.features": labels["features"]}
        own = [f"--config.{p}={name}" for p, name in named.items() if is_import_path(name)]
        what = f"when {' or '.join(own)} returned something else"
    if what:
        raise UserError(
            f"{run.folder.root} was made {what}; use another --workdir, or --allow_config_change "
            "to train from the start"
        )


def _check_cooldown(run: TrainingRun) -> None:
    """Refuse a cooldown that would begin before the iterations that are trained already.

    Raises:
        UserError: it would throw some of them away; says what continues after them.
    """
    cooldown, trained = run.config["train"]["cooldown"], run.num_trained
    if cooldown and trained > run.cooldown_begin:
        raise UserError(
            f"--config.train.cooldown={cooldown}: it would begin at iteration "
            f"{run.cooldown_begin}, but {trained} are trained already; to continue after them type "
            f"--config.train.iterations={trained + cooldown}, or use another --workdir"
        )


def check_alone(num_processes: int, num_devices: int | None) -> None:
    """Refuse several processes or devices, which a training run cannot use.

    Raises:
        UserError: there are several.
    """
    if num_processes > 1:
        raise UserError("a training run uses one process; leave out the launcher")
    if num_devices is not None and num_devices > 1:
        raise UserError(
            f"--devices={num_devices}: a training run uses one device; leave out the flag, or type "
            "--config.train.together=true to train several trials at once"
        )
