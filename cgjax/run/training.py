"""The folder of a run that trains a generator: config.json, checkpoints/ and what it showed last.

config.json, metrics.jsonl       as in every run's folder
checkpoints/trials/              the newest two steps of all trials
samples.npz                      points (trials, n, d), labels (trials, n): what was scored last; of
                                 images the first thousand, bytes
figures/samples.png              some of the first trial's, by their labels
generator/                       the first trial's generator of images, as converted weights
assign/                          images that were assigned to its labels; see `labels`
summary.json, citations.bib      the scores, and the works that all of it comes from

What a training leaves at its end is one artifact, `RESULTS`: while the training is made longer, the
results of its shorter self stay, and they are replaced together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cgjax.config.plain import differences, digest, flatten
from cgjax.config.schema import TRAINING, complete, is_resource, validate
from cgjax.config.training import ADDED
from cgjax.endtoend.experiment import check_data
from cgjax.errors import UserError
from cgjax.run.artifacts import RESULTS, declare_results
from cgjax.run.folder import (
    Known,
    RunFolder,
    check_folder,
    config_to_go_on,
    read_config,
    save_config,
)
from cgjax.run.manifests import Manifests
from cgjax.runtime.checkpoints import Checkpoints, Step
from cgjax.runtime.files import make_folder, remove_unfinished
from cgjax.runtime.lock import FolderLock


class TrainingRun:
    """A training run's config and the places of its files.

    Attributes:
        folder: the paths that every run's folder has.
        config: nested plain dicts with every leaf.
        identity: of the data; see `DataSet`.
        key: what the training is known by, until a cooldown begins.
        samples: path of the samples.
        figure: path of the picture of them.
        generator: folder of the generator.
        steps: the saved steps.
        manifests: which of the results are there and current.
    """

    def __init__(self, root: str | Path, config: Mapping[str, Any], identity: str):
        """Make the key; reads and writes nothing.

        Args:
            root: the folder.
            config: nested plain dicts with every leaf.
            identity: of the data, empty for those that the config describes whole.
        """
        self.folder, self.config, self.identity = RunFolder(root), config, identity
        self.samples = self.folder.root / "samples.npz"
        self.figure = self.folder.figures / "samples.png"
        self.generator = self.folder.root / "generator"
        self.steps = Checkpoints(self.folder.checkpoints / "trials")
        leaves = flatten(config)
        # More iterations go on where fewer ended; see `key_at`.
        del leaves["train.iterations"], leaves["train.cooldown"]
        told = {
            path: value
            for path, value in leaves.items()
            # What an older version did not know, and would have taken to be this, changes nothing.
            if not is_resource(path)
            and not _is_of_assign(path)
            and (path not in ADDED or value != ADDED[path])
        }
        own = {"identity": identity} if identity else {}
        self.key = digest({**told, **own})
        last = config["train"]["iterations"]
        self.manifests = Manifests(self.folder, declare_results(self.key_at(last), last))

    def key_at(self, iteration: int) -> str:
        """Return what the state after an iteration is known by.

        Until a cooldown begins it is the same however long training goes on.
        """
        train = self.config["train"]
        if iteration <= train["iterations"] - train["cooldown"]:
            return self.key
        return digest([self.key, train["iterations"], train["cooldown"]])

    def is_own(self, step: Step) -> bool:
        """Whether a saved step is of this config, and not beyond its last iteration."""
        return self._is_at(step.number, str(step.metadata.get("key")))

    @property
    def is_finished(self) -> bool:
        """Whether there are results of the last iteration."""
        last = self.manifests.last_result(RESULTS)
        # A folder of an earlier version has no manifest of them.
        is_last = last is None or last.get("iterations") == self.config["train"]["iterations"]
        return is_last and self.folder.summary.is_file()

    def forget_others(self) -> None:
        """Remove results that are not of this training, nor of its shorter self."""
        last = self.manifests.last_result(RESULTS) or {}
        if not self._is_at(last.get("iterations", math.inf), last.get("key", "")):
            self.manifests.forget(RESULTS)  # those of an earlier version have no manifest
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
        allow_change: accept another config than the folder was made with.
        lock: the folder's, acquired before anything is written; its `with` block is the caller's.
        typed: the flags that gave the config.

    Raises:
        UserError: a config, data or folder that cannot be used, or that another command is writing
            to.
    """
    folder = RunFolder(root)
    resolved = _resolve(folder, config, allow_change=allow_change, lock=lock)
    # The data are read here: what is wrong with them is said before anything is written.
    run = TrainingRun(root, resolved, check_data(resolved))
    _check_same_data(run, allow_change=allow_change)
    if lock is not None:
        lock.acquire()
        # Another command may have written since this one looked.
        check_folder(folder, resolved, allow_change=allow_change)
        _check_same_data(run, allow_change=allow_change)
    make_folder(folder.root, "--workdir")
    remove_unfinished(folder.root)
    run.forget_others()
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
    """Open the folder of a training run for what is done with its generator.

    The training stays as it is: its data need not be there, and only settings of what is done with
    the generator may be others.

    Args:
        root: the folder.
        config: as in `open_training`, and so are the rest.
        allow_change: accept other settings of `config.assign`.
        lock: the folder's.
        typed: the flags that gave the config.

    Raises:
        UserError: as `open_training`; a folder that is not there, or another training than its own.
    """
    folder = RunFolder(root)
    saved = read_config(folder, TRAINING)
    if config is not None:
        _check_same_training(folder, saved.config, complete(config))
    resolved = _resolve(folder, config, allow_change=allow_change, lock=lock)
    if lock is not None:
        lock.acquire()
        _check_same_training(folder, read_config(folder, TRAINING).config, resolved)
        check_folder(folder, resolved, allow_change=allow_change)
    run = TrainingRun(root, resolved, saved.known.weights_sha256)
    remove_unfinished(folder.root)
    _save(run, config, typed)
    return run


