"""LPIPS's published weights, joined in the one file that `cgjax.evaluation.lpips` reads.

They are published in two: the trunk by torchvision, trained on ImageNet, and the five layers' heads
by the authors of LPIPS, in their repository and in the wheel of their package.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from cgjax.errors import UserError
from cgjax.evaluation.lpips import TRUNKS, load_params, params_of, trunk_of
from cgjax.runtime.files import user_path, write_atomically
from converters.destination import writing
from converters.reading import Checkpoint, read_checkpoint
from converters.tensors import Tensors


def convert_lpips(src: str | Path, heads: str | Path, dst: str | Path, *, member: str = "") -> str:
    """Write the weights of LPIPS to one file.

    Args:
        src: the trunk, torchvision's `alexnet-owt-7be5be79.pth` or `vgg16-397923af.pth`.
        heads: the authors' `lpips/weights/v0.1/alex.pth` or `vgg.pth`.
        dst: the file to write; one that holds such weights is replaced.
        member: the heads' file in a wheel, zip or tar.

    Returns:
        What was written, in a line.

    Raises:
        UserError: a file that cannot be read or written, or holds other tensors; nothing is
            written then.
        Interrupted: by Ctrl-C or SIGTERM while writing; the file is unchanged.
    """
    dst = user_path(dst)
    _check_destination(dst)
    trunk, weights = read_checkpoint(src), read_checkpoint(heads, member)
    name = trunk_of(trunk.content) if isinstance(trunk.content, dict) else None
    if name is None:
        raise UserError(
            f"--src={src} holds the tensors of neither trunk; expected torchvision's "
            f"{' or '.join(one.published for one in TRUNKS.values())}"
        )
    # The trunk's own classifier is not needed.
    tensors = _take(trunk, TRUNKS[name].expected_shapes(), r"classifier\.\d+\.(weight|bias)")
    try:
        tensors |= _take(weights, TRUNKS[name].expected_head_shapes())
    except UserError as error:
        raise UserError(f"{error}; expected lpips/weights/v0.1/{name}.pth") from error
    params_of(tensors)
    source = {"trunk": name, "src": trunk.source, "heads": weights.source}
    with writing(dst):
        write_atomically(dst, save(tensors, {"source": json.dumps(source)}))
    load_params(dst)
    prefix = TRUNKS[name].published.rpartition("-")[2].removesuffix(".pth")
    known = "the published file" if trunk.sha256.startswith(prefix) else "not the published file"
    return f"{dst}: LPIPS with {name}; trunk SHA-256 {trunk.sha256}, {known}"


def _take(
    checkpoint: Checkpoint, shapes: dict[str, tuple[int, ...]], ignored: str = ""
) -> dict[str, np.ndarray]:
    """Return tensors of these shapes as float32; a UserError lists all that are wrong."""
    content = checkpoint.content if isinstance(checkpoint.content, dict) else {}
    tensors = Tensors(content, checkpoint.path)
    if ignored:
        tensors.ignore(ignored)
    taken = {name: tensors.take(name, shape) for name, shape in shapes.items()}
    tensors.finish()
    return taken


def _check_destination(dst: Path) -> None:
    """Check, before any work, that a file can be written and replaces nothing of another kind."""
    try:
        is_folder, has_parent = dst.is_dir(), dst.parent.is_dir()
    except OSError as error:
        raise UserError(f"cannot write --dst={dst}: {error.strerror or error}") from error
    if is_folder or not has_parent:
        where = "is a folder" if is_folder else f"has no folder {dst.parent}"
        raise UserError(f"--dst={dst} {where}; name a file to write")
    if not os.access(dst.parent, os.W_OK | os.X_OK):
        raise UserError(f"cannot write --dst={dst}: {dst.parent} is read-only")
    if dst.exists():
        try:
            load_params(dst)
        except UserError as error:
            raise UserError(
                f"--dst={dst} exists and is not a file of LPIPS's weights; choose another name"
            ) from error
