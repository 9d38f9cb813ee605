"""What a converter returns, and what describes a layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from converters.networks import Network


class Companion(NamedTuple):
    """A file that was read along with the checkpoint.

    Attributes:
        path: the file.
        sha256: its hash.
    """

    path: Path
    sha256: str

    @property
    def source(self) -> dict[str, str]:
        """The file's entry in a manifest."""
        return {"name": self.path.name, "sha256": self.sha256}


class Conversion(NamedTuple):
    """A checkpoint in our terms.

    Attributes:
        family: a key of `cgjax.generators.families.FAMILIES`.
        architecture: the network's keyword arguments.
        arrays: every array of the network by dotted path, float32.
        assumed: what neither the tensors nor the user specified, each with the flag that changes
            it.
        companions: the files that were read along with the checkpoint.
    """

    family: str
    architecture: dict[str, Any]
    arrays: dict[str, np.ndarray]
    assumed: tuple[str, ...] = ()
    companions: tuple[Companion, ...] = ()


class Layout(NamedTuple):
    """One published layout of a family's files.

    Attributes:
        name: its name on the command line and in reports.
        description: one line for `--list`.
        fits: whether a state dict, stripped of wrappers' prefixes, is a generator in this layout.
        convert: (network, --set values) -> Conversion.
        is_loose: whether `fits` goes by shapes rather than by names: such a layout is tried only
            where no layout of any family fits by name.
        transposed: whether 4-D weights are those of transposed convolutions, (in, out, h, w).
        parts: a pattern of tensor names that look like the parts of a weight (`norms`) but are left
            alone: this layout's converter reads them itself.
    """

    name: str
    description: str
    fits: Callable[[Mapping[str, Any]], bool]
    convert: Callable[[Network, Mapping[str, str]], Conversion]
    is_loose: bool = False
    transposed: bool = False
    parts: str = ""
