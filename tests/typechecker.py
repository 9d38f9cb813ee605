"""What checks annotations at run time: beartype, an int being a float as in all type checkers."""

from collections.abc import Sequence

import jax
import numpy as np
from beartype import BeartypeConf, FrozenDict, beartype
from numpy.typing import ArrayLike

# NumPy's own definition is of protocols, whose every check walks through all attributes of a class:
# most of the time of a test that resamples.
_ARRAY_LIKE = np.ndarray | jax.Array | np.generic | bool | int | float | complex | Sequence

check = beartype(
    conf=BeartypeConf(
        is_pep484_tower=True, hint_overrides=FrozenDict({ArrayLike: _ARRAY_LIKE})
    )
)
