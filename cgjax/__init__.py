"""Cluster-guided image synthesis with pretrained, unlabelled generators."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cgjax.version import __version__

if TYPE_CHECKING:
    from cgjax.clustering import kmeans
    from cgjax.clustering.selection import choose_num_clusters
    from cgjax.generators.registry import load_generator
    from cgjax.generators.torch_module import from_torch
    from cgjax.run.opening import load_run

__all__ = [
    "__version__",
    "choose_num_clusters",
    "from_torch",
    "kmeans",
    "load_generator",
    "load_run",
]

# The module that defines each public name. It is imported on first access: JAX takes a second, and
# `--help` and a mistyped flag need not wait for it.
_HOMES = {
    "choose_num_clusters": "cgjax.clustering.selection",
    "from_torch": "cgjax.generators.torch_module",
    "kmeans": "cgjax.clustering",
    "load_generator": "cgjax.generators.registry",
    "load_run": "cgjax.run.opening",
}


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'cgjax' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, whether imported yet or not."""
    return sorted({*globals(), *__all__})
