"""What a checkpoint file holds, level by level, and the command that converts it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from cgjax.errors import UserError
from converters.conversion import Conversion
from converters.finding import Candidate, choose_generator, find_generators
from converters.layouts import FAMILIES
from converters.networks import WHOLE_FILE, Network, find_networks
from converters.reading import Checkpoint, read_checkpoint
from converters.settings import NETWORK


def inspect(src: str | Path, settings: Mapping[str, str] | None = None, *, member: str = "") -> str:
    """Describe what a checkpoint file holds; nothing is written.

    Args:
        src: the checkpoint.
        settings: as for `convert`.
        member: the file to read in an archive.

    Returns:
        Several lines: containers, their content, family, layout, network, architecture, layers,
        size, hash, published name, what is assumed, and the command to run.

    Raises:
        UserError: the file holds no known generator, or is damaged.
    """
    from cgjax.generators.published import PUBLISHED

    checkpoint, settings = read_checkpoint(src, member), settings or {}
    generators = find_generators(checkpoint)
    if not generators:
        raise UserError(
            f"{src} holds no generator of a known family ({', '.join(FAMILIES)}); "
            f"it holds {holdings(checkpoint)}; "
            "python -m converters --list prints the accepted files"
        )
    family = generators[0].family
    candidates = [candidate for candidate in generators if candidate.family == family]
    chosen = choose_generator(candidates, settings.get(NETWORK, ""))
    conversion = chosen.convert(settings)
    lines = [
        ("file", f"{checkpoint.path} (SHA-256 {checkpoint.sha256})"),
        ("container", " > ".join(checkpoint.containers)),
        *([("member", checkpoint.member)] if checkpoint.member else []),
        *(("holds", text) for text in _levels(checkpoint, generators)),
        ("family", family),
        ("layout", chosen.layout.description),
        ("network", describe(chosen.network, [c.network for c in candidates])),
        *([("prefix", f"{chosen.network.prefix} dropped")] if chosen.network.prefix else []),
        *(("folded", text) for text in chosen.network.folded),
        *_sizes(conversion),
        *((k, str(v)) for k, v in conversion.architecture.items()),
        *(("assumed", text) for text in conversion.assumed),
    ]
    lines += [
        ("published", name)
        for name, entry in PUBLISHED.items()
        if entry.sha256_prefix and checkpoint.sha256.startswith(entry.sha256_prefix)
    ][:1]
    lines.append(("command", command(checkpoint, chosen, settings)))
    return "\n".join(f"{key}: {value}" for key, value in lines)


def _sizes(conversion: Conversion) -> list[tuple[str, str]]:
    """Return the sizes of the converted network, of which only shapes are needed."""
    from cgjax.generators.families import abstract_network
    from cgjax.generators.weights import named_arrays

    network = abstract_network(conversion.family, conversion.architecture)
    numbers = sum(math.prod(array.shape) for array in named_arrays(network).values())
    return [
        ("images", f"{network.image_size}x{network.image_size}x{network.image_channels}"),
        ("latents", str(network.latent_dim)),
        ("layers", ", ".join(network.layers)),
        ("numbers", f"{numbers:,}"),
    ]


def command(checkpoint: Checkpoint, chosen: Candidate, settings: Mapping[str, str]) -> str:
    """Return the command that converts a file with the same choices."""
    name = checkpoint.path.stem
    parts = ["python", "-m", "converters", chosen.family, f"--src={checkpoint.path}"]
    if checkpoint.member:
        parts.append(f"--member={checkpoint.member}")
    parts += [f"--set={key}={value}" for key, value in settings.items()]
    return shlex.join([*parts, f"--dst=weights/{name}"])


def describe(network: Network, candidates: Iterable[Network]) -> str:
    """Name a network, with whether it is averaged and which others are in the file."""
    others = ", ".join(other.name for other in candidates if other is not network)
    remarks = [
        "the whole file" if network.name == WHOLE_FILE else "",
        "averaged" if network.is_averaged else "",
        f"also in the file: {others}" if others else "",
    ]
    text = "; ".join(filter(None, remarks))
    return f"{network.name} ({text})" if text else network.name


def holdings(checkpoint: Checkpoint) -> str:
    """Summarise the tensors in a file."""
    networks = find_networks(checkpoint)
    texts = [f"{len(n.state)} tensors at {n.name}" for n in networks[:5]]
    return ", ".join(texts) or "no tensors by name"


def _levels(checkpoint: Checkpoint, generators: Iterable[Candidate]) -> Iterator[str]:
    """Yield a line for every mapping of tensors, and for every generator inside one."""
    known = {candidate.network.name: candidate for candidate in generators}
    counts = {network.name: len(network.state) for network in find_networks(checkpoint)}
    counts |= {name: len(candidate.network.state) for name, candidate in known.items()}
    for name, count in sorted(counts.items()):
        candidate = known.get(name)
        if candidate is None:
            kind = "no known generator"
        else:
            averaged = ", averaged" if candidate.network.is_averaged else ""
            kind = f"{candidate.family} generator ({candidate.layout.name}){averaged}"
        yield f"{name}: {count} tensors, {kind}"
    if isinstance(checkpoint.content, Mapping):
        others = [str(k) for k in checkpoint.content if not _is_listed(str(k), counts)]
        if others and WHOLE_FILE not in counts:
            shown = ", ".join(others[:12]) + (", ..." if len(others) > 12 else "")
            yield f"{shown}: not examined"


def _is_listed(key: str, names: Iterable[str]) -> bool:
    return any(name == key or name.startswith(f"{key}.") for name in names)
