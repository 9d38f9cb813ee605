"""Reading checkpoint files that we did not write, without running anything that is in them.

torch's own restricted unpickler reads both of torch's serializations (zip and legacy) and allows
tensors, containers and numbers only; the few names that it is given besides (`stubs`) stand for
something inert. Plain pickles (NVIDIA's) go through `safe_pickle`. A wheel, a zip or a tar is
opened, and the checkpoint inside is read in the same way.
"""

from __future__ import annotations

import io
import os
import pickle
import re
import warnings
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from cgjax.errors import UserError
from cgjax.runtime.files import sha256_of
from converters import safe_pickle
from converters.archives import damaged_member, is_torch_zip, open_member, zip_names
from converters.plain import plain
from converters.stubs import torch_stubs

# The file's name in a folder as Hugging Face's libraries write it.
HUGGING_FACE_FILE = "pytorch_model.bin"

# How every file in torch's old serialization begins: a pickled magic number.
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
ARCHIVES = 3  # archives in archives that are opened

# How files that are often taken for checkpoints begin.
_OTHERS = {
    b"version https://git-lfs": "is a Git LFS pointer, not the file: run git lfs pull",
    b"\x89HDF": "is an HDF5 file (Keras), not a torch checkpoint; its weights are in another form",
    b"GGUF": "is a GGUF file, not a torch checkpoint",
    b"\x1f\x8b": "is compressed with gzip, not a torch checkpoint; unpack it with gunzip",
    b"<": "is a web page, not a torch checkpoint; download the file itself",
}


class Checkpoint(NamedTuple):
    """A file's content as plain Python: dicts, lists, numbers, strings and NumPy arrays.

    Attributes:
        content: what the file holds; the zoo's config has become a dict.
        path: the file.
        sha256: its hash.
        containers: what was opened, outermost first, in words.
        member: the checkpoint's path in an archive, "" where the file is the checkpoint.
    """

    content: Any
    path: Path
    sha256: str
    containers: tuple[str, ...] = ()
    member: str = ""

    @property
    def source(self) -> dict[str, str]:
        """What a manifest says of the file."""
        member = {"member": self.member} if self.member else {}
        return {"name": self.path.name, "sha256": self.sha256, **member}


class _Content(NamedTuple):
    value: Any
    containers: tuple[str, ...]
    member: str


def read_checkpoint(path: str | os.PathLike[str], member: str = "") -> Checkpoint:
    """Read a checkpoint: a torch file, safetensors, a pickle, or an archive with one inside.

    Args:
        path: the file.
        member: of a wheel, zip or tar, the file inside that is meant; "" where there is only one.

    Returns:
        Its content with every tensor as a contiguous NumPy array; nothing from it is executed.

    Raises:
        UserError: no such file, a folder, an empty, truncated or foreign file, or one that asks for
            anything but tensors, plain containers and the few names of `stubs`.
    """
    path = _file(Path(path))
    try:
        with open(path, "rb") as file:
            found = _read(file, str(path), member)
        return Checkpoint(plain(found.value), path, sha256_of(path), *found[1:])
    except UserError:
        raise
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


def _read(file: BinaryIO, where: str, asked: str, depth: int = 0) -> _Content:
    """Read what a file holds, or the file inside an archive."""
    member = open_member(file, where, asked) if depth < ARCHIVES else None
    if member is not None:
        # The path that was asked for is that of the outermost archive's member.
        inner = _read(io.BytesIO(member.data), f"{where}, {member.name}", "", depth + 1)
        name = "/".join(filter(None, (member.name, inner.member)))
        return _Content(inner.value, (member.kind, *inner.containers), name)
    if asked:
        raise UserError(f"--member={asked}: {where} is no wheel, zip or tar; leave --member out")
    value, container = _read_tensors(file, where)
    return _Content(value, (container,), "")


def _read_tensors(file: BinaryIO, where: str) -> tuple[Any, str]:
    """Read a file that holds tensors; returns them and the container's name."""
    import torch

    names = zip_names(file)
    if names is not None and not is_torch_zip(names):
        return dict(np.load(file, allow_pickle=False)), "NumPy archive"
    if names is not None and any(name.endswith("/constants.pkl") for name in names):
        raise UserError(
            f"{where} is a TorchScript program: load it with torch.jit.load and save its "
            "state_dict() alone"
        )
    if names is not None and (damaged := damaged_member(file)):
        raise UserError(f"{where} is damaged ({damaged} has another checksum); download it again")
    start = file.read(len(_LEGACY) + 8)
    file.seek(0)
    for other, reason in _OTHERS.items():
        if start.startswith(other) or (other == b"<" and start.lstrip().startswith(other)):
            raise UserError(f"{where} {reason}")
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 1 << 28:
        import safetensors.torch

        # The format keeps no order of the tensors: any is as good, but always the same.
        return dict(sorted(safetensors.torch.load(file.read()).items())), "safetensors"
    is_legacy = start.startswith(_LEGACY)
    with (
        torch.serialization.safe_globals(list(torch_stubs())),
        # A sparse tensor's indices may point anywhere.
        torch.sparse.check_sparse_tensor_invariants(),
        warnings.catch_warnings(),
    ):
        # Old files make torch warn of its storages; what was read is checked key by key later.
        warnings.simplefilter("ignore")
        if start[:1] == b"\x80" and not is_legacy:
            return safe_pickle.load(file), "pickle"
        value = torch.load(file, map_location="cpu", weights_only=True)
        return value, "torch (legacy)" if is_legacy else "torch (zip)"


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
