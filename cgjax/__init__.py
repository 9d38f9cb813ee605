"""Cluster-guided image synthesis with pretrained, unlabelled generators."""

from cgjax.generators.registry import load_generator
from cgjax.version import __version__

__all__ = ["__version__", "load_generator"]
