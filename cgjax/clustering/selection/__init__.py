"""How many clusters there are, how sure that is, and whether there are any."""

from cgjax.clustering.selection.api import select_number
from cgjax.clustering.selection.options import SelectionOptions, check_rows
from cgjax.clustering.selection.results import Selection

__all__ = ["Selection", "SelectionOptions", "check_rows", "select_number"]
