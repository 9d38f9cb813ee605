"""Turn a published checkpoint into a folder of converted weights.

python -m converters pgan --src=FILE.pth --dst=weights/pgan_celebahq256
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from absl import flags

from cgjax.command import run_command
from cgjax.errors import UserError
from cgjax.generators.base import PretrainedGenerator
from cgjax.generators.weights import MANIFEST_FILE, load_folder, save_generator
from converters.conversion import Container

FAMILIES = ("dcgan", "pgan", "stylegan", "stylegan2", "biggan")
UNKNOWN_LICENCE = "not stated; ask whoever published the file"

FLAGS = flags.FLAGS
_SRC = flags.DEFINE_string("src", None, "Checkpoint file to convert.")
_DST = flags.DEFINE_string("dst", None, "Folder to write.")
_SET = flags.DEFINE_multi_string("set", [], "What the tensors do not tell: name=value; repeatable.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "float16"], "How to store the weights.")
_LICENCE = flags.DEFINE_string("licence", UNKNOWN_LICENCE, "Licence of the weights, in words.")


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
        others = [f for f in FAMILIES for c in containers_of(f) if c.recognize(checkpoint)]
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


def main(argv: Sequence[str]) -> None:
    """Run the command line."""
    from converters.settings import parse_assignments

    if len(argv) != 2 or argv[1] not in FAMILIES:
        raise UserError(
            f"expected one family ({' | '.join(FAMILIES)}), got {' '.join(argv[1:]) or 'none'}; "
            "for example: python -m converters pgan --src=FILE.pth --dst=weights/NAME"
        )
    src, dst = (_required(flag) for flag in (_SRC, _DST))
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise UserError(
            "converting needs torch: pip install 'cgjax[convert]' (running does not)"
        ) from error
    gen = convert(
        argv[1],
        src,
        dst,
        parse_assignments(_SET.value),
        dtype=_DTYPE.value,
        licence=_LICENCE.value,
    )
    images = gen.images(jnp.eye(1, gen.latent_dim, dtype=jnp.float32))
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


if __name__ == "__main__":
    sys.exit(run_command(main))
