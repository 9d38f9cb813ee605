"""Turn a published checkpoint into a folder of converted weights, or say what a file holds.

python -m converters pgan --src=FILE.pth --dst=weights/pgan_celebahq256
python -m converters inspect FILE.pth
python -m converters --list
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from logging import WARNING, getLogger
from typing import TYPE_CHECKING, Any

from converters.interrupts import stop_at_once

if __name__ == "__main__":
    # Importing takes seconds.
    signal.signal(signal.SIGINT, stop_at_once)

from absl import flags

from cgjax.errors import UserError
from cgjax.runtime.command import run_command
from converters.convert import UNKNOWN_LICENCE, convert, listing
from converters.inspecting import describe, inspect
from converters.layouts import FAMILIES, containers_of
from converters.settings import NETWORK, parse_assignments

if TYPE_CHECKING:
    from cgjax.generators.base import PretrainedGenerator
    from converters.conversion import Conversion
    from converters.finding import Found

__all__ = ["FAMILIES", "containers_of", "convert", "inspect", "listing", "main"]

FLAGS = flags.FLAGS
_SRC = flags.DEFINE_string("src", None, "Checkpoint file to convert.")
_DST = flags.DEFINE_string("dst", None, "Folder to write.")
_SET = flags.DEFINE_multi_string(
    "set",
    [],
    "What the tensors do not tell: name=value; repeatable. network=NAME takes one of several "
    "generators in a file; otherwise the averaged one is taken.",
)
_KEY = flags.DEFINE_string(
    "key", None, "Which of several generators in a file to take: the same as --set network=NAME."
)
_MEMBER = flags.DEFINE_string("member", "", "Which file inside a wheel, zip or tar to read.")
_VERIFY = flags.DEFINE_enum(
    "verify", None, ["torch"], "Run the file's network in torch beside ours, and compare layers."
)
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "float16"], "How to store the weights.")
_LICENCE = flags.DEFINE_string("licence", UNKNOWN_LICENCE, "Licence of the weights, in words.")
_LIST = flags.DEFINE_bool("list", False, "Print families, accepted files and published names.")


_FLAGS = (_SRC, _DST, _SET, _KEY, _MEMBER, _VERIFY, _DTYPE, _LICENCE, _LIST)


def main(argv: Sequence[str]) -> None:
    """Run the command line."""
    getLogger("jax._src.xla_bridge").setLevel(WARNING)  # it lists the accelerators it looked for
    if _LIST.value:
        check_read("--list", (_LIST,))
        if len(argv) > 1:
            raise UserError(f"--list takes no {argv[1]!r}: leave it out")
        say(listing())
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
    check_read(command, (_SET, _KEY, _MEMBER) if command == "inspect" else _FLAGS)
    key = [f"{NETWORK}={_KEY.value}"] if _KEY.value else []
    settings = parse_assignments([*_SET.value, *key])
    if command == "inspect":
        _require_torch()
        say(inspect(argv[2], settings, member=_MEMBER.value))
        return
    src, dst = (_required(flag) for flag in (_SRC, _DST))
    if _VERIFY.value and _DTYPE.value != "float32":
        raise UserError(
            f"--verify and --dtype={_DTYPE.value}: rounded weights differ; verify first"
        )
    _require_torch()

    def check(generator: PretrainedGenerator, found: Found, conversion: Conversion) -> None:
        if not _VERIFY.value:
            check_image(generator)
            return
        from converters.verifying import report, verify

        say(report(verify(generator, found, conversion, settings)))

    gen = convert(
        command,
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


def check_read(command: str, read: Sequence[flags.FlagHolder[Any]]) -> None:
    """Check that a command reads every flag that was given, and that none has lost its value.

    Raises:
        UserError: the first that it does not.
    """
    names = [flag.name for flag in read]
    for flag in _FLAGS:
        if flag.present and flag.name not in names:
            raise UserError(f"--{flag.name}: {command} does not read it; leave it out")
        if flag.present and flag.value == "":
            raise UserError(f"--{flag.name}= is empty: give a value, or leave it out")


def tell(found: Found, conversion: Conversion, candidates: Sequence[Found]) -> None:
    """Print which of several networks was taken, and warn of what the tensors do not tell."""
    if len(candidates) > 1:
        say(f"network: {describe(found.network, [each.network for each in candidates])}")
    if found.network.folded:
        say(f"folded: {', '.join(found.network.folded)}")
    if conversion.assumed:
        text = "; ".join(conversion.assumed)
        print(f"warning: assumed, as the tensors do not tell: {text}", file=sys.stderr, flush=True)


def check_image(generator: PretrainedGenerator) -> None:
    """Generate one image.

    Raises:
        UserError: if it has NaN or infinite values.
    """
    import jax.numpy as jnp

    condition = {"condition": 0} if getattr(generator.network, "num_classes", 0) else {}
    image = generator.images(jnp.eye(1, generator.latent_dim, dtype=jnp.float32), **condition)
    if not jnp.isfinite(image).all():
        name = generator.manifest["source"]["name"]
        raise UserError(f"{name}: the converted network's images have NaN or infinite values")


def say(text: str) -> None:
    """Print at once.

    Raises:
        UserError: if standard output cannot be written (a full disk).
    """
    try:
        print(text, flush=True)
    except OSError as error:
        # What could not be written is still buffered: Python would try again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # the reader has seen enough
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
    sys.exit(run_command(main))
