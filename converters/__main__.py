"""Convert a published checkpoint to a folder of weights, or say what a file holds.

python -m converters pgan --src=FILE.pth --dst=weights/pgan_celebahq256
python -m converters inspect FILE.pth
python -m converters lpips --src=TRUNK.pth --heads=HEADS.pth --dst=lpips.safetensors
python -m converters --list
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from logging import WARNING, getLogger
from typing import TYPE_CHECKING, Any

from cgjax.runtime.signals import quit_on_signals

if __name__ == "__main__":
    # Before the imports below, which take seconds.
    quit_on_signals()

from absl import flags

from cgjax.errors import UserError
from cgjax.runtime.command import leave, run_command
from converters.convert import UNKNOWN_LICENCE, convert, listing
from converters.inspecting import describe, inspect
from converters.layouts import FAMILIES, layouts_of
from converters.settings import NETWORK, parse_assignments

if TYPE_CHECKING:
    from cgjax.generators.base import PretrainedGenerator
    from converters.conversion import Conversion
    from converters.finding import Candidate

__all__ = ["FAMILIES", "convert", "inspect", "layouts_of", "listing", "main"]

FLAGS = flags.FLAGS
_SRC = flags.DEFINE_string("src", None, "Checkpoint file to convert.")
_DST = flags.DEFINE_string("dst", None, "Folder to write; lpips: the file.")
_SET = flags.DEFINE_multi_string(
    "set",
    [],
    "What the tensors do not specify: name=value. network=NAME chooses one of several generators "
    "in a file; by default the averaged one",
)
_KEY = flags.DEFINE_string(
    "key", None, "Which of several generators in a file to convert: same as --set network=NAME."
)
_MEMBER = flags.DEFINE_string("member", "", "Which file to read in a wheel, zip or tar.")
_HEADS = flags.DEFINE_string("heads", None, "lpips: the file of its heads; --src is the trunk's.")
_VERIFY = flags.DEFINE_enum(
    "verify", None, ["torch"], "Run the file's network in torch too, and compare every layer."
)
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "float16"], "How to store the weights.")
_LICENCE = flags.DEFINE_string("licence", UNKNOWN_LICENCE, "Licence of the weights, as text.")
_LIST = flags.DEFINE_bool("list", False, "Print families, accepted files and published names.")


_LPIPS = "lpips"
_CONVERSION = (_SRC, _DST, _SET, _KEY, _MEMBER, _VERIFY, _DTYPE, _LICENCE, _LIST)
_READ = dict.fromkeys(FAMILIES, _CONVERSION) | {
    "inspect": (_SET, _KEY, _MEMBER),
    _LPIPS: (_SRC, _DST, _MEMBER, _HEADS),
}
"""The flags that each command reads."""


def main(argv: Sequence[str]) -> None:
    """Run the command line."""
    getLogger("jax._src.xla_bridge").setLevel(WARNING)  # it logs every accelerator it looks for
    if _LIST.value:
        check_flags("--list", (_LIST,))
        if len(argv) > 1:
            raise UserError(f"--list takes no {argv[1]!r}: leave it out")
        say(listing())
        return
    command = argv[1] if len(argv) > 1 else ""
    if command != "inspect" and (len(argv) != 2 or command not in _READ):
        raise UserError(
            f"expected one family ({' | '.join(FAMILIES)}), inspect, lpips or --list, got "
            f"{' '.join(argv[1:]) or 'none'}; for example: "
            "python -m converters pgan --src=FILE.pth --dst=weights/NAME"
        )
    if command == "inspect" and len(argv) != 3:
        raise UserError("expected one file: python -m converters inspect FILE")
    check_flags(command, _READ[command])
    if command == _LPIPS:
        src, heads, dst = (_required(flag) for flag in (_SRC, _HEADS, _DST))
        _require_torch()
        from converters.distance import convert_lpips

        say(convert_lpips(src, heads, dst, member=_MEMBER.value))
        return
    key = [f"{NETWORK}={_KEY.value}"] if _KEY.value else []
    settings = parse_assignments([*_SET.value, *key])
    if command == "inspect":
        _require_torch()
        say(inspect(argv[2], settings, member=_MEMBER.value))
    else:
        run_conversion(command, settings)


def run_conversion(family: str, settings: Mapping[str, str]) -> None:
    """Convert the file that the flags name, and print the result."""
    src, dst = (_required(flag) for flag in (_SRC, _DST))
    if _VERIFY.value and _DTYPE.value != "float32":
        raise UserError(
            f"--verify and --dtype={_DTYPE.value}: rounded weights differ; verify first"
        )
    _require_torch()

    def check(generator: PretrainedGenerator, chosen: Candidate, conversion: Conversion) -> None:
        if not _VERIFY.value:
            check_image(generator)
            return
        from converters.verifying import report, verify

        say(report(verify(generator, chosen, conversion, settings)))

    gen = convert(
        family,
        src,
        dst,
        settings,
        dtype=_DTYPE.value,
        licence=_LICENCE.value,
        member=_MEMBER.value,
        check=check,
        tell=tell,
    )
    source = gen.manifest["source"]
    network = source["network"]
    say(
        f"{dst}: {gen.family}, latents of {gen.latent_dim}, images {gen.image_size}x"
        f"{gen.image_size}x{gen.image_channels}, layers {', '.join(gen.layers)}; "
        f"network {'the whole file' if network == '.' else network}, "
        f"source SHA-256 {source['sha256']}"
    )


def check_flags(command: str, known: Sequence[flags.FlagHolder[Any]]) -> None:
    """Check that a command reads every flag that was given, and that none is empty.

    Raises:
        UserError: naming the first that is wrong.
    """
    names = [flag.name for flag in known]
    for flag in (*_CONVERSION, _HEADS):
        if flag.present and flag.name not in names:
            raise UserError(f"--{flag.name}: {command} does not read it; leave it out")
        if flag.present and flag.value == "":
            raise UserError(f"--{flag.name}= is empty: give a value, or leave it out")


def tell(chosen: Candidate, conversion: Conversion, candidates: Sequence[Candidate]) -> None:
    """Print which of several networks was chosen, and warn of what is assumed."""
    if len(candidates) > 1:
        say(f"network: {describe(chosen.network, [c.network for c in candidates])}")
    if chosen.network.folded:
        say(f"folded: {', '.join(chosen.network.folded)}")
    if conversion.assumed:
        text = "; ".join(conversion.assumed)
        print(
            f"warning: assumed, since the file does not specify it: {text}",
            file=sys.stderr,
            flush=True,
        )


def check_image(generator: PretrainedGenerator) -> None:
    """Generate one image.

    Raises:
        UserError: it has NaN or infinite values.
    """
    import jax.numpy as jnp

    condition = {"condition": 0} if generator.num_classes else {}
    image = generator.images(jnp.eye(1, generator.latent_dim, dtype=jnp.float32), **condition)
    if not jnp.isfinite(image).all():
        name = generator.manifest["source"]["name"]
        raise UserError(f"{name}: the converted network's images have NaN or infinite values")


def say(text: str) -> None:
    """Print and flush.

    Raises:
        UserError: standard output cannot be written (a full disk).
    """
    try:
        print(text, flush=True)
    except OSError as error:
        # The text is still buffered: Python would try to write it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # the reader closed the pipe on purpose
            message = f"cannot write to standard output: {error.strerror or error}"
            raise UserError(message) from error


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
    leave(lambda: run_command(main))
