"""Read and write folders of converted weights: `weights.safetensors` and `generator.json`.

Only this module knows the format. Loading needs neither torch nor the network, and checks
everything that could lead to a wrong image: the hash, the names, the shapes, the dtypes, and that
every value is finite.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy
from flax import nnx

from cgjax.errors import UserError
from cgjax.generators.architecture import check_keywords
from cgjax.generators.base import PretrainedGenerator
from cgjax.generators.families import abstract_network, check_pass, fill
from cgjax.generators.folders import is_leftover, replacing
from cgjax.generators.staged import StagedNetwork
from cgjax.runtime.files import (
    SEAL,
    as_json,
    missing,
    read_sealed,
    sha256_of,
    user_path,
    write_atomically,
    write_sealed,
)
from cgjax.runtime.memory import empty_aligned

FORMAT = 1
WEIGHTS_FILE = "weights.safetensors"
MANIFEST_FILE = "generator.json"
MAX_LOSS = 2.0**-8
"""The largest rounding error accepted when an array is stored, relative to its largest number;
rounding to float16 causes an eighth of it."""

# The manifest is written last: a folder without one is not a generator.
FILES = (WEIGHTS_FILE, MANIFEST_FILE)


class _Source(NamedTuple):
    """The required keys of a manifest's `source`."""

    name: str


class _Manifest(NamedTuple):
    """The required keys of a manifest."""

    family: str
    architecture: dict[str, Any]
    source: dict[str, Any]
    licence: str
    weights_sha256: str


def named_arrays(network: StagedNetwork) -> dict[str, Any]:
    """Return every array of a network by dotted path, in the network's order."""
    flat = nnx.to_flat_state(nnx.state(network))
    return {".".join(map(str, path)): variable.get_value() for path, variable in flat}


def check_arrays(
    expected: Mapping[str, Any], given: Mapping[str, Any], source: str | os.PathLike[str]
) -> None:
    """Compare names, shapes and values of two sets of arrays.

    Args:
        expected: arrays or shapes by name.
        given: NumPy arrays by name.
        source: the origin of `given`, for the message.

    Raises:
        UserError: listing every missing, extra, misshapen, non-float and non-finite entry.
    """
    problems = [f"missing {name}" for name in expected if name not in given]
    problems += [f"extra {name}" for name in given if name not in expected]
    for name in expected.keys() & given.keys():
        array = given[name]
        if tuple(array.shape) != tuple(expected[name].shape):
            problems.append(
                f"{name} has shape {tuple(array.shape)}, expected {tuple(expected[name].shape)}"
            )
        elif array.dtype not in (np.float16, np.float32):
            problems.append(f"{name} has dtype {array.dtype}, expected float16 or float32")
        elif not np.isfinite(array).all():
            problems.append(f"{name} has NaN or infinite values")
    if problems:
        raise UserError(f"{source}: {'; '.join(sorted(problems))}")


def save_generator(
    folder: str | os.PathLike[str],
    family: str,
    architecture: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    *,
    source: Mapping[str, Any],
    licence: str,
    dtype: Any = np.float32,
    check: Callable[[Path], Any] = lambda written: None,
) -> Path:
    """Write a folder of converted weights; if anything fails, the folder is unchanged.

    Args:
        folder: created if needed; an existing generator in it is replaced.
        family: a key of `families.FAMILIES`.
        architecture: as for `build_network(family, architecture)`.
        arrays: every array of that network by dotted path.
        source: where the weights come from, as JSON: "name", "sha256", and anything else known.
        licence: the licence of the weights, in words.
        dtype: float32, or float16 to halve the file.
        check: called with a folder of the same content before this one is changed; may raise to
            reject it.

    Returns:
        The folder.

    Raises:
        UserError: the family or the dtype is unknown, the architecture does not describe a network,
            the arrays are not exactly those of the architecture, one is not finite or does not fit
            `dtype`, `source` has no name or is not JSON, or the folder holds other files or cannot
            be written.
    """
    from cgjax.version import __version__

    folder, dtype = user_path(folder), storage_dtype(dtype)
    manifest = _through_json(
        {
            "format": FORMAT,
            "family": family,
            "architecture": dict(architecture),
            "source": dict(source),
            "licence": licence,
            "converter_version": __version__,
            "weights_sha256": "",
        }
    )
    _check_manifest(manifest, "save_generator")
    network = abstract_network(family, manifest["architecture"])
    check_pass(network)
    arrays = {name: np.asarray(value) for name, value in arrays.items()}
    check_arrays(named_arrays(network), arrays, manifest["source"]["name"])
    payload = safetensors.numpy.save({n: _stored(n, value, dtype) for n, value in arrays.items()})
    manifest["weights_sha256"] = hashlib.sha256(payload).hexdigest()
    try:
        check_replaceable(folder)
        with replacing(folder, FILES) as unfinished:
            write_atomically(unfinished / WEIGHTS_FILE, payload)
            write_sealed(unfinished / MANIFEST_FILE, manifest)
            check(unfinished)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from error
    return folder


