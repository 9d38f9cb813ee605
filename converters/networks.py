"""Which of a file's networks to convert: the averaged generator, if there is one.

Training scripts keep a running average of the generator's weights beside the trained weights; the
average gives better images and is what authors publish. Its name varies (`netG_ema`, `ema`, `avgG`,
`generator_smooth`), so there is no list of names here: every state dict in the file that has the
layout's tensors is a candidate, wherever it is and whatever its name. Flat files that prefix the
tensors' names (`generator.main.0.weight`) are split at the dots. Candidates whose names say that
they are averages win over the others. If the names do not decide and the values differ, the user
has to choose (`--key=NAME`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cgjax.errors import UserError
from converters.norms import fold_norms
from converters.plain import Unreadable
from converters.reading import Checkpoint
from converters.tensors import Tensors

WHOLE_FILE = "."
NESTING = 6  # levels below the top that are searched
LONGEST = 64  # entries of a list that are searched

_AVERAGED = re.compile(
    # g_ema, emaG, netGema, EMA, avgG, averaged, smooth, g_running, shadow, polyak, swa, Gs
    r"(?<![A-Za-z])ema(?![a-z])|Ema(?![a-z])|EMA|[gG]ema(?![a-z])|(?i:avg|average|smooth|running)"
    r"|(?i:shadow|polyak)|(?<![A-Za-z])(?i:swa|test)(?![A-Za-z])|^(net)?G_?s$"
)
# The opposite: no_ema, without_avg, nonEMA.
_NOT_AVERAGED = re.compile(
    r"(\b|_)(no|non|not|without|before|pre)[_-]?(ema|avg|average|swa)", re.IGNORECASE
)
# An optimizer's state may use the names of the weights: Adam's moments.
_OPTIMIZER = re.compile(
    r"optimi[sz]er|optim(?![a-z])|(?<![a-z])adam|exp_avg|momentum_buffer|scheduler", re.IGNORECASE
)


class Network(NamedTuple):
    """A state dict of a checkpoint.

    Attributes:
        checkpoint: the file that it is in.
        name: its dotted path in the file; `.` for the whole file.
        state: its tensors by name, without the prefixes of wrappers.
        is_averaged: whether it is a running average of another one.
        prefix: the common prefix of the tensors' names that was dropped.
        folded: the weights that were assembled from parts (`norms`), in words.
        assumed: what those parts do not determine.
    """

    checkpoint: Checkpoint
    name: str
    state: Mapping[Any, Any]
    is_averaged: bool
    prefix: str = ""
    folded: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The file."""
        return self.checkpoint.path

    @property
    def place(self) -> str:
        """The file and the path in it, for messages."""
        return str(self.path) if self.name == WHOLE_FILE else f"{self.path}, {self.name}"

    def tensors(self) -> Tensors:
        """Return the tensors, to be taken one by one."""
        return Tensors(self.state, self.place)

    def beside(self, name: str) -> Any:
        """Return an entry of the mapping that the network lies in; None if there is none."""
        around = self.checkpoint.content
        for part in self.name.split(".")[:-1]:
            around = around.get(part) if isinstance(around, Mapping) else None
        return around.get(name) if isinstance(around, Mapping) else None


def has_tensors(state: Mapping[Any, Any], *names: str) -> bool:
    """Whether a state dict has tensors with all these names."""
    return all(isinstance(state.get(name), np.ndarray | Unreadable) for name in names)


def find_networks(checkpoint: Checkpoint) -> list[Network]:
    """Return every mapping of tensors in the file, outermost first."""
    return [
        Network(checkpoint, ".".join(path) or WHOLE_FILE, *_canonical(value, path))
        for path, value in _walk(checkpoint.content)
        if isinstance(value, Mapping) and any(map(_is_tensor, value.values()))
    ]


def split_network(network: Network) -> list[Network]:
    """Split a flat state dict at the first dot of its names.

    Args:
        network: a network whose tensors' names have several parts.

    Returns:
        For every first part that several tensors share, those tensors without it; optimizers are
        skipped.
    """
    parts: dict[str, dict[Any, Any]] = {}
    for name, value in network.state.items():
        head, dot, rest = name.partition(".") if isinstance(name, str) else ("", "", "")
        if dot and _is_tensor(value):
            parts.setdefault(head, {})[rest] = value
    outer = "" if network.name == WHOLE_FILE else f"{network.name}."
    return [
        Network(
            network.checkpoint,
            outer + head,
            state,
            network.is_averaged or is_averaged(head),
            f"{network.prefix}{head}.",
        )
        for head, state in parts.items()
        if len(state) > 1 and not _OPTIMIZER.search(head)
    ]


def with_norms_folded(network: Network, *, transposed: bool, kept: str) -> Network:
    """Return a network whose weights are no longer stored in parts: see `fold_norms`."""
    state, folded, assumed = fold_norms(network.state, transposed=transposed, kept=kept)
    return network._replace(state=state, folded=folded, assumed=assumed) if folded else network


