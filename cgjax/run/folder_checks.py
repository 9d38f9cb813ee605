"""Which folders are refused when a run is opened, before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cgjax.config.plain import differences
from cgjax.config.schema import CLUSTERS, complete, is_resource, kind_of, validate
from cgjax.errors import UserError
from cgjax.run.folder import Provenance, RunFolder, find_config, read_config
from cgjax.runtime.files import read_sealed
from cgjax.runtime.lock import LOCK_FILE, FolderLock


def resolved_config(
    folder: RunFolder,
    config: Mapping[str, Any] | None,
    kind: str = CLUSTERS,
    *,
    allow_change: bool = False,
    lock: FolderLock | None = None,
) -> dict[str, Any]:
    """Return the config of a command with every leaf, validated and checked against its folder.

    Args:
        folder: the folder; it need not exist if there is a config.
        config: given by flags, or None for the folder's own.
        kind: of run.
        allow_change: accept a config that differs from the folder's, or the folder's if edited.
        lock: the folder's; refuses a folder that another command is writing to.

    Raises:
        UserError: a config or a folder that cannot be used.
    """
    if lock is not None:
        lock.refuse_if_taken()
    if config is not None:
        resolved = complete(config)
    else:
        resolved = _config_to_resume(folder, kind, allow_change=allow_change)
    validate(resolved)
    check_same_config(folder, resolved, allow_change=allow_change)
    find_config(folder, kind)  # refuses the folder of another kind of run
    return resolved


def _config_to_resume(folder: RunFolder, kind: str, *, allow_change: bool) -> dict[str, Any]:
    saved = read_config(folder, kind)
    if not allow_change:
        check_unedited(folder)
    return saved.config


def check_unedited(folder: RunFolder) -> None:
    """Refuse a folder whose `config.json` is not as it was written.

    Raises:
        UserError: it was edited.
    """
    if read_sealed(folder.config) is None:
        raise UserError(
            f"{folder.config} was edited; put it back as it was, or type --allow_config_change to "
            "recompute what depends on it"
        )


def check_same_config(folder: RunFolder, config: Mapping[str, Any], *, allow_change: bool) -> None:
    """Refuse a folder that is not a run's, or that was made with another config.

    Leaves that change no result, such as memory and batch sizes, may differ.

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
    changed = differences(read_config(folder, kind_of(config)).config, config, is_resource)
    if changed:
        raise UserError(
            f"{folder.root} was made with another config ({'; '.join(changed)}); use another "
            "--workdir, or --allow_config_change to recompute what depends on it"
        )


def _is_empty(root: Path) -> bool:
    return all(path.name == LOCK_FILE for path in root.iterdir())


def check_provenance(folder: RunFolder, provenance: Provenance) -> None:
    """Refuse a folder that was made with another generator.

    Args:
        folder: the folder; it need not exist.
        provenance: of the run now, its trace settled against the folder's.

    Raises:
        UserError: saying what differs.
    """
    known = find_config(folder)
    if known is None:
        return
    saved, what = known.provenance, ""
    if saved.weights_sha256 != provenance.weights_sha256:
        what = (
            f"other weights (SHA-256 {saved.weights_sha256[:12] or 'none'}, now "
            f"{provenance.weights_sha256[:12] or 'none'})"
        )
    elif provenance.trace and saved.trace == []:
        what = "an earlier version, which did not keep what your module makes of its weights"
    elif saved.trace is not None and saved.trace != provenance.trace:
        what = "a generator that made other features or images of the same latents"
    elif saved.identity and saved.identity != provenance.identity:
        what = "the same weights in another architecture (generator.json)"
    if what:
        raise UserError(
            f"{folder.root} was made with {what}; restore the original weights, use another "
            "--workdir, or run it with --allow_config_change to recompute everything"
        )
