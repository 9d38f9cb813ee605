"""Converting and inspecting checkpoint files, whatever their family.

What takes seconds to import is imported where it is used.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgjax.errors import UserError

if TYPE_CHECKING:
    from cgjax.generators.base import PretrainedGenerator
    from converters.conversion import Container
    from converters.networks import Network
    from converters.reading import Checkpoint

FAMILIES = ("dcgan", "pgan", "stylegan", "stylegan2", "biggan")
UNKNOWN_LICENCE = "not stated; ask whoever published the file"


def containers_of(family: str) -> tuple[Container, ...]:
    """Return the layouts that a family's files come in."""
    containers: tuple[Container, ...] = importlib.import_module(f"converters.{family}").CONTAINERS
    return containers


def convert(
    family: str,
    src: str | Path,
    dst: str | Path,
    settings: Mapping[str, str] | None = None,
    *,
    dtype: str = "float32",
    licence: str = UNKNOWN_LICENCE,
    check: Callable[[PretrainedGenerator], Any] = lambda generator: None,
) -> PretrainedGenerator:
    """Convert a checkpoint file and check the result.

    Args:
        family: one of `FAMILIES`.
        src: the checkpoint.
        dst: the folder to write; if it exists it must hold converted weights or nothing.
        settings: what the tensors do not tell, by the names of the file's own code; `network` says
            which of the file's generators to take, if not the averaged one.
        dtype: how the weights are stored, "float32" or "float16".
        licence: the licence of the weights.
        check: looks at the generator before the folder is put in place, and raises what is wrong.

    Returns:
        The generator, loaded back from the folder.

    Raises:
        UserError: whatever is wrong with the file or the folder, in one line.
        Interrupted: by Ctrl-C while writing; the folder is as it was.
    """
    from converters.reading import read_checkpoint
    from converters.writing import check_destination, write_folder

    dst, settings = Path(dst), settings or {}
    check_destination(dst)
    checkpoint = read_checkpoint(src)
    fitting = _fitting(checkpoint, [family])
    if not fitting:
        others = [other for other, _, _ in _fitting(checkpoint, FAMILIES)]
        hint = f"; it looks like {others[0]}: python -m converters {others[0]}" if others else ""
        known = "; ".join(c.description for c in containers_of(family))
        raise UserError(f"{src} is not a {family} file this version knows ({known}){hint}")
    container, network = _choose(fitting, settings)
    conversion = container.convert(network, settings)
    return write_folder(
        dst,
        conversion,
        source={
            **checkpoint.source,
            "container": f"{family}/{container.name}",
            "network": network.name,
            **({"assumed": list(conversion.assumed)} if conversion.assumed else {}),
        },
        licence=licence,
        dtype=dtype,
        check=check,
    )


def inspect(src: str | Path, settings: Mapping[str, str] | None = None) -> str:
    """Say what a checkpoint file holds; nothing is written.

    Args:
        src: the checkpoint.
        settings: as for `convert`.

    Returns:
        Several lines: family, layout, network, architecture, layers, size, hash, published name.

    Raises:
        UserError: if it holds no generator we know, or is damaged.
    """
    from cgjax.generators.families import abstract_network
    from cgjax.generators.published import PUBLISHED
    from cgjax.generators.weights import named_arrays
    from converters.reading import read_checkpoint

    checkpoint, settings = read_checkpoint(src), settings or {}
    fitting = _fitting(checkpoint, FAMILIES)
    if not fitting:
        raise UserError(
            f"{src} holds no generator of a family this version knows ({', '.join(FAMILIES)}); "
            "python -m converters --list prints the accepted files"
        )
    family = fitting[0][0]
    fitting = [fit for fit in fitting if fit[0] == family]
    container, network = _choose(fitting, settings)
    conversion = container.convert(network, settings)
    abstract = abstract_network(conversion.family, conversion.architecture)
    numbers = sum(math.prod(a.shape) for a in named_arrays(abstract).values())
    lines = {
        "file": f"{checkpoint.path} (SHA-256 {checkpoint.sha256})",
        "family": family,
        "layout": container.description,
        "network": _describe(network, [other for _, _, other in fitting]),
        "images": f"{abstract.image_size}x{abstract.image_size}x{abstract.image_channels}",
        "latents": str(abstract.latent_dim),
        "layers": ", ".join(abstract.layers),
        "numbers": f"{numbers:,}",
        **{k: str(v) for k, v in conversion.architecture.items()},
        **({"assumed": "; ".join(conversion.assumed)} if conversion.assumed else {}),
    }
    published = [
        name
        for name, entry in PUBLISHED.items()
        if entry.sha256_prefix and checkpoint.sha256.startswith(entry.sha256_prefix)
    ]
    if published:
        lines["published"] = published[0]
    return "\n".join(f"{key}: {value}" for key, value in lines.items())


def listing() -> str:
    """Return families, accepted files and published names, as `--list` prints them."""
    from cgjax.generators.published import PUBLISHED

    lines = ["Families and the files they accept:"]
    for family in FAMILIES:
        lines += [f"  {family:10} {c.name:12} {c.description}" for c in containers_of(family)]
    lines.append("Published generators (name, pixels, file, where it comes from):")
    for name, entry in PUBLISHED.items():
        where = entry.address or f"{entry.source} (get it by hand)"
        lines.append(f"  {name:28} {entry.image_size:4}  {entry.file}  {where}")
    return "\n".join(lines)


def _fitting(
    checkpoint: Checkpoint, families: Iterable[str]
) -> list[tuple[str, Container, Network]]:
    """Return the file's networks that are generators of these families, with their layouts."""
    from converters.networks import find_networks

    networks = find_networks(checkpoint)
    return [
        (family, container, network)
        for family in families
        for network in networks
        for container in containers_of(family)
        if container.fits(network.state)
    ]


def _choose(
    fitting: list[tuple[str, Container, Network]], settings: Mapping[str, str]
) -> tuple[Container, Network]:
    from converters.networks import choose
    from converters.settings import NETWORK

    chosen = choose([network for _, _, network in fitting], settings.get(NETWORK, ""))
    return next((container, network) for _, container, network in fitting if network is chosen)


def _describe(network: Network, candidates: Iterable[Network]) -> str:
    from converters.networks import WHOLE_FILE

    others = ", ".join(other.name for other in candidates if other is not network)
    remarks = [
        "the whole file" if network.name == WHOLE_FILE else "",
        "averaged" if network.is_averaged else "",
        f"also in the file: {others}" if others else "",
    ]
    said = "; ".join(filter(None, remarks))
    return f"{network.name} ({said})" if said else network.name
