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
from pathlib import Path
from typing import Any, NamedTuple

from cgjax.errors import UserError
from cgjax.runtime.files import sha256_of
from converters import safe_pickle
from converters.plain import ZooConfig, plain

# The file's name in a folder as Hugging Face's libraries write it.
HUGGING_FACE_FILE = "pytorch_model.bin"

# How every file in torch's old serialization begins: a pickled magic number.
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


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
    path = _file(Path(path))
    try:
        return Checkpoint(plain(_read(path)), path, sha256_of(path))
    except safe_pickle.ForbiddenGlobal as error:
        raise UserError(_refused(path, error.name)) from error
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL ([\w.]+)|Unsupported class ([\w.]+)", str(error))
        if asked:
            raise UserError(_refused(path, asked[1] or asked[2])) from error
        raise UserError(f"{path} is damaged or not a torch checkpoint; nothing executed") from error
    except MemoryError as error:
        raise UserError(f"{path} does not fit into memory, or is damaged") from error
    except Exception as error:  # torch raises whatever its readers stumble upon
        first = (str(error).splitlines() or [""])[0][:120]
        raise UserError(
            f"{path} is damaged or not a torch checkpoint ({type(error).__name__}: {first}); "
            "download it again"
        ) from error


def _file(path: Path) -> Path:
    """Check that there is such a file; of Hugging Face's folders, name the file inside."""
    try:
        if path.is_dir() and (path / HUGGING_FACE_FILE).is_file():
            path = path / HUGGING_FACE_FILE
        if path.is_dir():
            raise UserError(f"{path} is a folder; give the checkpoint file inside it")
        if not path.is_file():
            raise UserError(f"{path}: no such file; --src names the checkpoint to convert")
        with open(path, "rb") as file:
            if not file.read(1):
                raise UserError(f"{path} is empty; download it again")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    return path


def _read(path: Path) -> Any:
    import torch

    allowed: list[Any] = [(ZooConfig, "models.utils.config.BaseConfig")]
    with (
        open(path, "rb") as file,
        torch.serialization.safe_globals(allowed),
        # A sparse tensor's indices may point anywhere.
        torch.sparse.check_sparse_tensor_invariants(),
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
    if name.startswith(("dnnlib.tflib", "tfutil")):
        hint = (
            "; it is a TensorFlow network: convert it to PyTorch with NVIDIA's stylegan3 "
            f"repository, python legacy.py --source={path.name} --dest=NEW.pkl, and give NEW.pkl"
        )
    elif name.split(".")[0] in ("pg_modules", "feature_networks", "timm"):
        hint = "; it is StyleGAN-XL or another projected GAN, whose networks are not supported"
    elif name.split(".")[0] not in ("posix", "nt", "os", "builtins", "subprocess", "sys"):
        hint = "; if you trust it, load it with its own code and save the state dict alone"
    return (
        f"{path} asks for {name!r}, which is not on the list of what a checkpoint may hold; "
        f"refused, and nothing in it was executed{hint}"
    )
