"""A run's folder: its paths, and `config.json`, which says what the run was made with."""

from __future__ import annotations

import json
import platform
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from cgjax.config.schema import CLUSTERS, complete, kind_of
from cgjax.errors import UserError
from cgjax.run.traces import Trace
from cgjax.runtime.files import as_utf8, say_os_error, user_path, write_sealed
from cgjax.version import __version__


class RunFolder:
    """The paths inside a run's folder; README.md lists it.

    Raises:
        UserError: the path is not UTF-8, which the page and Orbax's checkpoints need.
    """

    def __init__(self, root: str | Path):
        self.root = user_path(root)
        try:
            str(self.root).encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"the run's folder {as_utf8(self.root)}: expected a name in UTF-8; rename it"
            ) from error
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
        self.page = self.report / "index.html"
        self.encoder = self.checkpoints / "encoder"
        self.held_out = self.encoder / "held_out.npz"
        self.assigned = self.root / "assign"

    @property
    def assigned_names(self) -> list[str]:
        """The names of the sets of images that were assigned to the clusters."""
        return sorted(path.name for path in self.assigned.glob("*") if path.is_dir())

    @property
    def command(self) -> str:
        """The command that makes what is missing or stale in the folder."""
        return self.command_of()

    def command_of(self, mode: str | None = None, *flags: str) -> str:
        """Return the command of a mode on this folder, quoted for a shell."""
        mode_flag = [] if mode is None else [f"--mode={mode}"]
        words = ["python", "-m", "cgjax.main", *mode_flag, f"--workdir={self.root}", *flags]
        return shlex.join(words)


class Provenance(NamedTuple):
    """What a run was made with: its generator, or the data of a training.

    Attributes:
        weights_sha256: of the generator's weights, or of the data that one is trained on; empty if
            there are none.
        trace: how a generator acts beyond what its weights say, see `cgjax.run.identity`, or how
            the user's own code acts that a training starts from; None in folders of earlier
            versions, and of other trainings.
        identity: of the whole generator, or the key that a training began with; empty in folders of
            earlier versions.
    """

    weights_sha256: str
    trace: Trace | None = None
    identity: str = ""


class SavedConfig(NamedTuple):
    """What `config.json` says.

    Attributes:
        config: of the run, nested plain dicts with every leaf of this version.
        provenance: of the run.
        typed: the flags of the config as they were typed; empty if they are not known.
    """

    config: dict[str, Any]
    provenance: Provenance
    typed: list[str]


def saved_kind(folder: RunFolder) -> str:
    """Return which kind of run a folder holds; a run of clusters if that cannot be told."""
    try:
        return kind_of(json.loads(folder.config.read_text(encoding="utf-8-sig"))["config"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return CLUSTERS


def read_config(folder: RunFolder, kind: str = CLUSTERS) -> SavedConfig:
    """Read `config.json` of a run of one kind.

    Raises:
        UserError: if it is missing, damaged, or of another kind of run.
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
            raise TypeError("its config is not an object")
        trace = saved.get("trace")
        if trace is not None and not all(isinstance(x, float) for x in trace):
            raise TypeError("its trace is not a list of numbers")
        typed = saved.get("typed", [])
        if not (isinstance(typed, list) and all(isinstance(word, str) for word in typed)):
            raise TypeError("its flags are not a list of strings")
    except OSError as error:  # of another user, say
        raise UserError(
            f"{say_os_error(error)}; make it readable, or name another folder with --workdir"
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{folder.config} is damaged ({error}); put it back as it was, or name another folder "
            "with --workdir"
        ) from error
    if kind_of(raw) != kind:
        raise UserError(
            f"{folder.root} is the folder of a run of another kind ({kind_of(raw)}, not {kind}); "
            "name another one with --workdir"
        )
    provenance = Provenance(weights, trace, str(saved.get("identity", "")))
    return SavedConfig(complete(raw), provenance, typed)


def find_config(folder: RunFolder, kind: str = CLUSTERS) -> SavedConfig | None:
    """As `read_config`, but None for a folder that has no `config.json`, or does not exist."""
    return read_config(folder, kind) if folder.config.is_file() else None


def kept_trace(folder: RunFolder) -> Trace:
    """Return the trace of the generator that a folder was made with; empty if none was kept."""
    saved = find_config(folder)
    return (saved.provenance.trace or []) if saved else []


def save_config(
    folder: RunFolder, config: Mapping[str, Any], provenance: Provenance, typed: Sequence[str] = ()
) -> None:
    """Write `config.json`: what was asked for, and what it was made with."""
    content = {
        "typed": list(typed),
        "config": config,
        **provenance._asdict(),
        "versions": {
            "cgjax": __version__,
            "jax": jax.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "device": jax.devices()[0].device_kind,
    }
    write_sealed(folder.config, content)
