"""What a user gives the functions of a run, checked where it enters."""

from __future__ import annotations

import os
from typing import Any

from cgjax.errors import UserError
from cgjax.numerics.given import shown
from cgjax.regions.region import Region
from cgjax.run.folder import RunFolder, SavedConfig, read_config


def check_region(region: Any) -> None:
    """Raise `UserError` for what is no region, an id for instance."""
    if not isinstance(region, Region):
        raise UserError(f"region={shown(region)}: expected a region, such as run.region(0)")


def read_folder(root: Any) -> tuple[RunFolder, SavedConfig]:
    """Return a run's folder and its config.

    Raises:
        UserError: what is no folder's name, or not the name of a run's folder.
    """
    if not isinstance(root, str | os.PathLike):
        raise UserError(f"load_run({shown(root)}): expected a run's folder, as given to --workdir")
    folder = RunFolder(os.fspath(root))
    try:
        return folder, read_config(folder)
    except OSError as error:  # a name that no folder can have
        raise UserError(
            f"{shown(str(root))} cannot be opened ({error.strerror}): expected a run's folder, as "
            "given to --workdir"
        ) from error
