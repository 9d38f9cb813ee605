"""Opening a run's folder for writing: every check before any work, and nothing stale left."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from cgjax.clustering.selection import check_rows
from cgjax.config.leaves import AUTO
from cgjax.config.schema import complete, validate
from cgjax.errors import UserError
from cgjax.evaluation.attribute import attribute_of
from cgjax.evaluation.fidelity import check_features
from cgjax.evaluation.judges import load_judge
from cgjax.features.in_memory import feature_dim
from cgjax.generators.contract import ensure_generator
from cgjax.regions.clustering import digest_of
from cgjax.regions.names import put_aside
from cgjax.run.artifacts import fit, target_classes
from cgjax.run.conditional import FLAG, load_labels
from cgjax.run.folder import (
    RunFolder,
    check_folder,
    check_generator_is,
    config_to_go_on,
    read_config,
    save_config,
)
from cgjax.run.manifests import Manifests
from cgjax.run.run import Run
from cgjax.runtime.files import make_folder, remove_unfinished
from cgjax.runtime.lock import FolderLock
from cgjax.runtime.processes import Processes

MAKES_ALL = ("run", "compare", "sweep")
"""The modes that make what is missing; the others need clusters and samplers that are there."""


def open_run(
    root: str | Path,
    config: dict[str, Any] | None,
    *,
    mode: str = "run",
    allow_change: bool = False,
    processes: Processes | None = None,
    lock: FolderLock | None = None,
    typed: Sequence[str] = (),
) -> Run:
    """Open a run's folder for writing.

    Nothing is written before everything that a user may have got wrong is checked. Then what is
    not of this config is removed, so that the folder never shows it.

    Args:
        root: the folder; it need not exist.
        config: nested plain dicts, or None for the folder's saved one.
        mode: what will be done: "run", "compare", "sweep", "evaluate", "report", "name", "serve"
            or "assign".
        allow_change: accept another config than the folder was made with.
        processes: those of the run; every one of them must call this.
        lock: the folder's, acquired before anything is written; its `with` block is the caller's.
        typed: the flags that gave the config, for the page to show.

    Returns:
        The run.

    Raises:
        UserError: a config, generator or folder that cannot be used, or that another command is
            writing to.
    """
    processes = processes or Processes()
    folder = RunFolder(root)

    def resolve() -> dict[str, Any]:
        if lock is not None:
            lock.refuse_if_taken()
        resolved = (
            config_to_go_on(folder, allow_change=allow_change)
            if config is None
            else complete(config)
        )
        validate(resolved)
        check_folder(folder, resolved, allow_change=allow_change)
        return resolved

    run = Run(root, processes.first(resolve))
    if processes.num > 1:
        check_shared(run.config, mode)
    check_run(run, mode)

    def begin() -> None:
        if not allow_change:
            check_generator_is(folder, run.known)
        for name in _needed(run, mode):
            run.manifests.require(name)
        if lock is not None:
            lock.acquire()
            # Another command may have written since this one looked.
            check_folder(folder, run.config, allow_change=allow_change)
        kept = typed if config is not None else read_config(folder).typed
        make_folder(folder.root, "--workdir")
        remove_unfinished(folder.root)
        # In this order: an interruption between the two leaves less, never something of another
        # config than the one that is saved beside it.
        forget_stale(run)
        save_config(folder, run.config, run.known, kept)

    processes.first(begin)
    return run


def _needed(run: Run, mode: str) -> list[str]:
    """Return the artifacts that a mode does not make itself."""
    if mode in MAKES_ALL:
        return []
    if mode in ("report", "name", "serve") and not run.held.has_own and run.held.all:
        return []  # a sweep alone
    is_fitted = mode not in ("name", "serve", "assign")
    return ["cluster", *(map(fit, run.sampler_names) if is_fitted else ())]


def check_run(run: Run, mode: str) -> None:
    """Check what can be known before any work.

    Raises:
        UserError: a sampler, feature, judge or class that cannot be had; a generator that does not
            keep its contract.
        ForeignError: the generator's own code raised an exception.
    """
    settings = run.config["generator"]
    ensure_generator(run.generator, settings["weights"] or settings["name"])
    for name in run.sampler_names:
        run.make_sampler(name)
    clustered = run.config["cluster"]
    if clustered["num_clusters"] == AUTO:
        num = run.config["latents"]["num"]
        check_rows(min(num, clustered["max_samples"] or num), clustered["max_clusters"])
    settings = run.config["compare" if mode == "compare" else "evaluate"]
    check_features(run.config["evaluate"], settings["num"], run.generator)
    if mode == "compare":
        check_conditional(run)
    if mode == "sweep":
        check_sweep(run)
    check_targets(run)


def check_shared(config: Mapping[str, Any], mode: str) -> None:
    """Refuse what several processes cannot share.

    Raises:
        UserError: with what to type instead of it.
    """
    clustered = config["cluster"]
    for is_asked, what, instead in (
        (mode == "sweep", "--mode=sweep", ""),
        (mode in ("name", "serve", "assign"), f"--mode={mode}", ""),
        (clustered["backend"] == "faiss", "--config.cluster.backend=faiss", "use jax"),
        (clustered["num_clusters"] == AUTO, "--config.cluster.num_clusters=auto", "give a number"),
        (clustered["trimmed"] > 0, "--config.cluster.trimmed", "use 0"),
        (bool(config["hierarchy"]["splits"]), "--config.hierarchy.splits", "leave it out too"),
    ):
        if is_asked:
            hint = f", or {instead}" if instead else ""
            raise UserError(f"{what} is for one process; leave the launcher out{hint}")


def check_conditional(run: Run) -> None:
    """Check the judge of a comparison, and the generators with classes that stand in it.

    Raises:
        UserError: what cannot be had.
    """
    attribute = attribute_of(run.config["compare"])
    if run.conditional and attribute is None:
        raise UserError(
            f"{FLAG} needs a judge, which says which class stands for which cluster: give "
            "--config.compare.judge=face_mesh"
        )
    features = run.config["evaluate"]["features"]
    if run.conditional and features.startswith("layer:"):
        raise UserError(
            f"--config.evaluate.features={features} is of the run's own generator, and {FLAG} has "
            "images of others; give --config.evaluate.features=pca_pixels"
        )
    for one in run.conditional:
        load_labels(one, run.generator)


def check_sweep(run: Run) -> None:
    """Check that there are latents enough for a sweep, and its judges.

    Raises:
        UserError: what is missing.
    """
    settings, num = run.config["sweep"], run.config["latents"]["num"]
    most = run.held.sweep_numbers[-1]
    try:
        check_rows(min(num, run.config["cluster"]["max_samples"] or num), most)
    except UserError as error:
        raise UserError(f"--config.sweep.numbers={most}: {error}") from error
    if num < settings["judged"]:
        raise UserError(
            f"--config.sweep.judged={settings['judged']} is more than latents.num={num}"
        )
    for name in run.judges:
        load_judge(name)


def check_targets(run: Run) -> None:
    """Check that the generator has the classes that the config transfers to.

    Raises:
        UserError: a generator without classes, an unknown class with the candidates.
    """
    for name in target_classes(run.config):
        try:
            generator = run.generator.with_condition(name)
            feature_dim(generator, np.zeros((1, generator.gen.latent_dim), np.float32))
        except UserError as error:
            raise UserError(f"--config.transfer.conditions={name}: {error}") from error


def forget_stale(run: Run) -> None:
    """Remove what is not of the run's config; names that a person gave are put aside."""
    folder, manifests = run.folder, run.manifests
    if manifests.result("cluster") is None:
        put_aside(folder.names, folder.old_names, _digest(folder))
        folder.compared.unlink(missing_ok=True)
    stale = manifests.forget_stale()
    if not _is_page_current(manifests):
        manifests.forget("report")
    if stale:
        logging.info("recomputing what is stale: %s", ", ".join(stale))
        folder.summary.unlink(missing_ok=True)
        folder.citations.unlink(missing_ok=True)


def _is_page_current(manifests: Manifests) -> bool:
    """Whether what the page shows beside its inputs, a comparison or a sweep, is current."""
    shown = (manifests.result("report") or {}).get("shown", {})
    return all(
        name in manifests.graph
        and manifests.graph[name].key == key
        and manifests.result(name) is not None
        for name, key in shown.items()
    )


def _digest(folder: RunFolder) -> str:
    """Return the digest of the clustering that a folder holds, whatever its config says now."""
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