def storage_dtype(dtype: Any) -> np.dtype[Any]:
    """Return a dtype in which weights can be stored.

    Raises:
        UserError: anything but float32 and float16.
    """
    with contextlib.suppress(TypeError):
        if np.dtype(dtype) in (np.float16, np.float32):
            return np.dtype(dtype)
    raise UserError(f"dtype={dtype}: expected float32 or float16")


def _stored(name: str, value: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Round an array to a dtype.

    Raises:
        UserError: if the error exceeds `MAX_LOSS` times its largest number: the numbers are too
            large for the dtype, or too small.
    """
    with np.errstate(over="ignore"):  # numbers that overflow become infinite, and are refused
        stored = np.asarray(value, dtype, order="C")
    if stored.dtype != value.dtype:
        largest = np.abs(value).max(initial=0)
        loss = np.abs(stored.astype(value.dtype) - value).max(initial=0)
        if loss > MAX_LOSS * largest:
            raise UserError(
                f"{name} does not fit {dtype}: its largest number is {largest:.2g}, and up to "
                f"{loss:.2g} would be lost; use --dtype=float32"
            )
    return stored


def _through_json(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest as it will be read back from its file.

    Raises:
        UserError: if JSON cannot represent one of its values.
    """
    for name, value in manifest.items():
        try:
            json.dumps(as_json(value))
        except (TypeError, ValueError, RecursionError) as error:
            raise UserError(
                f"{name} cannot be written to {MANIFEST_FILE} ({error}); expected strings, plain "
                "numbers, and lists and dicts of them"
            ) from error
    content: dict[str, Any] = json.loads(json.dumps(as_json(manifest)))
    return content


def check_replaceable(folder: Path, option: str = "") -> None:
    """Check that a folder may be replaced: it is empty or holds a generator, complete or not.

    Args:
        folder: it need not exist.
        option: the flag it was given with, as a prefix of the message.

    Raises:
        UserError: if it holds anything else.
    """
    names = set(os.listdir(folder)) if folder.is_dir() else set()
    leftovers = {name for name in names if is_leftover(name, FILES)}
    is_generator = not names - leftovers - ({WEIGHTS_FILE} if leftovers else set())
    if MANIFEST_FILE in names:
        with contextlib.suppress(UserError):
            is_generator = bool(read_manifest(folder))
    if not is_generator:
        raise UserError(
            f"{option}{folder} exists and is not a folder of converted weights; choose another"
        )


def is_replaced(path: Path, folder: Path) -> bool:
    """Whether writing a generator into a folder would replace or remove a file."""
    path, folder = path.resolve(), folder.resolve()
    parts = path.relative_to(folder).parts if path.is_relative_to(folder) else ()
    return bool(parts) and (parts[0] in FILES or is_leftover(parts[0], FILES))


def load_folder(folder: str | os.PathLike[str]) -> PretrainedGenerator:
    """Load a folder of converted weights.

    Args:
        folder: with `weights.safetensors` and `generator.json`.

    Returns:
        The generator, its weights in float32.

    Raises:
        UserError: a missing or unreadable file, a hash that differs, arrays that do not fit.

    Example:
        >>> import tempfile
        >>> from cgjax.generators.families import build_network
        >>> architecture = {"latent_dim": 8, "widths": [4, 2]}
        >>> network = build_network("dcgan", architecture)
        >>> arrays = {name: np.asarray(array) for name, array in named_arrays(network).items()}
        >>> about = {"source": {"name": "random weights"}, "licence": "none"}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     load_folder(save_generator(folder, "dcgan", architecture, arrays, **about)).layers
        ('layer1', 'layer2')
    """
    folder = user_path(folder)
    manifest = read_manifest(folder)
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise UserError(f"{folder} has no {WEIGHTS_FILE}; convert the checkpoint again")
    digest = sha256_of(path)
    if digest != manifest.get("weights_sha256"):
        raise UserError(
            f"{path} is damaged: its SHA-256 is {digest[:12]}..., {MANIFEST_FILE} says "
            f"{str(manifest.get('weights_sha256'))[:12]}...; convert the checkpoint again"
        )
    try:
        arrays = _read_arrays(path)
    except safetensors.SafetensorError as error:
        raise UserError(f"{path} is not a safetensors file: {error}") from error
    # `save_generator` has already checked an unedited manifest; an edited one may not work.
    is_unedited = bool(manifest.pop(SEAL, "")) and read_sealed(folder / MANIFEST_FILE) is not None
    try:
        network = abstract_network(manifest["family"], manifest["architecture"])
        if not is_unedited:
            check_pass(network)
    except UserError as error:
        raise UserError(
            f"{folder / MANIFEST_FILE} does not describe a network of this version ({error}); "
            "convert the checkpoint again"
        ) from error
    check_arrays(named_arrays(network), arrays, path)
    return PretrainedGenerator(fill(network, lambda name, _: arrays[name]), manifest)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read a safetensors file array by array into memory that JAX uses without a copy.

    float16 is converted to float32 on the way; arrays of other dtypes are returned as they are. The
    safetensors reader would hold the file's pages and a copy in addition to JAX's array.
    """
    arrays: dict[str, np.ndarray] = {}
    with safetensors.safe_open(path, "np") as checked, open(path, "rb") as file:
        # Opening has checked the header: every offset lies inside the file.
        start = 8 + int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(start - 8))
        for name in checked.keys():  # noqa: SIM118, not a mapping
            entry = header[name]
            if entry["dtype"] not in ("F16", "F32"):
                arrays[name] = checked.get_tensor(name)
                continue
            array = arrays[name] = empty_aligned(tuple(entry["shape"]))
            file.seek(start + entry["data_offsets"][0])
            if entry["dtype"] == "F32":
                file.readinto(array.reshape(-1).view(np.uint8).data)
            else:
                array.reshape(-1)[:] = np.frombuffer(file.read(2 * array.size), np.float16)
    return arrays


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read `generator.json`.

    Args:
        folder: of converted weights.

    Returns:
        Its content, as `save_generator` wrote it.

    Raises:
        UserError: if it is missing, unreadable, or of another format.
    """
    path = user_path(folder) / MANIFEST_FILE
    if not path.is_file():
        problem = f"{folder} is not a folder of converted weights (no {MANIFEST_FILE})"
        raise UserError(
            f"{problem if path.parent.is_dir() else missing(path.parent, 'folder')}; make one with "
            "python -m converters FAMILY --src=FILE --dst=FOLDER"
        )
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = manifest["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is not a generator manifest: {error}") from error
    if version != FORMAT:
        raise UserError(f"{path} has format {version}; this version reads format {FORMAT}")
    _check_manifest(manifest, f"{path} is not a generator manifest")
    return manifest


def _check_manifest(manifest: Mapping[str, Any], where: str) -> None:
    """Check the required keys of a manifest; other keys are ignored."""
    check_keywords(_Manifest, _required(_Manifest, manifest), where)
    check_keywords(_Source, _required(_Source, manifest["source"]), f"{where}: source")


def _required(schema: Any, content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: content[name] for name in schema._fields if name in content}
