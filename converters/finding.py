"""Which of a file's networks are generators, and of which layout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from converters.conversion import Container, Conversion
from converters.layouts import FAMILIES, containers_of
from converters.networks import (
    Network,
    choose,
    find_networks,
    is_averaged,
    split_network,
    with_norms_folded,
)
from converters.reading import Checkpoint

DEPTH = 4  # parts of names that may stand before a tensor's own


class Found(NamedTuple):
    """A generator in a file.

    Attributes:
        family: a name of `FAMILIES`.
        container: its layout.
        network: its tensors.
    """

    family: str
    container: Container
    network: Network

    def convert(self, given: Mapping[str, str]) -> Conversion:
        """Convert it, with `--set` values.

        Raises:
            UserError: whatever is wrong with its tensors or the values.
        """
        converted = self.container.convert(self.network, given)
        return converted._replace(assumed=(*converted.assumed, *self.network.assumed))


def find_generators(checkpoint: Checkpoint) -> list[Found]:
    """Return the generators in a file, by family; several of one family are candidates."""
    found = [each for network in find_networks(checkpoint) for each in _within(network, DEPTH)]
    # What goes by shapes alone may take a discriminator for a generator.
    known = [each for each in found if not each.container.is_loose] or found
    return [each for family in FAMILIES for each in known if each.family == family]


def choose_generator(found: Sequence[Found], asked: str = "") -> Found:
    """Pick one of a family's generators: see `networks.choose`."""
    network = choose([each.network for each in found], asked)
    return next(each for each in found if each.network is network)


def _within(network: Network, depth: int) -> Iterable[Found]:
    """Yield a state dict's layouts, or those of what its names group together."""
    own = _fitting(network)
    yield from own
    for part in split_network(network) if depth else ():
        # Beside a generator's own tensors only another copy of it is looked for.
        if not own or (is_averaged(part.prefix) and not is_averaged(network.prefix)):
            yield from _within(part, depth - 1)


def _fitting(network: Network) -> list[Found]:
    every = [(f, c) for f in FAMILIES for c in containers_of(f)]
    strict = [(f, c) for f, c in every if not c.is_loose]
    # Weights in parts are put together, each where the layout does not know it as it is.
    seen = {
        key: with_norms_folded(network, transposed=key[0], kept=key[1])
        for key in {(c.transposed, c.parts) for _, c in every}
    }
    for layouts in (strict, [entry for entry in every if entry not in strict]):
        found = [Found(f, c, seen[c.transposed, c.parts]) for f, c in layouts]
        if fitting := [each for each in found if each.container.fits(each.network.state)]:
            return fitting
    return []
