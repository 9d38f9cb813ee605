"""The folder of a run that trains a generator: config.json, checkpoints/ and what it showed last.

config.json, metrics.jsonl       as in every run's folder
checkpoints/trials/              the newest two steps of all trials
samples.npz                      points (trials, n, d), labels (trials, n): what was scored last; of
                                 images the first thousand, bytes
figures/samples.png              some of the first trial's, by their labels
generator/                       the first trial's generator of images, as converted weights
assign/                          images that were assigned to its labels; see `labels`
summary.json, citations.bib      the scores, and the works that all of it comes from
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cgjax.config.plain import digest, flatten
from cgjax.config.schema import TRAINING, complete, is_resource, validate
from cgjax.config.training import ADDED
from cgjax.endtoend.experiment import check_data
from cgjax.errors import UserError
from cgjax.run.folder import RunFolder, check_folder, read_config, save_config
from cgjax.runtime.checkpoints import Checkpoints, Step
from cgjax.runtime.files import make_folder, remove_unfinished
from cgjax.runtime.lock import FolderLock


class TrainingRun:
    """A training run's config and the places of its files."""

    def __init__(self, root: str | Path, config: Mapping[str, Any]):
        """Read what the data's identity is made of; writes nothing.

        Args:
            root: the folder.
            config: nested plain dicts with every leaf.

        Raises:
            UserError: data that cannot be read.
        """
        self.folder, self.config = RunFolder(root), config
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
            and not path.startswith("assign.")
            and (path not in ADDED or value != ADDED[path])
        }
        self.identity = check_data(config)
        own = {"identity": self.identity} if self.identity else {}
        self.key = digest({**told, **own})

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
        is_within = step.number <= self.config["train"]["iterations"]
        return is_within and step.metadata.get("key") == self.key_at(step.number)

    def forget_results(self) -> None:
        """Remove what was made of the end of an earlier training."""
        for path in (self.folder.summary, self.folder.citations, self.figure, self.samples):
            path.unlink(missing_ok=True)
        for folder in (self.generator, self.folder.assigned):
            shutil.rmtree(folder, ignore_errors=True)


def open_training(
    root: str | Path,
    config: dict[str, Any] | None,
    *,
    allow_change: bool = False,
    lock: FolderLock | None = None,
    typed: Sequence[str] = (),
) -> TrainingRun:
    """Open the folder of a training run for writing.

    Args:
        root: the folder; it need not exist.
        config: nested plain dicts, or None for the folder's saved one.
        allow_change: accept another config than the folder was made with.
        lock: the folder's, acquired before anything is written; its `with` block is the caller's.
        typed: the flags that gave the config.

    Raises:
        UserError: a config or folder that cannot be used, or that another command is writing to.
    """
    folder = RunFolder(root)
    if lock is not None:
        lock.refuse_if_taken()
    resolved = read_config(folder, TRAINING).config if config is None else complete(config)
    validate(resolved)
    check_folder(folder, resolved, allow_change=allow_change)
    if folder.config.is_file():
        read_config(folder, TRAINING)  # not even with another config may it be of another kind
    run = TrainingRun(root, resolved)  # reads the data: what is wrong with them is said first
    _check_same_data(run, allow_change=allow_change)
    if lock is not None:
        lock.acquire()
        # Another command may have written since this one looked.
        check_folder(folder, resolved, allow_change=allow_change)
        _check_same_data(run, allow_change=allow_change)
    make_folder(folder.root, "--workdir")
    remove_unfinished(folder.root)
    own = [step.number for step in run.steps.steps() if run.is_own(step)]
    if resolved["train"]["iterations"] not in own:
        run.forget_results()
    kept = typed if config is not None else read_config(folder, TRAINING).typed
    save_config(folder, resolved, run.identity, [], kept)
    return run


def _check_same_data(run: TrainingRun, *, allow_change: bool) -> None:
    """Refuse a folder whose generator learnt from other data of the same config.

    Raises:
        UserError: saying so.
    """
    if allow_change or not run.folder.config.is_file():
        return
    known = read_config(run.folder, TRAINING).weights_sha256
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
