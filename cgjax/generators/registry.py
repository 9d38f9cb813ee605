"""From a name to a generator: the embedded one, a published one, a folder, or the user's own.

The only module that downloads. A published file is fetched into the cache, checked against its
hash prefix, converted once (by `python -m converters`, in a process of its own: the only step that
needs torch), and loaded from the converted folder from then on.
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import http.client
import inspect
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from absl import logging

from cgjax.errors import UserError, foreign_code
from cgjax.generators.arrays import describe_kind
from cgjax.generators.base import Generator
from cgjax.generators.foreign import MEMBERS, checked
from cgjax.generators.published import PUBLISHED, Published
from cgjax.generators.weights import MANIFEST_FILE, load_folder
from cgjax.runtime.files import sha256_of
from cgjax.runtime.imports import load_attribute

ASSETS = Path(__file__).resolve().parent.parent / "assets"
EMBEDDED = {"dcgan_faces": ASSETS / "dcgan_faces"}

TIMEOUT_S = 30.0
TRIES = 3
_CHUNK = 1 << 20


def load_generator(name: str | os.PathLike[str]) -> Generator:
    """Load a generator.

    Args:
        name: `"dcgan_faces"` (embedded, works offline), the name of a published one, a folder of
            converted weights, or `"package.module:name"` for one of your own: an object with the
            members of `Generator`, or a class or function without arguments that returns one.

    Returns:
        The generator.

    Raises:
        UserError: an unknown name, a folder that holds no generator, a damaged file, a published
            file that cannot be downloaded, an object that is no generator.
        ForeignError: your own code raised an exception.

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
    if text in PUBLISHED:
        return cast(Generator, load_folder(fetch(text)))
    if Path(text).is_file():
        raise UserError(
            f"{text} is a file; convert it first: python -m converters FAMILY --src={text} "
            "--dst=FOLDER, and name the folder (python -m converters inspect FILE names the family)"
        )
    if ":" in text:
        return load_object(text)
    known = [*EMBEDDED, *PUBLISHED]
    near = difflib.get_close_matches(text, known, n=3, cutoff=0.5) or list(EMBEDDED)
    raise UserError(
        f"generator {text!r} is neither a known name (python -m converters --list prints the "
        f"{len(known)}; nearest: {', '.join(near)}) nor a folder of converted weights; make one "
        "with python -m converters FAMILY --src=FILE --dst=FOLDER"
    )


def load_object(path: str) -> Generator:
    """Import `package.module:name`: a generator, or what returns one when it is called.

    Args:
        path: the name of an object with the members of `Generator`, or of a class or function
            without arguments that returns one.

    Returns:
        The generator; if it is not a `PretrainedGenerator`, behind the checks of `foreign`.

    Raises:
        UserError: the name is not there, is no function, needs arguments, or the object lacks a
            member or has one of the wrong kind.
        ForeignError: the module or the function raised an exception.
    """
    made = load_attribute(path, "generator")
    is_generator = not isinstance(made, type) and all(hasattr(made, m) for m in MEMBERS)
    if not is_generator:
        made = _call_factory(made, path)
    return cast(Generator, checked(made, path))


def _call_factory(factory: Any, path: str) -> Any:
    expected = "expected a class or function without arguments that returns a generator"
    if not callable(factory):
        raise UserError(f"generator {path!r} is {describe_kind(factory)}; {expected}")
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise UserError(
            f"generator {path!r} needs arguments ({error}); {expected}, such as "
            f"def make(): return {path.partition(':')[2]}(...), and name that"
        ) from error
    except ValueError:  # a builtin's signature is not known
        pass
    with foreign_code(path):
        made = factory()
    if made is None:
        raise UserError(f"generator {path!r} returned None; is its return statement missing?")
    return made


def cache_folder() -> Path:
    """Return where downloads and converted weights are kept: CGJAX_CACHE, or ~/.cache/cgjax."""
    given = os.environ.get("CGJAX_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "cgjax"


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
        with _locked(cache / f"{name}.lock", name):
            if (folder / MANIFEST_FILE).is_file():
                return folder
            if not entry.address:
                raise UserError(f"{name} cannot be downloaded by name; {_by_hand(name, entry)}")
            downloads = cache / "downloads" / name
            downloads.mkdir(parents=True, exist_ok=True)
            for address, file in ((entry.address, entry.file), *entry.companions):
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
    return (
        f"get {entry.file} ({entry.source}) and run: "
        f"python -m converters {entry.family} --src={entry.file} --dst=weights/{name}"
        f", then give --config.generator.weights=weights/{name}"
    )


@contextlib.contextmanager
def _locked(path: Path, name: str) -> Iterator[None]:
    # The kernel drops the lock when its holder dies, however it dies.
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            logging.info("another process is fetching %s; waiting for it", name)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


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


def _copy(response: IO[bytes], file: IO[bytes], have: int, total: int | None, name: str) -> int:
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
        f"{path.name} from {entry.address} has SHA-256 {digest[:12]}..., expected "
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
    paths = [str(ASSETS.parent.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1].removeprefix("error: ")
        raise UserError(f"cannot convert {src}: {last}")
    if dst.exists():
        shutil.rmtree(dst)
    os.replace(unfinished, dst)
    logging.info("%s: converted into %s", name, dst)
