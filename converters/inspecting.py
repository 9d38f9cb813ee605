"""What a checkpoint file holds, level by level, and the command that converts it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from cgjax.errors import UserError
from converters.finding import Found, choose_generator, find_generators
from converters.layouts import FAMILIES
from converters.networks import WHOLE_FILE, Network, find_networks
from converters.reading import Checkpoint, read_checkpoint
from converters.settings import NETWORK


def inspect(src: str | Path, settings: Mapping[str, str] | None = None, *, member: str = "") -> str:
    """Say what a checkpoint file holds; nothing is written.

    Args:
        src: the checkpoint.
        settings: as for `convert`.
        member: of an archive, the file inside.

    Returns:
        Several lines: containers, what lies in them, family, layout, network, architecture, layers,
        size, hash, published name, what is assumed, and the command to run.

    Raises:
        UserError: if it holds no generator we know, or is damaged.
    """
    from cgjax.generators.families import abstract_network
    from cgjax.generators.published import PUBLISHED
    from cgjax.generators.weights import named_arrays

    checkpoint, settings = read_checkpoint(src, member), settings or {}
    every = find_generators(checkpoint)
    if not every:
        raise UserError(
            f"{src} holds no generator of a family this version knows ({', '.join(FAMILIES)}); "
            f"it holds {holdings(checkpoint)}; "
            "python -m converters --list prints the accepted files"
        )
    family = every[0].family
    candidates = [each for each in every if each.family == family]
    found = choose_generator(candidates, settings.get(NETWORK, ""))
    conversion = found.convert(settings)
    abstract = abstract_network(conversion.family, conversion.architecture)
    numbers = sum(math.prod(a.shape) for a in named_arrays(abstract).values())
    lines = [
        ("file", f"{checkpoint.path} (SHA-256 {checkpoint.sha256})"),
        ("container", " > ".join(checkpoint.containers)),
        *([("member", checkpoint.member)] if checkpoint.member else []),
        *(("holds", text) for text in _levels(checkpoint, every)),
        ("family", family),
        ("layout", found.container.description),
        ("network", describe(found.network, [each.network for each in candidates])),
        *([("prefix", f"{found.network.prefix} dropped")] if found.network.prefix else []),
        *(("folded", text) for text in found.network.folded),
        ("images", f"{abstract.image_size}x{abstract.image_size}x{abstract.image_channels}"),
        ("latents", str(abstract.latent_dim)),
        ("layers", ", ".join(abstract.layers)),
        ("numbers", f"{numbers:,}"),
        *((k, str(v)) for k, v in conversion.architecture.items()),
        *(("assumed", text) for text in conversion.assumed),
    ]
    lines += [
        ("published", name)
        for name, entry in PUBLISHED.items()
        if entry.sha256_prefix and checkpoint.sha256.startswith(entry.sha256_prefix)
    ][:1]
    lines.append(("command", command(checkpoint, found, settings)))
    return "\n".join(f"{key}: {value}" for key, value in lines)


def command(checkpoint: Checkpoint, found: Found, settings: Mapping[str, str]) -> str:
    """Return the command that converts a file as it was inspected."""
    name = checkpoint.path.stem
    parts = ["python", "-m", "converters", found.family, f"--src={checkpoint.path}"]
    if checkpoint.member:
        parts.append(f"--member={checkpoint.member}")
    parts += [f"--set={key}={value}" for key, value in settings.items()]
    return shlex.join([*parts, f"--dst=weights/{name}"])


def describe(network: Network, candidates: Iterable[Network]) -> str:
    """Name a network, whether it is an average, and what there was besides."""
    others = ", ".join(other.name for other in candidates if other is not network)
    remarks = [
        "the whole file" if network.name == WHOLE_FILE else "",
        "averaged" if network.is_averaged else "",
        f"also in the file: {others}" if others else "",
    ]
    said = "; ".join(filter(None, remarks))
    return f"{network.name} ({said})" if said else network.name


def holdings(checkpoint: Checkpoint) -> str:
    """Say in a few words what tensors a file holds."""
    networks = find_networks(checkpoint)
    texts = [f"{len(n.state)} tensors at {n.name}" for n in networks[:5]]
    return ", ".join(texts) or "no tensors by name"


def _levels(checkpoint: Checkpoint, found: Iterable[Found]) -> Iterator[str]:
    """Yield a line for every mapping of tensors, and for what was found inside its names."""
    known = {each.network.name: each for each in found}
    names = {network.name: len(network.state) for network in find_networks(checkpoint)}
    names |= {name: len(each.network.state) for name, each in known.items()}
    for name, count in sorted(names.items()):
        each = known.get(name)
        if each is None:
            kind = "no generator that is known"
        else:
            averaged = ", averaged" if each.network.is_averaged else ""
            kind = f"{each.family} generator ({each.container.name}){averaged}"
        yield f"{name}: {count} tensors, {kind}"
    if isinstance(checkpoint.content, Mapping):
        rest = [str(k) for k in checkpoint.content if not _is_listed(str(k), names)]
        if rest and WHOLE_FILE not in names:
            shown = ", ".join(rest[:12]) + (", ..." if len(rest) > 12 else "")
            yield f"{shown}: not looked at"


def _is_listed(key: str, names: Iterable[str]) -> bool:
    return any(name == key or name.startswith(f"{key}.") for name in names)
