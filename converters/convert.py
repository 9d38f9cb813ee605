"""Converting checkpoint files of every family.

Modules that take seconds to import are imported where they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgjax.errors import UserError
from converters.layouts import FAMILIES, layouts_of

if TYPE_CHECKING:
    from cgjax.generators.base import PretrainedGenerator
    from converters.conversion import Conversion
    from converters.finding import Candidate
    from converters.reading import Checkpoint

UNKNOWN_LICENCE = "not stated; ask whoever published the file"


def convert(
    family: str,
    src: str | Path,
    dst: str | Path,
    settings: Mapping[str, str] | None = None,
    *,
    dtype: str = "float32",
    licence: str = UNKNOWN_LICENCE,
    member: str = "",
    check: Callable[[PretrainedGenerator, Candidate, Conversion], Any] = lambda *_: None,
    tell: Callable[[Candidate, Conversion, list[Candidate]], Any] = lambda *_: None,
) -> PretrainedGenerator:
    """Convert a checkpoint file and check the result.

    Args:
        family: one of `FAMILIES`.
        src: the checkpoint.
        dst: the folder to write; if it exists, it must be empty or hold converted weights.
        settings: what the tensors do not specify, by the names of the file's own code; `network`
            chooses one of the file's generators, by default the averaged one.
        dtype: how the weights are stored, "float32" or "float16".
        licence: the licence of the weights.
        member: the file to read in a wheel, zip or tar; "" for the only one.
        check: called before the folder is put in place, with the generator, the candidate it was
            converted from, and the conversion; raises if something is wrong.
        tell: called before anything is written, with the chosen candidate, its conversion, and all
            candidates.

    Returns:
        The generator, loaded back from the folder.

    Raises:
        UserError: the file or the folder is wrong; one line says how.
        Interrupted: by Ctrl-C or SIGTERM while writing; the folder is unchanged.
    """
    from cgjax.generators.weights import load_folder, save_generator, storage_dtype
    from cgjax.runtime.files import user_path
    from converters.destination import check_destination, writing
    from converters.finding import choose_generator
    from converters.reading import read_checkpoint
    from converters.settings import NETWORK

    layouts_of(family)  # check that the family exists
    dst, settings, dtype = user_path(dst), settings or {}, storage_dtype(dtype).name
    check_destination(dst, [user_path(src)])
    checkpoint = read_checkpoint(src, member)
    candidates = generators_of(checkpoint, family)
    chosen = choose_generator(candidates, settings.get(NETWORK, ""))
    conversion = chosen.convert(settings)
    tell(chosen, conversion, candidates)
    companions = [file.source for file in conversion.companions]
    source = {
        **checkpoint.source,
        **({"companions": companions} if companions else {}),
        "container": f"{family}/{chosen.layout.name}",
        "network": chosen.network.name,
        **({"assumed": list(conversion.assumed)} if conversion.assumed else {}),
    }
    check_destination(dst, [checkpoint.path, *(file.path for file in conversion.companions)])
    written: list[PretrainedGenerator] = []

    def check_written(folder: Path) -> None:
        written.append(load_folder(folder))
        check(written[0], chosen, conversion)

    with writing(dst):
        save_generator(
            dst,
            conversion.family,
            conversion.architecture,
            conversion.arrays,
            source=source,
            licence=licence,
            dtype=dtype,
            check=check_written,
        )
    return written[0]


def generators_of(checkpoint: Checkpoint, family: str) -> list[Candidate]:
    """Return the generators of one family in a file, at least one.

    Raises:
        UserError: there is none; the message names the family that the file looks like.
    """
    from converters.finding import find_generators

    generators = find_generators(checkpoint)
    candidates = [candidate for candidate in generators if candidate.family == family]
    if not candidates:
        others = [candidate.family for candidate in generators]
        hint = f"; it looks like {others[0]}: python -m converters {others[0]}" if others else ""
        known = "; ".join(c.description for c in layouts_of(family))
        raise UserError(
            f"{checkpoint.path} is not a {family} file that this version knows ({known}){hint}"
        )
    return candidates


def listing() -> str:
    """Return families, accepted files and published names, as `--list` prints them."""
    from cgjax.generators.published import PUBLISHED

    lines = ["Families and the files they accept:"]
    for family in FAMILIES:
        lines += [f"  {family:10} {c.name:12} {c.description}" for c in layouts_of(family)]
    lines.append("Published generators (name, pixels, file, where it comes from):")
    for name, entry in PUBLISHED.items():
        by_hand = "" if entry.requirement else " (get it by hand)"
        where = entry.address or entry.source + by_hand
        lines.append(f"  {name:28} {entry.image_size:4}  {entry.file}  {where}")
    return "\n".join(lines)
