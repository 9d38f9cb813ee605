"""The groups that a generator's layer forms: k-means and what is built on it."""

from cgjax.clustering.assignment import assign
from cgjax.clustering.kmeans.api import kmeans
from cgjax.clustering.kmeans.results import KMeansResult

__all__ = ["KMeansResult", "assign", "kmeans"]
