"""Opening a run's folder: for writing, `open_run`, or for sampling, `load_run`.

Opening for writing checks everything (`folder_checks`, `run_checks`) before it writes anything, and
then removes what is stale.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from cgjax.config.schema import validate, with_resources
from cgjax.errors import UserError
from cgjax.numerics.arguments import shown
from cgjax.regions.clustering import digest_of
from cgjax.regions.names import put_aside, restore
from cgjax.run.artifacts import declare_page
from cgjax.run.folder import RunFolder, SavedConfig, read_config, save_config
from cgjax.run.folder_checks import check_provenance, check_same_config, resolved_config
from cgjax.run.manifests import Manifests
from cgjax.run.places import fit_name, split_name
from cgjax.run.run import Run
from cgjax.runtime.files import make_folder, remove_unfinished, user_path
from cgjax.runtime.lock import FolderLock
from cgjax.runtime.processes import ALONE, Processes

MODES_THAT_MAKE = ("run", "compare", "sweep")
"""The modes that make what is missing; the others need clusters and samplers to be there."""


def open_run(
    root: str | Path,
    config: dict[str, Any] | None,
    *,
    mode: str = "run",
    allow_change: bool = False,
    processes: Processes = ALONE,
    lock: FolderLock | None = None,
    typed: Sequence[str] = (),
) -> Run:
    """Open a run's folder for writing.

    Nothing is written before everything that a user can get wrong is checked. Then what is not of
    this config is removed, so that the folder never shows it.

    Args:
        root: the folder; it need not exist.
        config: nested plain dicts, or None for the folder's saved one.
        mode: what will be done: "run", "compare", "sweep", "evaluate", "report", "name", "serve"
            or "assign".
        allow_change: accept another config than the folder was made with.
        processes: those of the run; every one of them must call this.
        lock: of the folder, acquired before anything is written; the caller opens its `with` block.
        typed: the flags that gave the config, for the page to show.

    Returns:
        The run.

    Raises:
        UserError: a config, generator or folder that cannot be used, or that another command is
            writing to.
    """
    # It needs SciPy, whose import takes a second that `load_run` need not wait for.
    from cgjax.run.run_checks import check_processes, check_run

    folder = RunFolder(root)

    def resolve() -> dict[str, Any]:
        return resolved_config(folder, config, allow_change=allow_change, lock=lock)

    run = Run(root, processes.first(resolve))
    if processes.num > 1:
        check_processes(run.config, mode)
    check_run(run, mode)

    def begin() -> None:
        if not allow_change:
            check_provenance(folder, run.provenance)
        for name in _required(run, mode):
            run.manifests.require(name)
        if mode != "run":
            _check_splits(run, mode, typed)
        if lock is not None:
            lock.acquire()
            # Another command may have written since the first check.
            check_same_config(folder, run.config, allow_change=allow_change)
        flags = typed if config is not None else read_config(folder).typed
        make_folder(folder.root, "--workdir")
        remove_unfinished(folder.root)
        # In this order: an interruption between the two leaves too little, never something of
        # another config than the saved one.
        _forget_stale(run)
        save_config(folder, run.config, run.provenance, flags)

    processes.first(begin)
    return run


def load_run(root: str | os.PathLike[str], resources: Mapping[str, Any] | None = None) -> Run:
    """Open a run's folder for sampling.

    Args:
        root: the folder, as given to --workdir.
        resources: a config whose resources, such as `{"sample": {"max_draws": 10**7}}`, replace
            those of the folder; its other settings do not count.

    Returns:
        The run.

    Raises:
        UserError: if it is not a run's folder, the generator's weights are not those it was made
            with, or `resources` has a setting that no config has or a value that is not legal.

    Example:
        run = cgjax.load_run("runs/dcgan_pose")
        images = run.sample(jax.random.key(0), cluster=0, num=64).images
    """
    folder, saved = _read_folder(root)
    try:
        validate(saved.config)
    except UserError as error:
        raise UserError(f"{folder.config} was edited: {error}") from error
    config = with_resources(saved.config, {} if resources is None else resources)
    validate(config)
    try:
        run = Run(folder.root, config)
    except UserError as error:
        raise UserError(f"{folder.config}: {error}") from error
    check_provenance(folder, run.provenance)
    return run


def _read_folder(root: Any) -> tuple[RunFolder, SavedConfig]:
    """Return a run's folder and its config.

    Raises:
        UserError: for anything but the path of a run's folder.
    """
    if not isinstance(root, str | os.PathLike):
        raise UserError(f"load_run({shown(root)}): expected a run's folder, as given to --workdir")
    try:
        # The run reads its files as it needs them, when the current folder may be another one.
        folder = RunFolder(user_path(os.fspath(root)).absolute())
        return folder, read_config(folder)
    except OSError as error:  # a path that no folder can have
        raise UserError(
            f"{shown(str(root))} cannot be opened ({error.strerror}): expected a run's folder, as "
            "given to --workdir"
        ) from error


def _required(run: Run, mode: str) -> list[str]:
    """Return the artifacts that a mode needs and does not make itself."""
    if mode in MODES_THAT_MAKE:
        return []
    if mode in ("report", "name", "serve") and _has_only_sweep(run):
        return []
    needs_samplers = mode not in ("name", "serve", "assign")
    # Removing stale latents would make the clusters stale. Some earlier versions kept none.
    latents = ["latents"] if "latents" in run.manifests.recorded() else []
    return [*latents, "cluster", *(map(fit_name, run.sampler_names) if needs_samplers else ())]


def _has_only_sweep(run: Run) -> bool:
    """Whether the run's own clustering was never made, rather than being stale or damaged."""
    return not run.held.is_own_made and bool(run.held.all)