def _resolve(
    folder: RunFolder,
    config: dict[str, Any] | None,
    *,
    allow_change: bool,
    lock: FolderLock | None,
) -> dict[str, Any]:
    """Return the config with every leaf, checked, and allowed in this folder."""
    if lock is not None:
        lock.refuse_if_taken()
    resolved = (
        config_to_go_on(folder, TRAINING, allow_change=allow_change)
        if config is None
        else complete(config)
    )
    validate(resolved)
    check_folder(folder, resolved, allow_change=allow_change)
    if folder.config.is_file():
        read_config(folder, TRAINING)  # not even with another config may it be of another kind
    return resolved


def _save(run: TrainingRun, given: dict[str, Any] | None, typed: Sequence[str]) -> None:
    kept = typed if given is not None else read_config(run.folder, TRAINING).typed
    save_config(run.folder, run.config, Known(run.identity), kept)


def _is_of_assign(path: str) -> bool:
    return path.startswith("assign.")


def _check_same_training(
    folder: RunFolder, saved: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
    """Refuse a config of another training than the folder's.

    Raises:
        UserError: listing every leaf that differs.
    """
    lines = differences(saved, wanted)
    changed = [
        line
        for line in lines
        if not is_resource(path := line.partition(":")[0]) and not _is_of_assign(path)
    ]
    if changed:
        raise UserError(
            f"{folder.root} was trained with another config ({'; '.join(changed)}), which "
            "--mode=assign does not change; leave these flags out"
        )


def _check_same_data(run: TrainingRun, *, allow_change: bool) -> None:
    """Refuse a folder whose generator learnt from other data of the same config.

    Raises:
        UserError: saying so.
    """
    if allow_change or not run.folder.config.is_file():
        return
    known = read_config(run.folder, TRAINING).known.weights_sha256
    if known and known != run.identity:
        raise UserError(
            f"{run.folder.root} was made with other data (--config.data.path now holds others); "
            "use another --workdir, or --allow_config_change to train anew"
        )


def check_alone(num_processes: int, num_devices: int | None) -> None:
    """Refuse what a training run does not share.

    Raises:
        UserError: several processes or devices.
    """
    if num_processes > 1:
        raise UserError("a training run is for one process; leave the launcher out")
    if num_devices is not None and num_devices > 1:
        raise UserError(
            f"--devices={num_devices}: a training run works on one device; leave it out, and use "
            "--config.train.together=true for several trials at once"
        )
