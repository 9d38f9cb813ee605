"""A run's folder: its paths, its config, and whether a new config may have it."""

from __future__ import annotations

import json
import platform
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from cgjax.config.plain import differences
from cgjax.config.schema import CLUSTERS, complete, is_resource, kind_of
from cgjax.errors import UserError
from cgjax.runtime.files import read_sealed, write_sealed
from cgjax.runtime.lock import LOCK_FILE
from cgjax.version import __version__


class RunFolder:
    """The paths inside a run's folder; README.md lists it."""

    def __init__(self, root: str | Path):
        self.root = Path(root)
        self.config = self.root / "config.json"
        self.latents = self.root / "latents.npy"
        self.clusters = self.root / "clusters.npz"
        self.names = self.root / "clusters.json"
        self.old_names = self.root / "names"
        self.checkpoints = self.root / "checkpoints"
        self.samples = self.root / "samples"
        self.figures = self.root / "figures"
        self.metrics = self.root / "metrics.jsonl"
        self.summary = self.root / "summary.json"
        self.citations = self.root / "citations.bib"
        self.compared = self.root / "compare.json"
        self.manifests = self.root / "stages"
        self.report = self.root / "report"
        self.encoder = self.checkpoints / "encoder"
        self.held_out = self.encoder / "held_out.npz"
        self.assigned = self.root / "assign"

    @property
    def assigned_names(self) -> list[str]:
        """What the sets of images are called that were assigned to the clusters."""
        return sorted(path.name for path in self.assigned.glob("*") if path.is_dir())

    @property
    def command(self) -> str:
        """What to type to make what is missing or stale in it."""
        return self.command_of()

    def command_of(self, mode: str | None = None, *flags: str) -> str:
        """Return the command of a mode on this folder, as it is typed into a shell."""
        given = [] if mode is None else [f"--mode={mode}"]
        words = ["python", "-m", "cgjax.main", *given, f"--workdir={self.root}", *flags]
        return shlex.join(words)


class Known(NamedTuple):
    """What tells whether a folder was made with a generator; see `cgjax.run.identity`.

    Attributes:
        weights_sha256: of the generator's weights, or of the data that one is trained on; empty
            where there is none.
        trace: how a generator acts that its weights do not tell; None in folders of earlier
            versions.
        identity: of the whole generator; empty in folders of earlier versions, and of trainings.
    """

    weights_sha256: str
    trace: list[float] | None = None
    identity: str = ""


class SavedConfig(NamedTuple):
    """What `config.json` says.

    Attributes:
        config: of the run, nested plain dicts with every leaf of this version.
        raw: as it stands in the file.
        known: of the generator, or of the data that one is trained on.
        typed: the flags of the config as they were typed; empty where that is not known.
    """

    config: dict[str, Any]
    raw: dict[str, Any]
    known: Known
    typed: list[str]


def saved_kind(folder: RunFolder) -> str:
    """Return which kind of run a folder holds; one of clusters where that cannot be told."""
    try:
        return kind_of(json.loads(folder.config.read_text(encoding="utf-8-sig"))["config"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return CLUSTERS


def read_config(folder: RunFolder, kind: str = CLUSTERS) -> SavedConfig:
    """Read `config.json` of a run of one kind.

    Raises:
        UserError: if it is not there, damaged, or of another kind of run.
    """
    if not folder.config.is_file():
        raise UserError(
            f"{folder.root} is not a cgjax run folder (no config.json); name one with --workdir, "
            "or start one with --config=configs/dcgan_pose.py"
        )
    try:
        saved = json.loads(folder.config.read_text(encoding="utf-8-sig"))
        raw, weights = saved["config"], str(saved["weights_sha256"])
        if not isinstance(raw, dict):
            raise TypeError("its config is no object")
        trace = saved.get("trace")
        if trace is not None and not all(isinstance(x, float) for x in trace):
            raise TypeError("its trace is no list of numbers")
        typed = saved.get("typed", [])
        if not (isinstance(typed, list) and all(isinstance(word, str) for word in typed)):
            raise TypeError("its flags are no list of texts")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder.config} is damaged ({error}); give the run's config again with --config"
        ) from error
    if kind_of(raw) != kind:
        raise UserError(
            f"{folder.root} is the folder of a run of another kind ({kind_of(raw)}, not {kind}); "
            "name another one with --workdir"
        )
    known = Known(weights, trace, str(saved.get("identity", "")))
    return SavedConfig(complete(raw), raw, known, typed)