def _check_splits(run: Run, mode: str, typed: Sequence[str]) -> None:
    """Refuse to lose clusters inside clusters in a mode that makes none.

    They may go with the clusters that they are in, when those are of another config.

    Raises:
        UserError: says which split is stale, why, and what replaces it.
    """
    manifests = run.manifests
    splits = [name for name in manifests.recorded() if name.startswith(split_name([]))]
    stale = [name for name in splits if manifests.result(name) is None]
    if stale and run.held.has_own:
        name = min(stale)
        is_asked = name in manifests.graph
        text = (manifests.last_result(name) or {}).get("split")
        why = manifests.why_not(name) if is_asked else f"{name!r} ({text}) is not in this config"
        with_it = [*typed, "--allow_config_change"] if typed else []
        raise UserError(
            f"{run.folder.root}: {why}; --mode={mode} would remove it and make no other: first "
            f"type {run.folder.command_of(None, *with_it)}" + ("" if typed else " with this config")
        )


def _forget_stale(run: Run) -> None:
    """Remove what is not of the run's config; names that a person gave are put aside."""
    folder, manifests = run.folder, run.manifests
    if manifests.result("cluster") is None:
        put_aside(folder.names, folder.old_names, _saved_digest(folder))
        folder.compared.unlink(missing_ok=True)
    else:  # a change to another config may have been killed after it put the names aside
        restore(folder.names, folder.old_names, _saved_digest(folder))
    run.had_page = folder.report.is_dir()
    if parts := manifests.made_from("report"):
        declare_page(manifests.graph, parts)
    if edited := manifests.edited():
        logging.warning("%s: returns something else than before", ", ".join(edited))
    stale = manifests.forget_stale()
    if stale:
        logging.info("removed what is stale: %s", ", ".join(stale))
    if not _is_page_current(manifests):
        manifests.forget("report")
        if stale:  # these are written with the page
            folder.summary.unlink(missing_ok=True)
            folder.citations.unlink(missing_ok=True)


def _is_page_current(manifests: Manifests) -> bool:
    """Whether all that the page shows is still there, after what is stale was removed."""
    result = manifests.result("report")
    # An earlier version recorded a comparison and a sweep apart from what a page is made from.
    return result is not None and all(
        name in manifests.graph
        and manifests.graph[name].key == key
        and manifests.result(name) is not None
        for name, key in result.get("shown", {}).items()
    )


def _saved_digest(folder: RunFolder) -> str:
    """Return the digest of the clustering in a folder, whatever config it is of."""
    try:
        manifest = json.loads((folder.manifests / "cluster.json").read_text())
        return str(manifest["result"]["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    try:  # a folder of an earlier version
        with np.load(folder.clusters, allow_pickle=False) as arrays:
            return digest_of(arrays["centroids"], arrays["labels"])
    except (OSError, ValueError, KeyError):
        return "unknown"
