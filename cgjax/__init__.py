"""Cluster-guided image synthesis with pretrained, unlabelled generators."""

from cgjax.clustering import kmeans
from cgjax.generators.registry import load_generator
from cgjax.run.run import load_run
from cgjax.version import __version__

__all__ = ["__version__", "kmeans", "load_generator", "load_run"]
