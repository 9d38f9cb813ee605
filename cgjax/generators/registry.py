"""From a name to a generator: the embedded one, a published one, a folder, or the user's own."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import cast

from cgjax.errors import UserError
from cgjax.generators.base import Generator
from cgjax.generators.weights import load_folder

ASSETS = Path(__file__).resolve().parent.parent / "assets"
EMBEDDED = {"dcgan_faces": ASSETS / "dcgan_faces"}


def load_generator(name: str | os.PathLike[str]) -> Generator:
    """Load a generator.

    Args:
        name: `"dcgan_faces"` (embedded, works offline), the name of a published one, a folder of
            converted weights, or `"package.module:function"`, where the function returns any object
            with the members of `Generator`.

    Returns:
        The generator.

    Raises:
        UserError: an unknown name, a folder that is none, a file that is damaged.

    Example:
        >>> import cgjax
        >>> cgjax.load_generator("dcgan_faces").layers
        ('layer1', 'layer2', 'layer3', 'layer4')
    """
    text = os.fspath(name)
    if text in EMBEDDED:
        return cast(Generator, load_folder(EMBEDDED[text]))
    if Path(text).is_dir():
        return cast(Generator, load_folder(text))
    if ":" in text:
        return load_object(text)
    raise UserError(
        f"generator {text!r} is neither a known name ({', '.join(EMBEDDED)}) nor a folder of "
        "converted weights; make one with python -m converters FAMILY --src=FILE --dst=FOLDER"
    )


def load_object(path: str) -> Generator:
    """Call `package.module:function` and check that it made a generator.

    Raises:
        UserError: if the module or function is not there, or the result lacks a member.
    """
    module_name, _, function_name = path.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # a module beside the user, as `python -m` would find it
    try:
        made = getattr(importlib.import_module(module_name), function_name)()
    except (ImportError, AttributeError) as error:
        raise UserError(f"generator {path!r}: {error}; expected package.module:function") from error
    members = ("layers", "latent_dim", "image_size", "sample_latents", "features", "images")
    missing = [m for m in members if not hasattr(made, m)]
    if missing:
        raise UserError(f"generator {path!r} lacks {', '.join(missing)}; see the README's example")
    return cast(Generator, made)
