"""Which of a file's networks are generators, and in which layout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from converters.conversion import Conversion, Layout
from converters.layouts import FAMILIES, layouts_of
from converters.networks import (
    Network,
    choose,
    find_networks,
    is_averaged,
    split_network,
    with_norms_folded,
)
from converters.reading import Checkpoint

PREFIX_PARTS = 4  # how many parts a prefix of tensor names may have


class Candidate(NamedTuple):
    """A generator in a file.

    Attributes:
        family: one of `FAMILIES`.
        layout: its layout.
        network: its tensors.
    """

    family: str
    layout: Layout
    network: Network

    def convert(self, given: Mapping[str, str]) -> Conversion:
        """Convert it, with `--set` values.

        Raises:
            UserError: its tensors or the values are wrong.
        """
        converted = self.layout.convert(self.network, given)
        return converted._replace(assumed=(*converted.assumed, *self.network.assumed))


def find_generators(checkpoint: Checkpoint) -> list[Candidate]:
    """Return the generators in a file, ordered by family."""
    candidates = [
        c for network in find_networks(checkpoint) for c in _within(network, PREFIX_PARTS)
    ]
    # A layout that goes by shapes alone may mistake a discriminator for a generator.
    candidates = [c for c in candidates if not c.layout.is_loose] or candidates
    return [c for family in FAMILIES for c in candidates if c.family == family]


def choose_generator(candidates: Sequence[Candidate], asked: str = "") -> Candidate:
    """Choose one of a family's generators: see `networks.choose`."""
    network = choose([candidate.network for candidate in candidates], asked)
    return next(candidate for candidate in candidates if candidate.network is network)


def _within(network: Network, depth: int) -> Iterable[Candidate]:
    """Yield the generators that a state dict is, or that its parts are when split by name."""
    own = _fitting(network)
    yield from own
    for part in split_network(network) if depth else ():
        # Beside a generator's own tensors, look only for an averaged copy of it.
        if not own or (is_averaged(part.prefix) and not is_averaged(network.prefix)):
            yield from _within(part, depth - 1)


def _fitting(network: Network) -> list[Candidate]:
    layouts = [(family, layout) for family in FAMILIES for layout in layouts_of(family)]
    # Weights that are stored in parts are folded, except those that the layout reads in parts.
    folded = {
        key: with_norms_folded(network, transposed=key[0], kept=key[1])
        for key in {(layout.transposed, layout.parts) for _, layout in layouts}
    }
    for is_loose in (False, True):
        fitting = [
            Candidate(family, layout, folded[layout.transposed, layout.parts])
            for family, layout in layouts
            if layout.is_loose == is_loose
            and layout.fits(folded[layout.transposed, layout.parts].state)
        ]
        if fitting:
            return fitting
    return []
