"""Archives that hold a checkpoint among other files: wheels, zips, tars."""

from __future__ import annotations

import io
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from typing import BinaryIO, NamedTuple

from cgjax.errors import UserError

SUFFIXES = (
    ".pth", ".pt", ".bin", ".ckpt", ".pkl", ".pickle", ".safetensors", ".model", ".tar", ".th",
    ".npz", ".whl", ".zip",
)  # fmt: skip
SHOWN = 12  # names in a message
SAVE_AGAIN = (
    "if you trust it, save it again: torch.save(torch.load(FILE, weights_only=False), NEW_FILE)"
)
_CHUNK = 1 << 20


class Member(NamedTuple):
    """A file inside an archive.

    Attributes:
        kind: "wheel", "zip" or "tar".
        name: the file's path in the archive.
        data: its bytes.
    """

    kind: str
    name: str
    data: bytes


def is_torch_zip(names: Sequence[str]) -> bool:
    """Whether a zip with these members was written by torch."""
    return any(name == "data.pkl" or name.endswith("/data.pkl") for name in names)


def zip_names(file: BinaryIO) -> list[str] | None:
    """Return the members of a zip, or None for any other file; rewind the file."""
    names = None
    if file.read(2) == b"PK" and zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    file.seek(0)
    return names


def damaged_member(file: BinaryIO) -> str:
    """Return the first member of a zip with a wrong checksum, or ""; rewind the file.

    torch's own reader ignores the checksums. They are 0 if torch was told not to compute them.
    """
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            try:
                with archive.open(info) as member:
                    while info.CRC and member.read(_CHUNK):
                        pass
            except (zipfile.BadZipFile, zlib.error):
                return info.filename
    file.seek(0)
    return ""


def open_member(file: BinaryIO, where: str, asked: str) -> Member | None:
    """Open the checkpoint inside an archive; rewind the file.

    Args:
        file: open for reading in binary mode.
        where: the file's name, for messages.
        asked: the member to open, by its whole path or the end of it; "" for the only one.

    Returns:
        The member; None if the file is not an archive, or is one of torch's own formats.

    Raises:
        UserError: no member, or more than one, matches; or it is in torch's first format, a tar.
    """
    names = zip_names(file)
    if names is not None:
        if is_torch_zip(names) or _is_npz(names):
            return None
        with zipfile.ZipFile(file) as archive:
            name = _pick(names, where, asked)
            return Member("wheel" if where.endswith(".whl") else "zip", name, archive.read(name))
    if _is_tar(file):
        with tarfile.open(fileobj=file) as tar:
            infos = {info.name: info for info in tar.getmembers() if info.isfile()}
            if {"pickle", "storages", "tensors"} <= infos.keys():
                raise UserError(
                    f"{where} is in torch's first file format, a tar, which is not read here; "
                    f"{SAVE_AGAIN}"
                )
            name = _pick(list(infos), where, asked)
            content = tar.extractfile(infos[name])
            return Member("tar", name, content.read() if content else b"")
    return None


def _is_npz(names: Sequence[str]) -> bool:
    return bool(names) and all(name.endswith(".npy") for name in names)


def _is_tar(file: BinaryIO) -> bool:
    start = file.read(512)
    file.seek(0)
    if start[257:262] != b"ustar" and start[:2] != b"\x1f\x8b":
        return False
    try:
        with tarfile.open(fileobj=io.BytesIO(start) if start[257:262] == b"ustar" else file):
            return True
    except (tarfile.TarError, EOFError, OSError):
        return start[257:262] == b"ustar"
    finally:
        file.seek(0)


def _pick(names: Sequence[str], where: str, asked: str) -> str:
    files = [name for name in names if not name.endswith("/")]
    if asked:
        matches = [n for n in files if n == asked] or [n for n in files if n.endswith(f"/{asked}")]
        if len(matches) == 1:
            return matches[0]
        raise UserError(f"--member={asked}: expected one of the files in {where}: {_list(files)}")
    checkpoints = [name for name in files if name.lower().endswith(SUFFIXES)]
    if len(checkpoints) == 1:
        return checkpoints[0]
    if checkpoints:
        raise UserError(
            f"{where} holds {len(checkpoints)} files that may be checkpoints; choose one with "
            f"--member=: {_list(checkpoints)}"
        )
    raise UserError(
        f"{where} is an archive, not a torch checkpoint, and no file in it is named like one "
        f"({_list(files) or 'it is empty'}); name the checkpoint with --member="
    )


def _list(names: Sequence[str]) -> str:
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
