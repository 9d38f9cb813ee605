"""Edit directions in a frozen generator: GANSpace and SeFa, what the method is compared with."""

from cgjax.directions.edits import Directions, edit

__all__ = ["Directions", "edit"]
