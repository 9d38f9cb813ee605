"""Finding the layers of a DCGAN by their shapes: kernels that form a chain, and batch norms.

Indices and names differ from one training script to the next (dropout between the layers, blocks,
`deconv1` or `main.3`), and files with sorted names lose the order. The kernels' input and output
channels determine the chain.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cgjax.errors import UserError

CHANNELS = 4  # most channels of an image
Modules = Mapping[str, Mapping[str, Any]]


class Link(NamedTuple):
    """One convolution of a chain.

    Attributes:
        name: the module's.
        size: height and width of the kernel.
        width_in: input channels.
        width_out: output channels.
        is_transposed: whether it is a transposed convolution, with a weight (in, out, h, w).
        has_bias: whether it has a bias.
        norm: the batch norm after it, "" for none.
    """

    name: str
    size: tuple[int, int]
    width_in: int
    width_out: int
    is_transposed: bool
    has_bias: bool
    norm: str = ""


def modules_of(state: Mapping[Any, Any]) -> dict[str, dict[str, Any]]:
    """Group tensors by module, in the file's order."""
    modules: dict[str, dict[str, Any]] = {}
    for name, value in state.items():
        if isinstance(name, str):
            module, _, leaf = name.rpartition(".")
            modules.setdefault(module, {})[leaf] = value
    return modules


def is_chain(state: Mapping[Any, Any]) -> bool:
    """Whether most 4-D weights of a state dict form a chain of transposed convolutions.

    One layer may be wrong or missing: that is reported when the file is converted. A flat state
    dict that holds a whole chain under a prefix, beside other networks, is not a chain.
    """
    groups: dict[str, dict[Any, Any]] = {}
    for name, value in state.items():
        head, dot, rest = name.partition(".") if isinstance(name, str) else ("", "", name)
        groups.setdefault(head, {})[rest if dot else name] = value
    if len(groups) == 1 and state.keys() != (inner := next(iter(groups.values()))).keys():
        return is_chain(inner)
    modules = modules_of(state)
    weights = [module.get("weight") for module in modules.values()]
    is_dense = any(isinstance(weight, np.ndarray) and weight.ndim == 2 for weight in weights)
    # Only discriminators and other kinds of generators have dense layers.
    if is_dense or max(_score(modules, order) for order in _orders(modules)) == 0:
        return False
    if _is_exactly_one(state):
        return True
    chains = sum(map(_is_exactly_one, groups.values()))
    # A single tensor beside a chain is a stray, which is reported when the file is converted; a
    # kernel, however, belongs to another network.
    strays = [next(iter(group.values())) for group in groups.values() if len(group) == 1]
    is_with_strays = bool(strays) and not any(map(_is_kernel, strays))
    return not chains or (chains == 1 and is_with_strays)


def _is_exactly_one(state: Mapping[Any, Any]) -> bool:
    """Whether a state dict is a chain that ends in an image, with nothing else in it."""
    try:
        links = find_chain(state, "")
    except UserError:
        return False
    used = {link.name for link in links} | {link.norm for link in links}
    return links[-1].width_out <= CHANNELS and modules_of(state).keys() <= used


def find_chain(
    state: Mapping[Any, Any], place: str, convolutions: Sequence[str] = ()
) -> list[Link]:
    """Return the convolutions of a state dict from the latent to the image, with their norms.

    Args:
        state: tensors by name.
        place: the file, for messages.
        convolutions: modules that are ordinary convolutions although their shapes do not show it.

    Returns:
        The chain, at least two links.

    Raises:
        UserError: a weight is not a tensor, a layer does not fit the one before it, or norms belong
            to no layer.
    """
    modules = modules_of(state)
    order = max(_orders(modules), key=lambda names: _score(modules, names))
    _check_weights(modules, place)
    for name in convolutions:
        if name not in order or not _is_kernel(modules[name].get("weight")):
            raise UserError(f"{place}: --set convolutions={name}: there is no such layer")
    links: list[Link] = []
    for name in order:
        weight = modules[name].get("weight")
        if _is_kernel(weight):
            width = links[-1].width_out if links else None
            links.append(_link(name, modules[name], width, name in convolutions, place, links))
    if len(links) < 2:
        raise UserError(f"{place}: expected transposed convolutions, found {len(links)}")
    norms = [name for name in order if _is_norm(modules[name])]
    return _with_norms(links, norms, order, modules, place)


def _is_kernel(weight: Any) -> bool:
    return isinstance(weight, np.ndarray) and weight.ndim == 4


def _is_norm(module: Mapping[str, Any]) -> bool:
    if _is_kernel(module.get("weight")):
        return False
    vectors = [v for k, v in module.items() if k in ("weight", "bias")]
    has_statistics = bool({"running_mean", "running_var"} & module.keys())
    return has_statistics or (
        len(vectors) == 2 and all(isinstance(v, np.ndarray) and v.ndim == 1 for v in vectors)
    )