def config_to_go_on(
    folder: RunFolder, kind: str = CLUSTERS, *, allow_change: bool = False
) -> dict[str, Any]:
    """Return the folder's own config, for a command that gives none.

    Args:
        folder: the folder.
        kind: of run.
        allow_change: accept one that somebody has edited.

    Raises:
        UserError: as `read_config`; a file that is not as it was written.
    """
    saved = read_config(folder, kind)
    if not allow_change and read_sealed(folder.config) is None:
        raise UserError(
            f"{folder.config} was edited; put it back as it was, or type --allow_config_change to "
            "recompute what depends on it"
        )
    return saved.config


def kept_trace(folder: RunFolder) -> list[float]:
    """Return the trace of the generator that a folder was made with; empty if none was kept."""
    return (read_config(folder).known.trace or []) if folder.config.is_file() else []


def save_config(
    folder: RunFolder, config: Mapping[str, Any], known: Known, typed: Sequence[str] = ()
) -> None:
    """Write `config.json`: what was asked for, and with what."""
    content = {
        "typed": list(typed),
        "config": config,
        **known._asdict(),
        "versions": {
            "cgjax": __version__,
            "jax": jax.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "device": jax.devices()[0].device_kind,
    }
    write_sealed(folder.config, content)


def check_folder(folder: RunFolder, config: Mapping[str, Any], *, allow_change: bool) -> None:
    """Refuse a folder that is not ours, or that was made with another config.

    What changes no result, as memory and batch sizes, may differ.

    Args:
        folder: the folder; it need not exist.
        config: the new run's.
        allow_change: accept another config; what depends on the change is recomputed.

    Raises:
        UserError: listing every leaf that differs.
    """
    if not folder.config.is_file():
        root = folder.root
        if root.exists() and not (root.is_dir() and _is_empty(root)):
            raise UserError(
                f"--workdir={root} exists and is not a cgjax run folder; name another one"
            )
        return
    if allow_change:
        return
    changed = differences(read_config(folder, kind_of(config)).config, config)
    changed = [line for line in changed if not is_resource(line.partition(":")[0])]
    if changed:
        raise UserError(
            f"{folder.root} was made with another config ({'; '.join(changed)}); use another "
            "--workdir, or --allow_config_change to recompute what depends on it"
        )


def _is_empty(root: Path) -> bool:
    return all(path.name == LOCK_FILE for path in root.iterdir())


def check_generator_is(folder: RunFolder, known: Known) -> None:
    """Refuse a folder that was made with another generator.

    Args:
        folder: the folder; it need not exist.
        known: of the generator; its trace is the kept one itself where it is the same generator.

    Raises:
        UserError: saying what differs.
    """
    if not folder.config.is_file():
        return
    saved = read_config(folder).known
    what = ""
    if saved.weights_sha256 != known.weights_sha256:
        what = (
            f"other weights (SHA-256 {saved.weights_sha256[:12] or 'none'}, now "
            f"{known.weights_sha256[:12] or 'none'})"
        )
    elif known.trace and saved.trace == []:
        what = "an earlier version, which did not keep what your module makes of its weights"
    elif saved.trace is not None and saved.trace != known.trace:
        what = "a generator that made other features or images of the same latents"
    elif saved.identity and saved.identity != known.identity:
        what = "the same weights in another architecture (generator.json)"
    if what:
        raise UserError(
            f"{folder.root} was made with {what}; restore the original weights, use another "
            "--workdir, or run it with --allow_config_change to recompute everything"
        )
