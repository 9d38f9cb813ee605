"""Edit directions in a frozen generator: GANSpace and SeFa, baselines of the comparison."""

from cgjax.directions.edits import Directions, edit

__all__ = ["Directions", "edit"]
