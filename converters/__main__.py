"""Turn a published checkpoint into a folder of converted weights, or say what a file holds.

python -m converters pgan --src=FILE.pth --dst=weights/pgan_celebahq256
python -m converters inspect FILE.pth
python -m converters --list
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from absl import flags

from cgjax.errors import UserError
from cgjax.generators.base import PretrainedGenerator
from cgjax.generators.families import abstract_network
from cgjax.generators.published import PUBLISHED
from cgjax.generators.weights import MANIFEST_FILE, load_folder, named_arrays, save_generator
from cgjax.runtime.command import run_command
from converters.conversion import Container, Conversion

if TYPE_CHECKING:
    from converters.reading import Checkpoint

FAMILIES = ("dcgan", "pgan", "stylegan", "stylegan2", "biggan")
UNKNOWN_LICENCE = "not stated; ask whoever published the file"

FLAGS = flags.FLAGS
_SRC = flags.DEFINE_string("src", None, "Checkpoint file to convert.")
_DST = flags.DEFINE_string("dst", None, "Folder to write.")
_SET = flags.DEFINE_multi_string("set", [], "What the tensors do not tell: name=value; repeatable.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "float16"], "How to store the weights.")
_LICENCE = flags.DEFINE_string("licence", UNKNOWN_LICENCE, "Licence of the weights, in words.")
_LIST = flags.DEFINE_bool("list", False, "Print families, accepted files and published names.")


def containers_of(family: str) -> tuple[Container, ...]:
    """Return the layouts that a family's files come in."""
    containers: tuple[Container, ...] = importlib.import_module(f"converters.{family}").CONTAINERS
    return containers


def recognize(checkpoint: Checkpoint) -> list[tuple[str, Container]]:
    """Return every family and layout that a file fits: one, if it is a generator we know."""
    return [(f, c) for f in FAMILIES for c in containers_of(f) if c.recognize(checkpoint)]


def convert(
    family: str,
    src: str | Path,
    dst: str | Path,
    settings: Mapping[str, str] | None = None,
    *,
    dtype: str = "float32",
    licence: str = UNKNOWN_LICENCE,
) -> PretrainedGenerator:
    """Convert a checkpoint file and check the result.

    Args:
        family: one of `FAMILIES`.
        src: the checkpoint.
        dst: the folder to write; if it exists it must hold converted weights or nothing.
        settings: what the tensors do not tell, by the names of the file's own code.
        dtype: how the weights are stored, "float32" or "float16".
        licence: the licence of the weights.

    Returns:
        The generator, loaded back from the folder.

    Raises:
        UserError: whatever is wrong with the file, in one line.
    """
    from converters.reading import read_checkpoint

    dst = Path(dst)
    if (
        dst.exists()
        and (not dst.is_dir() or any(dst.iterdir()))
        and not ((dst / MANIFEST_FILE).is_file())
    ):
        raise UserError(f"--dst={dst} exists and is no folder of converted weights; name another")
    checkpoint = read_checkpoint(src)
    matching = [c for c in containers_of(family) if c.recognize(checkpoint)]
    if not matching:
        others = [other for other, _ in recognize(checkpoint)]
        hint = f"; it looks like {others[0]}: python -m converters {others[0]}" if others else ""
        known = "; ".join(c.description for c in containers_of(family))
        raise UserError(f"{src} is not a {family} file this version knows ({known}){hint}")
    conversion = matching[0].convert(checkpoint, settings or {})
    save_generator(
        dst,
        conversion.family,
        conversion.architecture,
        conversion.arrays,
        source={**checkpoint.source, "container": f"{family}/{matching[0].name}"},
        licence=licence,
        dtype=np.dtype(dtype),
    )
    return load_folder(dst)


def inspect(src: str | Path, settings: Mapping[str, str] | None = None) -> str:
    """Say what a checkpoint file holds; nothing is written.

    Args:
        src: the checkpoint.
        settings: as for `convert`.

    Returns:
        Several lines: family, layout, architecture, layers, size, hash, published name.

    Raises:
        UserError: if it is no generator we know, or is damaged.
    """
    from converters.reading import read_checkpoint

    checkpoint = read_checkpoint(src)
    found = recognize(checkpoint)
    if not found:
        raise UserError(
            f"{src} holds no generator of a family this version knows ({', '.join(FAMILIES)}); "
            "python -m converters --list prints the accepted files"
        )
    family, container = found[0]
    return _describe(family, container, checkpoint, container.convert(checkpoint, settings or {}))


def _describe(
    family: str, container: Container, checkpoint: Checkpoint, conversion: Conversion
) -> str:
    network = abstract_network(conversion.family, conversion.architecture)
    numbers = sum(math.prod(a.shape) for a in named_arrays(network).values())
    lines = {
        "file": f"{checkpoint.path} (SHA-256 {checkpoint.sha256})",
        "family": family,
        "layout": container.description,
        "images": f"{network.image_size}x{network.image_size}x{network.image_channels}",
        "latents": str(network.latent_dim),
        "layers": ", ".join(network.layers),
        "numbers": f"{numbers:,}",
        **{k: str(v) for k, v in conversion.architecture.items()},
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
    lines = ["Families and the files they accept:"]
    for family in FAMILIES:
        lines += [f"  {family:10} {c.name:12} {c.description}" for c in containers_of(family)]
    lines.append("Published generators (name, pixels, file, where it comes from):")
    for name, entry in PUBLISHED.items():
        where = entry.address or f"{entry.source} (get it by hand)"
        lines.append(f"  {name:28} {entry.image_size:4}  {entry.file}  {where}")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    """Run the command line."""
    from converters.settings import parse_assignments

    if _LIST.value:
        print(listing())
        return
    command = argv[1] if len(argv) > 1 else ""
    if command != "inspect" and (len(argv) != 2 or command not in FAMILIES):
        raise UserError(
            f"expected one family ({' | '.join(FAMILIES)}), inspect or --list, got "
            f"{' '.join(argv[1:]) or 'none'}; for example: "
            "python -m converters pgan --src=FILE.pth --dst=weights/NAME"
        )
    if command == "inspect" and len(argv) != 3:
        raise UserError("expected one file: python -m converters inspect FILE")
    settings = parse_assignments(_SET.value)
    if command == "inspect":
        _require_torch()
        print(inspect(argv[2], settings))
        return
    src, dst = (_required(flag) for flag in (_SRC, _DST))
    _require_torch()
    gen = convert(command, src, dst, settings, dtype=_DTYPE.value, licence=_LICENCE.value)
    classes = getattr(gen.network, "num_classes", 0)
    condition = {"condition": 0} if classes else {}
    images = gen.images(jnp.eye(1, gen.latent_dim, dtype=jnp.float32), **condition)
    if not jnp.isfinite(images).all():
        raise UserError(f"{src}: the converted network makes non-finite images")
    print(
        f"{dst}: {gen.family}, latents of {gen.latent_dim}, images {gen.image_size}x"
        f"{gen.image_size}x{gen.image_channels}, layers {', '.join(gen.layers)}; "
        f"source SHA-256 {gen.manifest['source']['sha256']}"
    )


def _required(flag: flags.FlagHolder[str | None]) -> str:
    if not flag.value:
        raise UserError(f"--{flag.name} is missing; see python -m converters --help")
    return flag.value


def _require_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise UserError(
            "reading checkpoints needs torch: pip install 'cgjax[convert]' (running does not)"
        ) from error


if __name__ == "__main__":
    sys.exit(run_command(main))
