"""Which flags a mode reads, and the paths that flags give."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from absl import flags

from cgjax.errors import UserError

READ_BY = {
    **dict.fromkeys(("balanced", "fit_query", "num", "out"), ("sample",)),
    **dict.fromkeys(("sampler", "verify", "margin", "seed"), ("sample",)),
    "cluster": ("sample", "name"),
    **dict.fromkeys(("name", "from"), ("name",)),
    **dict.fromkeys(("host", "port"), ("serve",)),
    "images": ("assign",),
    "max_clusters": ("choose",),
}
"""The modes that read a flag; those that are not here are read by all."""

WRITTEN = {
    *("", "assign", "checkpoints", "clusterings", "figures", "generator", "names", "page_images"),
    *("report", "samples", "stages"),
}
"""The folders of a run that stages write into; "" for the run's own."""

NOT_EMPTY = ("workdir", "cluster", "from", "host", "images", "out", "sampler", "margin")


def check_read(mode: str) -> None:
    """Check that a mode reads every flag that was given, and that none has lost its value.

    Raises:
        UserError: the first that it does not.
    """
    for name, modes in READ_BY.items():
        flag = flags.FLAGS[name]
        if flag.present and mode not in modes:
            wanted = " or ".join(f"--mode={each}" for each in modes)
            meant = f" (did you mean --config.seed={flag.value}?)" if name == "seed" else ""
            raise UserError(
                f"--{name} is for {wanted}, and this is --mode={mode}: leave it out{meant}"
            )
    for name in NOT_EMPTY:
        if flags.FLAGS[name].value == "":
            raise UserError(f"--{name}= is empty: give a value, or leave it out")


def path_of(value: str | None) -> Path:
    """Return a path that a flag gives, a leading ~ as the home folder."""
    return Path(value or "").expanduser()


def check_outside(path: Path, root: Path, places: Collection[str], option: str) -> None:
    """Check that a folder of the user's is not one that the run writes to.

    Args:
        path: the folder.
        root: the run's.
        places: names of folders in it; "" for itself.
        option: the flag that named it.

    Raises:
        UserError: if it is one of them, or lies in one.
    """
    path, root = path.resolve(), root.resolve()
    inside = path.relative_to(root).parts if path.is_relative_to(root) else None
    if inside is not None and (*inside, "")[0] in places:
        raise UserError(f"{option}={path} is where the run {root} writes; name another folder")
