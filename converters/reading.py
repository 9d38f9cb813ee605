"""Reading checkpoint files that we did not write, without running anything that is in them.

torch's own restricted unpickler reads both of torch's serializations (zip and legacy) and allows
tensors, containers and numbers only. One global besides is let through, by exact name, as an inert
stub: the attribute bag in which the GAN zoo pickles its configuration. Plain pickles (NVIDIA's)
go through `safe_pickle`.
"""

from __future__ import annotations

import os
import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cgjax.errors import UserError
from cgjax.generators.weights import sha256_of
from converters import safe_pickle

Tensor = np.ndarray

# The file's name in a folder as Hugging Face's libraries write it.
HUGGING_FACE_FILE = "pytorch_model.bin"

# How every file in torch's old serialization begins: a pickled magic number.
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


class ZooConfig:
    """Stands in for the GAN zoo's `models.utils.config.BaseConfig`: attributes, no behaviour."""


class Checkpoint(NamedTuple):
    """A file's content as plain Python: dicts, lists, numbers, strings and NumPy arrays.

    Attributes:
        content: what the file holds; the zoo's config has become a dict.
        path: the file.
        sha256: its hash.
    """

    content: Any
    path: Path
    sha256: str

    @property
    def source(self) -> dict[str, str]:
        """What a manifest says of the file."""
        return {"name": self.path.name, "sha256": self.sha256}


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a torch file of either serialization; nothing from it is executed.

    Args:
        path: the file.

    Returns:
        Its content with every tensor as a contiguous NumPy array.

    Raises:
        UserError: no such file, a folder, an empty, truncated or foreign file, or one that asks for
            anything but tensors, plain containers and the GAN zoo's config.
    """

    path = Path(path)
    if path.is_dir() and (path / HUGGING_FACE_FILE).is_file():
        path = path / HUGGING_FACE_FILE
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the checkpoint file inside it")
    if not path.is_file():
        raise UserError(f"{path}: no such file; --src names the checkpoint to convert")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty; download it again")
    try:
        content = _read(path)
    except safe_pickle.ForbiddenGlobal as error:
        raise UserError(_refused(path, error.name)) from error
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL ([\w.]+)|Unsupported class ([\w.]+)", str(error))
        if asked:
            raise UserError(_refused(path, asked[1] or asked[2])) from error
        raise UserError(f"{path} is damaged or no torch checkpoint; nothing executed") from error
    except Exception as error:  # torch raises whatever its readers stumble upon
        first = (str(error).splitlines() or [""])[0][:120]
        raise UserError(
            f"{path} is damaged or no torch checkpoint ({type(error).__name__}: {first}); "
            "download it again"
        ) from error
    return Checkpoint(_plain(content), path, sha256_of(path))


def _read(path: Path) -> Any:
    import torch

    allowed: list[Any] = [(ZooConfig, "models.utils.config.BaseConfig")]
    with (
        open(path, "rb") as file,
        torch.serialization.safe_globals(allowed),
        warnings.catch_warnings(),
    ):
        # Old files make torch warn of its storages; what was read is checked key by key later.
        warnings.simplefilter("ignore")
        start = file.read(len(_LEGACY))
        file.seek(0)
        if start[:1] == b"\x80" and start != _LEGACY:
            return safe_pickle.load(file)
        return torch.load(file, map_location="cpu", weights_only=True)


def _refused(path: Path, name: str) -> str:
    hint = ""
    if name.startswith("dnnlib.tflib"):
        hint = "; it is a TensorFlow network: convert it to PyTorch with its authors' code first"
    elif name.split(".")[0] not in ("posix", "nt", "os", "builtins", "subprocess", "sys"):
        hint = "; if you trust it, load it with its own code and save the state dict alone"
    return (
        f"{path} asks for {name!r}, which is not on the list of what a checkpoint may hold; "
        f"refused, and nothing in it was executed{hint}"
    )


def _plain(value: Any) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach().contiguous().numpy()
    if isinstance(value, safe_pickle.Array):
        return value.array
    if isinstance(value, safe_pickle.Module):
        return _plain(value.tensors())
    if isinstance(value, ZooConfig):
        return {k: _plain(v) for k, v in vars(value).items()}
    if isinstance(value, Mapping):
        plain = {k: _plain(v) for k, v in value.items()}
        # What a module was built with stands beside its tensors.
        settings = {
            k: _plain(v.attributes.get("_init_kwargs", {}))
            for k, v in value.items()
            if isinstance(v, safe_pickle.Module)
        }
        return plain | ({"settings": settings} if settings else {})
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def is_state_dict(value: Any) -> bool:
    """Whether a value is a non-empty mapping of names to arrays only."""
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(v, np.ndarray) for v in value.values())
    )


def choose_state(checkpoint: Checkpoint, preferred: Iterable[str]) -> dict[str, Tensor]:
    """Pick the generator's state dict, the averaged copy first, and strip DataParallel's prefix.

    Args:
        checkpoint: the file's content.
        preferred: keys under which the state dict may be, best first; the top level itself is
            taken when it is a state dict. Files of a training run hold these one level down, under
            `models`.

    Returns:
        Names and arrays.

    Raises:
        UserError: if none of them is there.
    """
    content = checkpoint.content
    preferred = tuple(preferred)
    if is_state_dict(content):
        return strip_prefix(content)
    places = [content, content.get("models")] if isinstance(content, Mapping) else []
    for place in places:
        for name in preferred:
            if isinstance(place, Mapping) and is_state_dict(place.get(name)):
                return strip_prefix(place[name])
    found = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
    raise UserError(
        f"{checkpoint.path} holds no generator: expected a state dict, or one of "
        f"{', '.join(preferred)}; found {found[:200]}"
    )


def strip_prefix(state: Mapping[str, Tensor], prefix: str = "module.") -> dict[str, Tensor]:
    """Remove a prefix if every name has it."""
    if all(name.startswith(prefix) for name in state):
        return {name[len(prefix) :]: value for name, value in state.items()}
    return dict(state)


class Tensors:
    """A state dict with strict accounting: every tensor is taken once or explicitly ignored.

    Problems are collected, so that one error at the end lists every missing, mis-shaped and unknown
    entry of the file.

    Example:
        >>> tensors = Tensors({"a": np.zeros(3, np.float32)}, "file")
        >>> tensors.take("a", (3,)).shape
        (3,)
        >>> tensors.finish()
    """

    def __init__(self, state: Mapping[str, Tensor], source: object):
        self._state = dict(state)
        self._source = source
        self._taken: set[str] = set()
        self._problems: list[str] = []

    def __contains__(self, name: str) -> bool:
        return name in self._state

    def names(self, pattern: str) -> list[str]:
        """Return the names that match a regular expression in full."""
        return [name for name in self._state if re.fullmatch(pattern, name)]

    def shape(self, name: str, ndim: int) -> tuple[int, ...]:
        """Return the shape of a tensor from which sizes are read.

        Raises:
            UserError: at once, if it is missing or has another number of axes (any is right where
                `ndim` is -1): nothing else can be checked then.
        """
        if name not in self._state or ndim not in (-1, self._state[name].ndim):
            if name not in self._state:
                raise UserError(f"{self._source}: missing {name}")
            shape = self._state[name].shape
            raise UserError(f"{self._source}: {name} has shape {shape}, expected {ndim} axes")
        return self._state[name].shape

    def count(self, pattern: str) -> int:
        """Return how many consecutive indices a pattern with one `{}` has, counted from 0.

        The numbering may have a gap where a tensor is missing: the highest index counts, and the
        missing one is reported when it is taken.
        """
        regex = re.escape(pattern).replace(r"\{\}", r"(\d+)")
        matches = (re.fullmatch(regex, name) for name in self._state)
        return max((int(m.group(1)) + 1 for m in matches if m), default=0)

    def take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Return a tensor as float32; one of another shape is noted and becomes zeros."""
        self._taken.add(name)
        value = self._state.get(name)
        if value is None:
            self._problems.append(f"missing {name}")
        elif value.shape != tuple(shape):
            self._problems.append(f"{name} has shape {value.shape}, expected {tuple(shape)}")
        elif not np.issubdtype(value.dtype, np.floating):
            self._problems.append(f"{name} has dtype {value.dtype}, expected a float")
        elif not np.isfinite(value).all():
            self._problems.append(f"{name} has NaN or infinite values")
        else:
            return np.asarray(value, np.float32)
        return np.zeros(shape, np.float32)

    def scalar(self, name: str, default: float) -> float:
        """Return a number; the default where it is not in the file."""
        return float(self.take(name, ())) if name in self else default

    def check_constant(self, name: str, expected: Tensor) -> None:
        """Check that a tensor, if it is there, is the constant that our arithmetic has built in."""
        if name in self and not np.allclose(self.take(name, expected.shape), expected, atol=1e-6):
            self.note(f"{name} is not the constant it is known to be")

    def ignore(self, pattern: str) -> None:
        """Mark every tensor whose name matches a regular expression as seen and not needed."""
        self._taken.update(self.names(pattern))

    def note(self, problem: str) -> None:
        """Add a problem of another kind to the list."""
        self._problems.append(problem)

    def finish(self) -> None:
        """Check that the file was right and nothing in it was left over.

        Raises:
            UserError: one line with every problem.
        """
        problems = self._problems + [f"extra {n}" for n in self._state if n not in self._taken]
        if problems:
            raise UserError(f"{self._source}: {'; '.join(problems)}")
