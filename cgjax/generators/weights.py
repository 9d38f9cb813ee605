"""Folders of converted weights: `weights.safetensors` and `generator.json`.

The one place that knows the format. Loading needs neither torch nor the network, and checks
everything that could make a wrong image: the hash, the names, the shapes, the dtypes, and that
every value is finite.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from flax import nnx

from cgjax.errors import UserError
from cgjax.generators.base import PretrainedGenerator
from cgjax.generators.families import abstract_network, fill
from cgjax.generators.staged import StagedNetwork
from cgjax.runtime.files import sha256_of, write_atomically, write_json
from cgjax.runtime.memory import empty_aligned

FORMAT = 1
WEIGHTS_FILE = "weights.safetensors"
MANIFEST_FILE = "generator.json"


def named_arrays(network: StagedNetwork) -> dict[str, Any]:
    """Return every array of a network by its dotted path, in the network's order."""
    flat = nnx.to_flat_state(nnx.state(network))
    return {".".join(map(str, path)): variable.get_value() for path, variable in flat}


def check_arrays(
    expected: Mapping[str, Any], given: Mapping[str, Any], source: str | os.PathLike[str]
) -> None:
    """Compare names, shapes and values of two sets of arrays.

    Args:
        expected: arrays or shapes by name.
        given: NumPy arrays by name.
        source: where `given` comes from, for the message.

    Raises:
        UserError: listing every missing, extra, mis-shaped, non-float and non-finite entry at once.
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
) -> Path:
    """Write a folder of converted weights; nothing is left half-written.

    Args:
        folder: created if need be; an existing generator there is replaced.
        family: a name of `families.FAMILIES`.
        architecture: what `build_network(family, architecture)` takes.
        arrays: every array of that network by dotted path.
        source: where the weights come from: "name", "sha256", and what else is known.
        licence: the licence of the weights, in words.
        dtype: float32, or float16 to halve the file.

    Returns:
        The folder.

    Raises:
        UserError: if the family is unknown, the arrays are not exactly those of the architecture,
            one is not finite or does not fit `dtype`, or the files cannot be written.
    """
    from cgjax.version import __version__

    folder = Path(folder)
    check_arrays(named_arrays(abstract_network(family, architecture)), arrays, str(source["name"]))
    with np.errstate(over="ignore"):  # an overflow becomes infinite and is refused below
        stored = {name: np.asarray(value, dtype, order="C") for name, value in arrays.items()}
    for name, value in stored.items():
        if not np.isfinite(value).all():
            raise UserError(f"{name} does not fit {np.dtype(dtype)}; use --dtype=float32")
    folder.mkdir(parents=True, exist_ok=True)
    payload = safetensors.numpy.save(stored)
    # The manifest goes last: a folder without one is not a generator.
    (folder / MANIFEST_FILE).unlink(missing_ok=True)
    write_atomically(folder / WEIGHTS_FILE, payload)
    manifest = {
        "format": FORMAT,
        "family": family,
        "architecture": dict(architecture),
        "source": dict(source),
        "licence": licence,
        "converter_version": __version__,
        "weights_sha256": hashlib.sha256(payload).hexdigest(),
    }
    write_json(folder / MANIFEST_FILE, manifest)
    return folder


def load_folder(folder: str | os.PathLike[str]) -> PretrainedGenerator:
    """Load a folder of converted weights.

    Args:
        folder: holds `weights.safetensors` and `generator.json`.

    Returns:
        The generator, its weights in float32.

    Raises:
        UserError: a missing or foreign file, a hash that differs, arrays that do not fit.

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
    folder = Path(folder)
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
    try:
        network = abstract_network(manifest["family"], manifest["architecture"])
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{folder / MANIFEST_FILE} describes no network of this version ({error}); "
            "convert the checkpoint again"
        ) from error
    check_arrays(named_arrays(network), arrays, path)
    return PretrainedGenerator(fill(network, lambda name, _: arrays[name]), manifest)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read a safetensors file array by array into memory that JAX takes without copying it.

    Half precision becomes float32 on the way; an array of another kind is returned as it is. The
    library's own reader would hold the file's pages and a copy beside what JAX makes of it.
    """
    arrays: dict[str, np.ndarray] = {}
    with safetensors.safe_open(path, "np") as checked, open(path, "rb") as file:
        # The header was checked when it was opened: every place lies inside the file.
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


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read `generator.json`.

    Args:
        folder: of converted weights.

    Returns:
        What it says, as `save_generator` wrote it.

    Raises:
        UserError: if it is missing, unreadable, or of another format.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise UserError(
            f"{folder} is not a folder of converted weights (no {MANIFEST_FILE}); make one with "
            "python -m converters FAMILY --src=FILE --dst=FOLDER"
        )
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        version = manifest["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a generator's manifest: {error}") from error
    if version != FORMAT:
        raise UserError(f"{path} has format {version}; this version reads format {FORMAT}")
    return manifest
