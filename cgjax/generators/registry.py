"""Load a generator by name: the embedded one, a published one, a folder, or a user's own object."""

from __future__ import annotations

import difflib
import inspect
import os
import shlex
from pathlib import Path
from typing import Any, cast

from cgjax.errors import UserError, foreign_code
from cgjax.generators.arrays import describe_kind
from cgjax.generators.base import Generator
from cgjax.generators.download import fetch
from cgjax.generators.foreign import MEMBERS, checked
from cgjax.generators.published import PUBLISHED
from cgjax.generators.weights import load_folder
from cgjax.numerics.arguments import shown
from cgjax.runtime.files import missing, user_path
from cgjax.runtime.imports import load_attribute

ASSETS = Path(__file__).resolve().parent.parent / "assets"
EMBEDDED = {"dcgan_faces": ASSETS / "dcgan_faces"}


def load_generator(name: str | os.PathLike[str]) -> Generator:
    """Load a generator.

    Args:
        name: `"dcgan_faces"` (embedded, works offline), the name of a published generator, a folder
            of converted weights, or `"package.module:name"` for your own: an object with the
            members of `Generator`, or a class or function without arguments that returns one.

    Returns:
        The generator.

    Raises:
        UserError: an unknown name, a folder without a generator, a damaged file, a published file
            that cannot be downloaded, an object that is not a generator.
        ForeignError: your own code raised an exception.

    Example:
        >>> import cgjax
        >>> cgjax.load_generator("dcgan_faces").layers
        ('layer1', 'layer2', 'layer3', 'layer4')
    """
    if not isinstance(name, str | os.PathLike):
        raise UserError(
            f"load_generator({shown(name)}): expected a name such as 'dcgan_faces', or a folder"
        )
    text = os.fspath(name)
    if text in EMBEDDED:
        return cast(Generator, load_folder(EMBEDDED[text]))
    # Unlike pathlib's, os.path's functions accept names that are too long.
    if text and os.path.isdir(user_path(text)):
        return cast(Generator, load_folder(text))
    if text in PUBLISHED:
        return cast(Generator, load_folder(fetch(text)))
    if os.path.isfile(user_path(text)):
        advice = (
            f"name the class or function in it: {Path(text).stem}:NAME, from its folder"
            if text.endswith(".py")
            else "convert it first, and give the folder: python -m converters inspect "
            f"{shlex.quote(text)} prints the command"
        )
        raise UserError(f"{text} is a file; {advice}")
    if ":" in text:
        return load_object(text)
    if os.path.dirname(text):
        raise UserError(
            f"generator {shown(text)}: {missing(user_path(text), 'folder')}; make it with "
            f"python -m converters FAMILY --src=FILE --dst={text}"
        )
    known = [*EMBEDDED, *PUBLISHED]
    near = difflib.get_close_matches(text, known, n=3, cutoff=0.5) or list(EMBEDDED)
    raise UserError(
        f"generator {shown(text)} is neither a known name (python -m converters --list prints the "
        f"{len(known)}; nearest: {', '.join(near)}), nor a folder of converted weights (python -m "
        "converters FAMILY --src=FILE --dst=FOLDER makes one), nor module:name of your own"
    )


def load_object(path: str) -> Generator:
    """Import `package.module:name`: a generator, or a callable that returns one.

    Args:
        path: the name of an object with the members of `Generator`, or of a class or function
            without arguments that returns one.

    Returns:
        The generator; if it is not a `PretrainedGenerator`, wrapped in the checks of `foreign`.

    Raises:
        UserError: the name does not exist, cannot be called or needs arguments, or the object lacks
            a member or has one of the wrong type.
        ForeignError: the module or the function raised an exception.
    """
    value = load_attribute(path, "generator")
    is_generator = not isinstance(value, type) and all(hasattr(value, m) for m in MEMBERS)
    return cast(Generator, checked(value if is_generator else _call_factory(value, path), path))


def _call_factory(factory: Any, path: str) -> Any:
    expected = "expected a class or function without arguments that returns a generator"
    if not callable(factory):
        raise UserError(f"generator {path!r} is {describe_kind(factory)}; {expected}")
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise UserError(
            f"generator {path!r} needs arguments ({error}); {expected}, such as "
            f"def make(): return {path.partition(':')[2]}(...), and give its name"
        ) from error
    except ValueError:  # a builtin's signature is unknown
        pass
    with foreign_code(path):
        generator = factory()
    if generator is None:
        raise UserError(f"generator {path!r} returned None; is its return statement missing?")
    return generator
