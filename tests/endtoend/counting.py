"""How large a network is."""

import jax


def count_parameters(arrays):
    """The number of parameters that the optimiser updates."""
    return sum(leaf.size for leaf in jax.tree.leaves(arrays.params))