def _orders(modules: Modules) -> list[list[str]]:
    """Return possible orders of the modules: the file's, and by the numbers in the names.

    Some file formats sort the names, `main.10` before `main.3`: then the numbers come first.
    """
    names = list(modules)
    natural = sorted(names, key=_natural)
    return [natural, names] if names == sorted(names) else [names, natural]


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(p), "") if p.isdecimal() else (-1, p) for p in re.split(r"(\d+)", name)]


def _score(modules: Modules, order: Sequence[str]) -> int:
    """Return how well the kernels form a chain; 0 if this is not a DCGAN."""
    weights = [modules[name].get("weight", np.zeros(1)) for name in order]
    # A weight that is not an array may stand for any kernel.
    shapes = [
        w.shape if _is_kernel(w) else None
        for w in weights
        if _is_kernel(w) or not isinstance(w, np.ndarray)
    ]
    known = [shape for shape in shapes if shape is not None]
    if len(shapes) < 2 or not known:
        return 0
    width = shapes[0] and shapes[0][1]
    good, broken = 0, 0
    for shape in shapes[1:]:
        if shape is None:
            width = None
            continue
        a, b, h, _ = shape
        if width in (None, a):
            good += 1
            width = b
        elif b == width and h % 2:
            width = a
        else:
            broken += 1
            width = b
    as_plain = sum(s[0] == t[1] for s, t in itertools.pairwise(known))
    narrows = width is not None and width < known[0][1]
    if broken > 2 or good < max(broken, 1) or good + narrows <= as_plain:
        return 0
    return max(2 * good - broken, 0)


def _check_weights(modules: Modules, place: str) -> None:
    """Check that every weight is a tensor, of a layer that a DCGAN can have."""
    for name, module in modules.items():
        weight = module.get("weight", np.zeros(1))
        full = f"{name}.weight" if name else "weight"
        if not isinstance(weight, np.ndarray):
            reason = getattr(weight, "reason", f"is not a tensor ({type(weight).__name__})")
            raise UserError(f"{place}: {full} {reason}")
        if weight.ndim not in (1, 4) or 0 in weight.shape:
            known = "a dense layer" if weight.ndim == 2 else "no convolution of images"
            raise UserError(
                f"{place}: {full} has shape {weight.shape}, {known}; expected transposed "
                "convolutions from the latent on, (in, out, height, width), and batch norms"
            )


def _link(
    name: str,
    module: Mapping[str, Any],
    width: int | None,
    is_convolution: bool,
    place: str,
    before: Sequence[Link],
) -> Link:
    a, b, h, w = module["weight"].shape
    if h != w:
        raise UserError(
            f"{place}: {name}.weight has shape {(a, b, h, w)}: rectangular kernels are "
            "not supported"
        )
    if width is None or (a == width and not is_convolution):
        return Link(name, (h, w), a, b, True, "bias" in module)
    if b == width and h % 2:  # an ordinary convolution keeps the size: its kernel is odd
        return Link(name, (h, w), b, a, False, "bias" in module)
    raise UserError(
        f"{place}: {name}.weight has shape {(a, b, h, w)}, but {before[-1].name} outputs "
        f"{width} channels; is a layer missing between them, or one transposed?"
    )


def _with_norms(
    links: list[Link],
    norms: Sequence[str],
    order: Sequence[str],
    modules: Modules,
    place: str,
) -> list[Link]:
    """Assign every norm to the layer before it, or, if that fails, one by one in order."""
    owner: dict[int, str] = {}
    position = {name: i for i, name in enumerate(order)}
    for norm in norms:
        earlier = [i for i, link in enumerate(links) if position[link.name] < position[norm]]
        if not earlier or earlier[-1] in owner:
            break
        owner[earlier[-1]] = norm
    fits = len(owner) == len(norms) and all(
        _width(modules[norm]) in (links[i].width_out, -1) for i, norm in owner.items()
    )
    if not fits and len(norms) in (len(links) - 1, len(links)):
        in_turn = dict(enumerate(norms))
        if all(_width(modules[n]) in (links[i].width_out, -1) for i, n in in_turn.items()):
            owner, fits = in_turn, True
    if not fits and len(owner) != len(norms):
        raise UserError(
            f"{place}: cannot tell which layers the batch norms belong to: layers "
            f"{', '.join(link.name for link in links)}, norms {', '.join(norms)}"
        )
    return [link._replace(norm=owner.get(i, "")) for i, link in enumerate(links)]


def _width(norm: Mapping[str, Any]) -> int:
    """Return a norm's channels; -1 if they are unknown."""
    sizes = {v.size for k, v in norm.items() if isinstance(v, np.ndarray) and v.ndim == 1}
    return sizes.pop() if len(sizes) == 1 else -1
