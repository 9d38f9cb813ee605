"""Reading foreign checkpoint files without running anything in them.

torch's own restricted unpickler reads both of torch's serializations (zip and legacy) and allows
only tensors, containers and numbers; the few further names that we add (`stubs`) stand for inert
objects. Plain pickles (NVIDIA's) go through `safe_pickle`. The checkpoint inside a wheel, zip or
tar is read in the same way.
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
from cgjax.runtime.files import sha256_of, user_path
from converters import safe_pickle
from converters.archives import (
    SAVE_AGAIN,
    damaged_member,
    is_torch_zip,
    open_member,
    zip_names,
)
from converters.plain import plain
from converters.stubs import torch_stubs

# The checkpoint's name in a folder written by Hugging Face's libraries.
HUGGING_FACE_FILE = "pytorch_model.bin"

# How every file in torch's old serialization begins, after the pickle's header: a magic number.
_LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_HEADER = 11  # most bytes of a pickle's header
# Opcodes of pickle's protocols 3 to 5, which torch's restricted unpickler lacks.
_NEWER = (66, 67, *range(140, 153))
ARCHIVES = 3  # how many nested archives are opened

# The first bytes of files that are often mistaken for checkpoints.
_OTHERS = {
    b"version https://git-lfs": "is a Git LFS pointer, not the file: run git lfs pull",
    b"\x89HDF": "is an HDF5 file (Keras), not a torch checkpoint; its weights have another form",
    b"GGUF": "is a GGUF file, not a torch checkpoint",
    b"\x1f\x8b": "is compressed with gzip, not a torch checkpoint; unpack it with gunzip",
    b"<": "is a web page, not a torch checkpoint; download the file itself",
}


class Checkpoint(NamedTuple):
    """A file's content as plain Python: dicts, lists, numbers, strings and NumPy arrays.

    Attributes:
        content: the file's content; the zoo's config has become a dict.
        path: the file.
        sha256: its hash.
        containers: the formats that were opened, outermost first.
        member: the checkpoint's path in an archive; "" if the file is the checkpoint.
    """

    content: Any
    path: Path
    sha256: str
    containers: tuple[str, ...] = ()
    member: str = ""

    @property
    def source(self) -> dict[str, str]:
        """The file's entry in a manifest."""
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
        member: the file to read in a wheel, zip or tar; "" for the only one.

    Returns:
        Its content with every tensor as a contiguous NumPy array; nothing in it is executed.

    Raises:
        UserError: the file does not exist, is a folder, is empty, truncated or not a checkpoint, or
            asks for anything but tensors, plain containers and the few names of `stubs`.
    """
    path = _file(user_path(path))
    try:
        with open(path, "rb") as file:
            content = _read(file, str(path), member)
        return Checkpoint(plain(content.value), path, sha256_of(path), *content[1:])
    except UserError:
        raise
    except safe_pickle.ForbiddenGlobal as error:
        raise UserError(_refused(path, error.name)) from error
    except pickle.UnpicklingError as error:
        match = re.search(r"GLOBAL ([\w.]+)|Unsupported class ([\w.]+)", str(error))
        if match:
            raise UserError(_refused(path, match[1] or match[2])) from error
        opcode = re.search(r"Unsupported operand (\d+)", str(error))
        if opcode and int(opcode[1]) in _NEWER:
            raise UserError(
                f"{path} was saved with another pickle protocol than torch's own, which its safe "
                f"reader does not know; nothing executed; {SAVE_AGAIN}"
            ) from error
        raise UserError(f"{path} is damaged or not a torch checkpoint; nothing executed") from error
    except MemoryError as error:
        raise UserError(f"{path} does not fit in memory, or is damaged") from error
    except Exception as error:  # torch's readers raise exceptions of any type
        first = (str(error).splitlines() or [""])[0][:120]
        raise UserError(
            f"{path} is damaged or not a torch checkpoint ({type(error).__name__}: {first}); "
            "download it again"
        ) from error


def _file(path: Path) -> Path:
    """Check that the file exists; for a folder of Hugging Face, return the file inside."""
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
    """Read a file, or the file inside an archive."""
    member = open_member(file, where, asked) if depth < ARCHIVES else None
    if member is not None:
        # `asked` applies to the outermost archive only.
        inner = _read(io.BytesIO(member.data), f"{where}, {member.name}", "", depth + 1)
        name = "/".join(filter(None, (member.name, inner.member)))
        return _Content(inner.value, (member.kind, *inner.containers), name)
    if asked:
        raise UserError(f"--member={asked}: {where} is not a wheel, zip or tar; leave --member out")
    value, container = _read_tensors(file, where)
    return _Content(value, (container,), "")


def _read_tensors(file: BinaryIO, where: str) -> tuple[Any, str]:
    """Read a file of tensors; return its content and the name of its format."""
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
    start = file.read(_HEADER + len(_LEGACY))
    file.seek(0)
    for other, reason in _OTHERS.items():
        if start.startswith(other) or (other == b"<" and start.lstrip().startswith(other)):
            raise UserError(f"{where} {reason}")
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 1 << 28:
        import safetensors.torch

        # The format has no order of tensors: sort them, so that the result is always the same.
        return dict(sorted(safetensors.torch.load(file.read()).items())), "safetensors"
    is_legacy = start[:1] == b"\x80" and _LEGACY in start
    with (
        torch.serialization.safe_globals(list(torch_stubs())),
        # A sparse tensor's indices could point outside of it.
        torch.sparse.check_sparse_tensor_invariants(),
        warnings.catch_warnings(),
    ):
        # torch warns about old files' storages; every tensor is checked later.
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
        f"{path} asks for {name!r}, which is not among the names that a checkpoint may use; "
        f"refused, and nothing in it was executed{hint}"
    )