def choose(candidates: Sequence[Network], asked: str = "") -> Network:
    """Pick the network to convert.

    Args:
        candidates: the networks of one file that have a layout's tensors, at least one.
        asked: the user's choice, a whole name or its last part; "" for the averaged one.

    Returns:
        The network.

    Raises:
        UserError: there is no network of that name; several differ and their names do not decide;
            or there is an averaged copy that cannot be read.
    """
    path = candidates[0].path
    names = ", ".join(n.name for n in candidates)
    if asked:
        chosen = [n for n in candidates if n.name == asked] or [
            n for n in candidates if n.name.endswith(f".{asked}")
        ]
        if len(chosen) == 1:
            return chosen[0]
        raise UserError(
            f"--key={asked} or --set network={asked}: expected one of the generators in "
            f"{path.name}: {names}"
        )
    averaged = [n for n in candidates if n.is_averaged]
    averaged = [n for n in averaged if not _is_beside_average(n, averaged)]
    pool = averaged or list(candidates)
    differing = [n for i, n in enumerate(pool) if not any(_same(n, o) for o in pool[:i])]
    if len(differing) > 1:
        kind = "averaged generators" if averaged else "generators"
        raise UserError(
            f"{path} holds {len(differing)} {kind} that differ "
            f"({', '.join(n.name for n in differing)}); choose one, for example with "
            f"--key={differing[0].name} (the same as --set network={differing[0].name})"
        )
    if not averaged and (hidden := _unreadable_average(pool[0])):
        raise UserError(
            f"{path}: {hidden!r} looks like the averaged copy of {pool[0].name!r}, in a form that "
            "this version cannot read: save it as a state dict with the generator's own names, or "
            f"take the raw one with --key={pool[0].name} (the same as --set "
            f"network={pool[0].name})"
        )
    return pool[0]


def is_averaged(name: str) -> bool:
    """Whether a network's name says that it is a running average.

    Example:
        >>> is_averaged("netG_ema"), is_averaged("netG"), is_averaged("netG_no_ema")
        (True, False, False)
    """
    return bool(_AVERAGED.search(name)) and not _NOT_AVERAGED.search(name)


def _is_beside_average(network: Network, others: Sequence[Network]) -> bool:
    """Whether a network is named averaged only through its parent, unlike one of its siblings.

    ema_pytorch keeps `ema.online_model`, the trained weights, beside `ema.ema_model`.
    """
    place, _, last = network.name.rpartition(".")
    siblings = [o.name.rpartition(".")[2] for o in others if o.name.rpartition(".")[0] == place]
    return not is_averaged(last) and any(map(is_averaged, siblings))


def _is_tensor(value: Any) -> bool:
    return isinstance(value, np.ndarray | Unreadable)


def _walk(content: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the file's mappings and lists with their paths, level by level, without optimizers."""
    level: list[tuple[tuple[str, ...], Any]] = [((), content)]
    if not isinstance(content, Mapping | list):
        return
    opened: set[int] = set()
    for _ in range(NESTING + 1):
        yield from level
        below = []
        for path, value in level:
            if id(value) in opened:
                continue
            opened.add(id(value))
            entries = value.items() if isinstance(value, Mapping) else enumerate(value[:LONGEST])
            below += [((*path, str(name)), item) for name, item in entries]
        level = [
            (path, value)
            for path, value in below
            if isinstance(value, Mapping | list) and not _OPTIMIZER.search(path[-1])
        ]


def _canonical(state: Mapping[Any, Any], path: Sequence[str]) -> tuple[dict[Any, Any], bool]:
    """Drop what wrappers add to names; return the state and whether it is averaged.

    `module.` (DataParallel, and the GAN zoo before the last part of a name) and `_orig_mod.`
    (torch.compile) may occur anywhere; torch's AveragedModel keeps a counter `n_averaged`.
    """
    is_averaged_model = "n_averaged" in state
    canonical: dict[Any, Any] = {}
    for name, value in state.items():
        if is_averaged_model and name == "n_averaged":
            continue
        if isinstance(name, str):
            name = re.sub(r"(?<![^.])(module|_orig_mod)\.", "", name)
        # If two names become one, the second gets another one and is reported as left over.
        canonical[name if name not in canonical else f"{name} (with and without 'module.')"] = value
    return canonical, is_averaged_model or any(map(is_averaged, path))


def _same(a: Network, b: Network) -> bool:
    return a.state.keys() == b.state.keys() and all(
        isinstance(value, np.ndarray)
        and isinstance(b.state[name], np.ndarray)
        and np.array_equal(value, b.state[name])
        for name, value in a.state.items()
    )


def _unreadable_average(network: Network) -> str:
    """Return the path of a part named averaged that has tensors of the network's shapes, or ""."""
    shapes = _shapes(network.state)
    for path, value in _walk(network.checkpoint.content):
        if path and any(map(is_averaged, path)) and shapes and shapes <= _shapes(value):
            return ".".join(path)
    return ""


def _shapes(value: Any, depth: int = NESTING) -> Counter[tuple[int, ...]]:
    """Count the shapes of all arrays with two axes or more inside a value."""
    shapes: Counter[tuple[int, ...]] = Counter()
    for item in value.values() if isinstance(value, Mapping) else value:
        if isinstance(item, np.ndarray) and item.ndim > 1:
            shapes[item.shape] += 1
        elif isinstance(item, Mapping | list) and depth:
            shapes += _shapes(item, depth - 1)
    return shapes
