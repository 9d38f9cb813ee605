"""How many clusters there are, how sure that is, and whether there are any."""

from cgjax.clustering.selection.api import choose_num_clusters
from cgjax.clustering.selection.results import Choice
from cgjax.clustering.selection.samples import check_rows, least_rows, most_clusters

__all__ = ["Choice", "check_rows", "choose_num_clusters", "least_rows", "most_clusters"]
